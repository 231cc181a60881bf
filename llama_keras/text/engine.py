"""Python strings through the graph in batches, and ids and character offsets out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from llama_keras.text.byte_pair import BytePairGraph
from llama_keras.text.offsets import character_offsets, clean_text
from llama_keras.text.sentence_piece import SentencePieceGraph
from llama_keras.text.spec import TokenizerSpec
from llama_keras.text.token_bytes import TokenBytes

_GRAPHS = {"byte_pair": BytePairGraph, "sentence_piece": SentencePieceGraph}


@dataclass(frozen=True)
class Encoding:
    """A text as ids, with the place of each in the text."""

    ids: list[int]
    """Token ids."""
    offsets: list[tuple[int, int]]
    """For each id the characters (start, end) of the text, in Unicode code points."""


@dataclass(frozen=True)
class Settings:
    """How to encode; each combination is a graph of its own."""

    offsets: bool
    parse_special: bool
    add_bos: bool | None
    add_eos: bool | None


class Engine:
    """A definition and what is made from it, out of sight of Keras's attribute tracking.

    Args:
        spec: the definition.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec
        self.token_bytes = TokenBytes(spec)
        self.graph = _GRAPHS[spec.kind](spec)
        self._functions: dict[Settings, Any] = {}

    def encode(self, texts: list[str], settings: Settings) -> list[Any]:
        """Gives for each text a list of ids, or with `settings.offsets` an `Encoding`."""
        texts = [clean_text(text) for text in texts]
        found = self._function(settings)(tf.constant(texts, tf.string))
        ids, splits = found[0].numpy(), found[1].numpy()
        flat, ends = ids.tolist(), splits.tolist()
        rows = list(zip(ends[:-1], ends[1:], strict=True))
        id_rows = [flat[start:end] for start, end in rows]
        if not settings.offsets:
            return id_rows
        starts, stops = found[2].numpy(), found[3].numpy()
        return [
            Encoding(row, character_offsets(text, starts=starts[a:b], ends=stops[a:b]))
            for text, row, (a, b) in zip(texts, id_rows, rows, strict=True)
        ]

    def _function(self, settings: Settings) -> Any:
        if settings not in self._functions:
            rules = {
                "parse_special": settings.parse_special,
                "add_bos": settings.add_bos,
                "add_eos": settings.add_eos,
            }

            def run(texts: tf.Tensor) -> tuple[tf.Tensor, ...]:
                if not settings.offsets:
                    ids = self.graph.tokenize(texts, **rules)
                    return ids.values, ids.row_splits
                found = self.graph.tokenize_with_offsets(texts, **rules)
                ids, starts, ends = found
                return ids.values, ids.row_splits, starts.values, ends.values

            signature = [tf.TensorSpec([None], tf.string)]
            self._functions[settings] = tf.function(run, input_signature=signature)
        return self._functions[settings]
