import gzip
import json

import pytest

from llama_keras.data import ClassificationData, load_classification, shared_folder
from llama_keras.errors import InputError

ROWS = [
    ("Lovely.", "positive"),
    ("太难看了\u2028真的", "negative"),
    ('He said "no", twice', "negative"),
]


def jsonl(rows=ROWS):
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    return "\n".join(lines) + "\n"


def delimited(separator):
    quoted = [text.replace('"', '""') for text, _ in ROWS]
    lines = [f'"{text}"{separator}{label}' for text, (_, label) in zip(quoted, ROWS, strict=True)]
    return "\n".join([f"text{separator}label", *lines]) + "\n"


CONTENTS = {".jsonl": jsonl(), ".csv": delimited(","), ".tsv": delimited("\t")}


def write(folder, name, content):
    file = folder / name
    content = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return file


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("suffix", CONTENTS)
def test_reads_every_kind_of_file(tmp_path, suffix, gz):
    file = write(tmp_path, f"train{suffix}{gz}", CONTENTS[suffix])
    data = load_classification(file)
    assert list(zip(data.texts, data.labels, strict=True)) == ROWS
    assert data.label_names == ["negative", "positive"]
    assert load_classification(tmp_path, split="train").texts == data.texts


def test_takes_windows_line_ends_a_byte_order_mark_blank_lines_and_number_labels(tmp_path):
    content = '\ufeff{"t": "a", "y": 0}\r\n\r\n{"t": "b", "y": 1}\r\n'
    data = load_classification(
        write(tmp_path, "x.jsonl", content), text_column="t", label_column="y"
    )
    assert (data.texts, data.labels) == (["a", "b"], ["0", "1"])


def test_a_csv_field_may_hold_line_breaks(tmp_path):
    file = write(tmp_path, "x.csv", 'text,label\n"one\ntwo",a\n')
    assert load_classification(file).texts == ["one\ntwo"]


def test_schemes_find_their_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(tmp_path))
    write(tmp_path, "x.jsonl", jsonl())
    assert shared_folder() == tmp_path
    assert load_classification("shared:x.jsonl").texts == [text for text, _ in ROWS]
    assert load_classification("package:sentiment", split="test").label_names


def test_head_and_fingerprint_follow_the_content():
    data = ClassificationData(["a", "b"], ["x", "y"], "one")
    assert data.head(1) == ClassificationData(["a"], ["x"], "one")
    assert data.head(9) == data
    assert len(data) == 2
    same = ClassificationData(["a", "b"], ["x", "y"], "two")
    other = ClassificationData(["a", "b"], ["y", "x"], "one")
    assert data.fingerprint() == same.fingerprint() != other.fingerprint()


# name of the file, its content, what the message must say
BAD_FILES = [
    ("x.jsonl", "", ["holds no examples"]),
    ("x.csv", "text,label\n", ["holds no examples"]),
    (
        "x.jsonl",
        b'{"text": "a", "label": "b"}\n{"text": "\xff"}',
        ["0xff at position 38", "line 2"],
    ),
    ("x.jsonl", b"\xef\xbb\xbf\xfe", ["0xfe at position 3"]),
    ("x.jsonl", jsonl() + "{oops}\n", ["line 4 is not JSON"]),
    ("x.jsonl", "[1]\n", ["line 1 is not a JSON object but list"]),
    ("x.jsonl", '{"sentence": "a", "label": "b"}', ["'text'", "['sentence', 'label']", "line 1"]),
    ("x.jsonl", '{"text": "a"}', ["'label'", "['text']"]),
    ("x.jsonl", '{"text": 7, "label": "b"}', ["not a text but 7"]),
    ("x.jsonl", '{"text": "a", "label": null}', ["there is no label"]),
    ("x.jsonl", '{"text": "a", "label": ["b"]}', ["not a label but ['b']"]),
    ("x.csv", "text,label\na,b\nc\n", ["line 3", "2 fields"]),
    ("x.csv", "text,label\na,b,c\n", ["line 2", "2 fields"]),
    ("x.csv", 'text,label\n"a,b\n', ["malformed"]),
    ("x.parquet", "", ["known kind", ".jsonl", ".csv", ".tsv"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path, name, content, parts):
    file = write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        load_classification(file)
    for part in [str(file), *parts]:
        assert part in str(caught.value)


def test_a_cut_gzip_file_is_refused(tmp_path):
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress(jsonl().encode())[:-9])
    with pytest.raises(InputError, match="not a whole gzip file"):
        load_classification(file)


def test_missing_files_and_misplaced_splits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(tmp_path))
    with pytest.raises(InputError, match="no data file .*absent.jsonl"):
        load_classification(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="LLAMA_KERAS_SHARED"):
        load_classification("shared:absent.jsonl")
    file = write(tmp_path, "x.jsonl", jsonl())
    with pytest.raises(InputError, match="one file"):
        load_classification(file, split="train")
    with pytest.raises(InputError, match="x.jsonl"):
        load_classification(tmp_path, split="dev")


@pytest.fixture
def sst2(shared_dir, monkeypatch):
    monkeypatch.setenv("LLAMA_KERAS_SHARED", str(shared_dir))
    return {"source": "tfds:glue/sst2", "text_column": "sentence"}


def test_tfds_gives_label_names_and_equals_the_plain_files(sst2, shared_dir):
    data = load_classification(**sst2, split="validation")
    plain = load_classification(shared_dir / "data/sst2", split="dev")
    assert len(data) == 872
    assert sorted(zip(data.texts, data.labels, strict=True)) == sorted(
        zip(plain.texts, plain.labels, strict=True)
    )


def test_tfds_mistakes_are_refused_with_the_names_that_there_are(sst2):
    with pytest.raises(InputError, match="there is no label"):
        load_classification(**sst2, split="test")  # labels hidden as -1
    with pytest.raises(InputError, match=r"'train', 'validation', 'test'"):
        load_classification(**sst2, split="dev")
    with pytest.raises(InputError, match=r"\['sentence', 'label', 'idx'\]"):
        load_classification(sst2["source"], split="validation")
    with pytest.raises(InputError, match="no set 'there_is_none'"):
        load_classification("tfds:there_is_none", split="train")


def test_several_text_columns_are_joined(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "Is it?", "passage": "It is.", "label": "yes"}\n')
    data = load_classification(file, text_column=["question", "passage"])
    assert data.texts == ["Is it?\nIt is."]
    with pytest.raises(InputError, match="body"):
        load_classification(file, text_column=["question", "body"])
