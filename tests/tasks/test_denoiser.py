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
