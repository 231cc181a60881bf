import json

import pytest

from llama_keras.checks.reading import READERS
from llama_keras.checks.records import Example
from llama_keras.data.dialogues import load_dialogues
from llama_keras.data.pair_files import load_pairs
from llama_keras.data.parts import SourcePart, split_source
from llama_keras.data.sources import load_classification
from llama_keras.data.squad import load_question_answering
from llama_keras.data.tagged import load_tagged
from llama_keras.errors import InputError
from llama_keras.tasks.recipe import load_recipe

COUNT = 11
ANSWERS = [{"text": "a", "answer_start": 0}]


def conll(number):
    return f"{number}\tO\n"


def line(**fields):
    return json.dumps(fields)


# Recipe -> file, one example by its number, what reads the file, the number of each example.
SOURCES = {
    "text_classification": (
        "x.jsonl",
        lambda n: line(text=str(n), label="a"),
        load_classification,
        lambda data: data.texts,
    ),
    "token_classification": ("x.conll", conll, load_tagged, lambda data: sum(data.inputs, [])),
    "question_answering": (
        "x.jsonl",
        lambda n: line(question=str(n), context="a", answers=ANSWERS),
        load_question_answering,
        lambda data: [row["question"] for row in data.examples],
    ),
    "embedding": (
        "x.jsonl",
        lambda n: line(anchor=str(n), positive="p"),
        load_pairs,
        lambda data: [row[0] for row in data.rows],
    ),
    "causal_lm": (
        "x.jsonl",
        lambda n: line(turns=[str(n), "b"]),
        load_dialogues,
        lambda data: [turns[0]["content"] for turns in data.conversations],
    ),
}


@pytest.mark.parametrize("task", SOURCES)
@pytest.mark.parametrize(
    ("part", "numbers"),
    [("[::4]", [0, 4, 8]), ("[:50%:2]", [0, 2, 4]), ("[50%::3]", [5, 8]), ("[80%:]", [8, 9, 10])],
)
def test_every_source_takes_parts(tmp_path, task, part, numbers):
    name, make, load, read = SOURCES[task]
    file = tmp_path / name
    file.write_text("\n".join(make(n) for n in range(COUNT)) + "\n")
    data = load(f"{file}{part}")
    assert read(data) == [str(n) for n in numbers]
    assert data.source == f"{file}{split_source(f'x{part}')[1]}"
    # What checks the data reads the same examples.
    overrides = ["data.turns_column=turns"] if task == "causal_lm" else []
    recipe = load_recipe(task, overrides=overrides)
    checked = READERS[task](recipe, f"{file}{part}", None)
    texts = [row.texts[0] for row in checked if isinstance(row, Example)]
    assert texts == [str(n) for n in numbers]


def test_what_a_part_says():
    assert split_source("a[b].jsonl") == ("a[b].jsonl", SourcePart())
    source, part = split_source("shared:x.jsonl.gz[10%:90%:4]")
    assert (source, part) == ("shared:x.jsonl.gz", SourcePart(10, 90, 4))
    assert list(part.indices(100)) == list(range(10, 90, 4))
    texts = [str(split_source(f"x{text}")[1]) for text in ("[::4]", "[:80%]", "[:]")]
    assert texts == ["[0%:100%:4]", "[0%:80%]", ""]
    for wrong in ("[::0]", "[50%:50%:2]", "[:101%]"):
        with pytest.raises(InputError, match="is empty; write such as"):
            split_source(f"x{wrong}")
