import inspect
import json
import re

import pytest
import tensorflow as tf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.text import cleaning as module
from llama_keras.text.cleaning import STEPS, Cleaning, get_cleaning, get_step, step_config
from llama_keras.text.cleaning_steps import Lower, Normalize, RemovePunctuation
from tests.text.strings import generate

QUICK = settings(max_examples=60, deadline=None)
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=6)
SETTINGS = [
    {"name": "normalize", "form": "NFKD"},
    "lower",
    {"name": "strip_html", "replacement": ""},
    "remove_urls",
    {"name": "remove_punctuation", "keep": "-'", "replacement": "\\1"},
    {"name": "remove_special_characters", "keep": "€"},
    {"name": "remove_stop_words", "language": "zh", "add": ["电影"], "keep": ["我"]},
    "collapse_whitespace",
]


@QUICK
@given(texts=TEXTS)
def test_all_steps_together_clean_each_text_alone(texts):
    cleaning = Cleaning(SETTINGS)
    found = cleaning.clean(texts)
    assert found == [cleaning.clean([text])[0] for text in texts]
    # White space comes last, so nothing is left for it.
    assert found == Cleaning(["collapse_whitespace"]).clean(found)


def test_steps_are_carried_out_in_their_order():
    text = "It's a <b>test</b>"
    first = Cleaning(["remove_stop_words", "remove_punctuation"]).clean([text])
    second = Cleaning(["remove_punctuation", "remove_stop_words"]).clean([text])
    assert (first, second) == ([" b test  b "], ["s  b test  b "])
    assert Cleaning(["lower", "normalize"]) != Cleaning(["normalize", "lower"])


def test_tensors_of_any_shape():
    cleaning = Cleaning(["lower", "normalize", "remove_stop_words", "strip_html"])
    assert cleaning(tf.constant("É")).numpy() == "é".encode()
    table = cleaning(tf.constant([["C", "É"], ["the B", ""]]))
    assert table.numpy().tolist() == [[b"c", "é".encode()], [b"b", b""]]
    rows = cleaning(tf.ragged.constant([["C"], [], ["B", "É"]]))
    assert rows.to_list() == [[b"c"], [], [b"b", "é".encode()]]
    assert cleaning(tf.zeros([0], tf.string)).shape == [0]
    assert cleaning(["C"]).numpy().tolist() == [b"c"]


@pytest.mark.parametrize("step", STEPS)
def test_static_shapes_are_known_inside_a_graph(step):
    run = tf.function(Cleaning([step]), input_signature=[tf.TensorSpec([None, 3], tf.string)])
    assert run.get_concrete_function().output_shapes.as_list() == [None, 3]


@pytest.mark.parametrize("step", STEPS)
def test_invalid_utf8_empty_and_nul_are_defined_for_every_step(step):
    cleaning = Cleaning([step])
    raw = [b"a\xffb\xc3", b"", b"\xed\xa0\x80", "x\0é".encode(), b"\xf4\x90\x80\x80"]
    found = [text.decode() for text in cleaning(tf.constant(raw)).numpy()]
    assert found == cleaning.clean([text.decode("utf-8", "replace") for text in raw])
    assert found[1] == ""
    assert found[3] == ("xé" if step == "remove_special_characters" else "x\0é")
    assert ("\ufffd" in found[0]) == (step != "remove_special_characters")
    assert cleaning.clean(["\ud800a"]) == cleaning.clean(["\ufffda"])  # Python's lone surrogates


def test_no_steps_change_nothing_not_even_invalid_bytes():
    assert Cleaning()(tf.constant([b"\xff A"])).numpy().tolist() == [b"\xff A"]
    assert Cleaning([]).clean(["A "]) == ["A "]
    assert Cleaning().preserves_offsets


KEEPING = [
    ["lower"],
    ["remove_punctuation"],
    ["lower", {"name": "remove_special_characters", "replacement": "\u3000"}, "remove_punctuation"],
]


@QUICK
@given(texts=TEXTS)
@pytest.mark.parametrize("steps", KEEPING)
def test_offsets_hold_where_they_are_promised(steps, texts):
    cleaning = Cleaning(steps)
    assert cleaning.preserves_offsets
    for text, found in zip(texts, cleaning.clean(texts), strict=True):
        assert len(found) == len(text)
        # Each character stands for the one in its place.
        assert "".join(cleaning.clean(list(text))) == found


@pytest.mark.parametrize("step", [step for step in SETTINGS if step != "lower"], ids=str)
def test_no_promise_of_offsets_where_they_move(step):
    assert not Cleaning(["lower", step]).preserves_offsets


@pytest.mark.parametrize("step", SETTINGS, ids=str)
def test_every_step_comes_back_from_its_config(step):
    cleaning = Cleaning([step])
    config = cleaning.get_config()
    for again in (config, json.loads(json.dumps(config)), yaml.safe_load(yaml.safe_dump(config))):
        assert Cleaning.from_config(again) == cleaning
        assert get_cleaning(again) == cleaning
    assert step_config(step) == config["steps"][0]
    assert get_step(step_config(step)) == cleaning.steps[0]
    texts = generate(20, seed=1)
    assert Cleaning.from_config(config).clean(texts) == cleaning.clean(texts)


def test_config_tells_every_setting():
    config = Cleaning(["normalize", Lower(), RemovePunctuation(keep="-")]).get_config()
    assert config == {
        "steps": [
            {"name": "normalize", "form": "NFC"},
            {"name": "lower"},
            {"name": "remove_punctuation", "replacement": " ", "keep": "-"},
        ]
    }


def test_all_ways_to_say_a_cleaning():
    cleaning = Cleaning([Normalize(form="NFKC"), "lower"])
    assert get_cleaning(None) is None
    assert get_cleaning(cleaning) is cleaning
    assert get_cleaning([{"name": "normalize", "form": "NFKC"}, "lower"]) == cleaning
    assert get_cleaning([]) == Cleaning()


@pytest.mark.parametrize(
    ("cleaning", "message"),
    [
        ("lower", "a list of steps; received 'lower'.*remove_stop_words"),
        (3, "a list of steps; received 3"),
        ({"name": "lower"}, "described by {'steps'"),
        ([["lower"]], "a name or {name"),
        (["lower", "stem"], "no cleaning step 'stem'; expected one of .*'normalize', 'lower'"),
    ],
)
def test_what_is_no_cleaning_is_named(cleaning, message):
    with pytest.raises(InputError, match=message):
        get_cleaning(cleaning)


def test_docstring_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(Cleaning) or "", re.DOTALL)
    assert len(code.splitlines()) <= 12
    exec(code, dict(vars(module)))
