import json

import pytest

from llama_keras.errors import InputError
from llama_keras.kinds import get_kind
from llama_keras.models import LlamaBackbone
from llama_keras.runner import run_recipe
from llama_keras.tasks import CausalLM
from llama_keras.tasks.recipe import load_recipe
from llama_keras.text import Tokenizer


@pytest.fixture
def recipe(tmp_path):
    rows = [{"en": "one", "de": "eins"}, {"en": "two", "de": "zwei"}] * 8
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "pairs.jsonl").write_text(text)
    return load_recipe(
        "causal_lm",
        overrides=[
            "preset=llama-tiny",
            *(f"data.{part}={tmp_path}/pairs.jsonl" for part in ("train", "validation", "test")),
            "data.text_column=en",
            "data.label_column=de",
            'data.prompt="English: {text}\\nGerman: "',
            "train.epochs=2",
        ],
    )


def test_a_run_measures_the_responses(recipe, tmp_path):
    run = run_recipe(recipe, output=tmp_path / "run", say=lambda line: None)
    measured = json.loads((tmp_path / "run/metrics.json").read_text())["test"]
    assert measured.keys() >= {"loss", "perplexity", "accuracy", "n"} and measured["n"] == 16
    low, high = measured["intervals"]["loss"]
    assert low <= measured["loss"] <= high
    prompts = [f"English: {word}\nGerman: " for word in ("one", "two")]
    loaded = CausalLM.load(tmp_path / "run/model.keras")
    again = loaded.evaluate(prompts, ["eins", "zwei"], verbose=0)["loss"]
    assert again == pytest.approx(measured["loss"], rel=1e-4)
    assert run.model.strategy.name == "lora"


def test_labels_make_no_sense(recipe, tmp_path):
    changed = recipe.model_copy(update={"labels": ["a", "b"]})
    with pytest.raises(InputError, match="has no labels"):
        run_recipe(changed, output=tmp_path / "run", say=lambda line: None)


def test_generated_responses_are_measured_before_and_after(recipe, tmp_path):
    generation = recipe.generation.model_copy(update={"examples": 3, "max_new_tokens": 4})
    changed = recipe.model_copy(update={"generation": generation, "measure_before": True})
    run = run_recipe(changed, output=tmp_path / "run", say=lambda line: None)
    before, after = run.metrics["before"]["test"], run.metrics["test"]
    assert before.keys() == after.keys() >= {"bleu", "chrf"}
    assert after["loss"] < before["loss"]


@pytest.mark.slow
def test_prompts_that_fill_the_context_are_left_out_and_counted(recipe, tmp_path, caplog):
    rows = [{"en": "one", "de": "eins"}, {"en": "two " * 200, "de": "zwei"}] * 2
    file = tmp_path / "long.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    generation = recipe.generation.model_copy(update={"examples": 4, "max_new_tokens": 4})
    data = recipe.data.model_copy(update={"test": str(file), "validation": None})
    changed = recipe.model_copy(update={"generation": generation, "data": data})
    found = run_recipe(changed, output=tmp_path / "run", say=lambda line: None).metrics["test"]
    # Nothing of the long ones' responses is left to measure the loss on.
    assert (found["n"], found["generated"], found["prompts_too_long"]) == (2, 2, 2)
    assert found["bleu"] >= 0 and found["intervals"].keys() >= {"loss", "bleu"}
    assert "no response is generated to 2 of 4 prompts" in caplog.text


def test_without_a_prompt_that_fits_nothing_is_generated(recipe, tmp_path):
    kind = get_kind("causal_lm")
    generation = recipe.generation.model_copy(update={"examples": 1, "max_new_tokens": 4})
    file = tmp_path / "long.jsonl"
    rows = [{"en": "two " * 200, "de": "zwei"}, {"en": "one", "de": "eins"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = recipe.model_copy(update={"generation": generation})
    found = kind.measure(kind.build(changed, None, "full"), kind.load(changed, str(file), None))
    assert "bleu" not in found.metrics
    assert found.counts == {"n": 1, "generated": 0, "prompts_too_long": 1}


@pytest.mark.slow
def test_conversations_are_learned_and_measured(smollm2, tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_text(json.dumps({"turns": [{"text": "Hi."}, {"text": "Hello."}]}) + "\n")
    recipe = load_recipe("dailydialog", overrides=[f"data.train={file}", f"data.test={file}"])
    kind = get_kind("causal_lm")
    part = kind.load(recipe, str(file), None)
    tokenizer = Tokenizer.from_preset(str(smollm2))
    backbone = LlamaBackbone.from_preset(
        "llama-tiny", vocabulary_size=tokenizer.vocabulary_size, load_weights=False
    )
    model = CausalLM(backbone=backbone, tokenizer=tokenizer, strategy="lora")
    model.fit(*kind.examples(part), verbose=0)
    assert kind.measure(model, part).metrics["loss"].value > 0
    wrong = recipe.model_copy(update={"generation": recipe.generation.model_copy(
        update={"examples": 1})})  # fmt: skip
    with pytest.raises(InputError, match="one response each"):
        kind.load(wrong, str(file), None)
