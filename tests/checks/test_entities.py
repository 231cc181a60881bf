import pytest

GOOD = "Ann\tB-PER\nLee\tI-PER\nsings\tO\n\nRome\tB-LOC\n"


def conll(check, text, *overrides):
    return check("token_classification", *overrides, suffix=".conll", train=f"{GOOD}\n{text}")


def test_good_tags(check):
    found = conll(check, "Bob\tB-PER\n")
    assert found["tags"].level == "good" and "spans" not in found
    assert found["counts"].details["train"]["labels"] == {"PER": 2, "LOC": 1}


@pytest.mark.parametrize("tag", ["I-PER", "PER", "B-", "X-PER", "S-PER"])
def test_tags_outside_of_the_scheme(check, tag):
    found = conll(check, f"Bob\t{tag}\n")
    assert (found["tags"].level, found["tags"].details) == ("fail", {"misaligned": 0, "illegal": 1})
    assert found["tags"].examples[0][0] == "train, line 7"
    assert tag in found["tags"].examples[0][1]
    assert found["rows"].level == "fail"  # training refuses it too


def test_the_scheme_is_the_recipes(check):
    assert conll(check, "Bob\tI-PER\n", "data.tag_scheme=IOB1")["tags"].count == 2  # a B- each
    text = "Bob\tS-PER\n"
    found = check("token_classification", "data.tag_scheme=IOBES", suffix=".conll", train=text)
    assert found["tags"].level == "good"


def test_as_many_tags_as_words(check):
    rows = [{"text": ["Ann", "sings"], "spans": ["B-PER", "O"]}, {"text": ["Bob"], "spans": []}]
    finding = check("token_classification", train=rows)["tags"]
    assert (finding.level, finding.details) == ("fail", {"misaligned": 1, "illegal": 0})
    assert finding.examples == (("train, line 2", "1 words but 0 tags: “Bob”"),)


def test_a_type_unseen_in_training(check):
    found = check("token_classification", suffix=".conll", train=GOOD, test="Acme\tB-ORG\n")
    assert found["labels"].level == "fail"
    assert found["labels"].examples == (("test, line 1", "ORG: “Acme”"),)


TEXT = "Ann Lee sang in Rome."


def spans(check, *triples):
    rows = [
        {
            "text": TEXT,
            "spans": [dict(zip(("start", "end", "label"), t, strict=True)) for t in triples],
        }
    ]
    return check("token_classification", train=rows)["spans"]


def test_good_spans(check):
    finding = spans(check, (0, 7, "PER"), (16, 20, "LOC"))
    assert (finding.level, finding.message) == ("good", "of 2 spans all fit")


@pytest.mark.parametrize(
    ("triples", "level", "kind", "shown"),
    [
        ([(16, 99, "LOC")], "fail", "outside of the text or malformed", "characters 16 to 99"),
        ([(4, 4, "PER")], "fail", "outside of the text or malformed", "characters 4 to 4"),
        ([("0", 3, "PER")], "fail", "outside of the text or malformed", "no part of a text"),
        ([(0, 7, "PER"), (4, 7, "PER")], "warn", "overlapping", "Lee (4-7)"),
        ([(0, 2, "PER")], "warn", "beginning or ending within a word", "An (0-2)"),
        ([(17, 20, "LOC")], "warn", "beginning or ending within a word", "ome (17-20)"),
        ([(0, 4, "PER")], "warn", "with white space at an end", "Ann  (0-4)"),
    ],
)
def test_spans_that_do_not_fit(check, triples, level, kind, shown):
    finding = spans(check, *triples)
    assert (finding.level, finding.count, finding.details) == (level, 1, {kind: 1})
    assert finding.examples[0][0] == "train, line 1"
    assert shown in finding.examples[0][1]


def test_a_span_with_a_wrong_text(check):
    rows = [{"text": TEXT, "spans": [{"start": 0, "end": 3, "label": "PER", "text": "Lee"}]}]
    finding = check("token_classification", train=rows)["spans"]
    assert finding.level == "fail" and "should read 'Lee'" in finding.examples[0][1]


def test_chinese_has_no_words_to_cut(check):
    rows = [{"text": "他在北京工作", "spans": [{"start": 2, "end": 4, "label": "LOC"}]}]
    assert check("token_classification", train=rows)["spans"].level == "good"
