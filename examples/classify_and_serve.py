"""Fine-tune a classifier on the shipped sentences, export it, serve it, ask it.

Input: `llama_keras/data/sentiment`, 320 sentences in English and Chinese.
Output: a SavedModel in FOLDER/sentiment/1, and answers of a live server.

    python examples/classify_and_serve.py FOLDER [PRESET]

The preset is `smollm2-135m-instruct` unless another is named; `llama-tiny` takes seconds and,
being random, learns next to nothing.
"""

import sys
from pathlib import Path

import llama_keras as lk
from llama_keras.serving.client import predict
from llama_keras.serving.server import serve_in_background


def main(folder: str, preset: str = "smollm2-135m-instruct") -> list[dict]:
    """Gives the server's answers to three sentences."""
    train = lk.data.load_classification("package:sentiment/train.jsonl")
    validation = lk.data.load_classification("package:sentiment/validation.jsonl")
    model = lk.tasks.TextClassifier.from_preset(
        preset, labels=train.label_names, strategy="linear_probe"
    )
    model.fit(train.texts, train.labels, validation_data=(validation.texts, validation.labels))
    version = model.export(Path(folder) / "sentiment")
    texts = ["What a lovely evening.", "Never again.", "味道好极了。"]
    with serve_in_background(version, port=0) as url:
        answers = predict(url, texts)
    for text, answer in zip(texts, answers, strict=True):
        print(f"{answer['label']:<9} {answer['score']:.3f}  {text}")
    return answers


if __name__ == "__main__":
    main(*sys.argv[1:])
