import json

import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.pretrainer import _save_preset, build_model, run_pretraining
from llama_keras.tasks import CausalLM, MaskedLM, Pretraining, TextClassifier
from llama_keras.tasks.pretraining_recipe import load_pretraining_recipe
from llama_keras.training.checkpoints import Checkpoints
from tests.test_runner import Killed, killed_at, without_speed

TINY = [
    "tokenizer.preset=llama-tiny",
    "tokenizer.vocabulary_size=261",
    "backbone.num_layers=1",
    "backbone.hidden_dim=32",
    "max_sequence_length=32",
    "train.epochs=2",
    "train.batch_size=8",
]


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("the rain falls\n\nthe snow falls in winter\n" * 12)
    return file


def recipe_of(name, lines, *overrides):
    data = [f"data.train={lines}", f"data.validation={lines}"]
    return load_pretraining_recipe(name, overrides=[*TINY, *data, *overrides])


def test_the_article_s_encoder_from_scratch_becomes_a_preset(lines, tmp_path):
    said = []
    run = run_pretraining(
        recipe_of("article_small", lines, "backbone.intermediate_dim=64"),
        output=tmp_path / "run",
        say=said.append,
    )
    assert "train: 24 documents, 12 blank lines left out" in said
    saved = json.loads((run.directory / "metrics.json").read_text())
    assert saved["after"]["loss"] < saved["before"]["loss"]
    assert saved["measured_on"] == "validation" and len(saved["history"]["loss"]) == 2
    log = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log if line.get("end_of_epoch")] == [1, 2]
    classifier = TextClassifier.from_preset(run.directory, labels=["a", "b"])
    config = classifier.backbone.config
    assert (config.attention_kernel, config.feed_forward) == ("gaussian", "mlp")
    assert (config.attention_mask, config.positions) == ("bidirectional", "learned")
    assert classifier.predict(["the rain"], verbose=0)[0]["label"] in "ab"
    model = MaskedLM.load(run.directory / "model.keras")
    tokens = model.tokenizer.special_tokens
    assert model.mask_tokens.mask_id == tokens["<mask>"] == 259
    assert model.mask_tokens.separator_id == tokens["<separator>"] == 260
    assert len(model.predict("the <mask>", verbose=0)[0]["fills"][0]) == 5


def test_a_causal_model_goes_on_from_a_preset_and_generates(lines, tmp_path):
    recipe = recipe_of("plain_text", lines, "preset=llama-tiny", "backbone={}")
    run = run_pretraining(recipe, output=tmp_path / "run", say=lambda line: None)
    assert run.metrics["after"]["loss"] < run.metrics["before"]["loss"]
    assert CausalLM.from_preset(run.directory).generate("the", max_new_tokens=3).token_ids


def test_a_denoiser_s_preset_looks_both_ways_and_heads_learn_on_it(lines, tmp_path):
    recipe = recipe_of("denoising", lines, "backbone.intermediate_dim=64", "train.epochs=1")
    run = run_pretraining(recipe, output=tmp_path / "run", say=lambda line: None)
    assert type(run.model).__name__ == "Denoiser"
    assert run.model.backbone.config.attention_mask == "prefix"
    classifier = TextClassifier.from_preset(run.directory, labels=["a", "b"])
    assert classifier.backbone.config.attention_mask == "bidirectional"
    classifier.fit(["the rain", "the snow"], ["a", "b"], epochs=1, verbose=0)


@pytest.mark.parametrize(
    ("name", "backbone", "mask"),
    [("masked_next_token", "{}", "bidirectional"), ("contrastive", "{dropout: 0.1}", "causal")],
)
def test_shipped_recipes_on_a_checkpoint_lower_what_they_measure(
    lines, tmp_path, name, backbone, mask
):
    overrides = ["preset=llama-tiny", f"backbone={backbone}", "train.learning_rate=1e-3"]
    run = run_pretraining(
        recipe_of(name, lines, *overrides), output=tmp_path / "run", say=lambda line: None
    )
    assert run.metrics["after"]["loss"] < run.metrics["before"]["loss"]
    assert TextClassifier.from_preset(run.directory, labels=["a", "b"]).backbone.config.dropout == (
        run.model.backbone.config.dropout
    )
    assert run.model.backbone.config.attention_mask == mask


def test_sentinels_for_which_there_are_no_ids_stop_before_anything_is_written(lines, tmp_path):
    corruption = "corruption={name: span_corruption, marker: sentinel}"
    recipe = recipe_of("denoising", lines, corruption, "backbone.intermediate_dim=64")
    with pytest.raises(InputError, match="marker='sentinel' needs ids .*larger than.* 261"):
        run_pretraining(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    more = recipe.model_copy(update={"backbone": {**recipe.backbone, "vocabulary_size": 264}})
    model = build_model(more)
    assert model.mask_tokens.sentinel_ids == (261, 262, 263)
    assert np.isfinite(model.evaluate(["the rain falls in winter"], verbose=0)["loss"])


def test_a_killed_run_goes_on_to_the_same_results(lines, tmp_path, monkeypatch):
    def run(name, **arguments):
        recipe = recipe_of("article_small", lines, "train.checkpoint_every=2")
        return run_pretraining(recipe, output=tmp_path / name, say=lambda line: None, **arguments)

    whole = run("whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, Checkpoints, "save", call=2)
        run("parts")
    with pytest.raises(InputError, match="go on with it by --resume"):
        run("parts")
    found = run("parts", resume=True)
    assert without_speed(found.metrics) == without_speed(whole.metrics)
    for a, b in zip(found.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts")]
    steps = [[json.loads(line)["step"] for line in log.splitlines()] for log in logs]
    assert steps[0] == steps[1]
    assert run("parts", resume=True).metrics == found.metrics


def test_texts_are_packed_for_xla(lines, tmp_path):
    said = []
    overrides = ["train.packing=true", "train.jit_compile=true", "max_sequence_length=64"]
    recipe = recipe_of("article_small", lines, *overrides, "backbone.intermediate_dim=64")
    run = run_pretraining(recipe, output=tmp_path / "run", say=said.append)
    assert run.model.jit_compile
    assert run.metrics["after"]["loss"] < run.metrics["before"]["loss"]
    assert run.metrics["throughput"]["padding_share"] < 0.4
    assert any("tokens/s" in line for line in said)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["objective=denoising", "corruption=random_deletion", "backbone.attention_mask=prefix"],
            "writes each text twice",
        ),
        (
            ["objective=contrastive", "corruption=null", "backbone.dropout=0.1"],
            "compares whole rows",
        ),
    ],
)
def test_packing_that_cannot_be_stops_before_anything_is_written(
    lines, tmp_path, overrides, message
):
    recipe = recipe_of("article_small", lines, "train.packing=true", *overrides)
    with pytest.raises(InputError, match=message):
        run_pretraining(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_input(lines, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(InputError, match="holds something already"):
        run_pretraining(recipe_of("plain_text", lines), output=tmp_path / "full")
    with pytest.raises(InputError, match="has no text; add --set data.train=FILE.txt"):
        run_pretraining(load_pretraining_recipe("plain_text"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="backbone: .*num_heads"):
        build_model(recipe_of("plain_text", lines, "backbone.num_heads=4"))
    with pytest.raises(InputError, match="'masked' needs a backbone with attention_mask"):
        build_model(
            recipe_of("plain_text", lines, "objective=masked", "backbone.attention_mask=causal")
        )


def test_a_worker_that_is_not_the_chief_leaves_no_preset(tmp_path):
    model = Pretraining.from_preset("llama-tiny")
    model.writes_files = lambda: False
    _save_preset(model, tmp_path, None)
    assert not any(tmp_path.iterdir())
