import pytest

CONTEXT = "Ann lives in Rome. Bob lives in Oslo."


def questions(*answers):
    good = {"question": "Who?", "context": CONTEXT, "answers": [{"text": "Ann", "answer_start": 0}]}
    return [good] * 20 + [
        {"question": "Where?", "context": CONTEXT, "answers": [{"text": text, "answer_start": at}]}
        for text, at in answers
    ]


def test_answers_at_their_offsets(check):
    found = check("question_answering", train=questions(("Oslo", 32)))
    assert found["answers"].level == "good"
    assert found["answers"].message == "of 21 answers all are at their offset"


@pytest.mark.parametrize(
    ("text", "at", "kind", "left_out"),
    [
        ("Oslo", 31, "elsewhere in the context", 0),
        ("Oslo", -1, "elsewhere in the context", 0),
        ("Bergen", 3, "not in the context", 1),
        (" ", 3, "empty", 1),
    ],
)
def test_answers_elsewhere(check, text, at, kind, left_out):
    finding = check("question_answering", train=questions((text, at)))["answers"]
    assert (finding.level, finding.count) == ("warn", 1)
    assert finding.details == {kind: 1, "questions without a found answer": left_out}
    assert finding.examples == (("train, line 21", f"“{text}” at {at}"),)


def test_many_lost_answers_fail(check):
    finding = check("question_answering", train=questions(*[("Bergen", 1)] * 20))["answers"]
    assert finding.level == "fail"


def test_an_offset_outside_of_the_context_is_refused_and_the_rest_read(check):
    found = check("question_answering", train=questions(("Oslo", 99), ("Oslo", 31)))
    assert (found["rows"].level, found["rows"].count) == ("fail", 1)
    ((place, reason),) = found["rows"].examples
    assert place == "train, line 21" and "answer_start=99 is outside" in reason
    assert found["answers"].examples[0][0] == "train, line 22"


def test_long_answers(check):
    rows = questions((CONTEXT, 0))
    settings = ["answers.max_answer_tokens=8"]
    finding = check("question_answering", *settings, train=rows)["answer lengths"]
    assert (finding.level, finding.count) == ("warn", 1)
    # Each byte of the toy's vocabulary may be a token, so only the order is sure.
    assert 0 < finding.details["median"] <= 8 < finding.details["max"]
    assert finding.examples[0][0] == "train, line 21"
    finding = check("question_answering", train=questions())["answer lengths"]
    assert (finding.level, finding.count) == ("good", 0)


def test_squad_files_name_article_paragraph_and_question(check):
    qas = [{"id": f"{n}", "question": "Who?", "answers": [{"text": "Ann", "answer_start": n}]}
           for n in range(2)]  # fmt: skip
    tree = {"data": [{"paragraphs": [{"context": CONTEXT, "qas": qas}]}]}
    found = check("question_answering", suffix=".json", train=tree)
    assert found["answers"].examples[0][0] == "train, article 0, paragraph 0, question 1"
    qas[1]["id"] = "0"
    found = check("question_answering", suffix=".json", train=tree)
    assert "that of article 0, paragraph 0, question 0 too" in found["rows"].examples[0][1]


def test_a_context_of_two_parts(check):
    rows = questions()
    found = check("question_answering", train=rows[:1], test=[{**rows[0], "question": "Which?"}])
    assert (found["overlap"].level, found["shared texts"].level) == ("good", "warn")
