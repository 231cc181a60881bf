import pytest

from llama_keras.errors import InputError
from llama_keras.eval.generation_metrics import generation_metrics, signatures

RIGHT = ["the cat sat on the mat", "a dog runs over the wet grass"] * 10


def test_right_texts_have_full_scores():
    found = generation_metrics(RIGHT, RIGHT)
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(
        {"bleu": 100.0, "chrf": 100.0}
    )


def test_bleu_is_the_papers_formula():
    # 9 of 12 words, 7 of 10 pairs, 5 of 8 triples, 3 of 6 fours; found texts are not shorter.
    found = generation_metrics(
        ["the cat sat on the mat", "a b c d e f"], ["the cat sat on a rug", "a b c d e g"]
    )
    expected = 100 * (9 / 12 * 7 / 10 * 5 / 8 * 3 / 6) ** 0.25
    assert found["bleu"].value == pytest.approx(expected)
    assert found["bleu"].low <= found["bleu"].value <= found["bleu"].high


def test_empty_texts_are_counted_and_missing_ones_refused():
    assert generation_metrics(RIGHT, [""] * len(RIGHT))["chrf"].value == 0.0
    with pytest.raises(InputError, match="19 of 20"):
        generation_metrics(RIGHT, RIGHT[1:])
    with pytest.raises(InputError, match="0 of 0"):
        generation_metrics([], [])


def test_signatures_name_what_was_computed():
    found = signatures()
    assert "tok:13a" in found["bleu"] and "nc:6" in found["chrf"]
