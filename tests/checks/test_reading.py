import pytest

from llama_keras.checks.reading import READERS, read_data
from llama_keras.checks.table import CHECKS
from llama_keras.errors import InputError
from llama_keras.kinds import _MODULES, get_kind
from llama_keras.tasks.recipe import load_recipe, recipe_names

LINES = '{"text": "a", "label": "x"}\n{"text": 3, "label": "x"}\nnonsense\n\n{"text": "b"}\n'


def test_every_task_has_checks():
    assert set(CHECKS) == set(READERS) == set(_MODULES)


def test_bad_lines_are_counted_and_the_rest_read(check):
    found = check("text_classification", train=LINES + '{"text": "c", "label": "y"}\n')
    rows = found["rows"]
    assert (rows.level, rows.count, rows.details) == ("fail", 3, {"read": 2, "refused": 3})
    assert [place for place, _ in rows.examples] == [f"train, line {n}" for n in (2, 3, 5)]
    assert rows.examples[1][1].startswith("is not JSON")
    assert "there is no column 'label'" in rows.examples[2][1]
    assert found["counts"].details["train"]["labels"] == {"x": 1, "y": 1}
    assert "recipe" not in found


def test_a_csv_is_read_up_to_the_first_bad_line(check):
    text = "text,label\na,x\nb\nc,y\n"
    rows = check("text_classification", suffix=".csv", train=text)["rows"]
    assert (rows.count, rows.details["read"]) == (1, 1)
    assert rows.examples[0][0] == "train, after line 2"
    assert "does not have the 2 fields" in rows.examples[0][1]


def test_a_bad_conll_line_spoils_its_sentence_only(check):
    text = "Ann\tO\nLee\n\nRome\tB-LOC\n\n-DOCSTART-\tO\n\nBob\tX\tO\nOslo\tO\n\nOslo\tB-LOC\n"
    found = check("token_classification", suffix=".conll", train=text)
    assert found["rows"].examples[0][0] == "train, line 2"
    assert found["rows"].examples[1] == (
        "train, line 8", "begins a sentence whose lines differ in their columns.",
    )  # fmt: skip
    assert found["counts"].details["train"] == {"examples": 2, "labels": {"LOC": 2}}


def test_a_file_that_cannot_be_read_leaves_the_others(check, labelled, tmp_path):
    missing = f"data.test={tmp_path}/missing.jsonl"
    found = check("text_classification", missing, train=labelled("x", a=10, b=10))
    assert found["rows"].level == found["counts"].level == "fail"
    assert "There is no data file" in found["rows"].examples[0][1]
    assert found["counts"].message == "train 20 (a 10, b 10); test 0"


def test_a_part_of_a_file_and_a_limit(check, labelled, tmp_path):
    check("text_classification", train=labelled("x", a=6, b=4))
    sources = [
        f"data.train={tmp_path}/train.jsonl[:50%]",
        f"data.test={tmp_path}/train.jsonl[50%:]",
    ]
    recipe = load_recipe("text_classification", overrides=[*sources, "data.limit=3"])
    data = read_data(recipe)
    assert [x.where for x in data.train.examples] == [f"train, line {n}" for n in (1, 2, 3)]
    assert [x.where for x in data.parts["test"].examples] == [f"test, line {n}" for n in (6, 7, 8)]


def test_of_data_that_cannot_be_read_nothing_is_said(check):
    assert list(check("text_classification", train="nonsense")) == ["rows", "counts"]


def test_conversations(check):
    rows = [{"turns": ["Hi.", "Hello."]}, {"turns": []}, {"turns": ["Hi.", " "]}]
    found = check("causal_lm", "data.turns_column=turns", train=rows)
    assert (found["rows"].count, found["rows"].details["read"]) == (2, 1)
    assert found["rows"].examples[1] == ("train, line 3", "turn 1 has no text; it is ' '.")


def test_conversations_that_training_would_refuse_fail(check):
    foreign = [{"role": "human", "text": "Hi."}, {"role": "gpt", "text": "Hello."}]
    rows = [{"turns": ["Hi.", "Hello."]}, {"turns": foreign}, {"turns": ["Hi."]}]
    found = check("causal_lm", "data.turns_column=turns", train=rows)["rows"]
    assert (found.level, found.count, found.details["read"]) == ("fail", 2, 1)
    (first, role), (second, silent) = found.examples
    assert (first, second) == ("train, line 2", "train, line 3")
    assert role.startswith("turn 0 has the role 'human'")
    assert silent.startswith("no turn has the role 'assistant'")


def test_training_data_are_needed():
    with pytest.raises(InputError, match="no training data"):
        read_data(load_recipe("text_classification"))


def test_a_set_of_tensorflow_datasets(shared_dir, monkeypatch):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    sources = ["data.train=tfds:glue/sst2/validation", "data.test=tfds:glue/sst2/test"]
    recipe = load_recipe("text_classification", overrides=[*sources, "data.text_column=sentence"])
    data = read_data(recipe)
    assert_equals_training(recipe, data.train)
    test = data.parts["test"]
    assert not test.examples and len(test.refused) == 1821  # its labels are hidden


@pytest.mark.parametrize("name", recipe_names())
def test_rows_are_those_of_training(shared_dir, monkeypatch, name):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    recipe = load_recipe(name, overrides=["data.limit=500"])
    if recipe.data.train is None:
        pytest.skip("a recipe for people's own data")
    data = read_data(recipe)
    for part in data.parts.values():
        assert not part.refused and len(part.examples) == len(part.loaded)
        assert_equals_training(recipe, part)


# From what checks read to what `fit` is given.
FITTED = {
    "causal_lm": lambda recipe, example: example.target if recipe.data.turns_column else (
        recipe.data.prompt.replace("{text}", example.texts[0]),
        recipe.data.response.replace("{label}", example.texts[1]),
    ),
    "embedding": lambda recipe, example: example.texts,
    "question_answering": lambda recipe, example: (*example.texts, example.target),
    "text_classification": lambda recipe, example: (
        example.texts if recipe.model.pairs else example.texts[0], example.target,
    ),
    "token_classification": lambda recipe, example: (
        example.words or example.texts[0], example.target,
    ),
}  # fmt: skip


def assert_equals_training(recipe, part):
    x, y = get_kind(recipe.task).examples(part.loaded)
    if recipe.task == "question_answering":
        expected = [(row["question"], row["context"], row["answers"]) for row in x]
    else:
        expected = list(x) if y is None else list(zip(x, y, strict=True))
    assert [FITTED[recipe.task](recipe, example) for example in part.examples] == expected
