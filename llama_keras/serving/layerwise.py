"""A decoding step block by block, of which XLA compiles one for all.

Compiled whole, a model of 30 layers takes XLA some ten seconds for each number of rows and cache
length. Its blocks differ in their weights alone, so one compiled function of weights runs them
all, and the loop around them stays TensorFlow's. (Six blocks a function are no faster.)

Axes: B rows, S cache length, E model width.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from llama_keras.models import generation
from llama_keras.training.adapters import weights_read


@contextmanager
def weights_read_once(backbone) -> Iterator[None]:
    """Has what is traced in the block read each weight here and not where it is used.

    Around a loop it takes the reading out of it, with all that makes a small stored weight a large
    one; see `export_dtype`.

    Args:
        backbone: a `LlamaBackbone`.
    """
    pairs = [(weight, tf.convert_to_tensor(weight.value)) for weight in weights_read(backbone)]
    with keras.StatelessScope(state_mapping=pairs):
        yield


class LayerwiseBackbone:
    """Stands for a backbone in `generation.decode`, compiled block by block.

    Args:
        backbone: a causal `LlamaBackbone`.

    Attributes:
        config, compute_dtype, token_embedding: the backbone's.
    """

    def __init__(self, backbone):
        self.config, self.compute_dtype = backbone.config, backbone.compute_dtype
        self.token_embedding = backbone.token_embedding
        self._backbone = backbone
        runs: dict[str, Callable] = {}  # kind of block -> what runs it
        self._blocks = [
            (block, runs.setdefault(_kind(block), _compiled(_run_block, block)))
            for block in backbone.transformer_layers
        ]
        self._choose = _compiled(self._next_token, self.token_embedding)

    def call_with_cache(self, token_ids, *, cache, cache_index, positions, bias):
        """Runs new tokens against a cache; see `LlamaBackbone.call_with_cache`."""
        hidden, turns = self._backbone._place(self.token_embedding(token_ids), positions)
        context = {"bias": bias, "cache_index": cache_index, **turns}
        written = []
        for (block, run), entry in zip(self._blocks, cache, strict=True):
            hidden, entry = run(_values(block), hidden, cache=entry, **context)
            written.append(entry)
        return self._backbone.layer_norm(hidden), tuple(written)

    def next_token(self, backbone, hidden, **given):
        """Chooses tokens; see `generation.next_token`."""
        return self._choose(_values(self.token_embedding), hidden, **given)

    def _next_token(self, embedding, hidden, **given):
        return generation.next_token(self, hidden, **given)


def _run_block(block, hidden, **context):
    return block(hidden, **context)


def _values(layer) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(weight.value) for weight in weights_read(layer)]


def _compiled(function: Callable, layer) -> Callable:
    """Gives `function(layer, …)` with the values of the layer's weights in their place."""

    def run(values, *args, **kwargs):
        with keras.StatelessScope(
            state_mapping=list(zip(weights_read(layer), values, strict=True))
        ):
            return function(layer, *args, **kwargs)

    return tf.function(run, jit_compile=True, autograph=False)


def _kind(block) -> str:
    """Gives what two blocks must share for one to stand for the other: all but their weights."""
    config = {key: value for key, value in block.get_config().items() if key != "name"}
    policies = [layer.dtype_policy.name for layer in block._flatten_layers()]
    weights = [[weight.name, list(weight.shape), weight.dtype] for weight in weights_read(block)]
    return json.dumps([config, policies, weights], sort_keys=True, default=str)
