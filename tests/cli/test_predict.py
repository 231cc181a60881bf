import pytest

from llama_keras.cli.predict import _print


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"label": "good", "score": 0.5, "scores": [0.5, 0.5]}, "good\t0.5000\tA day."),
        ({"text": "and\na night", "finish_reason": "stop"}, "and a night\tA day."),
        ({"label": ["PER"], "score": [0.5], "start": [0]}, '["PER"]\t[0.5]\t[0]\tA day.'),
        ({"vector": [0.25, 1.0]}, "[0.25, 1.0]\tA day."),
    ],
)
def test_each_kind_of_answer_is_one_line(capsys, row, line):
    _print(["A day."], [row], as_json=False)
    assert capsys.readouterr().out == line + "\n"


def test_json_names_the_text_so_that_no_output_is_hidden(capsys):
    _print(["Once"], [{"text": "upon"}], as_json=True)
    assert capsys.readouterr().out == '[{"prompt": "Once", "text": "upon"}]\n'
