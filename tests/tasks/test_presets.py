import json
import logging

import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.tasks import (
    CausalLM,
    Embedder,
    MaskedLM,
    Pretraining,
    QuestionAnswerer,
    TextClassifier,
    TokenClassifier,
)
from llama_keras.tasks.presets import HEAD_FILE, TASK_FILE

FEATURES = {"token_ids": np.array([[5, 6, 7, 8]]), "padding_mask": np.ones((1, 4), "int32")}
# Settings that differ from the defaults.
HEADS = {
    TextClassifier: {
        "labels": ["film", "music"],
        "multi_label": True,
        "threshold": 0.3,
        "pooling": "mean",
        "cleaning": ["lower"],
    },
    TokenClassifier: {"labels": ["PER", "LOC"], "head": "crf", "scheme": "IOBES"},
    QuestionAnswerer: {"null_answers": True, "null_threshold": 0.7, "rule": "cmrc"},
    Embedder: {"layer": 1, "dimensions": 8, "normalize": False},
    CausalLM: {"max_sequence_length": 64},
    MaskedLM: {
        "mask_id": 300,
        "corruption": {"name": "random_masking", "rate": 0.3},
        "backbone_arguments": {"attention_mask": "bidirectional"},
    },
}


def make(kind, **more):
    """Gives a task whose weights are nobody's initial ones."""
    task = kind.from_preset("llama-tiny", **{**HEADS[kind], **more})
    generator = np.random.default_rng(0)
    for weight in task.weights:
        weight.assign_add(generator.normal(0.0, 0.05, weight.shape))
    return task


def outputs(task):
    found = task(FEATURES)
    return [np.array(part) for part in (found if isinstance(found, (tuple, list)) else [found])]


def assert_equal(ours, theirs):
    for one, other in zip(outputs(ours), outputs(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_every_task_comes_back_with_settings_and_head(tmp_path, kind):
    task = make(kind)
    task.save_to_preset(tmp_path / "preset")
    again = kind.from_preset(tmp_path / "preset")
    assert_equal(task, again)
    ours, theirs = task.get_config(), again.get_config()
    for name in set(ours) - {"name", "backbone", "tokenizer"}:
        assert ours[name] == theirs[name], name
    assert again.backbone.config == task.backbone.config


@pytest.mark.slow
def test_updates_are_merged_and_the_strategy_begins_anew(tmp_path):
    task = make(TextClassifier, strategy={"name": "lora", "rank": 2}, multi_label=False)
    task.fit(["A film.", "A song."], ["film", "music"], epochs=1, verbose=0)
    task.save_to_preset(tmp_path / "preset")
    again = TextClassifier.from_preset(tmp_path / "preset")
    assert again.strategy.name == "full"
    for one, other in zip(outputs(task), outputs(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_another_task_takes_the_backbone_alone(tmp_path):
    task = make(TextClassifier)
    task.save_to_preset(tmp_path / "preset")
    tagger = TokenClassifier.from_preset(tmp_path / "preset", labels=["PER"])
    assert tagger.labels == ["PER"] and tagger.cleaning == task.cleaning
    backbone = LlamaBackbone.from_preset(tmp_path / "preset")
    for other in (tagger.backbone, backbone):
        for one, two in zip(task.backbone.weights, other.weights, strict=True):
            np.testing.assert_array_equal(np.array(one), np.array(two))


@pytest.mark.parametrize(
    ("more", "kept"),
    [({"labels": ["a", "b"]}, False), ({"multi_label": False, "threshold": 0.5}, True)],
)
def test_arguments_replace_the_preset_s(tmp_path, caplog, more, kept):
    task = make(TextClassifier)
    task.save_to_preset(tmp_path / "preset")
    with caplog.at_level(logging.WARNING, "llama_keras"):
        again = TextClassifier.from_preset(tmp_path / "preset", **more)
    assert {name: again.get_config()[name] for name in more} == more
    assert again.pooling.mode == "mean"
    same = np.array_equal(np.array(again.head.kernel), np.array(task.head.kernel))
    assert same == kept
    assert ("knows the labels ['film', 'music']" in caplog.text) != kept
    assert ("learned with multi_label=True; it is kept" in caplog.text) == kept


def test_a_head_of_another_form_begins_anew(tmp_path, caplog):
    make(TokenClassifier).save_to_preset(tmp_path / "preset")
    with caplog.at_level(logging.WARNING, "llama_keras"):
        again = TokenClassifier.from_preset(tmp_path / "preset", scheme="IOB2")
    assert again.tags != make(TokenClassifier).tags
    assert "another form" in caplog.text


def test_a_masked_model_of_pretraining_knows_its_ids(tmp_path):
    noise = {"name": "random_masking", "rate": 0.4}
    trained = Pretraining.from_preset(
        "llama-tiny", objective="masked", mask_id=301, corruption=noise
    )
    trained.save_to_preset(tmp_path / "preset", attention_mask="causal")
    filler = MaskedLM.from_preset(tmp_path / "preset")
    assert filler.mask_tokens.mask_id == 301 and filler.corruption == trained.corruption
    assert filler.backbone.config.attention_mask == "bidirectional"
    causal = Pretraining.from_preset(tmp_path / "preset", objective="causal")
    assert causal.objective.name == "causal" and causal.corruption is None
    assert CausalLM.from_preset(tmp_path / "preset").backbone.config.attention_mask == "causal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "is not JSON"),
        (lambda text: json.dumps({**json.loads(text), "format": 2}), "of format 1"),
        (lambda text: text.replace("multi_label", "many_labels"), "many_labels"),
    ],
)
def test_a_damaged_description_is_named(tmp_path, change, message):
    make(TextClassifier).save_to_preset(tmp_path / "preset")
    file = tmp_path / "preset" / TASK_FILE
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match=message):
        TextClassifier.from_preset(tmp_path / "preset")


def test_a_missing_head_is_named(tmp_path):
    make(TextClassifier).save_to_preset(tmp_path / "preset")
    (tmp_path / "preset" / HEAD_FILE).unlink()
    with pytest.raises(InputError, match="does not hold the head"):
        TextClassifier.from_preset(tmp_path / "preset")


def test_an_existing_directory_is_kept(tmp_path):
    with pytest.raises(InputError, match="exists"):
        make(TextClassifier).save_to_preset(tmp_path)
