"""Decoding a few tokens at a call, so that a caller can show an answer while it grows.

`models.generation`'s state goes out of one call and into the next one. A cache that travels holds
the slots that are used and no others, so that rows whose caches are equally long may share a batch.

Axes: B rows, L layers, K key-value heads, S slots used, D head size, N new tokens of a call.
"""

from collections.abc import Mapping

import tensorflow as tf

from llama_keras.serving.decoding import Decoder, Prompts, sampler_settings

# What a call may be asked for: more is a stream no more.
MAX_STEPS = 64


def state_specs(backbone) -> list[tf.TensorSpec]:
    """Gives what travels from call to call, as inputs of `decode`.

    `cache` float32 `(B, 2·L, K, S, D)`, keys and values of each layer in turn; int32 `(B,)`:
    `padding` (slots before the prompt), `last_token` (-1 after the end) and `step` (tokens chosen
    so far); `done` bool `(B,)`. `max_new_tokens` travels too, as the setting that it is.
    """
    config = backbone.config
    cache = [None, 2 * config.num_layers, config.num_key_value_heads, None, config.head_dim]
    return [
        tf.TensorSpec(cache, tf.float32, "cache"),
        *(tf.TensorSpec([None], tf.int32, n) for n in ("padding", "last_token", "step")),
        tf.TensorSpec([None], tf.bool, "done"),
    ]


def first_step(
    decoder: Decoder, prompts: Prompts, settings: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Reads the prompts and chooses one token; see `causal_lm_signatures` for the outputs.

    Args:
        decoder: what `generate` uses.
        prompts: from `left_padded`.
        settings: see `decoding.checked`; `stop` is the caller's.
    """
    prompts, chosen = decoder.prepared(prompts, settings)
    length = tf.shape(prompts.token_ids)[1]
    found = decoder.steps.prefill(*prompts, length, chosen)
    return {
        **_outputs(decoder, *found, slots=length),
        "max_new_tokens": chosen["max_new_tokens"],
        "num_prompt_tokens": prompts.lengths,
    }


def more_steps(
    decoder: Decoder, state: Mapping[str, tf.Tensor], settings: Mapping[str, tf.Tensor], steps
) -> dict[str, tf.Tensor]:
    """Continues rows by some tokens; see `causal_lm_signatures` for the outputs.

    Args:
        decoder: as for `first_step`.
        state: from `first_step` or an earlier call; rows whose `done` is set do not go on.
        settings: those of `SETTINGS`.
        steps: int32 `(B,)`, how many tokens are wanted; the fewest count.
    """
    count = tf.clip_by_value(tf.reduce_min(steps), 1, MAX_STEPS)
    used = tf.shape(state["cache"])[3]
    free = decoder.slots(used + count) - used
    cache = tf.cast(state["cache"], decoder.backbone.compute_dtype)
    none = tf.zeros([2], tf.int32)
    cache = tf.pad(cache, tf.stack([none, none, none, tf.stack([0, free]), none]))
    parts = tf.unstack(cache, axis=1)
    inner = {
        "cache": tuple(zip(parts[::2], parts[1::2], strict=True)),
        "padding": state["padding"],
        "token": state["last_token"],
        "done": state["done"],
        "index": used,
        "step": state["step"],
    }
    chosen = sampler_settings(settings)
    stopped = tf.zeros_like(state["done"])
    found = decoder.steps.decode(inner, chosen, stopped, count)
    made = _outputs(decoder, *found, slots=used + count)
    return {**made, "max_new_tokens": settings["max_new_tokens"]}


def _outputs(decoder: Decoder, state, tokens, log_probabilities, *, slots) -> dict[str, tf.Tensor]:
    cache = tf.stack([part for entry in state["cache"] for part in entry], axis=1)
    cache = tf.cast(cache[:, :, :, :slots], tf.float32)
    (spec, *_) = state_specs(decoder.backbone)
    return {
        "cache": tf.ensure_shape(cache, spec.shape),
        "padding": state["padding"],
        "last_token": state["token"],
        "step": state["step"],
        "done": state["done"],
        "token_ids": tokens,
        "log_probability": log_probabilities,
    }
