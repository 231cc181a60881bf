import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from llama_keras.errors import InputError
from llama_keras.objectives import chunked_cross_entropy, head_kernel, token_losses

B, T, E, V = 3, 11, 8, 23


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "hidden": rng.normal(size=(B, T, E)).astype("float32"),
        "kernel": rng.normal(size=(E, V)).astype("float32"),
        "targets": rng.integers(V, size=(B, T)).astype("int32"),
        "weights": (rng.random((B, T)) * (rng.random((B, T)) < 0.4)).astype("float32"),
    }


def by_hand(hidden, kernel, targets, weights):
    """Losses and gradients of the weighted mean, in float64."""
    hidden = hidden.reshape(-1, E).astype("float64")
    logits = hidden @ kernel.astype("float64")
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    rows, right, weights = np.arange(B * T), targets.ravel(), weights.ravel().astype("float64")
    share = weights / weights.sum()
    loss = -(np.log(probabilities[rows, right]) * share).sum()
    d_logits = probabilities.copy()
    d_logits[rows, right] -= 1.0
    d_logits *= share[:, None]
    return loss, (d_logits @ kernel.T.astype("float64")).reshape(B, T, E), hidden.T @ d_logits


def loss_and_gradients(batch, chunk):
    hidden, kernel = (tf.convert_to_tensor(batch[name]) for name in ("hidden", "kernel"))
    with tf.GradientTape() as tape:
        tape.watch([hidden, kernel])
        loss = chunked_cross_entropy(
            hidden, kernel, targets=batch["targets"], weights=batch["weights"], chunk=chunk
        )
    return loss, *map(tf.convert_to_tensor, tape.gradient(loss, [hidden, kernel]))


@pytest.mark.parametrize("chunk", [1, 4, 33, 256])
@pytest.mark.parametrize("how", ["eager", "graph", "jit"])
def test_loss_and_gradients_are_those_by_hand(batch, chunk, how):
    run = loss_and_gradients
    if how != "eager":
        run = tf.function(run, jit_compile=how == "jit")
    found = run(batch, chunk)
    for value, expected in zip(found, by_hand(**batch), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_shapes_may_be_unknown_when_the_graph_is_traced(batch):
    specs = {
        name: tf.TensorSpec([None, None, E] if name == "hidden" else [None, None], value.dtype)
        for name, value in batch.items()
        if name != "kernel"
    }
    kernel = tf.constant(batch["kernel"])
    run = tf.function(
        lambda rest: chunked_cross_entropy(
            rest["hidden"], kernel, targets=rest["targets"], weights=rest["weights"], chunk=4
        ),
        input_signature=[specs],
    )
    rest = {name: tf.constant(value) for name, value in batch.items() if name != "kernel"}
    np.testing.assert_allclose(run(rest), by_hand(**batch)[0], rtol=1e-5)


def test_losses_and_hits_of_single_tokens(batch):
    mask = batch["weights"] != 0
    losses, hits = token_losses(
        batch["hidden"], batch["kernel"], targets=batch["targets"], mask=mask, chunk=5
    )
    logits = batch["hidden"] @ batch["kernel"]
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    np.testing.assert_allclose(losses, plain(batch["targets"], logits) * mask, rtol=1e-5)
    np.testing.assert_array_equal(hits, (logits.argmax(-1) == batch["targets"]) & mask)


def test_without_a_token_that_counts_loss_and_gradients_are_zero(batch):
    batch["weights"][:] = 0.0
    for value in loss_and_gradients(batch, 4):
        assert np.all(np.array(value) == 0.0)


@pytest.mark.parametrize("tied", [True, False])
def test_heads_of_embeddings_learn_as_with_plain_logits(batch, tied):
    embedding = keras.layers.ReversibleEmbedding(V, E, tie_weights=tied)
    embedding.build()
    hidden = tf.constant(batch["hidden"])
    gradients = []
    for is_chunked in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            if is_chunked:
                kernel = head_kernel(embedding)
                loss = chunked_cross_entropy(hidden, kernel, targets=batch["targets"], chunk=7)
            else:
                logits = embedding(hidden, reverse=True)
                loss = ops.mean(
                    keras.losses.sparse_categorical_crossentropy(
                        batch["targets"], logits, from_logits=True
                    )
                )
        last = embedding.trainable_variables[-1]
        gradients.append((loss, *tape.gradient(loss, [hidden, last.value])))
    for chunked, plain in zip(*gradients, strict=True):
        np.testing.assert_allclose(chunked, plain, rtol=1e-5, atol=1e-6)


def test_half_precision_states_get_gradients_of_their_dtype(batch):
    batch["hidden"] = batch["hidden"].astype("float16")
    _, d_hidden, d_kernel = loss_and_gradients(batch, 4)
    assert (d_hidden.dtype, d_kernel.dtype) == (tf.float16, tf.float32)
    expected = by_hand(**batch)
    np.testing.assert_allclose(d_kernel, expected[2], atol=2e-3)


def tensor_sizes(graph):
    """Elements of every tensor of a traced graph, those of its loops included."""
    functions = [graph, *graph._functions.values()]
    for function in functions:
        operations = getattr(function, "graph", function).get_operations()
        for tensor in (output for operation in operations for output in operation.outputs):
            if "redundant_placeholder" not in tensor.name:  # stands for nothing
                yield tensor.name, tensor.shape.num_elements()


def test_no_tensor_of_the_graph_is_larger_than_a_chunk_of_logits():
    tokens, width, vocabulary, chunk = 512, 4, 1000, 32
    hidden, kernel = tf.zeros((tokens, width)), tf.zeros((width, vocabulary))
    targets = tf.zeros((tokens,), tf.int32)

    def chunked(hidden, kernel):
        with tf.GradientTape() as tape:
            tape.watch([hidden, kernel])
            loss = chunked_cross_entropy(hidden, kernel, targets=targets, chunk=chunk)
        return tape.gradient(loss, [hidden, kernel])

    def plain(hidden, kernel):
        with tf.GradientTape() as tape:
            tape.watch([hidden, kernel])
            logits = ops.matmul(hidden, kernel)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        return tape.gradient(loss, [hidden, kernel])

    sizes = {}
    for run in (chunked, plain):
        graph = tf.function(run).get_concrete_function(hidden, kernel).graph
        sizes[run.__name__] = dict(tensor_sizes(graph))
    assert [name for name, size in sizes["chunked"].items() if size is None] == []
    assert max(sizes["chunked"].values()) == chunk * vocabulary
    assert max(sizes["plain"].values()) == tokens * vocabulary  # the measure sees it where it is


def test_bad_input(batch):
    with pytest.raises(InputError, match="chunk must be a positive integer; received 0"):
        chunked_cross_entropy(batch["hidden"], batch["kernel"], targets=batch["targets"], chunk=0)
    embedding = keras.layers.ReversibleEmbedding(V, E)
    embedding.build()
    embedding.quantize("int8")
    with pytest.raises(InputError, match="train before `quantize`"):
        head_kernel(embedding)
