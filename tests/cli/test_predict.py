import pytest
import tensorflow as tf

from llama_keras.cli.predict import _print, answer
from llama_keras.errors import InputError
from llama_keras.serving.server import serve_in_background


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    """A SavedModel that joins two strings."""

    class Join(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, n) for n in "ba"])
        def join(self, b, a):
            return {"joined": tf.strings.join([a, b], "+")}

    module, folder = Join(), tmp_path_factory.mktemp("models") / "join"
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": module.join})
    return folder


def test_texts_of_several_inputs_are_json_objects(two_inputs):
    asked = ['{"a": "x", "b": "y"}', '{"b": "é", "a": "{"}']
    wanted = [{"joined": "x+y"}, {"joined": "{+é"}]
    assert answer(str(two_inputs), asked) == wanted
    with serve_in_background(two_inputs) as url:
        assert answer(url, asked) == wanted
        with pytest.raises(InputError, match="no signature 'poem'"):
            answer(url, asked, signature="poem")
    with pytest.raises(InputError, match=r'\{"a": "…", "b": "…"\}'):
        answer(str(two_inputs), ["x"])
    with pytest.raises(InputError, match="is no JSON object"):
        answer(str(two_inputs), ["{a: 1}"])


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
