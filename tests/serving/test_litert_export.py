"""LiteRT exports against the Keras tasks: same answers, from files alone."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError, MissingDependencyError
from llama_keras.models.litert import HostCache, LiteRTDecoder, token_id
from llama_keras.serving.litert_export import export_litert
from llama_keras.serving.litert_model import LiteRTModel
from llama_keras.tasks import (
    CausalLM,
    Embedder,
    MaskedLM,
    QuestionAnswerer,
    TextClassifier,
    TokenClassifier,
)

TEXTS = ["good film", "née ✓ <|im_end|> 12  3", "", "a longer text, to see more than one length"]


def tiny(task, *, sharpened=2.0, **kwargs):
    """Random, and sharpened so that answers differ."""
    keras.utils.set_random_seed(1)
    model = task.from_preset("llama-tiny", **kwargs)
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(variable * sharpened)
    return model


@pytest.fixture(scope="module")
def classifier():
    # Not sharpened: that multiplies the rounding of int8, too.
    return tiny(TextClassifier, labels=["negative", "positive"], sharpened=1.0)


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("litert")
    for dtype in ("float32", "int8"):
        export_litert(classifier, folder / dtype, dtype=dtype)
    return folder


def test_a_classifier_answers_as_keras_does(classifier, exported):
    expected = classifier.predict(TEXTS, verbose=0)
    for dtype, atol in (("float32", 1e-4), ("int8", 0.05)):
        found = LiteRTModel(exported / dtype).predict(TEXTS)
        for one, other in zip(found, expected, strict=True):
            assert list(one) == ["label", "score", "scores"]
            found_scores, scores = (list(row["scores"].values()) for row in (one, other))
            np.testing.assert_allclose(found_scores, scores, atol=atol)
            assert dtype == "int8" or one["label"] == other["label"]
    sizes = [(exported / dtype / "model.tflite").stat().st_size for dtype in ("int8", "float32")]
    assert sizes[0] < 0.6 * sizes[1]


def test_the_manifest_holds_a_true_answer(exported):
    record = json.loads((exported / "int8" / "signature.json").read_text())
    model = LiteRTModel(exported / "int8")
    (logits,) = model.run([record["example"]["token_ids"]])
    np.testing.assert_allclose(logits, record["example"]["logits"], atol=1e-5)
    assert model.encode([record["example"]["text"]]) == [record["example"]["token_ids"]]
    assert record["labels"] == ["negative", "positive"] and record["dtype"] == "int8"
    assert record["bytes"] == (exported / "int8" / "model.tflite").stat().st_size


def test_it_runs_without_tensorflow(exported):
    code = (
        "import sys\nfrom llama_keras.serving.litert_model import LiteRTModel\n"
        f"print(LiteRTModel({str(exported / 'float32')!r}).predict(['good film'])[0]['label'])\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("negative", "positive")


def test_rows_together_and_lora(tmp_path):
    model = tiny(TextClassifier, labels=["a", "b"], multi_label=True)
    model.backbone.enable_lora(2, target_layer_names=["query_dense"])
    for block in model.backbone.transformer_layers:
        dense = block.attention.query_dense
        dense.lora_kernel_b.assign(keras.random.normal(dense.lora_kernel_b.shape, seed=3))
    export_litert(model, tmp_path / "x", rows=3, max_length=16)
    texts = ["good film", "x", "", "née"]
    for one, other in zip(
        LiteRTModel(tmp_path / "x").predict(texts), model.predict(texts, verbose=0), strict=True
    ):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-4)
    with pytest.raises(InputError, match="Row 0 has 17 tokens; the model takes 1 to 16"):
        LiteRTModel(tmp_path / "x").run([[5] * 17])


def test_bfloat16_is_taken_as_float32(tmp_path):
    model = tiny(Embedder, sharpened=1.0, dtype="bfloat16")
    export_litert(model, tmp_path / "x")
    found = LiteRTModel(tmp_path / "x").predict(["good film"])[0]["embedding"]
    np.testing.assert_allclose(found, model.predict(["good film"], verbose=0)[0], atol=0.02)


def test_vectors_tags_and_fillings(tmp_path):
    rows = [[5, 6, 7, 8], [9, 9, 9], [10, 11]]
    models = {
        "embedder": tiny(Embedder),
        "tagger": tiny(TokenClassifier, labels=["PER", "LOC"], head="crf"),
        "filler": tiny(MaskedLM),
    }
    for name, model in models.items():
        export_litert(model, tmp_path / name)
        found = LiteRTModel(tmp_path / name).run(rows)
        for row, output in zip(rows, found, strict=True):
            features = {"token_ids": np.array([row]), "padding_mask": np.ones((1, len(row)), int)}
            expected = np.asarray(model(features, training=False))[0]
            np.testing.assert_allclose(output, expected, atol=1e-4)
            if name == "tagger":
                tags = np.asarray(model.chain(expected[None]))[0]
                assert LiteRTModel(tmp_path / name).tag([row]) == [[model.tags[t] for t in tags]]


def test_a_generator_continues_as_keras_does(tmp_path):
    model = tiny(CausalLM, jit_generate=False)
    for block in model.backbone.transformer_layers:  # a fresh norm scales by one
        for norm in (block.attention_norm, block.feed_forward_norm):
            norm.scale.assign(np.linspace(0.5, 1.5, norm.scale.shape[0]))
    export_litert(model, tmp_path / "x")
    reader = LiteRTModel(tmp_path / "x")
    for prompt in ("Once upon a time", "x"):
        ids = model.tokenizer.encode(prompt)
        expected = model.generate(prompt, max_new_tokens=12).token_ids
        assert reader.generate(ids, max_new_tokens=12)[: len(expected)] == expected
    # Both signatures read the same weights, once in the file; the rest are the two graphs.
    size = 4 * sum(np.prod(weight.shape) for weight in model.backbone.weights)
    assert (tmp_path / "x" / "model.tflite").stat().st_size < 1.3 * size
    # The engine's own decoder takes the file, too.
    ids = model.tokenizer.encode("Once upon a time")
    cache = HostCache(model.backbone.init_cache(1, 32))
    prefill = reader._interpreter.get_signature_runner("prefill")
    made = prefill(token_ids=np.array([ids], "int32"))
    cache.entries[:, 0, :, : len(ids)] = made["rows"]
    first = int(made["logits"].argmax())
    state = {
        "cache": cache,
        "token": np.array([first], "int32"),
        "done": np.zeros(1, bool),
        "padding": np.zeros(1, "int32"),
        "index": np.int32(len(ids)),
        "step": np.int32(1),
    }
    settings = {"temperature": np.zeros(1), "top_k": [0], "top_p": [1.0], "seed": [0]}
    settings = {k: np.asarray(v) for k, v in settings.items()} | {"max_new_tokens": np.array([9])}
    decoder = LiteRTDecoder(tmp_path / "x" / "model.tflite", embed=token_id)
    _, tokens, _ = decoder.decode(state, settings, np.array([-2]), np.zeros(1, bool), chunk=8)
    expected = model.generate("Once upon a time", max_new_tokens=9).token_ids
    assert [first, *tokens[0].tolist()][: len(expected)] == expected


def test_wrong_use_is_told(classifier, exported, tmp_path):
    with pytest.raises(InputError, match="dtype='int4' is not known"):
        export_litert(classifier, tmp_path / "x", dtype="int4")  # pyright: ignore
    with pytest.raises(InputError, match="max_length must lie in 1 "):
        export_litert(classifier, tmp_path / "x", max_length=10**6)
    with pytest.raises(InputError, match="rows=0 must be 1 or more"):
        export_litert(classifier, tmp_path / "x", rows=0)
    with pytest.raises(InputError, match="LiteRT takes no Sequential"):
        export_litert(keras.Sequential(), tmp_path / "x")
    with pytest.raises(InputError, match="exists already"):
        export_litert(classifier, exported / "int8")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="cannot be read"):
        LiteRTModel(tmp_path / "nothing")
    with pytest.raises(InputError, match="does not continue text"):
        LiteRTModel(exported / "int8").generate([3])
    with pytest.raises(InputError, match="gives no tags"):
        LiteRTModel(exported / "int8").tag([[3]])


def test_damaged_files_are_told(exported, tmp_path):
    for name in ("model.tflite", "signature.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((exported / "int8" / name).read_bytes())
    (tmp_path / "model.tflite").write_bytes((exported / "int8/model.tflite").read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged"):
        LiteRTModel(tmp_path)
    (tmp_path / "model.tflite").unlink()
    with pytest.raises(InputError, match="no LiteRT file"):
        LiteRTModel(tmp_path)


@pytest.mark.parametrize(
    ("task", "least"), [(QuestionAnswerer, 3), (CausalLM, 2), (TextClassifier, 1)]
)
def test_the_shortest_texts_have_an_example_and_shorter_ones_a_reason(tmp_path, task, least):
    labels = {"labels": ["no", "yes"]} if task is TextClassifier else {}
    model = task.from_preset("llama-tiny", backbone_arguments={"num_layers": 1}, **labels)
    with pytest.raises(InputError, match=f"max_length must lie in {least} … .*{least - 1}"):
        export_litert(model, tmp_path / "x", max_length=least - 1)
    folder = export_litert(model, tmp_path / "y", max_length=least)
    example = json.loads((folder / "signature.json").read_text())["example"]
    assert 1 <= len(example["token_ids"]) <= least


def test_a_package_that_is_missing_is_told_before_any_work(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from llama_keras.cli import build_app

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install ai-edge-litert"):
        export_litert(None, tmp_path / "x")
    asked = ["export", "runs/absent", "--format", "litert", "--output", str(tmp_path / "x")]
    done = CliRunner().invoke(build_app(), asked)
    assert isinstance(done.exception, MissingDependencyError)
