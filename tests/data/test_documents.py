import gzip

import pytest

from llama_keras.data.documents import load_documents
from llama_keras.errors import InputError


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("One line.\n\n  \n 第二行 \u2028 still it\nlast", encoding="utf-8")
    return file


def test_a_line_is_a_document_and_blank_lines_are_counted(text_file):
    found = load_documents(text_file)
    assert found.texts == ["One line.", "第二行 \u2028 still it", "last"]
    assert (len(found), found.blank, found.source) == (3, 2, str(text_file))


def test_several_sources_gzipped_or_labelled_follow_each_other(text_file, tmp_path):
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(b"packed one\npacked two\n"))
    found = load_documents([text_file, packed, "package:sentiment/train.jsonl"], limit=1)
    assert found.texts[:2] == ["One line.", "packed one"] and len(found) == 3
    assert found.blank == 2


def test_bad_input(tmp_path):
    blank = tmp_path / "blank.txt"
    blank.write_text("\n\n")
    with pytest.raises(InputError, match="blank.txt holds no text"):
        load_documents(blank)
    with pytest.raises(InputError, match="There is no data file"):
        load_documents(tmp_path / "none.txt")
    with pytest.raises(InputError, match="is of no known kind"):
        other = tmp_path / "a.docx"
        other.write_bytes(b"x")
        load_documents(other)
    with pytest.raises(InputError, match="is not UTF-8"):
        blank.write_bytes(b"\xff\xfe")
        load_documents(blank)
    with pytest.raises(InputError, match="list of sources holds no text"):
        load_documents([])
