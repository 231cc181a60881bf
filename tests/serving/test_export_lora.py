"""Exports of tasks with LoRA updates: the weights are merged in the file, and not in the task."""

import json
from typing import Any

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.serving.export_many import export_many
from llama_keras.serving.local import SavedModel
from llama_keras.tasks import CausalLM, TextClassifier
from llama_keras.training.adapters import merged_lora
from llama_keras.training.fine_tuning import Lora
from tests.serving.fresh_process import c_api_answers

TEXTS = ["A lovely day in Rome.", "", "日本 🙂"]
LABELS = ["negative", "positive"]
SMALL: dict[str, Any] = {"max_sequence_length": 64, "backbone_arguments": {"num_layers": 1}}


def adapt(task):
    """Gives a task updates that show."""
    Lora(rank=2, learning_rate=1e-2).prepare(task)
    for seed, weight in enumerate(task.trainable_weights):
        weight.assign(keras.random.normal(weight.shape, stddev=0.2, seed=seed))
    return task


def classifier(**arguments):
    keras.utils.set_random_seed(0)
    return TextClassifier.from_preset("llama-tiny", labels=LABELS, **SMALL, **arguments)


@pytest.fixture(scope="module")
def learned():
    return adapt(classifier())


def scores(model):
    return np.array([list(row["scores"].values()) for row in model.predict(TEXTS, verbose=0)])


def state(model):
    return [(w.path, id(w.value), w.trainable, np.array(w)) for w in model.weights]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_an_export_answers_as_the_model_and_holds_no_updates(learned, tmp_path, dtype, tolerance):
    plain = classifier()
    expected, before = scores(learned), state(learned)
    assert np.abs(expected - scores(plain)).max() > 0.05  # the updates show
    folder = learned.export(tmp_path / "mood", dtype=dtype)
    found = c_api_answers(folder, {"text": TEXTS})["scores"]
    assert np.abs(np.array(found) - expected).max() < tolerance
    manifest = json.loads((folder / "signature.json").read_text())
    parameters = sum(int(np.prod(w.shape)) for w in plain.weights)
    assert manifest["weights"]["parameters"] == parameters
    same = plain.export(tmp_path / "plain", dtype=dtype)
    assert size_of(folder) < size_of(same) * 1.01 + 1000
    # The task has all as it was, and learns on.
    for (name, place, trains, value), now in zip(before, state(learned), strict=True):
        assert (name, place, trains) == now[:3]
        np.testing.assert_array_equal(value, now[3])
    assert any(getattr(x, "lora_enabled", False) for x in learned.backbone._flatten_layers())
    np.testing.assert_array_equal(scores(learned), expected)


def size_of(folder) -> int:
    return sum(file.stat().st_size for file in (folder / "variables").iterdir())


@pytest.mark.slow
def test_a_generator_with_updates_on_the_embeddings_too(tmp_path):
    keras.utils.set_random_seed(0)
    model = CausalLM.from_preset("llama-tiny", backbone_arguments={"num_layers": 1})
    model.backbone.enable_lora(2, target_layer_names=["token_embedding", "down_projection"])
    for seed, weight in enumerate(w for w in model.weights if "lora_" in w.path):
        weight.assign(keras.random.normal(weight.shape, stddev=0.2, seed=seed))
    assert model.backbone.token_embedding.lora_enabled
    folder = model.export(tmp_path / "writer", max_new_tokens=8, temperature=0.0)
    texts = {"context": ["The sky is"], "continuation": [" blue today"]}
    found = SavedModel(folder).run("score", **texts)["log_probability"]
    ((expected, _),) = model.loglikelihood(list(zip(*texts.values(), strict=True)))
    assert found[0] == pytest.approx(expected, abs=1e-4)
    (answer,) = SavedModel(folder).run(prompt=["The sky is"])["text"]
    assert answer.decode() == model.generate("The sky is", max_new_tokens=8).text


@pytest.mark.slow
def test_heads_share_one_adapted_backbone_but_not_two(learned, tmp_path):
    second = TextClassifier(
        backbone=learned.backbone,
        tokenizer=learned.tokenizer,
        labels=["a", "b", "c"],
        max_sequence_length=64,
    )
    folder = export_many({"mood": learned, "letter": second}, tmp_path / "both")
    expected = scores(learned)
    found = SavedModel(folder).run("mood", text=TEXTS)["scores"]
    assert np.abs(found - expected).max() < 1e-5
    assert size_of(folder) < size_of(learned.export(tmp_path / "mood")) * 1.01 + 5000
    with pytest.raises(InputError, match="'plain' has other weights"):
        export_many({"mood": learned, "plain": classifier()}, tmp_path / "x")


def test_what_fails_inside_leaves_the_task_as_it_was(learned):
    before = state(learned)
    with pytest.raises(OSError), merged_lora(learned):
        assert not any(getattr(x, "lora_enabled", 0) for x in learned.backbone._flatten_layers())
        raise OSError
    assert [entry[:3] for entry in before] == [entry[:3] for entry in state(learned)]
    assert any(getattr(x, "lora_enabled", False) for x in learned.backbone._flatten_layers())
