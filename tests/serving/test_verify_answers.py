import math

import pytest

from llama_keras.serving.verify_answers import Unlike, columns_of, difference


@pytest.mark.parametrize(
    ("recorded", "found", "largest"),
    [
        ({"a": [1.0, [2, "x"]]}, {"a": [1.5, [2, "x"]]}, 0.5),
        ([100.0], [101.0], 0.01),
        ([math.nan, math.inf], [math.nan, math.inf], 0.0),
        ([1.0], [math.nan], math.inf),
        ([math.inf], [1.0], math.inf),
        (["é"], [{"b64": "w6k="}], 0.0),
        ([True, None], [True, None], 0.0),
        ([], [], 0.0),
    ],
)
def test_difference(recorded, found, largest):
    assert difference(recorded, found) == pytest.approx(largest)


@pytest.mark.parametrize(
    ("recorded", "found", "reason"),
    [
        ({"label": ["a"]}, {"label": ["b"]}, r"label\[0\] is 'b' where 'a' was recorded"),
        ({"a": 1}, {"b": 1}, r"the answer has \['b'\] where \['a'\]"),
        ([1, 2], [1], "has 1 values where 2"),
        ([True], [1], r"\[0\] is 1 where True"),
        ([1], ["1"], r"\[0\] is '1' where 1"),
    ],
)
def test_answers_that_are_unlike(recorded, found, reason):
    with pytest.raises(Unlike, match=reason):
        difference(recorded, found)


def test_columns_of_rows():
    rows = {"predictions": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]}
    assert columns_of(rows, outputs=["a", "b"]) == {"a": [1, 2], "b": ["x", "y"]}
    assert columns_of({"predictions": [1, 2]}, outputs=["a"]) == {"a": [1, 2]}


@pytest.mark.parametrize("response", [{}, {"predictions": []}, {"predictions": [{"a": 1}]}])
def test_a_response_of_another_form(response):
    with pytest.raises(Unlike, match="the response"):
        columns_of(response, outputs=["a", "b"])
