import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.objectives import (
    OBJECTIVES,
    Contrastive,
    TokenObjective,
    get_objective,
    info_nce,
    objective_config,
)

SIZES = {
    "vocabulary_size": 31,
    "num_layers": 2,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}


@pytest.fixture
def make_backbone():
    def make(**arguments):
        keras.utils.set_random_seed(3)
        backbone = LlamaBackbone(**SIZES, **arguments)
        for variable in backbone.weights:  # far from flat predictions
            variable.assign(variable * 3.0)
        return backbone

    return make


def inputs_of(rows, *, weights=None, width=None, left=False, **more):
    width = width or max(map(len, rows))
    ids, mask = np.zeros((len(rows), width), "int32"), np.zeros((len(rows), width), "int32")
    counted = np.zeros((len(rows), width), "float32")
    for at, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[at, place], mask[at, place] = row, 1
        counted[at, place] = 1.0 if weights is None else weights[at]
    return {"token_ids": ids, "padding_mask": mask, "targets": ids, "weights": counted, **more}


def log_probabilities(backbone, ids, **more):
    row = np.array([ids])
    hidden = backbone({"token_ids": row, "padding_mask": np.ones_like(row), **more})
    logits = np.array(backbone.token_embedding(hidden, reverse=True))[0].astype("float64")
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


ROWS = [[5, 9, 2, 7, 7], [4, 8, 3], [6, 1]]


def test_causal_predicts_the_next_token(make_backbone):
    backbone = make_backbone()
    losses, hits, weights = OBJECTIVES["causal"](backbone, inputs_of(ROWS))
    for at, row in enumerate(ROWS):
        found = log_probabilities(backbone, row)
        steps = np.arange(len(row) - 1)
        np.testing.assert_allclose(losses[at, : len(steps)], -found[steps, row[1:]], rtol=1e-4)
        np.testing.assert_array_equal(hits[at, : len(steps)], found[:-1].argmax(-1) == row[1:])
        assert np.array(weights)[at].sum() == len(steps)


@pytest.mark.parametrize(("name", "shift"), [("masked", 0), ("masked_next_token", 1)])
def test_masked_predicts_the_clean_token_in_place_or_one_before(make_backbone, name, shift):
    backbone = make_backbone(attention_mask="bidirectional")
    inputs = inputs_of([[5, 30, 2, 30, 7]], weights=[[0, 1, 0, 1, 0]])
    inputs["targets"] = np.array([[5, 9, 2, 8, 7]])
    losses, _, weights = OBJECTIVES[name](backbone, inputs)
    found = log_probabilities(backbone, [5, 30, 2, 30, 7])
    expected = [-found[1 - shift, 9], -found[3 - shift, 8]]
    losses, weights = np.array(losses), np.array(weights)
    np.testing.assert_allclose(losses[weights > 0], expected, rtol=1e-4)
    assert losses.sum() == pytest.approx(sum(expected), rel=1e-4)


def test_denoising_writes_the_clean_text_behind_the_corrupted_one(make_backbone):
    backbone = make_backbone(attention_mask="prefix")
    row, prefix = [5, 7, 29, 5, 9, 7, 28], [1, 1, 1, 0, 0, 0, 0]
    weights = [[0, 0, 0, 1, 1, 1, 1]]
    inputs = inputs_of([row], weights=weights, prefix_mask=np.array([prefix]))
    losses, _, _ = OBJECTIVES["denoising"](backbone, inputs)
    found = log_probabilities(backbone, row, prefix_mask=np.array([prefix]))
    np.testing.assert_allclose(losses[0, 2:], -found[[2, 3, 4, 5], row[3:]], rtol=1e-4)
    assert np.array(losses)[0, :2].sum() == 0.0


@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_padding_on_either_side_and_packing_change_no_loss(make_backbone, mode):
    backbone = make_backbone(attention_mask=mode)
    objective = OBJECTIVES[{"causal": "causal", "bidirectional": "masked_next_token"}[mode]]
    alone = [float(np.sum(objective(backbone, inputs_of([row])).losses)) for row in ROWS]
    for left in (False, True):
        scores = objective(backbone, inputs_of(ROWS, width=9, left=left))
        np.testing.assert_allclose(np.sum(scores.losses, axis=-1), alone, rtol=1e-5)
    segments = np.concatenate([[at] * len(row) for at, row in enumerate(ROWS)])[None]
    packed = objective(backbone, inputs_of([sum(ROWS, [])], segment_ids=segments))
    assert float(np.sum(packed.losses)) == pytest.approx(sum(alone), rel=1e-5)
    assert np.sum(packed.weights) == sum(map(len, ROWS)) - len(ROWS)


def test_info_nce_by_hand():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 4, 6))
    scores = info_nce(first, second, temperature=0.3)
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (first, second))
    for row in range(4):
        similar = [float(a[row] @ b[other]) / 0.3 for other in range(4)]
        expected = np.log(np.sum(np.exp(similar))) - similar[row]
        assert float(scores.losses[row]) == pytest.approx(expected, rel=1e-5)
        assert bool(scores.hits[row]) == (int(np.argmax(similar)) == row)


def test_equal_texts_are_no_negatives(make_backbone):
    backbone = make_backbone(attention_mask="bidirectional")
    rows = [*ROWS, ROWS[1]]
    features = {k: v for k, v in inputs_of(rows).items() if k in ("token_ids", "padding_mask")}
    positives = inputs_of([[3], [9, 9], [1, 2], [8]])
    pairs = {**features, **{f"positive_{k}": positives[k] for k in features}}
    objective = Contrastive(temperature=0.1, views="pairs")
    scores = objective(backbone, pairs)
    anchors, others = objective_vectors(backbone, features), objective_vectors(backbone, positives)
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (anchors, others))
    similar = a @ b.T / 0.1
    for row, negatives in enumerate([[1, 2, 3], [0, 2], [0, 1, 3], [0, 2]]):
        expected = np.log(np.exp(similar[row, [row, *negatives]]).sum()) - similar[row, row]
        assert float(scores.losses[row]) == pytest.approx(expected, rel=1e-4)
        assert bool(scores.hits[row]) == (similar[row, row] >= similar[row, negatives].max())
    np.testing.assert_array_equal(scores.weights, 1.0)
    np.testing.assert_array_equal(objective.weights_of(pairs), 1.0)
    alike = {k: v[[1, 3]] for k, v in pairs.items()}
    for weights in (objective(backbone, alike).weights, objective.weights_of(alike)):
        np.testing.assert_array_equal(weights, 0.0)


def objective_vectors(backbone, features):
    features = {k: features[k] for k in ("token_ids", "padding_mask")}
    hidden, mask = np.array(backbone(features)), features["padding_mask"][..., None]
    return (hidden * mask).sum(axis=1) / mask.sum(axis=1)


def test_contrastive_views_by_dropout_differ_and_pairs_need_none(make_backbone):
    backbone = make_backbone(attention_mask="bidirectional", dropout=0.2)
    features = {k: v for k, v in inputs_of(ROWS).items() if k in ("token_ids", "padding_mask")}
    objective = Contrastive(temperature=0.1)
    seeds = [v for v in backbone.variables if "seed" in v.path]
    draws = [seed.numpy() for seed in seeds]
    still, again = (objective(backbone, features, training=False) for _ in range(2))
    np.testing.assert_array_equal(still.losses, again.losses)
    assert seeds
    for before, seed in zip(draws, seeds, strict=True):  # and nothing is drawn for it
        np.testing.assert_array_equal(before, seed.numpy())
    quiet = info_nce(*[objective_vectors(backbone, features)] * 2, temperature=0.1)
    moved = objective(backbone, features, training=True)
    for scores in (still, moved):
        assert np.all(np.array(scores.losses) > np.array(quiet.losses))
    assert np.abs(np.array(moved.losses) - np.array(still.losses)).max() > 1e-4
    swapped = {f"positive_{k}": v[::-1].copy() for k, v in features.items()}
    pairs = dataclasses.replace(objective, views="pairs")
    np.testing.assert_array_equal(pairs(backbone, {**features, **swapped}).hits, [0, 1, 0])
    with pytest.raises(InputError, match="needs positive_token_ids"):
        pairs(backbone, features)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_reach_every_weight(make_backbone, name):
    import tensorflow as tf

    objective = OBJECTIVES[name]
    backbone = make_backbone(attention_mask=objective.attention_masks[0], dropout=0.1)
    objective.check(backbone)
    inputs = inputs_of(ROWS)
    if name == "denoising":
        inputs["prefix_mask"] = np.tile([1, 0, 0, 0, 0], (3, 1))
    if name == "contrastive":
        inputs = {name: inputs[name] for name in ("token_ids", "padding_mask")}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(objective(backbone, inputs, training=True).losses)
    variables = backbone.trainable_variables
    if name == "contrastive":  # has no use for the head
        variables = [v for v in variables if "reverse" not in v.path]
    for gradient in tape.gradient(loss, [v.value for v in variables]):
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0


def test_names_and_settings_round_trip():
    for name, objective in OBJECTIVES.items():
        assert get_objective(name) == objective
        assert get_objective(objective_config(objective)) == objective
    chunked = get_objective({"name": "masked", "chunk": 8})
    assert isinstance(chunked, TokenObjective) and chunked.chunk == 8
    assert get_objective({"name": "contrastive", "temperature": 0.1}) == Contrastive(
        temperature=0.1
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("electra", "There is no objective 'electra'; expected one of"),
        ({"name": "masked", "shift": 1}, "has no 'shift'; it has"),
        ({"name": "contrastive", "temperature": 0.0}, "temperature must be positive"),
        ({"name": "contrastive", "views": "three"}, "'three' is not one of"),
    ],
)
def test_unknown_names_and_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        get_objective(wrong)


def test_a_backbone_that_looks_elsewhere_is_refused_with_the_remedy(make_backbone):
    backbone = make_backbone()
    with pytest.raises(InputError, match="backbone_arguments={'attention_mask': 'bidirectional'}"):
        OBJECTIVES["masked"].check(backbone)
    with pytest.raises(InputError, match="give dropout=0.1"):
        OBJECTIVES["contrastive"].check(backbone)


def test_the_package_imports_without_tensorflow_and_agrees_on_jax(repository):
    """The same loss and gradient on JAX, compiled, in a process that never loads TensorFlow."""
    code = """
import sys
import numpy as np, jax, keras
from llama_keras.objectives import OBJECTIVES, chunked_cross_entropy
rng = np.random.default_rng(0)
hidden, kernel = rng.normal(size=(9, 4)).astype("f"), rng.normal(size=(4, 7)).astype("f")
targets, weights = rng.integers(7, size=9), (rng.random(9) < 0.5).astype("f")
def plain(h, k):
    scores = jax.nn.log_softmax(h @ k)[np.arange(9), targets]
    return -(scores * weights).sum() / weights.sum()
def chunked(h, k):
    return chunked_cross_entropy(h, k, targets=targets, weights=weights, chunk=4)
a = jax.jit(jax.value_and_grad(plain, (0, 1)))(hidden, kernel)
b = jax.jit(jax.value_and_grad(chunked, (0, 1)))(hidden, kernel)
jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)
print(sorted(OBJECTIVES), "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env={"PATH": "/usr/bin:/bin", "KERAS_BACKEND": "jax", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{sorted(OBJECTIVES)} False"
