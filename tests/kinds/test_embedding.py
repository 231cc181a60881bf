import json

import pytest

from llama_keras.errors import InputError
from llama_keras.runner import run_recipe
from llama_keras.tasks import Embedder
from llama_keras.tasks.recipe import load_recipe

ROWS = [{"anchor": f"question {number}", "positive": f"答案 {number // 2}"} for number in range(12)]


def recipe(tmp_path, *more):
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    settings = (
        *(f"data.{part}={file}" for part in ("train", "validation", "test")),
        *("preset=llama-tiny", "model.dtype=float32", "train.batch_size=6"),
    )
    return load_recipe("embedding", overrides=[*settings, *more])


def test_a_recipe_trains_measures_saves_and_exports(tmp_path):
    run = run_recipe(recipe(tmp_path, "export=true"), output=tmp_path / "run", say=lambda _: None)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["test"]) == {"recall@1", "recall@10", "mrr", "n", "intervals"}
    assert metrics["test"]["recall@10"] == 1  # there are but six documents
    assert 0 <= metrics["test"]["recall@1"] <= metrics["test"]["mrr"] <= 1
    assert run.export is not None and (run.export / "saved_model.pb").is_file()
    assert Embedder.load(tmp_path / "run/model.keras").pooling.mode == "mean"


def test_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no labels"):
        run_recipe(recipe(tmp_path, "labels=[a, b]"), output=tmp_path / "run", say=lambda _: None)
