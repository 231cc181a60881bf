import keras
import numpy as np
import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.tasks import TextClassifier
from llama_keras.tasks.label_sets import LogitF1, label_matrix, subset_accuracy
from llama_keras.training.fine_tuning import Full, LinearProbe

NAMES = ["film", "music", "sport"]
FAST = Full(learning_rate=1e-2)


@pytest.fixture
def make_model(make_classifier):
    return lambda **arguments: make_classifier(
        labels=arguments.pop("labels", NAMES), multi_label=True, **arguments
    )


@pytest.fixture(scope="module")
def word_data():
    """Texts whose labels are the words in them."""
    sets = [[name for bit, name in enumerate(NAMES) if number >> bit & 1] for number in range(8)]
    texts = [" ".join(row) or "nothing" for row in sets]
    return texts * 6, sets * 6


def test_it_learns_sets_of_labels(make_model, word_data, tmp_path):
    model = make_model(strategy=FAST, threshold=0.4, label_smoothing=0.02)
    model.fit(*word_data, validation_data=word_data, epochs=25, batch_size=16, verbose=0)
    found = model.evaluate(*word_data, verbose=0)
    answers = model.predict(word_data[0], verbose=0)
    pairs = zip(answers, word_data[1], strict=True)
    right = np.mean([row["labels"] == names for row, names in pairs])
    assert found["subset_accuracy"] == pytest.approx(right) and right > 0.9
    assert found["micro_f1"] > 0.9
    model.save(tmp_path / "model.keras")
    loaded = TextClassifier.load(tmp_path / "model.keras")
    assert loaded.multi_label and loaded.threshold == 0.4
    assert loaded.predict(["film sport"], verbose=0)[0]["labels"] == ["film", "sport"]
    assert loaded.get_config() == model.get_config()


def test_answers_hold_independent_scores_and_the_labels_above_the_threshold(make_model):
    model = make_model()
    features = {"token_ids": np.array([[5, 6]]), "padding_mask": np.array([[1, 1]])}
    text = model.tokenizer.decode([5, 6])
    (answer,) = model.predict([text], verbose=0)
    logits = model.predict(features, verbose=0)[0]
    assert list(answer) == ["labels", "scores"]
    assert list(answer["scores"].values()) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    model.threshold = sorted(answer["scores"].values())[1]
    (answer,) = model.predict([text], verbose=0)
    assert answer["labels"] == [max(answer["scores"], key=answer["scores"].get)]  # above, not at
    model.threshold = 0.999999
    assert model.predict([text], verbose=0)[0]["labels"] == []


def test_the_loss_is_the_binary_cross_entropy_of_smoothed_targets(make_model):
    logits, targets = np.array([[2.0, -1.0, 0.5]], "float32"), np.array([[1, 0, 1]])
    smooth = 0.9 * targets + 0.05
    p = 1 / (1 + np.exp(-logits))
    expected = -(smooth * np.log(p) + (1 - smooth) * np.log(1 - p)).mean()
    loss = make_model(label_smoothing=0.1).default_loss()(targets, logits)
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_all_forms_of_labels_give_the_same(make_model, word_data):
    texts, sets = (part[:8] for part in word_data)
    model, matrix = make_model(), label_matrix(sets, names=NAMES)
    expected = model.evaluate(texts, sets, verbose=0)
    forms = [
        [set(row) for row in sets],
        [tuple(row) for row in sets],
        matrix,
        matrix.astype(bool),
        matrix.astype("float32"),
        matrix.tolist(),
        list(matrix),
        tf.constant(matrix),
    ]
    for form in forms:
        assert model.evaluate(texts, form, verbose=0) == pytest.approx(expected)
    ragged = tf.ragged.constant(sets)
    for labels in (matrix, ragged):
        dataset = tf.data.Dataset.from_tensor_slices((texts, labels))
        assert model.evaluate(dataset, verbose=0) == pytest.approx(expected)
        assert model.evaluate(dataset.batch(3), verbose=0) == pytest.approx(expected)


def test_metrics_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    random = np.random.default_rng(0)
    right, logits = random.integers(0, 2, (50, 3)), random.normal(size=(50, 3)).astype("float32")
    found = 1 / (1 + np.exp(-logits)) > 0.3
    metric = LogitF1(average="micro", threshold=0.3)
    metric.update_state(right[:20], logits[:20])
    metric.update_state(right[20:], logits[20:])
    assert float(metric.result()) == pytest.approx(f1_score(right, found, average="micro"))
    shares = subset_accuracy(right, logits, threshold=0.3)
    assert float(keras.ops.mean(shares)) == pytest.approx(accuracy_score(right, found))


def test_a_text_of_pairs_may_have_several_labels(make_model):
    model = make_model(pairs=True)
    model.fit([("a", "b"), ("c", "d")], [["film", "music"], []], verbose=0)
    assert set(model.predict([("a", "b")], verbose=0)[0]) == {"labels", "scores"}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["film"], "The labels of text 0 are 'film'; expected a list of label names"),
        ([2], "The labels of text 0 are 2"),
        ([["film", "opera"]], r"Unknown label 'opera' of text 0; the model knows \['film'"),
        ([["film", 1]], "Unknown label 1 of text 0"),
        ([[0, 1]], "a row of 3 zeros and ones"),
        ([[0, 1, 2]], "a row of 3 zeros and ones"),
        ([[0.0, 0.5, 1.0]], "a row of 3 zeros and ones"),
        ([["film"], []], "1 texts but 2 labels"),
        (np.zeros((1, 4)), "a row of 3 zeros and ones"),
    ],
)
def test_wrong_labels_are_named(make_model, labels, message):
    with pytest.raises(InputError, match=message):
        make_model().fit(["a"], labels)


def test_what_needs_one_label_a_text_is_refused(make_model, make_classifier):
    for strategy in ("linear_probe", LinearProbe(layer=1)):
        with pytest.raises(InputError, match="linear_probe solves for one label a text"):
            make_model(strategy=strategy)
    with pytest.raises(InputError, match="class_weight is for one label"):
        make_model().fit(["a"], [[]], class_weight={0: 1.0, 1: 2.0, 2: 1.0})
    for threshold in (0.0, 1.0, -3):
        with pytest.raises(InputError, match="threshold=.* between 0 and 1"):
            make_model(threshold=threshold)
    with pytest.raises(InputError, match="make it with multi_label=True"):
        make_classifier().fit(["a"], [["positive"]])


def test_a_model_saved_before_there_were_sets_and_pairs_loads(make_classifier):
    config = make_classifier().get_config()
    for name in ("pairs", "multi_label", "threshold"):
        del config[name]
    model = TextClassifier.from_config(config)
    assert not model.pairs and not model.multi_label
