"""Pairs, several labels, numbered names and parts of a file."""

import json

import pytest

from llama_keras.data import load_classification
from llama_keras.errors import InputError


def jsonl(folder, *rows):
    file = folder / "x.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_pairs_are_kept_apart(tmp_path):
    file = jsonl(tmp_path, {"q": "Is it?", "p": "It is.", "label": "yes"})
    data = load_classification(file, text_column=["q", "p"], pairs=True)
    assert data.texts == [("Is it?", "It is.")]
    assert data.fingerprint() != load_classification(file, text_column=["p", "q"]).fingerprint()
    with pytest.raises(InputError, match="A pair needs two text columns"):
        load_classification(file, text_column="q", pairs=True)


def test_several_labels_from_json_and_from_csv(tmp_path):
    sets = [["b", "a"], [], ["c"], ["2"]]
    rows = [{"text": "x", "label": row} for row in ["b|a", [], ["c", "c"], [2]]]
    data = load_classification(jsonl(tmp_path, *rows), multi_label=True)
    assert data.labels == sets and data.label_names == ["2", "a", "b", "c"]
    file = tmp_path / "x.csv"
    file.write_text("text,label\nx,b | a\nx,\nx,c\nx,2\n", encoding="utf-8")
    assert load_classification(file, multi_label=True).labels == sets


@pytest.mark.parametrize(
    ("label", "message"),
    [(7, "expected a list of labels"), ([None], "no label"), ([["a"]], "not a label"),
     ("a||b", "no label"), (None, "expected a list of labels")],
)  # fmt: skip
def test_wrong_lists_of_labels_are_named(tmp_path, label, message):
    file = jsonl(tmp_path, {"text": "x", "label": label})
    with pytest.raises(InputError, match=f"line 1: .*{message}"):
        load_classification(file, multi_label=True)


def test_numbers_become_names(tmp_path):
    file = jsonl(tmp_path, {"text": "x", "label": 1, "choices": ["no", "yes"]})
    assert load_classification(file, names_column="choices").labels == ["yes"]
    for label, choices in [(2, ["a"]), (-1, ["a"]), ("0", ["a"]), (True, ["a", "b"]), (0, "ab")]:
        file = jsonl(tmp_path, {"text": "x", "label": label, "choices": choices})
        with pytest.raises(InputError, match="line 1: .*the number of one of the names in 'choice"):
            load_classification(file, names_column="choices")


def test_parts_of_a_file_are_disjoint_and_all(tmp_path):
    file = jsonl(tmp_path, *({"text": str(n), "label": "a"} for n in range(13)))
    parts = [load_classification(f"{file}{part}") for part in ("[:33%]", "[33%:80%]", "[80%:]")]
    assert sum((part.texts for part in parts), []) == [str(n) for n in range(13)]
    assert [len(part) for part in parts] == [4, 6, 3]
    assert parts[1].source == f"{file}[33%:80%]"
    for part in ("[80%:80%]", "[50%:101%]", "[:0%]"):
        with pytest.raises(InputError, match="is empty; write such as"):
            load_classification(f"{file}{part}")
    with pytest.raises(InputError, match="holds no examples"):
        load_classification(f"{file}[:1%]")
