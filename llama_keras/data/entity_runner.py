"""Texts through a tagger, for training and for prediction, out of sight of Keras's tracking.

Axes: T tokens, U units of a text, C tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from llama_keras.data.bucketing import NO_LABEL, TokenRows, inference_batches
from llama_keras.data.entities import EntityGraph
from llama_keras.data.inference import with_progress
from llama_keras.text.offsets import clean_text
from llama_keras.text.units import Units

# Texts in one graph call, as many as the tokenizer takes.
_BATCH = 4096
# Units (and padding) of the texts whose tags are decoded together.
_DECODED = 16384


@dataclass(frozen=True)
class Encoded:
    """Windows and units of a batch of texts, as arrays.

    Attributes:
        first: number of the batch's first text.
        splits: where each text's units begin, and their end.
        units: the same units, as `EntityGraph.entities` takes them.
        starts: first character of each unit; `ends`: one past the last.
        tagged: number in its text of the token that has each unit's tag.
        windows: ids of each window.
        window_texts: number in the batch of each window's text.
        window_starts: number in its text of each window's first token.
        places: window and column at which each unit's tag is read.
        before: tokens in a window before those of the text; `after`: behind them.
    """

    first: int
    splits: np.ndarray
    units: Units
    starts: np.ndarray
    ends: np.ndarray
    tagged: np.ndarray
    windows: list[list[int]]
    window_texts: np.ndarray
    window_starts: np.ndarray
    places: np.ndarray
    before: int
    after: int

    def __len__(self) -> int:
        return len(self.splits) - 1

    def of(self, text: int) -> slice:
        """Gives which units are those of a text of the batch."""
        return slice(int(self.splits[text]), int(self.splits[text + 1]))


class EntityRunner:
    """Runs the graphs before and after a tagger.

    Args:
        graph: of the tagger.
        decode: gives tags `(B, U)` and their scores for emissions `(B, U, C)` and a mask.
    """

    def __init__(self, graph: EntityGraph, decode: Callable):
        self.graph = graph
        self._encode = tf.function(graph.encode, input_signature=[tf.TensorSpec([None], tf.string)])
        self._decode = decode
        if keras.backend.backend() == "tensorflow":
            specs = [
                tf.TensorSpec([None, None, len(graph.begins)], tf.float32),
                tf.TensorSpec([None, None], tf.bool),
            ]
            self._decode = tf.function(decode, input_signature=specs, autograph=False)

    def encoded(self, texts: Sequence[str]) -> Iterator[Encoded]:
        """Yields batches of texts, in order."""
        for first in range(0, len(texts), _BATCH):
            batch = [clean_text(text) for text in texts[first : first + _BATCH]]
            units, windows = self._encode(tf.constant(batch, tf.string))
            flat, splits = windows.token_ids.values.numpy().tolist(), windows.token_ids.row_splits
            bounds = splits.numpy().tolist()
            is_first = self.graph.tagged_token == "first"
            yield Encoded(
                first=first,
                splits=units.row_splits.numpy(),
                units=units,
                starts=units.starts.numpy(),
                ends=units.ends.numpy(),
                tagged=(units.first_tokens if is_first else units.last_tokens).numpy(),
                windows=[flat[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)],
                window_texts=windows.texts.numpy(),
                window_starts=windows.starts.numpy(),
                places=windows.places.numpy(),
                before=self.graph.first_id is not None,
                after=self.graph.last_id is not None,
            )

    def entities(
        self, model: Callable, texts: Sequence[str], *, batch_size: int, title: str = ""
    ) -> Iterator[list[tuple[int, int, int, float]]]:
        """Yields for each text its entities: start, end, number of the type, score.

        Args:
            model: from `data.inference.graph_of`; token features to emissions `(B, T, C)`.
            texts: raw texts.
            batch_size: windows in a batch.
            title: shows a progress bar of that name where people look.
        """
        for batch in self.encoded(texts):
            rows = TokenRows(batch.windows, self.graph.tokenizer.pad_id)
            read = _run(model, rows, batch.places, batch_size=batch_size, title=title)
            tags, scores = self._decoded(read, batch.splits)
            found = self.graph.entities(tf.constant(tags), tf.constant(scores), batch.units)
            splits, *columns = (x.numpy().tolist() for x in found)
            for a, b in zip(splits[:-1], splits[1:], strict=True):
                yield list(zip(*(column[a:b] for column in columns), strict=True))

    def _decoded(self, emissions: np.ndarray, splits: np.ndarray):
        """Gives the best tag of each unit and its score, from emissions (units of all texts, C)."""
        tags = np.zeros(len(emissions), "int32")
        scores = np.zeros(len(emissions), "float32")
        counts = np.diff(splits)
        order = [i for i in np.argsort(counts, kind="stable") if counts[i]]
        while order:
            # The longest first: those that follow fit beside it.
            size = max(_DECODED // int(counts[order[-1]]), 1)
            chosen, order = order[-size:], order[:-size]
            width = int(counts[chosen[-1]])
            mask = np.arange(width)[None] < counts[chosen][:, None]
            places = np.where(mask, splits[:-1][chosen][:, None] + np.arange(width), 0)
            made = self._decode(emissions[places], mask)
            best, score = (keras.ops.convert_to_numpy(x) for x in made)
            tags[places[mask]], scores[places[mask]] = best[mask], score[mask]
        return tags, scores


def _run(model, rows: TokenRows, places, *, batch_size: int, title: str) -> np.ndarray:
    """Gives what `model` says at (window, column) `places`, float32 `(units, C)`."""
    dataset, order = inference_batches(rows, batch_size=batch_size)
    batches = with_progress(dataset, title, total=-(-len(order) // batch_size))
    by_window = np.argsort(places[:, 0], kind="stable")
    bounds = np.searchsorted(places[by_window, 0], np.arange(len(order) + 1))
    result, at = np.zeros((len(places), 0), "float32"), 0
    for features in batches:
        made = keras.ops.convert_to_numpy(model(features)).astype("float32", copy=False)
        if not result.shape[1]:
            result = np.zeros((len(places), made.shape[-1]), "float32")
        for row, window in enumerate(order[at : at + len(made)]):
            chosen = by_window[bounds[window] : bounds[window + 1]]
            result[chosen] = made[row, places[chosen, 1]]
        at += len(made)
    return result


def training_rows(
    batch: Encoded, tags: Sequence[Sequence[int]], entities: Sequence[Sequence[tuple[int, int]]]
) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Gives the labels of each window's tokens, and the entities that no window holds whole.

    A window learns nothing from the part of an entity that it holds a part of.

    Args:
        batch: of texts.
        tags: for each text those of its units, as numbers.
        entities: for each text the units `[first, last)` of each entity.

    Returns:
        For each window as many ints as it has tokens, `NO_LABEL` where there is no tag; and
        (text, entity) numbers.
    """
    labels, whole = [], set()
    for window, ids in enumerate(batch.windows):
        text, start = int(batch.window_texts[window]), int(batch.window_starts[window])
        columns = batch.tagged[batch.of(text)] - start + batch.before
        inside = (columns >= batch.before) & (columns < len(ids) - batch.after)
        for number, (first, last) in enumerate(entities[text]):
            if inside[first:last].all():
                whole.add((text, number))
            else:
                inside[first:last] = False
        row = np.full(len(ids), NO_LABEL, "int32")
        row[columns[inside]] = np.asarray(tags[text], "int32")[inside]
        labels.append(row.tolist())
    every = {(text, number) for text, row in enumerate(entities) for number in range(len(row))}
    return labels, sorted(every - whole)
