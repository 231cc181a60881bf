import random

import pytest

from llama_keras.errors import InputError
from llama_keras.eval.shots import doc_words, share_of_words, shot_chooser
from llama_keras.eval.suite import Suite

DOCS = [{"n": n} for n in range(6)]


def suite_of(count, **shots):
    return Suite.model_validate(
        {"name": "toy", "data": {"source": "x"}, "shots": {"count": count, **shots}}
    )


def test_an_example_is_never_its_own_shot_and_the_draw_is_its_own():
    choose = shot_chooser(suite_of(5), DOCS, None)
    for number in range(len(DOCS)):
        assert sorted([*choose(number), number]) == list(range(len(DOCS)))
    again = shot_chooser(suite_of(5), DOCS, None)
    assert [again(n) for n in reversed(range(6))] == [choose(n) for n in reversed(range(6))]
    other = shot_chooser(suite_of(5, seed=1), DOCS, None)
    assert [other(n) for n in range(6)] != [choose(n) for n in range(6)]


def test_shots_of_a_pool_may_be_all_of_it():
    pool = DOCS[:3]
    choose = shot_chooser(suite_of(2), DOCS, pool)
    assert all(len(set(choose(n))) == 2 and max(choose(n)) < 3 for n in range(6))
    assert shot_chooser(suite_of(3), DOCS, pool)(5) == [0, 1, 2]


def twins(count):
    """Sentences two by two that differ in one word, which turns the answer round."""
    rows = []
    for n in range(count):
        words = " ".join(f"w{n}x{at}" for at in range(8))
        for ending in ("small", "large"):
            rows.append({"context": f"{words} was too", "choices": ["a", "b"], "end": ending})
    return rows


def test_the_twin_of_what_is_asked_is_no_shot():
    docs = twins(3)
    choose = shot_chooser(suite_of(4), docs, None)
    for number in range(6):
        assert sorted([*choose(number), number, number ^ 1]) == list(range(6))
    # A pool may have it, too; and where all are alike there is no other choice.
    pooled = shot_chooser(suite_of(3), docs[:1], docs)
    assert not {0, 1} & set(pooled(0))
    alike = [{"text": "the same words again"} for _ in range(200)]
    found = shot_chooser(suite_of(5), alike, None)(7)
    assert len(set(found)) == 5 and 7 not in found


def test_draws_without_twins_are_as_they_were():
    docs = [{"text": f"w{n}"} for n in range(500)]
    choose = shot_chooser(suite_of(5), docs, None)
    for number in (0, 3, 499):
        drawn = random.Random(f"0/{number}").sample(range(500), 6)
        assert choose(number) == [shot for shot in drawn if shot != number][:5]


def test_words_of_scripts_without_blanks_are_characters():
    a, b = (
        {"passage": text, "n": 3, "choices": ["甲"]} for text in ("今天天气很好", "今天天气很坏")
    )
    assert doc_words(a) == set("今天气很好甲")
    assert share_of_words(doc_words(a), doc_words(b)) == 5 / 7
    assert share_of_words(set(), set()) == 0.0


@pytest.mark.parametrize(("count", "pool"), [(6, None), (4, DOCS[:3])])
def test_too_many_are_refused(count, pool):
    with pytest.raises(InputError, match=f"asks for {count} worked examples"):
        shot_chooser(suite_of(count), DOCS, pool)
