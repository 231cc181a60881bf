"""Log-likelihoods of continuations: from pairs of strings to batches of ids and back.

Axes: B batch, T tokens, N scored places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers.masking import SHARED_SEGMENT
from llama_keras.models.generation import rounded_length

if TYPE_CHECKING:
    from llama_keras.text import Tokenizer

# Tokens of one forward pass, padding included.
_BATCH_TOKENS = 2048
# Tokens after which the continuations of one context go on in another row.
_ROW_TOKENS = 1024
# Places of one product with the vocabulary: 512 × 128,256 float32 logits are 250 MiB.
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class ScoredPair:
    """A context and its continuation as ids."""

    context: list[int]
    continuation: list[int]

    @property
    def inputs(self) -> list[int]:
        """What the model reads: all but the last token, which is only predicted."""
        return [*self.context, *self.continuation][:-1]


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[ScoredPair]:
    """Encodes as lm-evaluation-harness does (`TemplateLM._encode_pair`).

    Spaces that end the context begin the continuation instead; the continuation's ids are those
    of the whole text after as many as the context alone has. An empty context becomes the token
    that begins a text (or the one that ends it, where there is none).

    Raises:
        InputError: an item is no pair of strings, or its continuation has no tokens.
    """
    pairs = [_moved_spaces(index, pair) for index, pair in enumerate(pairs)]
    contexts = tokenizer.encode([context for context, _ in pairs])
    wholes = tokenizer.encode([context + rest for context, rest in pairs])
    scored = []
    for index, ((text, _), context, whole) in enumerate(zip(pairs, contexts, wholes, strict=True)):
        if not text:
            begin = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
            context = [tokenizer.pad_id if begin is None else begin]
            whole = whole if whole[:1] == context else context + whole
        pair = ScoredPair(context, whole[len(context) :])
        if not pair.continuation:
            raise InputError(f"Pair {index} has a continuation without tokens; give it some text.")
        scored.append(pair)
    return scored


def _moved_spaces(index: int, pair: tuple[str, str]) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise InputError(
            f"Pair {index} must be (context, continuation), two strings; received {pair!r}."
        )
    context, continuation = pair
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def rolling_pairs(tokenizer: Tokenizer, text: str, *, limit: int) -> list[ScoredPair]:
    """Gives the windows that score each token of a text once.

    They are lm-evaluation-harness's (`get_rolling_token_windows` with one token of context): each
    window scores what comes after the last one, the first after the token that begins a text (or
    the one that ends it); the last is filled up to `limit` tokens with what stands before it.

    Args:
        tokenizer: the model's.
        text: one document; one without tokens has no windows.
        limit: the model's context, in tokens.
    """
    begin = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    start = tokenizer.pad_id if begin is None else begin
    ids = tokenizer.encode([text])[0]
    if ids[:1] == [tokenizer.bos_id]:
        ids = ids[1:]
    first = min(limit, len(ids))
    pairs = [ScoredPair([start], ids[:first])] if ids else []
    while first < len(ids):
        last = min(first + limit, len(ids))
        before = last - limit - 1
        pairs.append(ScoredPair(ids[before:first], ids[first:last]))
        first = last
    return pairs


def log_likelihoods(
    pairs: Sequence[ScoredPair], *, hidden_at: Callable, score_tokens: Callable, limit: int
) -> list[tuple[float, bool]]:
    """Gives (sum of log-probabilities, whether greedy decoding would give it) of each pair.

    Args:
        pairs: from `encode_pairs`.
        hidden_at, score_tokens: those of `models.scoring`, bound to a backbone.
        limit: the model's context, in tokens.

    Raises:
        InputError: a pair is longer than the context.
    """
    for index, pair in enumerate(pairs):
        if len(pair.inputs) > limit:
            raise InputError(
                f"Pair {index} has {len(pair.context)} tokens of context and "
                f"{len(pair.continuation)} of continuation; the model's context is {limit} tokens, "
                "and the last of the continuation is not read. Shorten it."
            )
    results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    for rows in _batches(_shared_rows(pairs)):
        batch = _arrays(rows)
        targets = batch.pop("targets")
        hidden = hidden_at(*(ops.convert_to_tensor(array) for array in batch.values()))
        blocks = [
            score_tokens(hidden[at : at + _BLOCK], ops.convert_to_tensor(targets[at : at + _BLOCK]))
            for at in range(0, len(targets), _BLOCK)
        ]
        values, greedy = (
            np.concatenate([ops.convert_to_numpy(block[part]) for block in blocks])
            for part in (0, 1)
        )
        start = 0
        for index, continuation in (item for row in rows for item in row.continuations):
            end = start + len(continuation)
            total = float(np.sum(values[start:end], dtype="float64"))
            results[index] = (total, bool(np.all(greedy[start:end])))
            start = end
    return results


@dataclasses.dataclass
class _Row:
    """A context and all that is asked to follow it: the context is read once.

    Attributes:
        context: ids.
        continuations: (number of the pair, ids) of each.
    """

    context: list[int]
    continuations: list[tuple[int, list[int]]]

    def __len__(self) -> int:
        return len(self.context) + sum(len(ids) - 1 for _, ids in self.continuations)


def _shared_rows(pairs: Sequence[ScoredPair]) -> list[_Row]:
    """Gives pairs of one context together, as far as `_ROW_TOKENS` allow."""
    open_rows: dict[tuple[int, ...], _Row] = {}
    rows = []
    for index, pair in enumerate(pairs):
        key = tuple(pair.context)
        row = open_rows.get(key)
        if row is None or len(row) + len(pair.continuation) > _ROW_TOKENS:
            row = open_rows[key] = _Row(pair.context, [])
            rows.append(row)
        row.continuations.append((index, pair.continuation))
    return rows


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Gives batches of like length, the longest first, of 1, 2, 4, … rows: few shapes occur."""
    ordered = sorted(rows, key=len, reverse=True)
    while ordered:
        most = max(1, min(len(ordered), _BATCH_TOKENS // _rounded(len(ordered[0]))))
        count = 1 << (most.bit_length() - 1)
        yield ordered[:count]
        ordered = ordered[count:]


def _rounded(length: int) -> int:
    step = 16 if length <= 256 else 64
    return -(-length // step) * step


def _arrays(rows: Sequence[_Row]) -> dict[str, np.ndarray]:
    """Gives what `hidden_at` takes, in its order, and the targets of the places.

    A row is its context, then each continuation without its last token, as segments that see the
    context and themselves, each at the positions that it would have alone.
    """
    length = _rounded(max(map(len, rows)))
    token_ids, segments, positions = (np.zeros((len(rows), length), "int32") for _ in range(3))
    places: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(rows):
        at = len(row.context)
        token_ids[number, :at] = row.context
        segments[number, :at] = SHARED_SEGMENT
        positions[number, :at] = range(at)
        for segment, (_, ids) in enumerate(row.continuations, start=1):
            end, first = at + len(ids) - 1, len(row.context)
            token_ids[number, at:end] = ids[:-1]
            segments[number, at:end] = segment
            positions[number, at:end] = range(first, first + len(ids) - 1)
            places.append(number * length + first - 1)
            places += range(number * length + at, number * length + end)
            targets += ids
            at = end
    filler = [0] * (rounded_length(len(targets)) - len(targets))
    return {
        "token_ids": token_ids,
        "places": np.array(places + filler, "int32"),
        "segment_ids": segments,
        "positions": positions,
        "targets": np.array(targets + filler, "int32"),
    }
