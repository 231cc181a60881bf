"""Gaussian-kernel attention beside dot-product attention: the same encoder, 8 texts of 128 tokens.

Both are ours, of the shape of SmolLM2-135M, and run as one `tf.function`. The figure counts tokens.
"""

from typing import Any

from benchmarks.encode import LENGTH, NAME, ROWS
from benchmarks.smollm2 import DTYPES, SIZES
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow

CLAIMS = {dtype: f"Gaussian kernel, {NAME}, {dtype}" for dtype in DTYPES}


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


def gaussian(options: dict[str, Any]) -> Runs:
    """Builds the runs with the normalized Gaussian kernel."""
    return _runs(attention_kernel="gaussian", attention_temperature=0.7)


def learned(options: dict[str, Any]) -> Runs:
    """Builds those whose temperature is a weight."""
    return _runs(attention_kernel="gaussian", learned_temperature=True)


def unnormalized(options: dict[str, Any]) -> Runs:
    """Builds those with the article's unnormalized kernel."""
    return _runs(attention_kernel="gaussian", normalize_attention=False)


def dot_product(options: dict[str, Any]) -> Runs:
    """Builds the runs that the Gaussian kernel is compared with."""
    return _runs()


SUITE = Suite(
    claims=tuple(
        Claim(claim, "tokens", aim=0.9, peers=("dot_product",)) for claim in CLAIMS.values()
    ),
    libraries={
        "gaussian": Library(gaussian),
        "dot_product": Library(dot_product),
        "learned": Library(learned),
        "unnormalized": Library(unnormalized),
    },
)
