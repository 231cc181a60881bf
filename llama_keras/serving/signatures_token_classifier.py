"""What a `TokenClassifier` answers to when it is served.

Axes: B texts, M entities of the text that has most, W windows, T tokens, U units, C tags.
"""

import tensorflow as tf

from llama_keras.data.entities import Entities, EntityGraph
from llama_keras.serving.signature_parts import (
    Signatures,
    cleaning_steps,
    label_bytes,
    tokens_signature,
)
from llama_keras.serving.window_logits import window_logits
from llama_keras.text.graph import ragged, substrings, valid_utf8
from llama_keras.text.units import Units

# Units, padding included, whose tags are decoded at once.
UNITS_AT_ONCE = 16384


def _best(model, emissions, units: Units):
    """Gives the best legal tag of each unit and its score, from emissions (units of all, C).

    The longest texts go first, and with each as many as fit beside it: one long text among many
    short ones must not make all rows as long as itself.
    """
    rows = ragged(emissions, units.row_splits)
    counts = tf.cast(rows.row_lengths(), tf.int32)
    order = tf.argsort(counts, direction="DESCENDING", stable=True)

    def step(at, number, tags, scores):
        # Of texts without any unit there is one column of padding: a chain has a first token.
        width = tf.reduce_max(tf.concat([tf.gather(counts, order[at : at + 1]), [1]], axis=0))
        until = at + tf.maximum(UNITS_AT_ONCE // width, 1)
        chosen = order[at:until]
        shape = tf.stack([tf.size(chosen), width, emissions.shape[-1]])
        mask = tf.sequence_mask(tf.gather(counts, chosen), width)
        best, score = model.best_tags(tf.gather(rows, chosen).to_tensor(shape=shape), mask)
        tags = tags.write(number, tf.boolean_mask(best, mask))
        return until, number + 1, tags, scores.write(number, tf.boolean_mask(score, mask))

    begun = (
        tf.TensorArray(dtype, 1, dynamic_size=True, infer_shape=False, element_shape=[None])
        for dtype in (tf.int32, tf.float32)
    )
    _, _, *found = tf.while_loop(
        lambda at, *_: (at == 0) | (at < tf.size(order)),
        step,
        (0, 0, *begun),
        parallel_iterations=1,
    )
    numbers = ragged(tf.range(tf.shape(emissions)[0]), units.row_splits)
    places = tf.gather(numbers, order).flat_values[:, tf.newaxis]
    return (tf.scatter_nd(places, part.concat(), tf.shape(emissions)[:1]) for part in found)


def _answers(entities: Entities, text, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    counts = entities.row_splits[1:] - entities.row_splits[:-1]
    rows = tf.repeat(tf.range(tf.size(text)), counts)
    columns = {
        "entity": (substrings(text, rows, entities.starts, entities.ends), ""),
        "label": (tf.gather(labels, entities.labels), ""),
        "start": (entities.starts, -1),
        "end": (entities.ends, -1),
        "score": (entities.scores, 0.0),
    }
    found = {
        name: ragged(values, entities.row_splits).to_tensor(default)
        for name, (values, default) in columns.items()
    }
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
        logits = window_logits(model, windows.token_ids, size=len(model.tags))
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
