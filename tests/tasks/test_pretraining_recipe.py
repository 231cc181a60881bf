import pytest

from llama_keras.errors import InputError
from llama_keras.tasks.pretraining_recipe import (
    load_pretraining_recipe,
    pretraining_recipe_names,
)


@pytest.mark.parametrize("name", pretraining_recipe_names())
def test_shipped_recipes_are_valid(name):
    assert load_pretraining_recipe(name).name == name


def test_overrides_are_read_as_yaml():
    recipe = load_pretraining_recipe(
        "plain_text",
        overrides=[
            "data.train=a.txt",
            "backbone.num_layers=1",
            "objective={name: causal, chunk: 8}",
        ],
    )
    assert recipe.data.train == ["a.txt"]
    assert recipe.backbone["num_layers"] == 1 and recipe.backbone["hidden_dim"] == 128
    assert recipe.objective == {"name": "causal", "chunk": 8}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=0", "train.epochs: .*greater than or equal to 1"),
        ("datas.train=x", "datas: Extra inputs"),
        ("long_texts=wrap", "long_texts: Input should be 'cut' or 'split'"),
        ("clean=[lowr]", "no cleaning step 'lowr'"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(InputError, match=message):
        load_pretraining_recipe("plain_text", overrides=[override])


def test_unknown_names_and_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no pretraining recipe 'sst2'"):
        load_pretraining_recipe("sst2")
    file = tmp_path / "list.yaml"
    file.write_text("- 1\n")
    with pytest.raises(InputError, match="must hold the fields"):
        load_pretraining_recipe(file)
