import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.tasks import Denoiser

WORDS = ["red rose", "blue sky", "green leaf", "old oak"]


def make(**arguments):
    keras.utils.set_random_seed(0)
    arguments.setdefault("max_sequence_length", 32)
    return Denoiser.from_preset("llama-tiny", **arguments)


@pytest.fixture(scope="module")
def trained():
    model = make(corruption={"name": "random_deletion", "rate": 0.15})
    model.compile(learning_rate=1e-2)
    model.fit(WORDS * 16, epochs=25, batch_size=16, verbose=0)
    return model


def test_deleted_letters_come_back(trained):
    answers = trained.predict(["rd rose", "blue ky", "green laf", "old oak"])
    assert [answer["text"] for answer in answers] == WORDS
    assert {answer["finish_reason"] for answer in answers} == {"stop"}


def test_each_token_written_is_the_likeliest_after_what_stands_before_it(trained):
    """Decoding with a cache equals whole forward passes over prefix and text so far."""
    model, tokens = make(), trained.mask_tokens
    for variable in model.backbone.weights:
        variable.assign(variable * 4.0)
    prompts = {text: model.tokenizer.encode(text) for text in ("ab", "a longer one")}
    expected = []
    for prompt in prompts.values():
        row = [*prompt, tokens.separator_id]
        prefix = len(row)
        for _ in range(5):
            ids = np.array([row])
            mask = (np.arange(len(row)) < prefix).astype("int32")[None]
            hidden = model.backbone(
                {"token_ids": ids, "padding_mask": np.ones_like(ids), "prefix_mask": mask}
            )
            logits = model.backbone.token_embedding(hidden, reverse=True)
            row.append(int(np.argmax(logits[0, -1])))
            if row[-1] == tokens.end_id:
                break
        expected.append(model.tokenizer.decode(row[prefix:], skip_special_tokens=True))
    found = model.predict(list(prompts), max_new_tokens=5)
    assert [answer["text"] for answer in found] == expected


def test_empty_texts_and_long_ones(trained, caplog):
    answers = trained.predict(["", "old oak" * 10], max_new_tokens=2)
    assert answers[0] == {"text": "", "finish_reason": "stop"}
    assert answers[1]["finish_reason"] == "length"
    assert "1 of 2 texts were cut to 15 tokens" in caplog.text
    assert trained.predict([]) == []


def test_masks_may_stand_for_hidden_tokens():
    model = make(corruption={"name": "random_masking", "rate": 0.3, "random_rate": 0.0})
    model.compile(learning_rate=1e-2)
    model.fit(WORDS * 16, epochs=25, batch_size=16, verbose=0)
    assert model.predict("blue s<mask>y")[0]["text"] == "blue sky"


def test_sentinels_stand_for_hidden_spans(tmp_path):
    corruption = {"name": "span_corruption", "rate": 0.3, "mean_length": 2.0, "marker": "sentinel"}
    model = make(corruption=corruption, sentinel_ids=[300, 400])
    rows = model.noise.corruption(
        np.arange(5, 29)[None], index=[1], vocabulary=model.noise.vocabulary
    ).token_ids.numpy()[0]
    assert [id_ for id_ in rows if id_ > 258] == [300, 400]
    model.compile_settings = {"learning_rate": 1e-2}
    history = model.fit(WORDS * 16, epochs=3, batch_size=16, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    tokens, (letter,) = model.mask_tokens, model.tokenizer.encode("a")
    expected = [[letter, 300, 400, tokens.mask_id], [letter]]
    expected = [[*row, tokens.separator_id] for row in expected]
    assert model._prompts(["a<mask><mask><mask>", "a"]) == expected
    model.save(tmp_path / "model.keras")
    again = Denoiser.load(tmp_path / "model.keras")
    assert again.sentinel_ids == (300, 400) and again.get_config() == model.get_config()
    assert again.evaluate(WORDS, verbose=0) == pytest.approx(model.evaluate(WORDS, verbose=0))


def test_sentinels_by_default_are_ids_that_no_text_holds():
    corruption = {"name": "span_corruption", "marker": "sentinel"}
    tokens = make(corruption=corruption).mask_tokens
    assert tokens.sentinel_ids == tuple(range(261, 361))  # T5's hundred
    config = make(corruption=corruption, sentinel_ids=[259]).learning_config()
    assert (config["sentinel_ids"], config["mask_id"], config["separator_id"]) == ([259], 260, 261)
    assert make().learning_config()["sentinel_ids"] is None
    for ids, message in (
        ({"sentinel_ids": [512]}, "sentinel_ids=512 is not among the 512 ids"),
        ({"sentinel_ids": [300, 300]}, "sentinel_ids and sentinel_ids are both 300"),
        ({"sentinel_ids": [300], "mask_id": 300}, "mask_id and sentinel_ids are both 300"),
    ):
        with pytest.raises(InputError, match=message):
            make(corruption=corruption, **ids)


def test_save_and_load(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    again = Denoiser.load(tmp_path / "model.keras")
    assert again.get_config() == trained.get_config()
    assert again.predict("gren leaf") == trained.predict("gren leaf")


def test_bad_input(trained):
    with pytest.raises(InputError, match="max_new_tokens must be"):
        trained.predict("old", max_new_tokens=0)
    with pytest.raises(InputError, match="predict takes no"):
        trained.predict("old", steps=3)
    with pytest.raises(InputError, match="does not learn by the objective 'masked'"):
        make(objective="masked")
    with pytest.raises(InputError, match="needs a backbone with attention_mask='prefix'"):
        make(backbone_arguments={"attention_mask": "bidirectional"})
