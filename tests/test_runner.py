import json

import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.runner import run_recipe
from llama_keras.tasks.recipe import load_recipe
from llama_keras.training.checkpoints import Checkpoints


@pytest.fixture
def files(tmp_path):
    for name, count in (("train", 32), ("validation", 12), ("test", 10)):
        rows = [
            {"text": f"{('bad', 'good')[i % 2]} day {i}", "label": ("no", "yes")[i % 2]}
            for i in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def recipe_of(files, *more):
    parts = [f"data.{name}={files / name}.jsonl" for name in ("train", "validation", "test")]
    overrides = ["preset=llama-tiny", "train.epochs=1", *parts, *more]
    return load_recipe("text_classification", overrides=overrides)


def test_a_run_leaves_everything_that_is_promised(files):
    from llama_keras.tasks import TextClassifier

    output = files / "run"
    recipe = recipe_of(files, "export=true", "clean=[lower]")
    said = []
    run = run_recipe(recipe, output=output, say=said.append)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["test"]["n"] == 10
    assert 0.0 <= metrics["test"]["accuracy"] <= 1.0
    assert metrics["test"].keys() >= {"accuracy", "f1", "intervals"}
    assert (output / "export/text_classification/1/saved_model.pb").is_file()
    assert run.export == output / "export/text_classification/1"
    assert list((output / "logs").rglob("events*"))
    assert metrics["throughput"]["tokens_per_second"] > 0
    assert 0 <= metrics["throughput"]["padding_share"] < 1
    assert any("tokens/s" in line and "peak memory" in line for line in said)
    assert load_recipe(output / "recipe.yaml").labels == ["no", "yes"]
    loaded = TextClassifier.load(output / "model.keras")
    assert loaded.cleaning.get_config() == {"steps": [{"name": "lower"}]}
    assert load_recipe(output / "recipe.yaml").clean == recipe.clean
    ((one,), (other,)) = (m.predict(["good day"], verbose=0) for m in (loaded, run.model))
    assert one["label"] == other["label"]
    # LoRA's updates are merged where a model is saved.
    assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_an_existing_run_is_never_overwritten(files):
    output = files / "run"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    for resume in (False, True):
        with pytest.raises(InputError, match="holds something already"):
            run_recipe(recipe_of(files), output=output, resume=resume)
    assert [path.name for path in output.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=null", "no training data"),
        ("data.train=nowhere.jsonl", "nowhere.jsonl"),
        ("labels=['no', maybe]", "label 'yes', which is not among"),
        ("data.text_column=body", "body"),
        ("data.train=tfds:sst2", "tfds:NAME/SPLIT"),
    ],
)
def test_bad_data_stops_before_anything_is_written(files, override, message):
    output = files / "run"
    with pytest.raises(InputError, match=message):
        run_recipe(recipe_of(files, override), output=output)
    assert not output.exists()


def test_strategies_with_settings_and_class_weights(files, monkeypatch):
    from llama_keras.data import bucketing

    rows = [{"text": f"day {n}", "label": "yes" if n < 8 else "no"} for n in range(32)]
    (files / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of(
        files,
        "strategy={name: lora, rank: 2}",
        "train.class_weights=balanced",
        "train.label_smoothing=0.1",
        "train.learning_rate=0.01",
    )
    found, weighted = [], bucketing.weighted

    def noted(rows, class_weight):
        found.append(class_weight)
        return weighted(rows, class_weight)

    monkeypatch.setattr(bucketing, "weighted", noted)
    run = run_recipe(recipe, output=files / "run", say=lambda line: None)
    assert found == [{0: pytest.approx(2 / 3), 1: pytest.approx(2.0)}]  # 24 no, 8 yes
    assert (run.model.strategy.rank, run.model.strategy.learning_rate) == (2, 0.01)
    assert run.model.label_smoothing == 0.1
    assert run.metrics["strategy"] == "lora"
    assert load_recipe(files / "run/recipe.yaml").strategy == recipe.strategy


def test_early_stopping_ends_a_run_that_gets_no_better(files):
    # With a rate of nothing no epoch is better than the first.
    settings = ("train.early_stopping=1", "train.epochs=5", "train.learning_rate=1.0e-30")
    run = run_recipe(recipe_of(files, *settings), output=files / "run", say=lambda line: None)
    assert len(run.metrics["history"]["val_loss"]) == 2
    without = recipe_of(files, "train.early_stopping=1", "data.validation=null")
    with pytest.raises(InputError, match=r"early_stopping needs validation data"):
        run_recipe(without, output=files / "other")
    assert not (files / "other").exists()


@pytest.mark.parametrize(
    ("mask", "given", "seen", "pooling"),
    [
        ("bidirectional", "null", "bidirectional", "mean"),
        ("causal", "null", "causal", "last"),
        ("bidirectional", "causal", "causal", "last"),
        ("prefix", "causal", "causal", "last"),
    ],
)
def test_a_model_keeps_the_attention_mask_of_its_preset(files, mask, given, seen, pooling):
    preset = preset_of(files, mask)
    recipe = recipe_of(files, f"preset={preset}", f"model.attention_mask={given}", "data.limit=8")
    run = run_recipe(recipe, output=files / "run", say=lambda line: None)
    assert run.model.backbone.config.attention_mask == seen
    assert run.model.pooling.mode == pooling


@pytest.mark.parametrize(
    ("mask", "task", "message"),
    [
        (
            "prefix",
            "text_classification",
            r"one of \['causal', 'bidirectional'\], and has .*'prefix' on .*; set model",
        ),
        (
            "bidirectional",
            "causal_lm",
            r"one of \['causal'\], and has .*'bidirectional' on .*; set model",
        ),
    ],
)
def test_an_attention_mask_that_the_task_cannot_use_is_named(files, mask, task, message):
    train = f"data.train={files / 'train'}.jsonl"
    recipe = load_recipe(task, overrides=[f"preset={preset_of(files, mask)}", train])
    with pytest.raises(InputError, match=message):
        run_recipe(recipe, output=files / "run", say=lambda line: None)
    assert not (files / "run").exists()


def preset_of(files, mask):
    from llama_keras.models import LlamaBackbone
    from llama_keras.models.presets import save_to_preset
    from llama_keras.text import Tokenizer

    backbone = LlamaBackbone.from_preset("llama-tiny", attention_mask=mask)
    tokenizer = Tokenizer.from_preset("llama-tiny")
    save_to_preset(files / "preset", backbone=backbone, tokenizer=tokenizer)
    return files / "preset"


def test_a_causal_model_packs_in_parts_and_rematerializes(files):
    recipe = load_recipe(
        "causal_lm",
        overrides=[
            "preset=llama-tiny",
            f"data.train={files / 'train'}.jsonl",
            f"data.validation={files / 'validation'}.jsonl",
            "model.max_sequence_length=64",
            "model.rematerialize=true",
            "train.epochs=1",
            "train.batch_size=2",
            "train.packing=true",
            "train.gradient_accumulation_steps=2",
        ],
    )
    run = run_recipe(recipe, output=files / "run", say=lambda line: None)
    assert run.model.gradient_accumulation_steps == 2
    sizes = run.model.batch_sizes(epoch=0)
    assert set(sizes.places) == {128} and sizes.tokens.sum() > 0.8 * sizes.places.sum()
    assert run.metrics["throughput"]["padding_share"] < 0.2
    assert load_recipe(files / "run/recipe.yaml") == recipe


class Killed(Exception):
    pass


def without_speed(metrics):
    """What is the same in each run."""
    return {name: value for name, value in metrics.items() if name != "throughput"}


def killed_at(monkeypatch, place, name, *, call):
    """Lets a method end the run, after its work is done, when it is called for the time given."""
    before, calls = getattr(place, name), []

    def method(*arguments, **named):
        calls.append(before(*arguments, **named))
        if len(calls) == call:
            raise Killed
        return calls[-1]

    monkeypatch.setattr(place, name, method)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_run_goes_on_to_the_same_results(files, monkeypatch):
    from llama_keras.tasks import TextClassifier

    more = ["train.epochs=2", "train.batch_size=8", "train.checkpoint_every=3"]
    more += ["measure_before=true", "train.early_stopping=1"]
    recipe = recipe_of(files, *more)
    said, output = [], files / "run"
    whole = run_recipe(recipe, output=files / "whole", say=said.append)
    for place in (Checkpoints, TextClassifier):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_at(patch, place, "save", call=1)
            run_recipe(recipe, output=output, resume=True, say=said.append)
    assert "going on from the checkpoint step-000000003" in said
    with pytest.raises(InputError, match=r"an unfinished run already; go on with it by --resume"):
        run_recipe(recipe, output=output)
    other = recipe_of(files, *more, "strategy=bitfit")
    with pytest.raises(
        InputError, match=r"another recipe: .*strategy.name was 'lora', now 'bitfit'"
    ):
        run_recipe(other, output=output, resume=True)
    (output / "export/text_classification/1").mkdir(parents=True)  # as a kill may leave it
    run = run_recipe(recipe, output=output, resume=True, say=said.append)
    assert without_speed(run.metrics) == without_speed(whole.metrics) and "before" in run.metrics
    assert json.loads((output / "metrics.json").read_text()) == run.metrics
    for a, b in zip(run.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (output / "export").exists() and not (output / "checkpoints").exists()
    again = run_recipe(recipe, output=output, resume=True, say=said.append)
    assert "holds the finished run already" in said[-1]
    assert (again.metrics, again.export) == (run.metrics, None)
    with pytest.raises(InputError, match="holds a finished run already; choose another"):
        run_recipe(recipe, output=output)


def test_checkpoints_may_stay(files):
    recipe = recipe_of(files, "train.keep_checkpoints=true")
    run_recipe(recipe, output=files / "run", say=lambda line: None)
    store = Checkpoints(folder=files / "run/checkpoints")
    last = store.latest()
    assert last is not None and last.finished and store.best_name()
