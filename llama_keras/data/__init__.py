"""Labelled text from files and from TensorFlow Datasets."""

from llama_keras.data.files import shared_folder
from llama_keras.data.sources import ClassificationData, load_classification
from llama_keras.data.squad import QuestionAnsweringData, load_question_answering

__all__ = [
    "ClassificationData",
    "QuestionAnsweringData",
    "load_classification",
    "load_question_answering",
    "shared_folder",
]
