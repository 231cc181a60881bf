"""What an `Embedder` answers to when it is served.

Axes: B texts, T tokens, E vector.
"""

import tensorflow as tf

from llama_keras.serving.signatures import Signatures, _features


def embedder_signatures(model) -> Signatures:
    """Gives `serving_default` and `embed` (texts to vectors) and `tokens` (ids to vectors).

    Inputs and outputs, all with the batch B first:
        `text` string `(B,)` → `embedding` float32 `(B, E)`.
        `token_ids`, `padding_mask` int32 `(B, T)` → `embedding` float32 `(B, E)`.
    """
    tokenizer, cleaning = model.tokenizer, model.cleaning
    limit = model.max_sequence_length

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def embed(text):
        features = _features(tokenizer, text, limit=limit, cleaning=cleaning)
        return {"embedding": model(features, training=False)}

    ids = [tf.TensorSpec([None, None], tf.int32, name=n) for n in ("token_ids", "padding_mask")]

    @tf.function(input_signature=ids)
    def tokens(token_ids, padding_mask):
        features = {"token_ids": token_ids, "padding_mask": padding_mask}
        return {"embedding": model(features, training=False)}

    return Signatures(
        task="embedding",
        functions={"serving_default": embed, "embed": embed, "tokens": tokens},
        trackables={"tokenizer": tokenizer.graph},
        labels=(),
        example_text="The weather is fine today.",
        cleaning=tuple(cleaning.get_config()["steps"]) if cleaning else (),
    )
