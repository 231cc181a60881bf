import itertools

import numpy as np
import pytest

from llama_keras.serving import SavedModel
from tests.serving.fresh_process import c_api_answers
from tests.serving.writer import (
    DEFAULTS,
    PROMPTS,
    SETTINGS,
    writer_folder,
    writer_model,
    writer_saved,
)

STATE = ("cache", "padding", "last_token", "step", "done", "max_new_tokens")


@pytest.fixture(scope="module")
def model():
    return writer_model()


@pytest.fixture(scope="module")
def saved():
    return writer_saved()


def stepwise(run, ids, *, steps, **settings):
    """The outputs of `prefill` and then of `decode`, so many steps a call, put together."""
    length = max(map(len, ids))
    columns = {name: [value] * len(ids) for name, value in DEFAULTS.items()} | settings
    found = run(
        "prefill",
        token_ids=[[0] * (length - len(row)) + row for row in ids],
        padding_mask=[[0] * (length - len(row)) + [1] * len(row) for row in ids],
        **columns,
    )
    parts = {name: [np.asarray(found[name])] for name in ("token_ids", "log_probability")}
    counts = itertools.cycle(steps)
    while not np.all(found["done"]):
        state = {name: found[name] for name in STATE}
        found = run("decode", **{**columns, **state}, steps=[next(counts)] * len(ids))
        for name, part in parts.items():
            part.append(np.asarray(found[name]))
    return {name: np.concatenate(part, axis=1) for name, part in parts.items()}


@pytest.mark.parametrize("kind", SETTINGS)
def test_prefill_and_decode_give_the_tokens_of_generate(model, saved, kind):
    ids = model._encode(PROMPTS)
    expected = model.generate(PROMPTS, **SETTINGS[kind])
    found = stepwise(saved.run, ids, steps=[1, 3, 16, 2], **SETTINGS[kind])
    for row, answer in enumerate(expected):
        made = [id_ for id_ in found["token_ids"][row].tolist() if id_ >= 0]
        assert made[: len(answer.token_ids)] == answer.token_ids
        assert set(made[len(answer.token_ids) :]) <= set(model.tokenizer.end_ids)
        values = found["log_probability"][row, : len(answer.token_ids)]
        np.testing.assert_allclose(values, answer.log_probabilities, atol=1e-4)


def test_rows_of_other_streams_and_stopped_rows_change_nothing(model, saved):
    settings = {"max_new_tokens": [12, 12], "temperature": [1.0, 1.0], "seed": [1, 2]}
    columns = {name: [value] * 2 for name, value in DEFAULTS.items()} | settings
    ids = model.tokenizer.encode("abc")
    first = saved.run("prefill", token_ids=[ids] * 2, padding_mask=[[1] * 3] * 2, **columns)
    state = {**columns, **{name: first[name] for name in STATE}}
    both = saved.run("decode", **state, steps=[9, 5])
    assert both["token_ids"].shape == (2, 5)
    alone = {name: values[1:] for name, values in state.items()}
    one = saved.run("decode", **alone, steps=[5])
    assert one["token_ids"].tolist() == both["token_ids"][1:].tolist()
    state["done"] = np.array([True, False])
    stopped = saved.run("decode", **state, steps=[5, 5])["token_ids"].tolist()
    assert stopped == [[-1] * 5, both["token_ids"][1].tolist()]


def test_the_steps_run_through_the_c_api(model):
    ids = model._encode(PROMPTS[:3])

    def run(signature, **columns):
        plain = {name: np.asarray(values).tolist() for name, values in columns.items()}
        return c_api_answers(writer_folder(), plain, signature=signature)

    settings = {"max_new_tokens": [4] * 3, "temperature": [0.0, 0.7, 1.0], "seed": [0, 1, 2]}
    found = stepwise(run, ids, steps=[8], **settings)
    answers = model.generate(PROMPTS[:3], **settings)
    made = [[id_ for id_ in row if id_ >= 0] for row in found["token_ids"].tolist()]
    assert made == [answer.token_ids for answer in answers]


def test_steps_without_xla_give_the_same_tokens(model, tmp_path):
    saved = SavedModel(model.export(tmp_path / "name", jit_compile=False))
    settings = {"max_new_tokens": [40], "temperature": [1.0], "seed": [5]}
    found = stepwise(saved.run, model._encode(["x"]), steps=[3], **settings)
    (answer,) = model.generate(["x"], **settings)
    assert found["token_ids"][0].tolist()[: len(answer.token_ids)] == answer.token_ids
