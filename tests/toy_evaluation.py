"""A toy suite, target and export for the tests of the harness and its verb."""

from pathlib import Path

import pytest

SUITE = """\
name: toy
data:
  source: {folder}/toy.csv
labels: [negative, positive]
metrics: [accuracy]
"""
ROWS = [
    ("a good film", "positive"),
    ("bad", "negative"),
    ("good, not", "negative"),
    ("so bad", "negative"),
]


class GoodTarget:
    """Says positive of every text with the word good."""

    kind = "toy"
    location = "toy"
    requests = frozenset({"classify"})
    labels: list[str] | None = ["negative", "positive"]
    sha256: str | None = "0" * 64
    precision: str | None = None

    def __init__(self):
        self.asked: list[list[str]] = []

    def ask(self, kind, requests, *, batch_size=32):
        texts = [request["text"] for request in requests]
        self.asked.append(texts)
        return [
            {"label": "positive" if "good" in text else "negative", "score": 0.75} for text in texts
        ]

    def fingerprint(self):
        return self.sha256

    def first_tokens(self, kind, request):
        return None


@pytest.fixture
def toy_target():
    return GoodTarget()


@pytest.fixture
def toy_suite(tmp_path: Path) -> Path:
    """A suite on which "good means positive" is right three times of four."""
    lines = [f'"{text}",{label}' for text, label in ROWS]
    (tmp_path / "toy.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    file = tmp_path / "toy.yaml"
    file.write_text(SUITE.format(folder=tmp_path), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def toy_export(tmp_path_factory) -> Path:
    """A SavedModel that says positive of every text with the word good."""
    import tensorflow as tf

    class Toy(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def classify(self, text):
            good = tf.strings.regex_full_match(text, ".*good.*")
            positive = tf.where(good, 0.75, 0.25)
            return {
                "label": tf.where(good, "positive", "negative"),
                "score": tf.maximum(positive, 1 - positive),
                "scores": tf.stack([1 - positive, positive], axis=1),
            }

    module = Toy()
    folder = tmp_path_factory.mktemp("export") / "toy"
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": module.classify})
    (folder / "1" / "signature.json").write_text('{"labels": ["negative", "positive"]}')
    return folder
