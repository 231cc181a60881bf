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
from llama_keras.models.generation import rounded_length

if TYPE_CHECKING:
    from llama_keras.text import Tokenizer

# Tokens of one forward pass, padding included.
_BATCH_TOKENS = 2048
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
    for group in _groups(pairs):
        token_ids, places, targets = _arrays([pairs[index] for index in group])
        hidden = hidden_at(ops.convert_to_tensor(token_ids), ops.convert_to_tensor(places))
        blocks = [
            score_tokens(hidden[at : at + _BLOCK], ops.convert_to_tensor(targets[at : at + _BLOCK]))
            for at in range(0, len(targets), _BLOCK)
        ]
        values, greedy = (
            np.concatenate([ops.convert_to_numpy(block[part]) for block in blocks])
            for part in (0, 1)
        )
        start = 0
        for index in group:
            end = start + len(pairs[index].continuation)
            total = float(np.sum(values[start:end], dtype="float64"))
            results[index] = (total, bool(np.all(greedy[start:end])))
            start = end
    return results


def _groups(pairs: Sequence[ScoredPair]) -> Iterator[list[int]]:
    """Gives the pairs' indices in batches of like length, the longest first.

    Batches have 1, 2, 4, … rows, so that few shapes occur and no row is a filler.
    """
    by_length: dict[int, list[int]] = {}
    for index, pair in enumerate(pairs):
        by_length.setdefault(rounded_length(len(pair.inputs)), []).append(index)
    for length, indices in sorted(by_length.items(), reverse=True):
        while indices:
            most = max(1, min(len(indices), _BATCH_TOKENS // length))
            rows = 1 << (most.bit_length() - 1)
            yield indices[:rows]
            indices = indices[rows:]


def _arrays(pairs: Sequence[ScoredPair]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives token ids `(B, T)`, places and targets; the latter filled up to a rounded length."""
    length = rounded_length(max(len(pair.inputs) for pair in pairs))
    token_ids = np.zeros((len(pairs), length), "int32")
    places: list[int] = []
    targets: list[int] = []
    for row, pair in enumerate(pairs):
        token_ids[row, : len(pair.inputs)] = pair.inputs
        first = row * length + len(pair.context) - 1
        places += range(first, first + len(pair.continuation))
        targets += pair.continuation
    filler = [0] * (rounded_length(len(targets)) - len(targets))
    return token_ids, np.array(places + filler, "int32"), np.array(targets + filler, "int32")
