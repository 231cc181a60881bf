import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.kinds.kind import model_arguments
from llama_keras.models import LlamaBackbone
from llama_keras.tasks import CausalLM, Pretraining, QuestionAnswerer, TextClassifier
from llama_keras.tasks.recipe import load_recipe
from llama_keras.text import Tokenizer
from tests.marks import slow

TEXTS = ["one two three four five", "six seven", "eight nine ten", "two four six eight"] * 6


def make(objective="causal", **arguments):
    keras.utils.set_random_seed(0)
    arguments.setdefault("max_sequence_length", 64)
    return Pretraining.from_preset("llama-tiny", objective=objective, **arguments)


class Losses(keras.callbacks.Callback):
    """Keeps the loss of each step."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float((logs or {})["loss"]))


@pytest.mark.parametrize("objective", ["causal", *slow("masked", "masked_next_token", "denoising")])
def test_the_loss_falls_on_a_toy_corpus(objective):
    model = make(objective)
    before = model.evaluate(TEXTS, verbose=0)
    model.compile(learning_rate=5e-3)
    history = model.fit(TEXTS, validation_data=TEXTS, epochs=6, batch_size=8, verbose=0)
    after = model.evaluate(TEXTS, verbose=0)
    assert sorted(after) == ["accuracy", "loss", "perplexity"]
    assert after["loss"] < 0.75 * before["loss"] and after["accuracy"] > before["accuracy"]
    assert after["perplexity"] == pytest.approx(np.exp(after["loss"]), rel=1e-4)
    assert history.history["val_loss"][-1] == pytest.approx(after["loss"], rel=1e-4)


@pytest.mark.slow
def test_contrastive_learns_from_plain_text():
    # Mean pooling, and a causal checkpoint suits: nothing is changed but the dropout.
    model = make("contrastive", backbone_arguments={"dropout": 0.2})
    assert model.backbone.config.attention_mask == "causal"
    texts = [*sorted(set(TEXTS)), "six seven"]  # a heading may stand twice
    before = model.evaluate(texts, verbose=0)
    assert before == model.evaluate(texts, verbose=0)
    assert before["loss"] > 1e-3  # the views differ
    history = model.fit(texts, validation_data=texts, epochs=8, batch_size=5, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    after = model.evaluate(texts, verbose=0)
    assert after["loss"] < before["loss"]
    assert history.history["val_loss"][-1] == pytest.approx(after["loss"], rel=1e-4)
    for wrong in ({"x": texts, "batch_size": 1}, {"x": ["six seven"] * 3}):
        for call in (model.fit, model.evaluate):
            with pytest.raises(InputError, match="at least two different texts and batch_size=2"):
                call(**wrong)


def test_evaluation_is_a_mean_over_tokens_whatever_the_batches():
    model = make("masked")
    whole = model.evaluate(TEXTS[:9], batch_size=16, verbose=0)
    parts = model.evaluate(TEXTS[:9], batch_size=2, verbose=0)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert parts["accuracy"] == pytest.approx(whole["accuracy"], abs=1e-6)


def test_the_causal_loss_is_that_of_plain_logits():
    model = make()
    rows = [model.tokenizer.encode(text, add_eos=True) for text in TEXTS[:3]]
    losses = []
    for row in rows:
        ids = np.array([row])
        logits = model({"token_ids": ids, "padding_mask": np.ones_like(ids)})[0, :-1]
        losses.extend(
            np.array(
                keras.losses.sparse_categorical_crossentropy(
                    np.array(row[1:]), logits, from_logits=True
                )
            )
        )
    found = model.evaluate(TEXTS[:3], verbose=0)
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_run_that_goes_on_sees_what_the_uninterrupted_one_saw():
    losses = {}
    for name, starts in {"whole": [(0, 3)], "resumed": [(0, 1), (1, 3)]}.items():
        model, steps = make("masked"), Losses()
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        for first, last in starts:
            model.fit(
                TEXTS, epochs=last, initial_epoch=first, batch_size=8, verbose=0, callbacks=[steps]
            )
        losses[name] = steps.found
    assert len(losses["whole"]) == 9
    np.testing.assert_allclose(losses["resumed"], losses["whole"], rtol=1e-4)


def test_datasets_of_strings_and_batches_of_one_s_own():
    model = make("causal")
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).batch(5)
    by_dataset = model.evaluate(dataset, verbose=0)
    assert by_dataset == pytest.approx(model.evaluate(TEXTS, verbose=0), rel=1e-5)
    ids = np.array([[5, 6, 7, 8]])
    own = {"token_ids": ids, "padding_mask": ids * 0 + 1, "targets": ids, "weights": ids * 0 + 1}
    model.fit(own, epochs=1, verbose=0)
    with pytest.raises(InputError, match="needs 'targets' and 'weights'"):
        model.fit({name: own[name] for name in ("token_ids", "padding_mask")}, verbose=0)


def test_empty_and_long_texts_are_counted(caplog):
    model = make(max_sequence_length=8)
    with caplog.at_level(logging.WARNING, "llama_keras"):
        rows = model.token_rows(["", "short", "much longer than that"])
    assert [len(row) for row in rows.token_ids] == [6, 8]
    assert "1 of 3 texts are empty and were left out" in caplog.text
    assert "1 of 2 texts were cut to 8 tokens" in caplog.text
    split = make(max_sequence_length=8, long_texts="split").token_rows(["much longer than that"])
    whole = model.tokenizer.encode("much longer than that", add_eos=True)
    assert sum(split.token_ids, []) == whole and max(map(len, split.token_ids)) == 8
    assert "1 of 1 texts were split into rows of 8 tokens" in caplog.text
    with pytest.raises(InputError, match="There is no text to learn from"):
        model.fit(["", ""])
    with pytest.raises(InputError, match="There is no text to learn from"):
        model.fit([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "electra"}, "There is no objective 'electra'"),
        ({"corruption": "random_masking"}, "learns from clean text; leave corruption out"),
        ({"objective": "masked", "corruption": "random_deletion"}, "moves tokens"),
        ({"objective": "contrastive"}, "give dropout=0.1"),
        (
            {"objective": {"name": "contrastive", "views": "pairs"}},
            "Plain texts have no pairs",
        ),
        ({"long_texts": "wrap"}, "long_texts must be one of"),
        ({"objective": "denoising", "max_sequence_length": 3}, "leaves no room for a text"),
        (
            {"objective": "masked", "backbone_arguments": {"attention_mask": "causal"}},
            "'masked' needs a backbone with attention_mask='bidirectional'.*backbone_arguments",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make(**arguments)


def test_a_causal_checkpoint_turns_to_the_objective_s_mask():
    assert make("masked").backbone.config.attention_mask == "bidirectional"
    assert make("denoising").backbone.config.attention_mask == "prefix"
    assert make("causal").backbone.config.attention_mask == "causal"


@pytest.mark.parametrize("objective", ["masked", *slow("causal", "denoising")])
def test_save_and_load(tmp_path, objective):
    model = make(objective, cleaning=["lower"], long_texts="split")
    model.fit(TEXTS[:4], verbose=0)
    model.save(tmp_path / "model.keras")
    again = Pretraining.load(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    expected = model.evaluate(TEXTS, verbose=0)
    assert again.evaluate(TEXTS, verbose=0) == pytest.approx(expected, rel=1e-6)


def test_the_article_s_encoder_becomes_a_preset_that_classifies(tmp_path):
    keras.utils.set_random_seed(0)
    tokenizer = Tokenizer.from_preset("llama-tiny")
    backbone = LlamaBackbone(
        vocabulary_size=tokenizer.vocabulary_size + 2,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=2,
        hidden_dim=16,
        max_sequence_length=64,
        attention_mask="bidirectional",
        attention_kernel="gaussian",
        learned_temperature=True,
        feed_forward="mlp",
        positions="learned",
    )
    model = Pretraining(backbone=backbone, tokenizer=tokenizer, objective="masked")
    model.fit(TEXTS, verbose=0)
    model.save_to_preset(tmp_path / "preset")
    classifier = TextClassifier.from_preset(tmp_path / "preset", labels=["a", "b"])
    for ours, theirs in zip(backbone.weights, classifier.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert classifier.predict(["one two"], verbose=0)[0]["label"] in "ab"


def test_presets_of_other_objectives(tmp_path):
    causal = make("causal")
    causal.save_to_preset(tmp_path / "causal")
    assert CausalLM.from_preset(tmp_path / "causal").generate("one", max_new_tokens=2).text
    denoising = make("denoising")
    denoising.save_to_preset(tmp_path / "both", attention_mask="bidirectional")
    again = LlamaBackbone.from_preset(tmp_path / "both")
    assert again.config.attention_mask == "bidirectional"
    np.testing.assert_array_equal(again.weights[0].numpy(), denoising.backbone.weights[0].numpy())


def test_a_preset_keeps_the_cleaning_of_its_texts(tmp_path):
    cleaning = [{"name": "normalize", "form": "NFKC"}, "lower", "collapse_whitespace"]
    model = make("causal", cleaning=cleaning)
    model.save_to_preset(tmp_path / "preset")
    classifier = TextClassifier.from_preset(tmp_path / "preset", labels=["a", "b"])
    assert classifier.cleaning == model.cleaning
    texts = ["ＯＮＥ  Two", "one two"]
    unclean, clean = (answer["score"] for answer in classifier.predict(texts, verbose=0))
    assert unclean == pytest.approx(clean, abs=1e-5)
    again = Pretraining.from_preset(tmp_path / "preset")
    assert again.cleaning == model.cleaning
    plain = TextClassifier.from_preset(tmp_path / "preset", labels=["a", "b"], cleaning=None)
    assert plain.cleaning is None
    plain.set_weights(classifier.get_weights())
    assert plain.predict(texts[0], verbose=0)[0]["score"] != pytest.approx(clean, abs=1e-3)
    for task in (CausalLM, QuestionAnswerer):
        with pytest.raises(InputError, match=r"cleaned by \['normalize', 'lower'.*cleaning=None"):
            task.from_preset(tmp_path / "preset")
        assert task.from_preset(tmp_path / "preset", cleaning=None).cleaning is None
    make("causal", cleaning=["lower"]).save_to_preset(tmp_path / "lower")
    assert QuestionAnswerer.from_preset(tmp_path / "lower").cleaning.clean(["Who"]) == ["who"]
    make("causal", cleaning=[]).save_to_preset(tmp_path / "none")
    assert CausalLM.from_preset(tmp_path / "none").cleaning is None


@pytest.mark.parametrize(
    ("clean", "expected"),
    [("null", {}), ("[]", {"cleaning": None}), ("[lower]", {"cleaning": [{"name": "lower"}]})],
)
def test_a_recipe_without_cleaning_leaves_it_to_the_preset(clean, expected):
    recipe = load_recipe("text_classification", overrides=[f"clean={clean}"])
    found = model_arguments(recipe, None)
    assert {name: value for name, value in found.items() if name == "cleaning"} == expected
