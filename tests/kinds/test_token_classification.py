import json

import pytest

from llama_keras.errors import InputError
from llama_keras.eval.entity_metrics import entity_metrics
from llama_keras.runner import run_recipe
from llama_keras.tasks.recipe import load_recipe, recipe_names

CONLL = "Ann\tI-PER\nLee\tI-PER\nin\tO\nRome\tI-LOC\n\nBo\tI-PER\nleft\tO\n\n"
JSONL = [
    {"text": "Ann Lee in Rome", "spans": [{"start": 0, "end": 7, "label": "PER"},
                                          {"start": 11, "end": 15, "label": "LOC"}]},
    {"text": "Bo left", "spans": [{"start": 0, "end": 2, "label": "PER"}]},
]  # fmt: skip


@pytest.fixture
def files(tmp_path):
    (tmp_path / "iob1.conll").write_text(CONLL * 6)
    (tmp_path / "iob2.conll").write_text(CONLL.replace("I-", "B-", 1).replace("\tI-LOC", "\tB-LOC")
                                         .replace("Bo\tI", "Bo\tB") * 6)  # fmt: skip
    (tmp_path / "spans.jsonl").write_text("".join(json.dumps(row) + "\n" for row in JSONL * 6))
    return tmp_path


def recipe_of(files, name, *more):
    parts = [f"data.{part}={files / name}" for part in ("train", "validation", "test")]
    overrides = ["preset=llama-tiny", "strategy=full", "train.epochs=1", *parts, *more]
    return load_recipe("token_classification", overrides=overrides)


def test_a_run_leaves_everything_that_is_promised(files):
    from llama_keras.tasks import TokenClassifier

    recipe = recipe_of(
        files, "iob1.conll", "data.tag_scheme=IOB1", "model.tag_head=crf",
        "model.tag_scheme=IOBES", "train.epochs=8", "train.learning_rate=0.003", "export=true",
        "data.limit=8",
    )  # fmt: skip
    run = run_recipe(recipe, output=files / "run", say=lambda line: None)
    metrics = json.loads((files / "run" / "metrics.json").read_text())
    assert metrics["test"]["f1"] > 0.9 and metrics["test"]["n"] == 8
    assert metrics["test"].keys() >= {"precision", "recall", "f1", "intervals"}
    assert (files / "run/export/token_classification/1/saved_model.pb").is_file()
    assert load_recipe(files / "run" / "recipe.yaml").labels == ["LOC", "PER"]
    loaded = TokenClassifier.load(files / "run" / "model.keras")
    text = ["Ann Lee in Rome"]
    assert loaded.predict(text, verbose=0) == run.model.predict(text, verbose=0)


def test_all_forms_of_files_are_the_same_examples(files):
    from llama_keras.kinds.token_classification import KIND

    found = []
    for name, *more in (
        ("iob1.conll", "data.tag_scheme=IOB1"), ("iob2.conll",), ("spans.jsonl",)
    ):  # fmt: skip
        recipe = recipe_of(files, name, *more)
        part = KIND.load(recipe, recipe.data.train or "", None)
        assert KIND.labels(recipe, {"train": part}) == ["LOC", "PER"]
        model = KIND.build(recipe, ["LOC", "PER"], "full")
        found.append(model.texts_and_spans(*KIND.examples(part)))
    assert found[0] == found[1] == found[2]


def test_spans_that_no_unit_fits_count_as_not_found(files):
    from llama_keras.kinds.token_classification import KIND

    rows = [{"text": "Rome", "spans": [{"start": 0, "end": 2, "label": "LOC"}]}]
    (files / "spans.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of(files, "spans.jsonl")
    part = KIND.load(recipe, recipe.data.train or "", None)
    model = KIND.build(recipe, ["LOC"], "full")
    found = KIND.measure(model, part).metrics
    assert found["recall"].value == 0.0
    assert entity_metrics([[(0, 2, "LOC")]], [[(0, 4, "LOC")]])["recall"].value == 0.0


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("iob1.conll", "model.tag_head=crf", "line 1: Tag 0, 'I-PER', cannot stand at the beginni"),
        ("iob2.conll", "labels=[PER]", "entities of the type 'LOC', which is not among"),
        ("spans.jsonl", "data.label_column=entities", "no column 'entities'"),
        ("none.conll", "labels=[PER]", "no data file"),
    ],
)
def test_bad_data_stops_before_anything_is_written(files, name, override, message):
    with pytest.raises(InputError, match=message):
        run_recipe(recipe_of(files, name, override), output=files / "run")
    assert not (files / "run").exists()


def test_shipped_recipes_load():
    for name in ("token_classification", "conll2003", "wnut17", "cluener"):
        assert name in recipe_names()
        assert load_recipe(name).task == "token_classification"
    assert load_recipe("cluener").data.word_separator == ""
