import pytest

from llama_keras.errors import InputError
from llama_keras.eval.qa_metrics import (
    RULES,
    answer_scores,
    best_null_threshold,
    compute_answer_metrics,
    normalize_cmrc,
    normalize_squad,
)
from llama_keras.tasks.question_answerer import ANSWER_RULES


def test_rules_are_those_that_models_name():
    assert tuple(RULES) == ANSWER_RULES
    with pytest.raises(InputError, match="rule='no' is not known"):
        answer_scores("a", ["a"], rule="no")


def test_normal_forms():
    assert normalize_squad("  The  Cat's\n(an) apple! ") == "cats apple"
    assert normalize_squad("Atheneum, theatre") == "atheneum theatre"
    assert normalize_cmrc(" 《红楼梦》，Ab-c ") == "红楼梦abc"


@pytest.mark.parametrize(
    ("predicted", "expected", "exact", "f1"),
    [
        ("The Eiffel Tower", ["Eiffel tower"], 1, 1),
        ("in Paris", ["Paris", "Lyon"], 0, 2 / 3),  # 1 common of 2 and 1
        ("a b c d", ["x"], 0, 0),
        ("red red blue", ["red blue blue"], 0, 2 / 3),  # 2 common of 3 and 3
        ("", [], 1, 1),
        ("", ["Paris"], 0, 0),
        ("Paris", [], 0, 0),
        ("Paris", ["the", "Paris"], 1, 1),  # an answer of articles alone is none
        ("the", [], 1, 1),
    ],
)
def test_squad_by_hand(predicted, expected, exact, f1):
    assert answer_scores(predicted, expected) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("predicted", "expected", "exact", "f1"),
    [
        ("1980年。", ["1980年"], 1, 1),
        ("北京大学", ["大学"], 0, 2 * 2 / 6),  # run of 2 in 4 and 2
        ("北大京学", ["北京大学"], 0, 2 * 1 / 8),  # common characters, but no run above 1
        ("在Windows 10上", ["Windows 10"], 0, 2 * 2 / 6),  # 在 windows 10 上
        ("3.5公里", ["3.5 公里"], 0, 1),  # spaces count for exact match only
        ("上海", ["北京", "上海市"], 0, 2 * 2 / 5),
        ("", ["北京"], 0, 0),
        ("", [], 1, 1),
    ],
)
def test_cmrc_by_hand(predicted, expected, exact, f1):
    assert answer_scores(predicted, expected, rule="cmrc") == pytest.approx((exact, f1))


def test_means_and_intervals():
    expected = [["a cat"], ["dog"], [], []]
    found = compute_answer_metrics(expected, ["cat", "big dog", "", "x"])
    values = {name: metric.value for name, metric in found.items()}
    assert values == pytest.approx(
        {
            "exact_match": 0.5,
            "f1": (1 + 2 / 3 + 1 + 0) / 4,
            "has_answer_f1": (1 + 2 / 3) / 2,
            "no_answer_accuracy": 0.5,
        }
    )
    for metric in found.values():
        assert metric.low <= metric.value <= metric.high
    assert found == compute_answer_metrics(expected, ["cat", "big dog", "", "x"])
    many = compute_answer_metrics([["a"]] * 400, ["a", "b"] * 200)
    # The normal approximation's half width: 1.96 * sqrt(0.25 / 400) = 0.049. "a" is an article.
    assert many.keys() == {"exact_match", "f1", "no_answer_accuracy"}
    words = compute_answer_metrics([["x"]] * 400, ["x", "y"] * 200)["exact_match"]
    assert words.value == 0.5 and abs(words.high - 0.549) < 0.01 and abs(words.low - 0.451) < 0.01
    with pytest.raises(InputError, match="data set is empty"):
        compute_answer_metrics([], [])


def test_threshold_by_hand():
    # Three questions with an answer that the span finds, one without, whose null score is 0.6.
    gains = [(1, 0), (1, 0), (0, 1), (1, 0)]
    assert best_null_threshold([0.1, 0.2, 0.6, 0.3], gains) == pytest.approx(0.45)
    assert best_null_threshold([0.1, 0.2], [(0, 1), (0, 1)]) == pytest.approx(0.05)
    assert best_null_threshold([0.1, 0.9], [(1, 0), (1, 0)]) == 1.0
    # Equal scores stay on one side, whatever is gained by parting them.
    assert best_null_threshold([0.5, 0.5, 0.8], [(1, 0), (0, 1), (0, 1)]) in (0.25, 0.65)
