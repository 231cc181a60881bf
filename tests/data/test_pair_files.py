import json

import pytest

from llama_keras.data.pair_files import load_pairs
from llama_keras.errors import InputError


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_pairs_and_triples(tmp_path):
    pair = {"anchor": "tea", "positive": "茶", "id": 3}
    data = load_pairs(write(tmp_path / "a.jsonl", pair, {**pair, "anchor": "the"}))
    assert data.rows == [("tea", "茶"), ("the", "茶")] and len(data.head(1)) == 1
    assert data.fingerprint() != data.head(1).fingerprint()
    write(tmp_path / "train.jsonl", {**pair, "negative": "车"})
    assert load_pairs(tmp_path, split="train").rows == [("tea", "茶", "车")]
    (tmp_path / "c.csv").write_text("anchor,positive\na,b\n")
    assert load_pairs(tmp_path / "c.csv").rows == [("a", "b")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no examples"),
        ([{"anchor": "a"}], "line 1: positive is missing or empty"),
        ([{"anchor": " ", "positive": "b"}], "line 1: anchor is missing or empty"),
        ([{"anchor": 3, "positive": "b"}], "line 1: anchor is missing or empty; it is 3"),
        (
            [{"anchor": "a", "positive": "b"}, {"anchor": "a", "positive": "b", "negative": "c"}],
            "line 2 has 3 texts but the first line has 2",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        load_pairs(write(tmp_path / "a.jsonl", *rows))


def test_missing_files_and_sets_of_tfds(tmp_path):
    with pytest.raises(InputError, match="no data file"):
        load_pairs(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="pairs are read from files"):
        load_pairs("tfds:glue/mrpc")
