"""Gaussian-kernel attention beside dot-product attention: an encoder, and one attention layer.

Both are ours, of the shape of SmolLM2-135M, and run as one `tf.function`. The figures count tokens.
Of the encoder's work (8 texts of 128 tokens) the kernel is some 4 %. So the layer is timed by
itself as well, at lengths where more and more of its work is the kernel's, with and without its
gradients, each kind of Gaussian kernel beside dot products.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from benchmarks.encode import LENGTH, NAME, ROWS
from benchmarks.smollm2 import DTYPES, SIZES
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow

CLAIMS = {dtype: f"Gaussian kernel, {NAME}, {dtype}" for dtype in DTYPES}
# Kind of Gaussian kernel -> what `get_kernel` makes it of.
KINDS = {
    "fixed": {"name": "gaussian", "temperature": 0.7},
    "learned": {"name": "gaussian", "learned_temperature": True},
    "unnormalized": {"name": "gaussian", "normalize": False},
}
PASSES = ("forward", "forward and backward")


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """How large the attention layer and its inputs are."""

    width: int = SIZES["hidden_dim"]
    num_query_heads: int = SIZES["num_query_heads"]
    num_key_value_heads: int = SIZES["num_key_value_heads"]
    tokens: int = 2048
    """Of one call, whatever the length of its rows."""
    calls: Mapping[int, int] = field(default_factory=lambda: {128: 20, 512: 10, 2048: 3})
    """For each length of a row, the calls of one round."""


def _run(dtype: str, arguments: dict[str, Any]) -> Any:
    import numpy as np
    import tensorflow as tf

    from llama_keras.data.inference import graph_of
    from llama_keras.models import LlamaBackbone

    graph = graph_of(LlamaBackbone(**SIZES, **arguments, dtype=dtype))
    numbers = np.random.default_rng(0)
    token_ids = tf.constant(numbers.integers(5, SIZES["vocabulary_size"], (ROWS, LENGTH)), tf.int32)
    features = {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
    return lambda: graph(features)[0, 0, 0].numpy()  # asking for a value waits for all


def _runs(**arguments: Any) -> Runs:
    limit_tensorflow()
    runs = {claim: {dtype: _run(dtype, arguments)} for dtype, claim in CLAIMS.items()}
    return Runs(runs=runs, amounts=dict.fromkeys(runs, ROWS * LENGTH))


def layer_claim(kind: str, direction: str, length: int, dtype: str) -> str:
    """Gives the name of a claim about the attention layer by itself."""
    return f"attention, {kind}, {direction}, T = {length}, {dtype}"


def layer_runs(kernels: Mapping[str, str | dict], *, sizes: LayerSizes) -> Runs:
    """Builds the runs of the attention layer by itself.

    Args:
        kernels: for each of `KINDS`, the kernel that runs under its claims.
        sizes: of layer and inputs.
    """
    runs, amounts = {}, {}
    for kind, direction, length, dtype in product(kernels, PASSES, sizes.calls, DTYPES):
        claim = layer_claim(kind, direction, length, dtype)
        graph = _layer_graph(kernels[kind], direction, length, dtype, sizes)
        runs[claim] = {dtype: _repeated(graph, sizes.calls[length])}
        amounts[claim] = sizes.tokens * sizes.calls[length]
    return Runs(runs=runs, amounts=amounts)


def _layer_graph(
    kernel: str | dict, direction: str, length: int, dtype: str, sizes: LayerSizes
) -> Callable[[], Any]:
    """Gives a causal layer over full rows as one graph, whose outputs are all that it computes."""
    import numpy as np
    import tensorflow as tf

    from llama_keras.layers import LlamaAttention
    from llama_keras.layers.masking import additive

    layer = LlamaAttention(
        num_query_heads=sizes.num_query_heads,
        num_key_value_heads=sizes.num_key_value_heads,
        attention_kernel=kernel,
        dtype=dtype,
    )
    shape = (sizes.tokens // length, length, sizes.width)
    hidden = tf.cast(tf.constant(np.random.default_rng(0).normal(size=shape)), dtype)
    bias = additive(np.tri(length, dtype="bool")[None, None], dtype)
    layer.build(shape)

    @tf.function(autograph=False)
    def forward(hidden):
        return [layer(hidden, bias=bias)]

    @tf.function(autograph=False)
    def forward_and_backward(hidden):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            output = layer(hidden, bias=bias)
        weights = [variable.value for variable in layer.trainable_variables]
        return [output, *tape.gradient(output, [hidden, *weights])]

    graph = forward if direction == "forward" else forward_and_backward
    return lambda: graph(hidden)


def _repeated(graph: Callable[[], Any], calls: int) -> Callable[[], Any]:
    def run():
        for _ in range(calls):
            found = graph()
        return found[-1].numpy()

    return run


def _with_layer(encoder: Runs, kernels: Mapping[str, str | dict]) -> Runs:
    layer = layer_runs(kernels, sizes=LayerSizes())
    return Runs(runs=encoder.runs | layer.runs, amounts=encoder.amounts | layer.amounts)


def gaussian(options: dict[str, Any]) -> Runs:
    """Builds the runs with the normalized Gaussian kernel, and those of the layer with each."""
    encoder = _runs(attention_kernel="gaussian", attention_temperature=0.7)
    return _with_layer(encoder, KINDS)


def learned(options: dict[str, Any]) -> Runs:
    """Builds those whose temperature is a weight."""
    return _runs(attention_kernel="gaussian", learned_temperature=True)


def unnormalized(options: dict[str, Any]) -> Runs:
    """Builds those with the article's unnormalized kernel."""
    return _runs(attention_kernel="gaussian", normalize_attention=False)


def dot_product(options: dict[str, Any]) -> Runs:
    """Builds the runs that the Gaussian kernel is compared with."""
    return _with_layer(_runs(), dict.fromkeys(KINDS, "dot_product"))


def _claims() -> tuple[str, ...]:
    layer = product(KINDS, PASSES, LayerSizes().calls, DTYPES)
    return (*CLAIMS.values(), *(layer_claim(*row) for row in layer))


SUITE = Suite(
    claims=tuple(Claim(claim, "tokens", aim=0.9, peers=("dot_product",)) for claim in _claims()),
    libraries={
        "gaussian": Library(gaussian),
        "dot_product": Library(dot_product),
        "learned": Library(learned),
        "unnormalized": Library(unnormalized),
    },
)
