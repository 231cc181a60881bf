import json

import pytest

from llama_keras.errors import InputError
from llama_keras.runner import run_recipe
from llama_keras.tasks import QuestionAnswerer
from llama_keras.tasks.recipe import load_recipe


@pytest.fixture
def files(tmp_path):
    for name, count in (("train", 16), ("validation", 6), ("test", 6)):
        rows = [
            {
                "id": str(number),
                "question": "Who?",
                "context": f"It was Ana{number}.",
                "answers": [{"text": f"Ana{number}", "answer_start": 7}] if number % 3 else [],
            }
            for number in range(count)
        ]
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def recipe_of(files, *more):
    parts = [f"data.{name}={files / name}.jsonl" for name in ("train", "validation", "test")]
    overrides = ["preset=llama-tiny", "train.epochs=1", "model.dtype=float32", *parts, *more]
    return load_recipe("question_answering", overrides=overrides)


def test_a_run_from_files_to_an_export(files):
    recipe = recipe_of(files, "answers.null_answers=true", "answers.rule=cmrc", "export=true")
    run = run_recipe(recipe, output=files / "run", say=lambda line: None)
    for part in ("validation", "test"):
        found = run.metrics[part]
        assert found["n"] == 6
        assert found.keys() >= {"exact_match", "f1", "no_answer_accuracy", "has_answer_f1"}
        assert found["intervals"]["f1"][0] <= found["f1"] <= found["intervals"]["f1"][1]
    assert run.export and (run.export / "saved_model.pb").is_file()
    loaded = QuestionAnswerer.load(files / "run" / "model.keras")
    assert (loaded.rule, loaded.null_answers) == ("cmrc", True)
    assert loaded.null_threshold == run.model.null_threshold
    assert load_recipe(files / "run" / "recipe.yaml").answers == recipe.answers


def test_data_that_do_not_fit_the_recipe(files):
    with pytest.raises(InputError, match="has 6 questions without an answer"):
        run_recipe(recipe_of(files), output=files / "run")
    with pytest.raises(InputError, match="has no labels"):
        run_recipe(recipe_of(files, "labels=[a, b]"), output=files / "run")
    assert not (files / "run").exists()


@pytest.mark.parametrize("name", ["squad", "cmrc2018"])
def test_shipped_recipes_name_data_that_are_read(shared_dir, name, monkeypatch):
    from llama_keras.kinds import get_kind

    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    recipe = load_recipe(name)
    kind = get_kind(recipe.task)
    sources = [recipe.data.train, recipe.data.validation, recipe.data.test]
    parts = {source: kind.load(recipe, source, None) for source in filter(None, sources)}
    kind.labels(recipe, parts)
    contexts = [{row["context"] for row in part.examples} for part in parts.values()]
    assert sum(map(len, contexts)) == len(set().union(*contexts))  # no text in two parts
