import json

import keras
import numpy as np
import pytest

from llama_keras.serving.export_dtype import StoredVariable, stored_as
from llama_keras.tasks import CausalLM, TextClassifier
from tests.serving.fresh_process import TEXT_OPS, c_api_answers, fresh_answers, ops_beyond_core

TEXTS = ["A lovely day.", "", "日本 🙂 naïve", "long " * 100]


def classifier(dtype: str):
    return TextClassifier.from_preset(
        "llama-tiny", labels=["negative", "positive"], dtype=dtype, max_sequence_length=64
    )


def bytes_of(folder) -> int:
    return sum(file.stat().st_size for file in (folder / "variables").iterdir())


@pytest.mark.parametrize(
    ("computes", "dtype", "share", "tolerance"),
    [("mixed_bfloat16", "bfloat16", 0.55, 0.02), ("float32", "int8", 0.35, 0.05)],
)
def test_a_small_export_answers_nearly_the_same(tmp_path, computes, dtype, share, tolerance):
    model = classifier(computes)
    before = model.predict(TEXTS, verbose=0)
    whole = model.export(tmp_path / "whole")
    small = model.export(tmp_path / "small", dtype=dtype)
    assert bytes_of(small) < share * bytes_of(whole)
    scores = np.array([list(row["scores"].values()) for row in before])
    for answers in (fresh_answers, c_api_answers):
        found = np.array(answers(small, {"text": TEXTS})["scores"])
        assert np.abs(found - scores).max() < tolerance
    assert ops_beyond_core(small) <= TEXT_OPS
    assert model.predict(TEXTS, verbose=0) == before
    told = [json.loads((folder / "signature.json").read_text()) for folder in (whole, small)]
    assert [one["stored_dtype"] for one in told] == ["float32", dtype]
    assert told[0]["weights"]["sha256"] != told[1]["weights"]["sha256"]


@pytest.mark.slow
def test_text_is_written_from_small_weights(tmp_path):
    keras.utils.set_random_seed(0)
    model = CausalLM.from_preset("llama-tiny")
    folder = model.export(tmp_path / "writer", dtype="int8", max_new_tokens=4)
    (found,) = fresh_answers(folder, {"prompt": ["Once upon"]})["token_ids"]
    assert len(found) == 4
    asked = {"context": ["Once upon"], "continuation": [" a time"]}
    (small,) = fresh_answers(folder, asked, signature="score")["log_probability"]
    ((exact, _),) = model.loglikelihood([("Once upon", " a time")])
    assert small == pytest.approx(exact, rel=0.05)
    assert small != pytest.approx(exact, rel=1e-6)


def scale_of(stored: StoredVariable) -> np.ndarray:
    assert stored.scale is not None
    return stored.scale.numpy()


def test_int8_is_within_half_a_step():
    model = classifier("float32")
    with stored_as("int8", model):
        read = {
            v.path: (v._value.numpy().astype("float32"), scale_of(v._value))
            for v in model.weights
            if isinstance(v._value, StoredVariable)  # what reads are of while it is exported
        }
    scales = {path: scale.shape for path, (_, scale) in read.items()}
    assert scales["token_embedding/embeddings"] == (512, 1)  # one for each token
    assert scales["transformer_layer_0/attention/query_dense/kernel"] == (1, 64)  # each output
    for variable in model.weights:
        if variable.path in read:
            values, scale = read[variable.path]
            assert (np.abs(values - variable.numpy()) <= scale * 0.51).all()
