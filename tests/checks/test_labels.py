def test_counts_by_part_and_label(check, labelled):
    finding = check(
        "text_classification", train=labelled("x", a=12, b=10), test=labelled("y", a=1)
    )["counts"]
    assert finding.message == "train 22 (a 12, b 10); test 1 (a 1)"
    assert finding.details["train"] == {"examples": 22, "labels": {"a": 12, "b": 10}}


def test_many_labels_are_counted_in_short(check):
    rows = [{"text": f"{n}", "label": f"label {n}"} for n in range(15)]
    assert check("text_classification", train=rows)["counts"].message.endswith("3 more labels)")


def test_labels_unseen_in_training(check, labelled):
    found = check(
        "text_classification", train=labelled("x", a=10, b=10), test=labelled("y", a=1, c=2)
    )
    assert (found["labels"].level, found["labels"].count) == ("fail", 2)
    assert found["labels"].message == "2 held-out examples have ['c'], which are not in train"
    assert found["labels"].examples[0] == ("test, line 2", "c: “y c number 0”")
    assert found["recipe"].level == "fail" and "'c'" in found["recipe"].message


def test_labels_of_the_recipe_that_nothing_has(check, labelled):
    rows = labelled("x", a=10, b=10)
    finding = check("text_classification", "labels=[a, b, c]", train=rows)["labels"]
    assert (finding.level, finding.message) == ("warn", "train has no example of ['c']")
    finding = check("text_classification", "labels=[a, c]", train=rows)["labels"]
    assert (finding.level, finding.count) == ("fail", 10 + 1)


def test_labels_that_look_alike(check, labelled):
    rows = [*labelled("x", a=10, b=10), {"text": "y", "label": "A "}]
    finding = check("text_classification", train=rows)["labels"]
    assert (finding.level, finding.message[:12]) == ("warn", "'A ' and 'a'")


def test_imbalance(check, labelled):
    found = check("text_classification", train=labelled("x", a=100, b=10))
    assert found["balance"].level == "warn"
    assert found["balance"].details == {"ratio": 10.0, "most": "a", "least": "b"}
    assert check("text_classification", train=labelled("x", a=99, b=10))["balance"].level == "good"
    assert check("text_classification", train=labelled("x", a=10, b=9))["balance"].level == "warn"


def test_settings_that_do_not_go_with_the_data(check):
    rows = [{"question": "Who?", "context": "Nobody knows.", "answers": []}]
    found = check("question_answering", train=rows)
    assert found["recipe"].level == "fail" and "null_answers" in found["recipe"].message
    found = check("question_answering", "answers.null_answers=true", train=rows)
    assert found["recipe"].level == "good"
    assert found["counts"].message == "train 1 (1 contexts, 1 without an answer)"
