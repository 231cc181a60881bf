"""What a `Denoiser` answers to when it is served: the clean text is written in the graph.

Axes: B texts, T tokens, V vocabulary.
"""

import tensorflow as tf

from llama_keras.models.sampling import SamplingSettings
from llama_keras.serving.decoding import SETTINGS, Decoder, left_padded
from llama_keras.serving.masked_texts import encode_masked
from llama_keras.serving.signature_parts import (
    TOKEN_FEATURES,
    Signatures,
    cleaning_steps,
    tokens_signature,
)


def denoiser_signatures(model, *, max_new_tokens: int | None = None) -> Signatures:
    """Gives `serving_default` and `denoise` (corrupted texts to clean ones) and `tokens`.

    Inputs and outputs, all with the batch B first:
        `serving_default`: `text` string `(B,)`, in which `<mask>` stands for a hidden token →
        `text` and `finish_reason` ("stop" or "length") string `(B,)`, see `Denoiser.predict`.
        `denoise`: `text`, and `max_new_tokens` int32 `(B,)` of each → as above.
        `tokens`: `token_ids`, `padding_mask`, `prefix_mask` int32 `(B, T)` → `logits` float32
        `(B, T, V)`.

    Args:
        model: a `Denoiser`.
        max_new_tokens: of `serving_default`; by default what the model's context has room for.

    Raises:
        InputError: `max_new_tokens` is out of range.
    """
    tokenizer, tokens = model.tokenizer, model.mask_tokens
    limit, greedy = model.max_sequence_length, SamplingSettings()
    if max_new_tokens is not None:
        SamplingSettings(max_new_tokens=max_new_tokens)  # raises where that is none
    decoder = Decoder(model.backbone, tokenizer, end_ids=[tokens.end_id], both_ways=True)
    text = tf.TensorSpec([None], tf.string, name="text")
    most = tf.TensorSpec([None], tf.int32, name="max_new_tokens")

    @tf.function(input_signature=[text, most])
    def denoise(text, max_new_tokens):
        rows = encode_masked(
            tokenizer, text, mask_id=tokens.mask_id, cleaning=model.cleaning, add_bos=False
        )[:, : model.row_limit]
        rows = _with_sentinels(rows, mask_id=tokens.mask_id, sentinel_ids=model.sentinel_ids)
        is_empty, count = rows.row_lengths() == 0, tf.size(text)
        ends = tf.fill(tf.stack([count, 1]), tokens.separator_id)
        prompts = left_padded(tf.concat([rows, ends], axis=1), start=tokens.separator_id)
        # An empty text has nothing to be reconstructed from.
        room = tf.where(is_empty, 1, limit - prompts.lengths)
        settings = {
            name: tf.fill([count], tf.constant(getattr(greedy, name), dtype))
            for name, (dtype, *_) in SETTINGS.items()
        }
        settings["max_new_tokens"] = tf.minimum(max_new_tokens, room)
        settings["stop"] = tf.fill(tf.stack([count, 0]), "")
        found = decoder.run(prompts, settings)
        written = tf.ragged.boolean_mask(found["token_ids"], found["token_ids"] >= 0)
        clean = tokenizer.graph.texts.detokenize(written, skip_special_tokens=True)
        return {
            "text": tf.where(is_empty, "", clean),
            "finish_reason": tf.where(is_empty, "stop", found["finish_reason"]),
        }

    @tf.function(input_signature=[text])
    def answer(text):
        return denoise(text, tf.fill([tf.size(text)], max_new_tokens or limit))

    prefix_mask = tf.TensorSpec([None, None], tf.int32, name="prefix_mask")
    return Signatures(
        task="denoising",
        functions={
            "serving_default": answer,
            "denoise": denoise,
            "tokens": tokens_signature(model, inputs=[*TOKEN_FEATURES, prefix_mask]),
        },
        trackables={"tokenizer": tokenizer.graph},
        labels=(),
        example_text="The wether is fin today.",
        cleaning=cleaning_steps(model),
        settings={
            "defaults": {"max_new_tokens": max_new_tokens or limit},
            **model.learning_config(),
        },
    )


def _with_sentinels(rows, *, mask_id: int, sentinel_ids: tuple[int, ...]):
    """Gives ragged rows whose first masks are the sentinels in their order, if there are any."""
    if not sentinel_ids:
        return rows
    is_mask = rows.values == mask_id
    so_far = tf.cumsum(tf.cast(is_mask, tf.int32))
    before = tf.gather(tf.concat([[0], so_far], axis=0), rows.row_starts())
    number = so_far - tf.gather(before, rows.value_rowids())  # 1 for the first mask of a row
    sentinels = tf.constant(sentinel_ids, rows.dtype)
    marks = tf.gather(sentinels, tf.clip_by_value(number - 1, 0, len(sentinel_ids) - 1))
    has_one = is_mask & (number <= len(sentinel_ids))
    return rows.with_values(tf.where(has_one, marks, rows.values))
