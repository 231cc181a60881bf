"""Prompts to tokens inside the graph: the loop that `models.generation.Generator` runs outside.

Axes: B rows, P tokens of the longest prompt, N new tokens, S stop strings.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from llama_keras.models import generation
from llama_keras.serving.decoding_steps import SAMPLER, DecodingSteps
from llama_keras.serving.stop_strings import Answers, answers, pieces_of

# Setting -> (type of the input, which values are right, how that is said); what
# `SamplingSettings` refuses, and by the same words.
SETTINGS = {
    "max_new_tokens": (tf.int32, lambda x: x >= 1, "an integer of at least 1"),
    "temperature": (tf.float32, lambda x: (x >= 0) & (x < np.inf), "a number of at least 0"),
    "top_k": (tf.int32, lambda x: x >= 0, "an integer of at least 0 (0: no limit)"),
    "top_p": (
        tf.float32,
        lambda x: (x > 0) & (x <= 1),
        "a number above 0 and at most 1 (1: no limit)",
    ),
    "seed": (tf.int64, lambda x: tf.ones_like(x, tf.bool), "an integer"),
}


class Prompts(NamedTuple):
    """Prompts, padded on the left."""

    token_ids: tf.Tensor  # int32 (B, P)
    padding: tf.Tensor  # int32 (B,), how many tokens of each row are padding

    @property
    def lengths(self) -> tf.Tensor:
        """Tokens of each prompt: int32 `(B,)`."""
        return tf.shape(self.token_ids)[1] - self.padding


def start_id(tokenizer) -> int:
    """Gives the token that an empty text starts from, as `CausalLM.generate` has it."""
    begin = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    return next(token_id for token_id in begin if token_id is not None)


def left_padded(rows: tf.RaggedTensor, *, start: int) -> Prompts:
    """Gives ragged ids `(B, None)` padded on the left; a row without any becomes `start`."""
    lengths = tf.cast(rows.row_lengths(), tf.int32)
    length = tf.reduce_max(tf.concat([lengths, [1]], axis=0))
    dense = rows.to_tensor(start, shape=tf.stack([-1, length]))
    padding = length - tf.maximum(lengths, 1)
    places = tf.range(length)[None] - padding[:, None]
    token_ids = tf.gather(dense, tf.maximum(places, 0), batch_dims=1)
    return Prompts(tf.where(places < 0, 0, token_ids), padding)


def checked(prompts: Prompts, settings: Mapping[str, tf.Tensor], *, limit: int) -> Prompts:
    """Gives `prompts` once the settings and the prompts' lengths have been found right.

    Args:
        prompts: from `left_padded`.
        settings: those of `SETTINGS`, each `(B,)`, and `stop`, strings `(B, S)`.
        limit: the model's context, in tokens.
    """
    rows = tf.shape(prompts.token_ids)[0]
    checks = []
    for name, value in settings.items():
        found = f"{name} must have one value for each prompt; received"
        checks.append(tf.debugging.Assert(tf.shape(value)[0] == rows, [found, tf.shape(value)]))
    for name, (_, is_right, wanted) in SETTINGS.items():
        found = f"{name} must be {wanted}; received"
        right = tf.reduce_all(is_right(settings[name]))
        checks.append(tf.debugging.Assert(right, [found, settings[name]]))
    found = f"The model's context is {limit} tokens, of which at least one must be left for the "
    found += "answer; shorten the prompt. Tokens of the prompts:"
    fits = tf.reduce_all(prompts.lengths < limit)
    checks.append(tf.debugging.Assert(fits, [found, prompts.lengths]))
    with tf.control_dependencies(checks):
        return Prompts(*map(tf.identity, prompts))


def sampler_settings(settings: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Gives the settings of `SETTINGS`, `(B,)` each, with seeds as the sampler takes them."""
    low_bits = tf.bitwise.bitwise_and(settings["seed"], 2**32 - 1)
    # No others: XLA takes no strings.
    return {**{n: settings[n] for n in SAMPLER}, "seed": tf.cast(low_bits, tf.uint32)}


def with_rows(more, prompts: Prompts, settings: Mapping[str, tf.Tensor]):
    """Gives prompts and the sampler's settings with so many rows at the end that get no token."""
    last = tf.shape(prompts.token_ids)[1] - 1  # one token: no row is all padding
    longer = Prompts(
        tf.pad(prompts.token_ids, [[0, more], [0, 0]]),
        tf.concat([prompts.padding, tf.fill([more], last)], axis=0),
    )
    return longer, {name: tf.pad(value, [[0, more]]) for name, value in settings.items()}


class Decoder:
    """Continues prompts inside a graph.

    Args:
        backbone: a `LlamaBackbone`, causal or with `attention_mask="prefix"`.
        tokenizer: its `text.Tokenizer`.
        end_ids: tokens that end an answer; by default those of the tokenizer.
        both_ways: whether a prompt's tokens see each other both ways.
        jit_compile: have XLA compile the steps, anew for each number of rows and cache length;
            both are powers of two then.
    """

    def __init__(
        self,
        backbone,
        tokenizer,
        *,
        end_ids: Sequence[int] | None = None,
        both_ways: bool = False,
        jit_compile: bool = False,
    ):
        ends = tokenizer.end_ids if end_ids is None else end_ids
        self.steps = DecodingSteps(
            backbone, end_ids=ends, both_ways=both_ways, jit_compile=jit_compile
        )
        self.backbone, self.jit_compile = backbone, jit_compile
        # A cache is read and written whole at each step: it is no longer than it needs to be.
        self.slots = partial(_power_of_two, least=128) if jit_compile else tf.identity
        self._rows = partial(_power_of_two, least=1) if jit_compile else tf.identity
        self._end_ids = np.array(ends, "int32")
        self._texts = tokenizer.graph.texts

    def run(self, prompts: Prompts, settings: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Gives the answers, B first; see `causal_lm_signatures` for the outputs.

        Args:
            prompts: from `left_padded`.
            settings: see `checked`.
        """
        prompts, chosen = self.prepared(prompts, settings)
        stop, before = settings["stop"], prompts.token_ids[:, -1]
        tokens, log_probabilities = self._tokens(prompts, chosen, before=before, stop=stop)
        counts, ended = self._until_end(tokens)
        made = self._answers(tokens, counts, before=before, stop=stop, at_end=True)
        kept = tf.sequence_mask(made.counts, tf.shape(tokens)[1])
        width = tf.reduce_max(tf.concat([made.counts, [1]], axis=0))
        return {
            "text": made.text,
            "finish_reason": tf.where(ended | made.found, "stop", "length"),
            "log_probability": tf.reduce_sum(tf.where(kept, log_probabilities, 0.0), axis=1),
            "num_prompt_tokens": prompts.lengths,
            "token_ids": tf.where(kept, tokens, -1)[:, :width],
        }

    def prepared(self, prompts: Prompts, settings: Mapping[str, tf.Tensor]):
        """Gives `prompts`, checked, and the settings as `models.generation` takes them.

        Args:
            prompts: from `left_padded`.
            settings: see `checked`; without `stop` nothing is said of it.
        """
        limit = self.backbone.config.max_sequence_length
        prompts = checked(prompts, settings, limit=limit)
        room = tf.minimum(settings["max_new_tokens"], limit - prompts.lengths)
        return prompts, sampler_settings({**settings, "max_new_tokens": room})

    def _tokens(self, prompts: Prompts, settings, *, before, stop):
        """Gives new tokens int32 `(B, N)` (-1 after a row's end) and their log-probabilities."""
        rows, length = tf.unstack(tf.shape(prompts.token_ids))
        more = self._rows(rows) - rows
        prompts, settings = with_rows(more, prompts, settings)
        most = tf.reduce_max(tf.concat([settings["max_new_tokens"], [1]], axis=0))
        state, *made = self.steps.prefill(*prompts, self.slots(length + most), settings)

        def unfinished(state, stopped, tokens, log_probabilities):
            return ~tf.reduce_all(state["done"] | stopped)

        def advance(state, stopped, *made):
            state, *new = self.steps.decode(state, settings, stopped, generation.CHUNK)
            made = [tf.concat(parts, axis=1) for parts in zip(made, new, strict=True)]
            counts, _ = self._until_end(made[0])
            parts = self._answers(
                made[0][:rows], counts[:rows], before=before, stop=stop, at_end=False
            )
            return state, tf.pad(parts.found, [[0, more]], constant_values=True), *made

        first = (state, tf.zeros_like(state["done"]), *made)
        # As many columns as have been made.
        columns = [tf.TensorShape([None, None])] * 2
        state_shapes = tf.nest.map_structure(lambda spec: spec.shape, self.steps.specs)
        shapes = (state_shapes, tf.TensorShape([None]), *columns)
        _, _, *made = tf.while_loop(
            unfinished, advance, first, shape_invariants=shapes, parallel_iterations=1
        )
        return [part[:rows] for part in made]

    def _until_end(self, tokens):
        """Gives how many tokens come before a row's end `(B,)`, and whether it ended itself."""
        is_end = tf.reduce_any(tokens[:, :, None] == self._end_ids, axis=-1)
        going = tf.math.cumprod(tf.cast(~is_end & (tokens >= 0), tf.int32), axis=1)
        return tf.reduce_sum(going, axis=1), tf.reduce_any(is_end, axis=1)

    def _answers(self, tokens, counts, *, before, stop, at_end: bool) -> Answers:
        pieces = pieces_of(self._texts, tokens, before=before, counts=counts)
        return answers(pieces, counts, stop, at_end=at_end)


def _power_of_two(number: tf.Tensor, *, least: int) -> tf.Tensor:
    sizes = tf.constant([least << power for power in range(24)])
    return tf.gather(sizes, tf.searchsorted(sizes, [number])[0])
