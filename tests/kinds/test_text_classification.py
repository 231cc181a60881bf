import json

import pytest

from llama_keras.errors import InputError
from llama_keras.runner import run_recipe
from llama_keras.tasks import TextClassifier
from llama_keras.tasks.recipe import load_recipe

PAIRS = [
    {"question": f"is {n} even?", "passage": f"{n}", "answer": n % 2, "choices": ["yes", "no"]}
    for n in range(20)
]
SETS = [{"text": f"{n}", "label": [["a"], ["a", "b"], []][n % 3]} for n in range(20)]


def recipe(tmp_path, rows, *more):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = (
        *(f"data.train={file}[:50%]", f"data.test={file}[50%:]"),
        *("preset=llama-tiny", "model.dtype=float32", "train.batch_size=5", "train.epochs=1"),
    )
    return load_recipe("text_classification", overrides=[*settings, *more])


def run(recipe, tmp_path):
    return run_recipe(recipe, output=tmp_path / "run", say=lambda _: None)


def test_a_recipe_of_pairs(tmp_path):
    settings = [
        *("model.pairs=true", "data.text_column=[question, passage]", "export=true"),
        *("data.label_column=answer", "data.names_column=choices"),
    ]
    done = run(recipe(tmp_path, PAIRS, *settings), tmp_path)
    assert done.metrics["test"]["n"] == 10 and 0 <= done.metrics["test"]["accuracy"] <= 1
    assert done.export is not None and (done.export / "saved_model.pb").is_file()
    model = TextClassifier.load(tmp_path / "run/model.keras")
    assert model.pairs and model.labels == ["no", "yes"]


def test_a_recipe_of_several_labels(tmp_path):
    settings = ["model.multi_label=true", "model.threshold=0.3", "train.label_smoothing=0.1"]
    done = run(recipe(tmp_path, SETS, *settings), tmp_path)
    found = json.loads((tmp_path / "run/metrics.json").read_text(encoding="utf-8"))["test"]
    assert set(found) == {"subset_accuracy", "f1", "micro_f1", "n", "intervals"}
    assert done.model.labels == ["a", "b"] and done.model.threshold == 0.3


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (PAIRS, ["model.pairs=true", "data.text_column=question"], "needs two text columns"),
        (
            SETS,
            ["model.multi_label=true", "train.class_weights=balanced"],
            "class_weights are for one label",
        ),
        (SETS, ["model.multi_label=true", "labels=[a, c]"], "the label 'b', which is not among"),
        (SETS, ["model.multi_label=true", "strategy=linear_probe"], "linear_probe solves for one"),
        (SETS, [], "not a label but"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, rows, settings, message):
    with pytest.raises(InputError, match=message):
        run(recipe(tmp_path, rows, *settings), tmp_path)


def test_boolq_reads_its_file(shared_dir, monkeypatch):
    from llama_keras.kinds import get_kind

    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    boolq = load_recipe("boolq")
    kind = get_kind(boolq.task)
    parts = {name: kind.load(boolq, getattr(boolq.data, name), None) for name in ("train", "test")}
    assert [len(part) for part in parts.values()] == [2616, 654]
    assert kind.labels(boolq, parts) == ["no", "yes"]
    question, passage = parts["train"].texts[0]
    assert question == "does ethanol take more energy make that produces?"
    assert passage.startswith("All biomass") and parts["train"].labels[0] == "no"
