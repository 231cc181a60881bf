import pytest

from llama_keras.errors import InputError
from llama_keras.eval.shots import shot_chooser
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


@pytest.mark.parametrize(("count", "pool"), [(6, None), (4, DOCS[:3])])
def test_too_many_are_refused(count, pool):
    with pytest.raises(InputError, match=f"asks for {count} worked examples"):
        shot_chooser(suite_of(count), DOCS, pool)
