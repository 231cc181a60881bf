"""A model without TensorFlow: what the server's own parts are tested with."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from llama_keras.serving.signature_def import Signature, TensorSpec
from llama_keras.serving.versions import ModelSource


def spec(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(tensor="x:0", dtype=dtype, shape=shape)


SPELL = Signature(
    inputs={"text": spec("string", -1)},
    outputs={
        "letters": spec("string", -1, -1),
        "codes": spec("int32", -1, -1),
        "length": spec("int32", -1),
        "version": spec("int64", -1),
    },
)
SUM = Signature(inputs={"x": spec("float", -1, -1)}, outputs={"y": spec("float", -1)})
TOTAL = Signature(inputs={"x": spec("float", -1)}, outputs={"y": spec("float", -1)})
SCALAR = Signature(inputs={"x": spec("float")}, outputs={"y": spec("float")})
CLASSIFY = Signature(
    inputs={"inputs": spec("string", -1)},
    outputs={"classes": spec("string", -1, -1), "scores": spec("float", -1, -1)},
)
REGRESS = Signature(
    inputs={"inputs": spec("string", -1)}, outputs={"outputs": spec("float", -1, 1)}
)


class GraphError(Exception):
    """As TensorFlow's errors are."""

    error_code, message = 3, "a bad row"


class FakeModel:
    """Spells texts; a text "bad" fails the batch. Runs wait for `gate`, and are kept in `runs`."""

    def __init__(self, path: Path | str = "1"):
        self.version = int(Path(path).name)
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.runs: list[int] = []
        self.signatures = {
            "serving_default": SPELL, "sum": SUM, "total": TOTAL, "scalar": SCALAR,
            "classify": CLASSIFY, "regress": REGRESS,
        }  # fmt: skip
        self.info = SimpleNamespace(metadata={})

    def run_arrays(self, signature: str, inputs: Any) -> dict[str, np.ndarray]:
        self.runs.append(max((len(x) for x in inputs.values() if x.ndim), default=1))
        self.began.set()
        assert self.gate.wait(20)
        return getattr(self, f"_{signature}")(**inputs)

    def _serving_default(self, text):
        texts = text.tolist()
        if b"bad" in texts:
            raise GraphError
        width = max(map(len, texts), default=0)
        codes = np.full([len(texts), width], -1, np.int32)
        for row, one in enumerate(texts):
            codes[row, : len(one)] = list(one)
        letters = np.array([[bytes([c]) if c >= 0 else b"" for c in row] for row in codes], object)
        return {
            "letters": letters.reshape(codes.shape),
            "codes": codes,
            "length": np.array([len(one) for one in texts], np.int32),
            "version": np.full(len(texts), self.version, np.int64),
        }

    def _sum(self, x):
        return {"y": x.sum(axis=1)}

    def _total(self, x):
        return {"y": x.sum(keepdims=True)}  # one number, whatever the rows

    def _scalar(self, x):
        return {"y": x + 1}

    def _classify(self, inputs):
        rows = len(inputs)
        return {
            "classes": np.array([[b"a", b"b"]] * rows, object),
            "scores": np.array([[0.25, len(one) / 8] for one in inputs], np.float32),
        }

    def _regress(self, inputs):
        return {"outputs": np.array([[len(one)] for one in inputs], np.float32)}


def texts(*values: str) -> dict[str, np.ndarray]:
    array = np.empty(len(values), object)
    array[:] = [value.encode() for value in values]
    return {"text": array}


def add_version(folder: Path, *versions: int) -> Path:
    """Writes versions as an exporter should: a folder of another name first."""
    for version in versions:
        part = folder / f"part-{version}"
        part.mkdir(parents=True)
        (part / "saved_model.pb").write_bytes(b"x")
        part.rename(folder / str(version))
    return folder


def source(folder: Path, **options: Any) -> ModelSource:
    return ModelSource(folder.name, folder, **options)
