import gzip
import json

import pytest

from llama_keras.data import load_question_answering
from llama_keras.errors import InputError

CONTEXT = "Ana grew up near Lima. 今天天气很好。"
ANSWER = {"text": "Lima", "answer_start": 17}


def squad(*questions, context=CONTEXT):
    return {"version": "1.1", "data": [{"paragraphs": [{"context": context, "qas": questions}]}]}


def question(**changes):
    return {"id": "q1", "question": "Where?", "answers": [ANSWER], **changes}


def write(path, content):
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_squad_files_of_both_versions(tmp_path, name):
    no_answer = question(id="q2", is_impossible=True, answers=[], plausible_answers=[ANSWER])
    found = load_question_answering(write(tmp_path / name, squad(question(), no_answer)))
    assert found.examples == [
        {"id": "q1", "question": "Where?", "context": CONTEXT, "answers": [ANSWER]},
        {"id": "q2", "question": "Where?", "context": CONTEXT, "answers": []},
    ]
    assert (len(found), found.unanswerable, len(found.head(1))) == (2, 1, 1)
    assert found.fingerprint() != found.head(1).fingerprint()


def test_lines_and_folders(tmp_path):
    lines = [{"question": "Where?", "context": CONTEXT, "answers": [ANSWER]}] * 2
    write(tmp_path / "dev.jsonl.gz", "\n".join(map(json.dumps, lines)))
    found = load_question_answering(tmp_path, split="dev")
    assert [row["id"] for row in found.examples] == ["line 1", "line 2"]
    assert found.source.endswith("/dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (squad(question(id=None)), "article 0, paragraph 0, question 0: id is missing"),
        (squad(question(), context=" "), "context is missing or empty; it is ' '"),
        (squad(question(question="")), "question is missing"),
        (squad(question(answers=[{"text": "x", "answer_start": 99}])), "answer_start=99 is out"),
        (squad(question(answers=[{"text": "x", "answer_start": -2}])), "answer_start=-2 is out"),
        (squad(question(answers=[{"text": "x", "answer_start": True}])), "received"),
        (squad(question(answers=None)), "answers is not a list but None"),
        (squad(question(), question()), "the id 'q1' is that of article 0.*too"),
        (squad("no"), "question 0 is no object"),
        (squad(), "holds no questions"),
        ({"data": [{}]}, "article 0: there is no list 'paragraphs'"),
        ([], "there is no list 'data'"),
        ("{", "is not JSON"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        load_question_answering(write(tmp_path / "a.json", content))


def test_missing_files_splits_and_kinds(tmp_path):
    with pytest.raises(InputError, match="There is no data file"):
        load_question_answering(tmp_path / "a.json")
    with pytest.raises(InputError, match="no split 'dev'"):
        load_question_answering(tmp_path, split="dev")
    with pytest.raises(InputError, match="one of"):
        load_question_answering(write(tmp_path / "a.csv", "x"))
    with pytest.raises(InputError, match="is one file"):
        load_question_answering(write(tmp_path / "a.json", squad()), split="dev")


def test_real_sets_have_the_counts_of_their_readme(shared_dir):
    cmrc = load_question_answering(shared_dir / "data/cmrc2018", split="dev")
    answers = [(row["context"], a) for row in cmrc.examples for a in row["answers"]]
    wrong = [a for c, a in answers if not c.startswith(a["text"], max(a["answer_start"], 0))]
    assert (len(cmrc), len(answers)) == (3219, 9657)
    unknown = sum(a["answer_start"] == -1 for _, a in answers)
    assert unknown == 193 and len(wrong) >= 7
    reviews = load_question_answering(shared_dir / "data/subjqa_electronics/test.json")
    assert (len(reviews), reviews.unanswerable) == (358, 128)


def test_tensorflow_datasets(shared_dir):
    found = load_question_answering("tfds:xquad/zh", split="test", data_dir=shared_dir / "tfds")
    file = load_question_answering(shared_dir / "data/xquad/test.zh.json")
    by_id = {row["id"]: row for row in file.examples}
    assert len(found) == 1190
    assert all(row == by_id[row["id"]] for row in found.examples)
