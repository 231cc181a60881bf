"""What an `Embedder` answers to when it is served.

Axes: B texts, T tokens, E vector.
"""

import tensorflow as tf

from llama_keras.serving.signature_parts import (
    Signatures,
    cleaning_steps,
    text_features,
    tokens_signature,
)
from llama_keras.serving.vocabulary_signatures import count_signature


def embedder_signatures(model) -> Signatures:
    """Gives `serving_default` and `embed` (texts to vectors), `tokens`, and `count_tokens`.

    Inputs and outputs, all with the batch B first:
        `text` string `(B,)` → `embedding` float32 `(B, E)`.
        `token_ids`, `padding_mask` int32 `(B, T)` → `embedding` float32 `(B, E)`.
        `text` string `(B,)` → `num_tokens` int32 `(B,)`, the tokens that are read.
    """

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def embed(text):
        return {"embedding": model(text_features(model, text), training=False)}

    return Signatures(
        task="embedding",
        functions={
            "serving_default": embed,
            "embed": embed,
            "tokens": tokens_signature(model, output="embedding"),
            "count_tokens": count_signature(model),
        },
        trackables={"tokenizer": model.tokenizer.graph},
        labels=(),
        example_text="The weather is fine today.",
        cleaning=cleaning_steps(model),
    )
