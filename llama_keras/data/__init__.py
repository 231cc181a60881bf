"""Labelled text from files and from TensorFlow Datasets."""

from llama_keras.data.sources import ClassificationData, load_classification, shared_folder

__all__ = ["ClassificationData", "load_classification", "shared_folder"]
