from operator import attrgetter
from typing import get_args

import pytest

from llama_keras.errors import InputError
from llama_keras.tasks.recipe import _TASKS_WITH, Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid(name):
    assert load_recipe(name).name == name


def test_overrides_reach_any_depth_and_are_read_as_yaml():
    recipe = load_recipe(
        "text_classification",
        overrides=["train.epochs=7", "data.train=a.jsonl", "labels=[x, y]", "export=true"],
    )
    assert recipe.train.epochs == 7
    assert recipe.data.train == "a.jsonl"
    assert recipe.labels == ["x", "y"]
    assert recipe.export is True


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=1", "train.epoch: Extra inputs"),
        ("train.epochs=0", "train.epochs: .*greater than or equal to 1"),
        ("strategy=magic", "strategy: .*expected one of .*'full', 'linear_probe', 'lora'"),
        ("labels=[no, yes]", "put labels in quotes"),
        ("name.x=1", "'name' is a value"),
        ("nothing", "FIELD=VALUE"),
        ("clean=[lowr]", "clean.0: .*no cleaning step 'lowr'; expected one of .*'lower'"),
        ("clean=lower", "clean: Input should be a valid list"),
        ("train.packing=true", "train.packing is for task: causal_lm; a text_classification"),
        ("train.jit_compile=true", "train.jit_compile needs train.packing=true"),
        ("train.gradient_accumulation_steps=0", "train.gradient_accumulation_steps: .*equal to 1"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(InputError, match=message):
        load_recipe("text_classification", overrides=[override])


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "embedding",
            ["train.gradient_accumulation_steps=2"],
            "compares all texts of a batch with each other",
        ),
        (
            "text_classification",
            ["strategy=linear_probe", "model.rematerialize=true"],
            "linear_probe takes no steps .* model.rematerialize out",
        ),
        (
            "text_classification",
            ["strategy=linear_probe", "train.label_smoothing=0.1", "train.early_stopping=2"],
            "linear_probe .* leave train.label_smoothing, train.early_stopping out",
        ),
        (
            "causal_lm",
            [
                "train.packing=true",
                "train.jit_compile=true",
                "train.gradient_accumulation_steps=2",
            ],
            "jit_compile and train.gradient_accumulation_steps do not go together",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_named(name, overrides, message):
    with pytest.raises(InputError, match=message):
        load_recipe(name, overrides=overrides)


@pytest.mark.parametrize(
    ("task", "override", "users"),
    [
        ("causal_lm", "train.class_weights=balanced", "text_classification"),
        ("token_classification", "train.label_smoothing=0.1", "text_classification"),
        ("question_answering", "model.pooling=mean", "text_classification or embedding"),
        ("token_classification", "model.pooling=last", "text_classification or embedding"),
        ("embedding", "model.dropout=0.1", "text_classification or token_classification or quest"),
        ("embedding", "data.text_column=body", "text_classification or token_classification or c"),
        ("text_classification", "model.tag_head=crf", "token_classification"),
        ("text_classification", "answers.null_answers=true", "question_answering"),
        ("question_answering", "generation.stop=[x]", "causal_lm"),
    ],
)
def test_a_setting_that_the_task_does_not_use_is_refused(task, override, users):
    setting = override.partition("=")[0]
    with pytest.raises(InputError, match=f"{setting} is for task: {users}.*; a {task} recipe"):
        load_recipe(task, overrides=[override])
    # At its default it may stand there, as in the recipe that a run leaves.
    content = load_recipe(task).model_dump()
    assert Recipe.model_validate(content) == load_recipe(task)


def test_the_settings_of_single_tasks_are_fields():
    default = Recipe(name="any")
    for setting, tasks in _TASKS_WITH.items():
        attrgetter(setting)(default)  # AttributeError for a name that no recipe has
        assert set(tasks) < set(get_args(Recipe.model_fields["task"].annotation))


def test_the_attention_mask_is_left_to_the_preset_unless_given():
    from llama_keras.kinds.kind import model_arguments

    for given, expected in ((None, {}), ("causal", {"attention_mask": "causal"})):
        overrides = [f"model.attention_mask={given or 'null'}"]
        recipe = load_recipe("text_classification", overrides=overrides)
        arguments = model_arguments(recipe, None)["backbone_arguments"]
        assert arguments == {"rematerialize": False, **expected}


def test_unknown_recipe_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="sst2"):
        load_recipe("nothing")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(InputError, match="not YAML"):
        load_recipe(broken)
    broken.write_text("just text")
    with pytest.raises(InputError, match="fields of a recipe"):
        load_recipe(broken)


def test_a_wrong_field_is_named_with_its_line_and_an_override_without(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ntrain:\n  epoch: 3\n")
    with pytest.raises(InputError, match=r"mine.yaml is not a recipe: line 3, train.epoch: "):
        load_recipe(file)
    file.write_text("name: mine\ntrain: {epochs: 3}\n")
    with pytest.raises(InputError, match=r"is not a recipe: train.epochs: "):
        load_recipe(file, overrides=["train.epochs=0"])


def test_cleaning_steps_are_listed_in_their_order_with_all_settings(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nclean:\n  - lower\n  - {name: normalize, form: NFKC}\n")
    assert load_recipe(file).clean == [{"name": "lower"}, {"name": "normalize", "form": "NFKC"}]
    recipe = load_recipe(file, overrides=["clean=[normalize, {name: remove_punctuation, keep: -}]"])
    assert recipe.clean == [
        {"name": "normalize", "form": "NFC"},
        {"name": "remove_punctuation", "replacement": " ", "keep": "-"},
    ]
    assert load_recipe("text_classification").clean is None


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("lowr", "line 4, clean.1: .*no cleaning step 'lowr'; expected one of .*'lower'"),
        ("{name: normalize, form: NFX}", r"line 4, clean.1: .*form must be one of \['NFC'"),
        ("{name: lower, form: NFC}", "line 4, clean.1: .*no setting 'form'"),
        ("normalize: {form: NFC}", "line 4, clean.1: .*name or {name: NAME"),
    ],
)
def test_a_wrong_cleaning_step_is_named_with_its_line(tmp_path, step, message):
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nclean:\n  - lower\n  - {step}\n")
    with pytest.raises(InputError, match=message):
        load_recipe(file)
