"""A decoding step in pieces of a few blocks, which XLA compiles once for all of them.

Compiled whole, a model of 30 layers takes XLA some ten seconds for each number of rows and cache
length. Its blocks differ in their weights alone, so one compiled function of weights runs all
pieces, and the loop around them stays TensorFlow's.

Axes: B rows, S cache length, E model width.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from llama_keras.models import generation


@contextmanager
def weights_read_once(backbone) -> Iterator[None]:
    """Has what is traced in the block read each weight here and not where it is used.

    Around a loop it takes the reading out of it, with all that makes a small stored weight a large
    one; see `export_dtype`.

    Args:
        backbone: a `LlamaBackbone`.
    """
    pairs = [(weight, tf.convert_to_tensor(weight.value)) for weight in backbone.weights]
    with keras.StatelessScope(state_mapping=pairs):
        yield


class LayerwiseBackbone:
    """Stands for a backbone in `generation.decode`, compiled piece by piece.

    Args:
        backbone: a causal `LlamaBackbone`.

    Attributes:
        config, compute_dtype, token_embedding: the backbone's.
    """

    def __init__(self, backbone):
        self.config, self.compute_dtype = backbone.config, backbone.compute_dtype
        self.token_embedding = backbone.token_embedding
        self._backbone = backbone
        blocks = backbone.transformer_layers
        size = max(n for n in range(1, _MOST_BLOCKS + 1) if len(blocks) % n == 0)
        pieces = [blocks[at : at + size] for at in range(0, len(blocks), size)]
        runs: dict[str, Callable] = {}  # kind of piece -> what runs it
        self._pieces = [
            (piece, runs.setdefault("".join(map(_kind, piece)), _compiled(_run_blocks, piece)))
            for piece in pieces
        ]
        self._choose = _compiled(self._next_token, [self.token_embedding])

    def call_with_cache(self, token_ids, *, cache, cache_index, positions, bias):
        """Runs new tokens against a cache; see `LlamaBackbone.call_with_cache`."""
        hidden, turns = self._backbone._place(self.token_embedding(token_ids), positions)
        context = {"bias": bias, "cache_index": cache_index, **turns}
        written = []
        for piece, run in self._pieces:
            entries = cache[len(written) : len(written) + len(piece)]
            hidden, entries = run(_values(piece), hidden, entries, context)
            written += entries
        return self._backbone.layer_norm(hidden), tuple(written)

    def next_token(self, backbone, hidden, **given):
        """Chooses tokens; see `generation.next_token`."""
        return self._choose(_values([self.token_embedding]), hidden, **given)

    def _next_token(self, layers, hidden, **given):
        return generation.next_token(self, hidden, **given)


# More of them in a piece cost more time to compile; fewer, more calls: a fifth of a millisecond
# each for 30 blocks of SmolLM2-135M one by one, where they take 34 together.
_MOST_BLOCKS = 6


def _run_blocks(blocks, hidden, cache, context):
    written = []
    for block, entry in zip(blocks, cache, strict=True):
        hidden, entry = block(hidden, cache=entry, **context)
        written.append(entry)
    return hidden, tuple(written)


def _values(layers: Sequence) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(weight.value) for layer in layers for weight in layer.weights]


def _compiled(function: Callable, layers: Sequence) -> Callable:
    """Gives `function(layers, …)` with the values of the layers' weights in their place."""
    weights = [weight for layer in layers for weight in layer.weights]

    def run(values, *args, **kwargs):
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return function(layers, *args, **kwargs)

    return tf.function(run, jit_compile=True, autograph=False)


def _kind(block) -> str:
    """Gives what two blocks must share for one to stand for the other: all but their weights."""
    config = {key: value for key, value in block.get_config().items() if key != "name"}
    policies = [layer.dtype_policy.name for layer in block._flatten_layers()]
    weights = [[weight.name, list(weight.shape), weight.dtype] for weight in block.weights]
    return json.dumps([config, policies, weights], sort_keys=True, default=str)
