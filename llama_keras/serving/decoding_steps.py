"""The parts of decoding as functions that are traced once, however many signatures call them.

A model of 30 layers is some thousand nodes each time it stands in a graph: files grow by megabytes,
and export and load by seconds.

Axes: B rows, P prompt length, T tokens, E model width.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from llama_keras.models import generation
from llama_keras.serving.layerwise import LayerwiseBackbone, weights_read_once

# What the sampler reads, `(B,)` each; see `models.sampling.choose`.
SAMPLER = {
    "max_new_tokens": tf.int32,
    "temperature": tf.float32,
    "top_k": tf.int32,
    "top_p": tf.float32,
    "seed": tf.uint32,
}


class DecodingSteps:
    """`models.generation`'s prefill and decode for any number of rows, tokens and slots.

    Args:
        backbone: a `LlamaBackbone`, causal or with `attention_mask="prefix"`.
        end_ids: tokens that end an answer.
        both_ways: whether a prompt's tokens see each other both ways.
        jit_compile: have XLA compile the blocks and the choice of a token in `decode`.

    Attributes:
        specs: of a state's tensors, as `decode` takes and gives them.
        prefill: token ids int32 `(B, P)`, padding int32 `(B,)`, slots int32 and settings (those of
            `SAMPLER`) → state, tokens, log-probabilities.
        decode: state, settings, bool `(B,)` (rows to stop) and int32 (steps) → the same.
    """

    def __init__(self, backbone, *, end_ids: Sequence[int], both_ways: bool, jit_compile: bool):
        specs = _state_specs(backbone)
        ends = np.array(end_ids, "int32")
        run = partial(generation.decode, backbone)
        if jit_compile:
            compiled = LayerwiseBackbone(backbone)
            run = partial(generation.decode, compiled, choose_next=compiled.next_token)
        settings = {name: tf.TensorSpec([None], dtype) for name, dtype in SAMPLER.items()}
        rows, scalar = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
        ids = tf.TensorSpec([None, None], tf.int32)

        @tf.function(input_signature=[ids, rows, scalar, settings])
        def prefill(token_ids, padding, slots, settings):
            cache = backbone.init_cache(tf.shape(token_ids)[0], slots)
            with weights_read_once(backbone):
                state, *made = generation.prefill(
                    backbone, token_ids, padding, cache, settings, ends, both_ways=both_ways
                )
            state = {**state, "step": tf.fill(tf.shape(padding), state["step"])}
            return _shaped(specs, state), *made

        @tf.function(input_signature=[specs, settings, tf.TensorSpec([None], tf.bool), scalar])
        def decode(state, settings, stopped, steps):
            with weights_read_once(backbone):
                state, *made = run(state, settings, ends, stopped, chunk=steps)
            return _shaped(specs, state), *made

        self.specs, self.prefill, self.decode = specs, prefill, decode


class SharedBackbone:
    """Stands for a backbone that reads whole texts, in a function that is traced once.

    Args:
        backbone: a causal `LlamaBackbone`.

    Attributes:
        config: the backbone's.
        token_embedding: the backbone's.
    """

    def __init__(self, backbone):
        self.config, self.token_embedding = backbone.config, backbone.token_embedding
        row = tf.TensorSpec([None, None], tf.int32)

        @tf.function(input_signature=[row, row])
        def read(token_ids, padding_mask):
            inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
            return backbone(inputs, training=False)

        self._read = read

    def __call__(self, inputs: Mapping[str, tf.Tensor], training: bool = False):
        """Gives the output `(B, T, E)` for `token_ids` and `padding_mask`, int32 `(B, T)`."""
        return self._read(inputs["token_ids"], inputs["padding_mask"])


def _state_specs(backbone) -> dict[str, Any]:
    config = backbone.config
    part = tf.TensorSpec(
        [None, config.num_key_value_heads, None, config.head_dim], backbone.compute_dtype
    )
    rows = {name: tf.TensorSpec([None], tf.int32) for name in ("padding", "token", "step")}
    return {
        **rows,
        "cache": ((part, part),) * config.num_layers,
        "done": tf.TensorSpec([None], tf.bool),
        "index": tf.TensorSpec([], tf.int32),
    }


def _shaped(specs, state):
    return tf.nest.map_structure(lambda spec, x: tf.ensure_shape(x, spec.shape), specs, state)
