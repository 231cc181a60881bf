"""What a `TokenClassifier` answers to when it is served.

Axes: B texts, M entities of the text that has most, W windows, T tokens, U units, C tags.
"""

import tensorflow as tf

from llama_keras.data.entities import Entities, EntityGraph
from llama_keras.data.token_windows import padded
from llama_keras.serving.signature_parts import (
    Signatures,
    cleaning_steps,
    label_bytes,
    tokens_signature,
)
from llama_keras.text.graph import ragged, valid_utf8
from llama_keras.text.units import Units


def _best(model, emissions, units: Units):
    """Gives the best legal tag of each unit and its score, from emissions (units of all, C)."""
    rows = ragged(emissions, units.row_splits)
    # Of texts without any unit there is one column of padding: a chain has a first token.
    width = tf.maximum(rows.bounding_shape(axis=1), 1)
    padded_rows = rows.to_tensor(shape=tf.stack([rows.nrows(), width, emissions.shape[-1]]))
    mask = tf.sequence_mask(rows.row_lengths(), width)
    found = model.best_tags(padded_rows, mask)
    return (tf.boolean_mask(x, mask) for x in found)


def _answers(entities: Entities, text, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    rows = tf.repeat(tf.range(tf.size(text)), entities.row_splits[1:] - entities.row_splits[:-1])
    sizes = entities.ends - entities.starts
    parts = tf.strings.substr(tf.gather(text, rows), entities.starts, sizes, unit="UTF8_CHAR")
    columns = {
        "entity": (parts, ""),
        "label": (tf.gather(labels, entities.labels), ""),
        "start": (entities.starts, -1),
        "end": (entities.ends, -1),
        "score": (entities.scores, 0.0),
    }
    found = {
        name: ragged(values, entities.row_splits).to_tensor(default)
        for name, (values, default) in columns.items()
    }
    counts = entities.row_splits[1:] - entities.row_splits[:-1]
    return {"count": tf.cast(counts, tf.int32), **found}


def token_classifier_signatures(model):
    """Gives `serving_default` and `tag` (text to entities) and `tokens` (ids to tag scores).

    Inputs and outputs, all with the batch B first:
        `text` string `(B,)` → `count` int32 `(B,)`, and of each entity, in the order of the text,
        `entity` (its text) and `label` string `(B, M)`, `start` and `end` int32 `(B, M)` in code
        points of the text, `score` float32 `(B, M)`. Rows with fewer entities end with empty
        strings, -1 and 0.
        `token_ids`, `padding_mask` int32 `(B, T)` → `logits` float32 `(B, T, C)`.
    """
    tokenizer = model.tokenizer
    graph: EntityGraph = model.entity_graph
    names = label_bytes(model.labels)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def tag(text):
        text = valid_utf8(text)
        units, windows = graph.encode(text)
        logits = model(padded(windows.token_ids, tokenizer.pad_id), training=False)
        tags, scores = _best(model, tf.gather_nd(logits, windows.places), units)
        return _answers(graph.entities(tags, scores, units), text, tf.constant(names, tf.string))

    return Signatures(
        task="token_classification",
        functions={"serving_default": tag, "tag": tag, "tokens": tokens_signature(model)},
        trackables={"tokenizer": tokenizer.graph},
        labels=tuple(map(str, model.labels)),
        example_text="Ada Lovelace was born in London.",
        cleaning=cleaning_steps(model),
    )
