import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_sample_weight

from llama_keras.data.bucketing import weighted
from llama_keras.errors import InputError
from llama_keras.tasks import CausalLM, TextClassifier
from llama_keras.tasks.text_classifier import SmoothedCrossEntropy
from llama_keras.training.fine_tuning import (
    BitFit,
    Full,
    GradualUnfreezing,
    LayerwiseDecay,
    LinearProbe,
    Lora,
    TopLayers,
)

FAST = Full(learning_rate=3e-3)
TEXTS = ["good day", "an awful, awful day, cold too", "", "日本 🙂 day"]


def scores(model, texts=TEXTS):
    return np.array([list(row["scores"].values()) for row in model.predict(texts, verbose=0)])


def test_full_fine_tuning_learns(make_classifier, toy_data):
    model = make_classifier(strategy=FAST)
    history = model.fit(*toy_data, validation_data=toy_data, epochs=6, batch_size=16, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert model.evaluate(*toy_data, verbose=0)["accuracy"] > 0.95


def test_each_fit_has_a_schedule_of_its_own(make_classifier, toy_data):
    model = make_classifier(strategy=FAST)
    model.evaluate(*toy_data, verbose=0)  # compiles without knowing how many steps there will be
    before = [weight.copy() for weight in model.head.get_weights()]
    for _ in range(2):
        model.fit(*toy_data, epochs=1, batch_size=16, verbose=0)
        after = model.head.get_weights()
        assert np.abs(after[0] - before[0]).max() > 1e-3
        before = after
        assert float(model.optimizer.learning_rate) < 1e-2 * FAST.learning_rate  # come to its end


@pytest.mark.parametrize("mask", ["causal", "bidirectional"])
def test_lora_learns_and_leaves_the_backbone(make_classifier, toy_data, mask):
    model = make_classifier(
        strategy=Lora(rank=4, learning_rate=1e-2), backbone_arguments={"attention_mask": mask}
    )
    assert model.pooling.mode == {"causal": "last", "bidirectional": "mean"}[mask]
    before = model.backbone.token_embedding.get_weights()[0].copy()
    model.fit(*toy_data, epochs=6, batch_size=16, verbose=0)
    assert model.evaluate(*toy_data, verbose=0)["accuracy"] > 0.9
    assert (model.backbone.token_embedding.get_weights()[0] == before).all()
    learning = {weight.path.split("/")[-1] for weight in model.trainable_weights}
    assert learning == {"lora_kernel_a", "lora_kernel_b", "kernel", "bias"}
    assert all("head" in w.path for w in model.trainable_weights if "lora" not in w.path)


def test_linear_probe_cuts_the_backbone_at_the_chosen_layer(make_classifier, toy_data):
    model = make_classifier(strategy="linear_probe")
    history = model.fit(*toy_data, validation_data=toy_data, verbose=0).history
    (layer,) = history["layer"]
    assert model.backbone.config.num_layers == layer == 1 + np.argmax(history["val_by_layer"][0])
    accuracy = model.evaluate(*toy_data, verbose=0)["accuracy"]
    assert accuracy == pytest.approx(history["val_accuracy"][0])
    assert accuracy > 0.9


def test_linear_probe_of_a_given_layer_sets_a_part_aside(make_classifier, toy_data):
    model = make_classifier(strategy=LinearProbe(layer=1))
    history = model.fit(*toy_data).history
    assert history["layer"] == [1]
    assert model.backbone.config.num_layers == 1
    assert history["val_by_layer"] == [[]]


def test_probe_of_three_classes_that_training_never_showed(make_classifier, toy_data):
    texts, labels = toy_data
    labels = [label if i % 4 else "neutral" for i, label in enumerate(labels)]
    names = ["negative", "never", "neutral", "positive"]
    model = make_classifier(strategy="linear_probe", labels=names)
    model.fit(texts, labels, validation_data=(texts, labels))
    probabilities = scores(model, texts)
    assert probabilities[:, 1].max() < 1e-3
    assert np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("strategy", ["full", "lora", "linear_probe"])
def test_saved_file_gives_the_same_answers(make_classifier, toy_data, tmp_path, strategy):
    model = make_classifier(strategy=strategy, max_sequence_length=40)
    model.fit(*toy_data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = TextClassifier.load(tmp_path / "model.keras")
    assert loaded.labels == model.labels
    assert loaded.max_sequence_length == 40
    assert loaded.strategy.name == strategy
    assert np.abs(scores(loaded) - scores(model)).max() < 1e-6
    assert [p.name for p in tmp_path.iterdir()] == ["model.keras"]


def test_settings_of_a_strategy_survive_saving(make_classifier, tmp_path):
    strategy = Lora(rank=3, targets=("query_dense",), learning_rate=0.5)
    model = make_classifier(strategy=strategy)
    model.save(tmp_path / "model.keras")
    assert TextClassifier.load(tmp_path / "model.keras").strategy == strategy


def test_probe_computes_features_once_and_tells_callbacks(make_classifier, toy_data, monkeypatch):
    from llama_keras.training import linear_probe

    passes = []
    compute = linear_probe.layer_features
    monkeypatch.setattr(
        linear_probe,
        "layer_features",
        lambda *args, **kwargs: passes.append(kwargs["layers"]) or compute(*args, **kwargs),
    )
    epochs = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda e, logs: epochs.append(logs))
    model = make_classifier(strategy="linear_probe")
    model.fit(*toy_data, validation_data=toy_data, callbacks=[callback], verbose=0)
    assert passes == [[1, 2], [1, 2]]
    assert [log.keys() for log in epochs] == [{"val_accuracy"}]
    with pytest.raises(InputError, match="without steps; leave .'class_weight'. out"):
        model.fit(*toy_data, class_weight={0: 1.0, 1: 2.0})


def test_probe_of_a_large_set_chooses_by_a_part_and_solves_by_all(
    make_classifier, toy_data, monkeypatch
):
    from llama_keras.training import linear_probe

    monkeypatch.setattr(linear_probe, "MOST_ROWS_TO_CHOOSE", 40)
    sizes = []
    compute = linear_probe.layer_features
    monkeypatch.setattr(
        linear_probe,
        "layer_features",
        lambda backbone, rows, **kwargs: (
            sizes.append(len(rows.token_ids)) or compute(backbone, rows, **kwargs)
        ),
    )
    model = make_classifier(strategy="linear_probe")
    model.fit(*toy_data, validation_data=toy_data)
    assert sizes == [40, 40, 64, 64]
    assert model.evaluate(*toy_data, verbose=0)["accuracy"] > 0.9


def test_saving_over_an_existing_file_is_all_or_nothing(make_classifier, tmp_path, monkeypatch):
    model = make_classifier()
    model.save(tmp_path / "model.keras")
    first = (tmp_path / "model.keras").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(keras.saving, "save_model", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="exists already"):
        model.save(tmp_path / "model.keras", overwrite=False)


def test_answers_do_not_depend_on_batch_or_company(make_classifier):
    model = make_classifier()
    together = scores(model)
    alone = np.concatenate([scores(model, [text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5


def test_datasets_batched_or_not_give_what_lists_give(make_classifier, toy_data):
    texts, labels = toy_data
    numbers = [["negative", "positive"].index(label) for label in labels]
    model = make_classifier()
    dataset = tf.data.Dataset.from_tensor_slices((texts, numbers))
    expected = model.evaluate(texts, labels, verbose=0)
    assert model.evaluate(dataset, verbose=0) == pytest.approx(expected)
    assert model.evaluate(dataset.batch(5), verbose=0) == pytest.approx(expected)
    assert model.evaluate(np.array(texts), numbers, verbose=0) == pytest.approx(expected)
    assert model.predict("good day")[0] == model.predict(["good day"])[0]
    assert model.predict([]) == []


CLEANING = ["lower", {"name": "remove_punctuation", "replacement": ""}, "collapse_whitespace"]


def test_raw_text_is_cleaned_in_fit_evaluate_and_predict(make_classifier, toy_data, caplog):
    texts, labels = (part[:32] for part in toy_data)
    unclean = [f"  {text.upper()}!! " for text in texts]
    plain, cleaning = (
        make_classifier(strategy=FAST),
        make_classifier(strategy=FAST, cleaning=CLEANING),
    )
    expected = plain.fit(texts, labels, validation_data=(texts, labels), verbose=0).history
    found = cleaning.fit(unclean, labels, validation_data=(unclean, labels), verbose=0).history
    assert found == expected
    dataset = tf.data.Dataset.from_tensor_slices((unclean, labels)).batch(5)
    assert cleaning.evaluate(dataset, verbose=0) == plain.evaluate(texts, labels, verbose=0)
    assert (scores(cleaning, unclean) == scores(plain, texts)).all()
    assert "cleaning left nothing" not in caplog.text


def test_texts_of_which_nothing_is_left_are_counted_and_answered(make_classifier, caplog):
    model = make_classifier(cleaning=CLEANING)
    found = scores(model, ["?!", "", "a", "..."])
    assert "cleaning left nothing of 2 of 4 texts" in caplog.text
    assert (found[0] == found[1]).all() and (found[3] == found[1]).all()


def test_cleaning_survives_saving(make_classifier, tmp_path):
    model = make_classifier(cleaning=CLEANING)
    model.save(tmp_path / "model.keras")
    loaded = TextClassifier.load(tmp_path / "model.keras")
    assert loaded.cleaning == model.cleaning
    assert (scores(loaded, ["A Good DAY!"]) == scores(model, ["a good day"])).all()
    make_classifier().save(tmp_path / "plain.keras")
    assert TextClassifier.load(tmp_path / "plain.keras").cleaning is None


def test_a_model_saved_before_there_was_cleaning_loads(make_classifier):
    config = make_classifier().get_config()
    del config["cleaning"]
    assert TextClassifier.from_config(config).cleaning is None


def test_unknown_cleaning_and_tasks_without(make_classifier):
    with pytest.raises(InputError, match="no cleaning step 'stem'; expected one of .*'lower'"):
        make_classifier(cleaning=["stem"])
    with pytest.raises(InputError, match="A CausalLM takes text as it is; leave cleaning out"):
        CausalLM.from_preset("llama-tiny", cleaning=["lower"])


def test_token_features_go_through_plain_keras(make_classifier):
    model = make_classifier()
    features = {
        "token_ids": np.array([[5, 6, 7], [8, 9, 0]]),
        "padding_mask": np.array([[1, 1, 1], [1, 1, 0]]),
    }
    logits = model.predict(features, verbose=0)
    assert logits.shape == (2, 2)
    model.compile()
    model.fit(features, np.array([0, 1]), verbose=0)


def test_own_compile_is_kept(make_classifier, toy_data):
    model = make_classifier()
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(*toy_data, verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.SGD)


def test_long_texts_are_cut_and_said(make_classifier, caplog):
    model = make_classifier(max_sequence_length=8)
    cut = scores(model, ["good day and more words than fit"])
    assert "1 of 1 texts were cut to 8 tokens" in caplog.text
    assert np.abs(cut - scores(model, ["good day and other ends"[:8]])).max() < 1e-5


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (
            (["a"], ["neutral"]),
            r"Unknown label neutral; the model knows \['negative', 'positive'\]",
        ),
        ((["a"], [2]), "Unknown label 2"),
        ((["a", "b"], ["positive"]), "2 texts but 1 labels"),
        (([], []), "data set is empty"),
        (([b"\xff"], ["positive"]), "number 0 is not UTF-8"),
    ],
)
def test_bad_data_is_named(make_classifier, fit, message):
    with pytest.raises(InputError, match=message):
        make_classifier().fit(*fit)


@pytest.mark.parametrize("labels", [["a"], ["a", "a"]])
def test_bad_labels_are_named(make_classifier, labels):
    with pytest.raises(InputError, match="labels must be two or more"):
        make_classifier(labels=labels)


def test_unknown_strategy_and_pooling(make_classifier):
    with pytest.raises(InputError, match="linear_probe"):
        make_classifier(strategy="magic")
    with pytest.raises(InputError, match="mean"):
        make_classifier(pooling="magic")


def test_loading_what_is_no_classifier(tmp_path):
    with pytest.raises(InputError, match="no saved model"):
        TextClassifier.load(tmp_path / "none.keras")
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    with pytest.raises(InputError, match="not a readable"):
        TextClassifier.load(tmp_path / "bad.keras")
    keras.Sequential([keras.layers.Input((1,))]).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match="holds a Sequential"):
        TextClassifier.load(tmp_path / "other.keras")


@pytest.mark.parametrize(
    "strategy",
    [
        TopLayers(layers=1, learning_rate=1e-2),
        LayerwiseDecay(learning_rate=1e-2),
        GradualUnfreezing(learning_rate=5e-3),
        BitFit(learning_rate=3e-2),
    ],
)
def test_partial_strategies_learn(make_classifier, toy_data, strategy, tmp_path):
    model = make_classifier(strategy=strategy)
    model.fit(*toy_data, epochs=6, batch_size=16, verbose=0)
    assert model.evaluate(*toy_data, verbose=0)["accuracy"] > 0.9
    model.save(tmp_path / "model.keras")
    assert TextClassifier.load(tmp_path / "model.keras").strategy == strategy


def test_smoothed_cross_entropy_is_that_of_the_smoothed_targets():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], "float32")
    labels = np.array([0, 2])
    targets = 0.9 * np.eye(3)[labels] + 0.1 / 3
    exact = keras.losses.CategoricalCrossentropy(from_logits=True)(targets, logits)
    assert float(SmoothedCrossEntropy(0.1)(labels, logits)) == pytest.approx(float(exact))
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    assert float(SmoothedCrossEntropy()(labels, logits)) == pytest.approx(float(plain))


def test_class_weights_change_what_is_learned(make_classifier, toy_data):
    texts, labels = toy_data
    model = make_classifier(strategy=FAST, label_smoothing=0.1)
    weights = {0: 0.0, 1: 1.0}
    model.fit(texts, labels, class_weight=weights, epochs=2, batch_size=16, verbose=0)
    assert {row["label"] for row in model.predict(texts, verbose=0)} == {model.labels[1]}


def label_numbers_of(model, labels):
    return np.asarray(model.token_rows(["a"] * len(labels), labels).labels).tolist()


def test_integers_are_class_numbers_unless_they_could_be_names(make_classifier):
    assert label_numbers_of(make_classifier(), [1, 0, "positive"]) == [1, 0, 1]
    assert label_numbers_of(make_classifier(labels=["0", "1", "none"]), [1, 0, "1"]) == [1, 0, 1]
    with pytest.raises(InputError, match="Unknown label 2"):
        label_numbers_of(make_classifier(), [0, 2])
    numerals = make_classifier(labels=["1", "2", "3"])
    assert label_numbers_of(numerals, ["1", "2", "1"]) == [0, 1, 0]
    dataset = tf.data.Dataset.from_tensor_slices((["a", "b"], [3, 1]))
    for x, y in ((["a", "b"], [0, 1]), (["a", "b"], np.array([1, 2])), (dataset, None)):
        with pytest.raises(InputError, match="write names as strings"):
            numerals.example_rows(x, y)


def test_numbers_as_names_of_an_earlier_version_become_strings(make_classifier):
    config = {**make_classifier().get_config(), "labels": [3, 7]}
    assert TextClassifier.from_config(config).labels == ["3", "7"]


@pytest.mark.parametrize("labels", [[1, 2, 3], ["a", None], np.array([0, 1])])
def test_names_are_strings(make_classifier, labels):
    with pytest.raises(InputError, match="labels must be strings; received .* Write numbers as"):
        make_classifier(labels=labels)


def weights_of(model, class_weight, labels):
    rows = model.token_rows(["a"] * len(labels), labels)
    return np.asarray(weighted(rows, model.class_weights(class_weight, rows)).sample_weights)


def test_class_weights_by_name_number_or_balanced(make_classifier):
    labels = ["negative", "positive", "positive", "positive"]
    model = make_classifier()
    for given in ({"positive": 5.0}, {1: 5.0}, {np.int64(1): 5}, {"negative": 1.0, 1: 5.0}):
        assert weights_of(model, given, labels).tolist() == [1.0, 5.0, 5.0, 5.0]
    found = weights_of(model, "balanced", labels)
    assert found == pytest.approx(compute_sample_weight("balanced", labels))
    numerals = make_classifier(labels=["1", "2", "3"])
    assert weights_of(numerals, {"2": 5.0}, ["1", "2", "3"]).tolist() == [1.0, 5.0, 1.0]


def test_class_weights_by_name_change_what_is_learned(make_classifier, toy_data):
    texts, labels = toy_data
    model = make_classifier(strategy=FAST)
    weights = {"negative": 0.0}
    model.fit(texts, labels, class_weight=weights, epochs=2, batch_size=16, verbose=0)
    assert {row["label"] for row in model.predict(texts, verbose=0)} == {"positive"}
    features = {"token_ids": np.array([[5, 6]] * 2), "padding_mask": np.ones((2, 2), "int32")}
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(
        features, np.array([0, 0]), class_weight={"negative": 0.0}, verbose=0
    ).history
    assert history["loss"] == [0.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"neutral": 2.0}, r"Unknown label neutral; the model knows \['negative', 'positive'\]"),
        ({2: 2.0}, "Unknown label 2"),
        ({"positive": -1.0}, "a weight of 0 or more"),
        ({"positive": "2"}, "a weight of 0 or more"),
        ({"positive": float("nan")}, "a weight of 0 or more"),
        ({"positive": 1.0, 1: 2.0}, "a class twice"),
        ("rare", "class_weight='rare'; expected weights by label"),
        ([1.0, 2.0], "expected weights by label"),
    ],
)
def test_wrong_class_weights_are_named(make_classifier, toy_data, given, message):
    with pytest.raises(InputError, match=message):
        make_classifier().fit(*toy_data, class_weight=given, verbose=0)


def test_an_integer_that_may_be_a_name_or_a_number_is_refused(make_classifier):
    model = make_classifier(labels=["1", "2", "3"])
    with pytest.raises(InputError, match="write names as strings"):
        weights_of(model, {1: 5.0}, ["1", "2"])


def test_a_probe_that_would_be_left_with_one_label_is_refused(make_classifier):
    model = make_classifier(strategy="linear_probe")
    with pytest.raises(InputError, match="linear_probe needs texts of two or more labels"):
        model.fit(["good", "bad"], ["positive", "negative"], verbose=0)
