import gzip
import json

import pytest

from llama_keras.data.tagged import load_tagged
from llama_keras.errors import InputError

CONLL = "-DOCSTART-\tO\n\nAnn\tB-PER\nLee\tI-PER\nin\tO\n\n\nRome\tB-LOC\n"
WORDS = [["Ann", "Lee", "in"], ["Rome"]]
TAGS = [["B-PER", "I-PER", "O"], ["B-LOC"]]


def write(folder, name, text):
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


@pytest.mark.parametrize("name", ["x.conll", "x.conll.gz", "x.txt", "x.bio"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\t", " NNP  x "),
        lambda text: text.replace("\t", "\tNNP\t"),
    ],
    ids=["plain", "windows", "no last line end", "four columns, blanks", "three columns, tabs"],
)
def test_columns(tmp_path, name, change):
    data = load_tagged(write(tmp_path, name, change(CONLL)))
    assert (data.inputs, data.targets) == (WORDS, TAGS)
    assert data.places == ["line 3", "line 8"]
    assert len(data) == 2 and data.head(1).inputs == WORDS[:1]


def test_tokens_may_hold_any_character(tmp_path):
    text = "a\u2028b\tO\n\u3000\tO\n \tB-X\n\u200b\tO\n"
    assert load_tagged(write(tmp_path, "x.conll", text)).inputs == [
        ["a\u2028b", "\u3000", " ", "\u200b"]
    ]


def test_jsonl_and_folders(tmp_path):
    rows = [
        {"text": "Ann", "spans": [{"start": 0, "end": 3, "label": "PER"}]},
        {"text": "", "spans": []},
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    for source, split in ((write(tmp_path, "dev.jsonl.gz", text), None), (tmp_path, "dev")):
        data = load_tagged(source, split=split)
        assert data.inputs == ["Ann", ""]
        assert data.targets == [row["spans"] for row in rows]
        assert data.places == ["line 1", "line 2"]
    renamed = write(tmp_path, "y.jsonl", text.replace("spans", "entities"))
    assert len(load_tagged(renamed, spans_column="entities")) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.conll", "Ann\tO\nLee\n", r"x.conll, line 2 is 'Lee'; expected a token and its tag"),
        ("x.conll", "Ann\tO\n\nLee\tX\tO\n", "line 3 .* 2 columns"),
        ("x.conll", "Ann\tO\n\tO\n", "line 2"),
        ("x.conll", "Ann\tO\nLee\t\n", "line 2"),
        ("x.conll", "\n \n", "holds no sentences"),
        ("x.xml", "Ann\tO", "of no known kind; expected .*'.conll'"),
        ("x.jsonl", '{"text": "a"}', "line 1: there is no column 'spans'"),
        ("x.jsonl", '{"text": 3, "spans": []}', "line 1: expected a text"),
        ("x.jsonl", "{", "line 1 is not JSON"),
        ("x.conll", None, "There is no data file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    if text is not None:
        write(tmp_path, name, text)
    with pytest.raises(InputError, match=message):
        load_tagged(tmp_path / name)


def test_the_shared_sets(shared_dir, monkeypatch):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    data = load_tagged("shared:data/conll2003", split="testa")
    assert len(data) == 3250 and sum(map(len, data.inputs)) == 51362
    assert sum(tag[0] == "B" for row in data.targets for tag in row) == 1837 + 922 + 1341 + 1842


def test_a_tfds_set_has_the_same_sentences_and_an_empty_one(shared_dir, monkeypatch):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    data = load_tagged("tfds:conll2003", split="dev", text_column="tokens", spans_column="ner")
    files = load_tagged("shared:data/conll2003", split="testa")
    assert len(data) == len(files) + 1
    assert sorted(filter(None, data.inputs)) == sorted(files.inputs)
    assert {tag for row in data.targets for tag in row} == {
        tag for row in files.targets for tag in row
    }
