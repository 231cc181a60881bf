import pytest


def test_clean_data_are_all_good(check, labelled):
    parts = {name: labelled(name, a=20, b=20) for name in ("train", "validation", "test")}
    found = check("text_classification", **parts)
    assert {name: finding.level for name, finding in found.items()} == dict.fromkeys(
        ("rows", "recipe", "counts", "empty", "duplicates", "overlap", "conflicts", "labels",
         "balance", "lengths", "characters"),
        "good",
    )  # fmt: skip
    assert [finding.count for name, finding in found.items() if name != "counts"] == [0] * 10


@pytest.mark.parametrize("text", ["", " \t\n", "\u3000", "\u200b\ufeff"])
def test_empty_texts(check, labelled, text):
    rows = labelled("x", a=10, b=10)
    finding = check("text_classification", train=[*rows, {"text": text, "label": "a"}])["empty"]
    assert (finding.level, finding.count) == ("warn", 1)
    assert finding.examples[0][0] == "train, line 21"


def test_overlap_is_seen_through_normal_forms_and_white_space(check, labelled):
    train = [*labelled("x", a=10, b=10), {"text": "Caf\u00e9  au lait ", "label": "a"}]
    test = [*labelled("y", a=10, b=10), {"text": " Cafe\u0301 au\nlait", "label": "a"}]
    found = check("text_classification", train=train, test=test)
    assert (found["overlap"].level, found["overlap"].count) == ("warn", 1)
    assert found["overlap"].details == {"test in train": 1}
    assert found["overlap"].examples[0][0] == "test, line 21 = train, line 21"
    assert found["duplicates"].count == found["conflicts"].count == 0


def test_the_same_file_twice_fails(check, labelled):
    rows = labelled("x", a=10, b=10)
    found = check("text_classification", train=rows, validation=labelled("y", a=5, b=5), test=rows)
    assert found["overlap"].level == "fail"
    assert found["overlap"].details == {
        "validation in train": 0,
        "test in train": 20,
        "test in validation": 0,
    }


def test_one_part_has_no_overlap(check, labelled):
    assert "overlap" not in check("text_classification", train=labelled("x", a=10, b=10))


def test_repeats_and_contradictions(check, labelled):
    rows = labelled("x", a=10, b=10)
    again = {"text": " x a  number 0", "label": "a"}
    found = check("text_classification", train=[*rows, again])
    assert (found["duplicates"].level, found["duplicates"].count) == ("warn", 1)
    assert found["duplicates"].examples[0][0] == "train, line 21 = line 1"
    assert found["conflicts"].count == 0
    found = check("text_classification", train=[*rows, {**again, "label": "b"}])
    assert (found["conflicts"].level, found["conflicts"].count) == ("warn", 1)
    assert found["conflicts"].examples == (
        ("train, line 1 ≠ train, line 21", "“x a number 0”: a ≠ b"),
    )


def test_sets_of_labels_contradict_whatever_their_order(check):
    rows = [{"text": "x", "label": ["a", "b"]}, {"text": "x", "label": ["b", "a"]}]
    found = check("text_classification", "model.multi_label=true", train=rows)
    assert found["conflicts"].count == 0
    found = check(
        "text_classification", "model.multi_label=true", train=[*rows, rows[0] | {"label": []}]
    )
    assert found["conflicts"].count == 1


def test_the_same_passage_with_another_question(check):
    passage = "A long passage about the river and its banks."
    rows = [
        {"q": f"question {n}", "p": f"{passage} {n // 2}", "label": "ab"[n % 2]} for n in range(4)
    ]
    settings = ["model.pairs=true", "data.text_column=[q, p]"]
    found = check("text_classification", *settings, train=rows[::2], test=rows[1::2])
    assert found["overlap"].count == 0
    assert (found["shared texts"].level, found["shared texts"].count) == ("warn", 2)


def test_prompts_of_two_parts_overlap_whatever_the_response(check):
    train = [{"text": f"prompt {n}", "label": f"answer {n}"} for n in range(20)]
    test = [{"text": f"prompt {n}", "label": f"answer {n} too"} for n in range(19, 39)]
    found = check("causal_lm", train=train, test=test)
    assert (found["overlap"].level, found["overlap"].count) == ("warn", 1)
    assert "labels" not in found and "conflicts" not in found


def test_pairs_of_a_text_with_itself(check):
    rows = [{"anchor": f"question {n}", "positive": f"answer {n}"} for n in range(20)]
    assert check("embedding", train=rows)["pairs"].level == "good"
    rows[7]["positive"] = " question  7"
    finding = check("embedding", train=rows)["pairs"]
    assert (finding.level, finding.examples[0][0]) == ("warn", "train, line 8")


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("replacement characters", "na\ufffdve", "na\ufffdve"),
        ("control characters", "a bell\x07 rings", r"a bell\x07 rings"),
        ("lone surrogates", "half \ud83d of it", r"half \ud83d of it"),
        ("UTF-8 read as Latin-1", "cafÃ©", "cafÃ©"),
        ("UTF-8 read as Latin-1", "donâ€™t", "donâ€™t"),
        ("zero-width characters", "zero\u200bwidth", r"zero\u200bwidth"),
        ("zero-width characters", "mark\ufeff", r"mark\ufeff"),
        ("direction marks", "a\u202eb", r"a\u202eb"),
        ("HTML entities", "fish &amp; chips", "fish &amp; chips"),
        ("HTML entities", "news #36;5", "news #36;5"),
        ("mixed directions", "שלום world", "שלום world"),
    ],
)
def test_odd_characters(check, labelled, kind, text, shown):
    rows = [*labelled("x", a=10, b=10), {"text": text, "label": "a"}]
    finding = check("text_classification", train=rows)["characters"]
    assert (finding.level, finding.count, finding.details) == ("warn", 1, {kind: 1})
    assert finding.examples == (("train, line 21", f"“{shown}”"),)


@pytest.mark.parametrize(
    "text",
    ["naïve café", "line\nbreak\ttab", "👩\u200d💻", "שלום עולם", "好", "AT&T; Ã la carte", "C#"],
)
def test_usual_characters(check, labelled, text):
    rows = [*labelled("x", a=10, b=10), {"text": text, "label": "a"}]
    assert check("text_classification", train=rows)["characters"].level == "good"


def test_damage_everywhere_fails(check):
    rows = [{"text": f"{n}\ufffd", "label": "ab"[n % 2]} for n in range(20)]
    assert check("text_classification", train=rows)["characters"].level == "fail"
