"""Text out of a backbone, token by token: prefill a cache, then decode in chunks.

Prompts are padded on the left, so that all rows write the same cache slot. Lengths, batch sizes
and cache lengths are rounded up to a few sizes, and every setting is a tensor, so that a handful
of compiled functions serve all calls.

Axes: B batch, P prompt length, S cache length, N new tokens of a chunk, V vocabulary,
E model width.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers.masking import additive
from llama_keras.models.sampling import SamplingSettings, choose

# Steps of one compiled call: what a stop string or a stream may overshoot or wait for.
CHUNK = 16
# Rows of one batch; more prompts make several.
MAX_ROWS = 32
# Fixed, so that no model needs its own trace; Llama 3 has 3 end tokens.
_MAX_END_IDS = 8
_NOTHING = -1
_MIN_SLOTS = 128


def rounded_length(length: int) -> int:
    """Gives the next of 16, 24, 32, 48, 64, 96, …: at most 1.5 times as long, few in number."""
    size = 16
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def rounded_rows(rows: int) -> int:
    """Gives the next power of two; also for cache lengths, on which decoding hardly depends."""
    return 1 << (rows - 1).bit_length()


def prefill(backbone, token_ids, padding, cache, settings, end_ids, *, both_ways: bool = False):
    """Runs the prompts and chooses the first new token.

    Args:
        backbone: a `LlamaBackbone`.
        token_ids: int32 `(B, P)`, padded on the left.
        padding: int32 `(B,)`, how many tokens of each row are padding.
        cache: from `backbone.init_cache(B, S)`; S is at least P plus the new tokens.
        settings: tensors `(B,)` from `SamplingSettings.stack`.
        end_ids: int32 `(…,)`, tokens that end a row.
        both_ways: whether a prompt's tokens see each other both ways, for
            `attention_mask="prefix"`.

    Returns:
        The state for `decode`, the tokens int32 `(B, 1)` and their log-probabilities.
    """
    length, slots = ops.shape(token_ids)[1], ops.shape(cache[0][0])[2]
    steps, columns = ops.arange(length, dtype="int32"), ops.arange(slots, dtype="int32")
    last = ops.full_like(steps, length - 1) if both_ways else steps
    seen = ops.logical_and(
        columns[None, None] <= last[None, :, None], columns[None, None] >= padding[:, None, None]
    )
    hidden, cache = backbone.call_with_cache(
        token_ids,
        cache=cache,
        cache_index=0,
        positions=ops.maximum(steps[None] - padding[:, None], 0),
        bias=additive(seen[:, None], backbone.compute_dtype),
    )
    step = ops.zeros((), dtype="int32")
    done = settings["max_new_tokens"] <= 0
    token, log_probability, done = next_token(
        backbone, hidden[:, -1], done=done, step=step, settings=settings, end_ids=end_ids
    )
    state = {
        "cache": cache,
        "padding": padding,
        "token": token,
        "done": done,
        "index": ops.cast(length, "int32"),  # the next free slot
        "step": step + 1,  # tokens chosen so far
    }
    return state, token[:, None], log_probability[:, None]


def decode(
    backbone,
    state,
    settings,
    end_ids,
    stopped,
    *,
    chunk: int = CHUNK,
    choose_next: Callable | None = None,
):
    """Continues all rows by up to `chunk` tokens; ends early when all are done.

    Args:
        backbone, settings, end_ids: as for `prefill`.
        state: from `prefill` or an earlier `decode`.
        stopped: bool `(B,)`, rows that the caller has no more use for.
        chunk: N.
        choose_next: stands for `next_token`, such as a compiled one.

    Returns:
        The new state, the tokens int32 `(B, N)` (-1 after a row's end) and their
        log-probabilities float32 `(B, N)`.
    """
    slots = ops.shape(state["cache"][0][0])[2]
    columns = ops.arange(slots, dtype="int32")
    places = ops.arange(chunk, dtype="int32")
    padding, first_index, first_step = (state[name] for name in ("padding", "index", "step"))
    choose_next = choose_next or next_token

    def unfinished(place, token, done, cache, tokens, log_probabilities):
        return ops.logical_and(place < chunk, ops.logical_not(ops.all(done)))

    def advance(place, token, done, cache, tokens, log_probabilities):
        index = first_index + place
        seen = ops.logical_and(columns[None] <= index, columns[None] >= padding[:, None])
        hidden, cache = backbone.call_with_cache(
            ops.maximum(token, 0)[:, None],
            cache=cache,
            cache_index=index,
            positions=(index - padding)[:, None],
            bias=additive(seen[:, None, None], backbone.compute_dtype),
        )
        token, log_probability, done = choose_next(
            backbone,
            hidden[:, -1],
            done=done,
            step=first_step + place,
            settings=settings,
            end_ids=end_ids,
        )
        here = (places == place)[None]
        tokens = ops.where(here, token[:, None], tokens)
        log_probabilities = ops.where(here, log_probability[:, None], log_probabilities)
        return place + 1, token, done, cache, tokens, log_probabilities

    shape = (ops.shape(padding)[0], chunk)
    place, token, done, cache, tokens, log_probabilities = ops.while_loop(
        unfinished,
        advance,
        (
            ops.zeros((), dtype="int32"),
            state["token"],
            ops.logical_or(state["done"], stopped),
            state["cache"],
            ops.full(shape, _NOTHING, dtype="int32"),
            ops.zeros(shape, dtype="float32"),
        ),
    )
    state = {
        "cache": cache,
        "padding": padding,
        "token": token,
        "done": done,
        "index": first_index + place,
        "step": first_step + place,
    }
    return state, tokens, log_probabilities


def next_token(backbone, hidden, *, done, step, settings, end_ids):
    """Chooses the token after the last one of each row.

    Args:
        backbone, settings, end_ids: as for `prefill`; of the backbone only `token_embedding`.
        hidden: `(B, E)`, its output for those last ones.
        done: bool `(B,)`, rows that get none.
        step: int32 scalar, the number of tokens chosen before.

    Returns:
        Tokens int32 `(B,)`, -1 in rows that get none; their log-probabilities; the new `done`.
    """
    logits = ops.cast(backbone.token_embedding(hidden, reverse=True), "float32")  # (B, V)
    chosen = {name: settings[name] for name in ("temperature", "top_k", "top_p", "seed")}
    token, log_probability = choose(logits, step=step, **chosen)
    token = ops.where(done, _NOTHING, token)
    ended = ops.any(token[:, None] == end_ids[None], axis=-1)
    full = step + 1 >= settings["max_new_tokens"]
    return token, log_probability, ops.logical_or(done, ops.logical_or(ended, full))


@dataclasses.dataclass(frozen=True)
class Chunk:
    """New tokens of all rows of a batch."""

    token_ids: np.ndarray
    """int32 `(B, N)`; -1 after a row's end. A token that ends a row is still there."""
    log_probabilities: np.ndarray
    """float32 `(B, N)`, of each token under the model, before temperature and filters."""


class Generator:
    """Runs batches of prompts through a backbone, rounded to few shapes.

    Args:
        backbone: a causal `LlamaBackbone`.
        prefill: `prefill` bound to the backbone, compiled or not.
        decode: likewise `decode`.
    """

    def __init__(
        self, backbone, *, prefill: Callable | None = None, decode: Callable | None = None
    ):
        self.backbone = backbone
        self._prefill = prefill or partial(globals()["prefill"], backbone)
        self._decode = decode or partial(globals()["decode"], backbone)

    def run(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        settings: Sequence[SamplingSettings],
        end_ids: Sequence[int] = (),
        stopped: np.ndarray | None = None,
    ) -> Iterator[Chunk]:
        """Gives the new tokens of one batch, chunk by chunk: the first token, then `CHUNK` each.

        Args:
            prompts: token ids of each row, none empty.
            settings: of each row.
            end_ids: tokens that end a row.
            stopped: bool `(B,)`, read before each chunk: the caller sets it where a row need not
                go on.

        Raises:
            InputError: a prompt leaves no room in the model's context.
        """
        rows, limit = rounded_rows(len(prompts)), self.backbone.config.max_sequence_length
        for prompt in prompts:
            check_room(len(prompt), limit)
        room = [
            min(row.max_new_tokens, limit - len(prompt))
            for row, prompt in zip(settings, prompts, strict=True)
        ]
        settings = [
            dataclasses.replace(row, max_new_tokens=new)
            for row, new in zip(settings, room, strict=True)
        ]
        token_ids, padding = pad_left(prompts, rows=rows)
        tensors = {
            name: ops.convert_to_tensor(value)
            for name, value in SamplingSettings.stack(settings, rows=rows).items()
        }
        ends = ops.convert_to_tensor(_padded_end_ids(end_ids))
        slots = max(_MIN_SLOTS, rounded_rows(token_ids.shape[1] + max(room)))
        state, tokens, log_probabilities = self._prefill(
            ops.convert_to_tensor(token_ids),
            ops.convert_to_tensor(padding),
            self.backbone.init_cache(rows, slots),
            tensors,
            ends,
        )
        count = len(prompts)
        yield _to_numpy(tokens, log_probabilities, count)
        while not np.all(done := _done(state, stopped)):
            state, tokens, log_probabilities = self._decode(
                state, tensors, ends, ops.convert_to_tensor(done)
            )
            yield _to_numpy(tokens, log_probabilities, count)


def check_room(length: int, limit: int) -> None:
    """Raises `InputError` unless a prompt of `length` tokens leaves room for one more."""
    if length >= limit:
        raise InputError(
            f"The prompt has {length} tokens, and the model's context is {limit} tokens, of which "
            "at least one must be left for the answer; shorten the prompt."
        )


def pad_left(prompts: Sequence[Sequence[int]], *, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives prompts as int32 `(rows, P)`, and how many tokens of each row are padding.

    Rows beyond the prompts hold one token, so that no row is all padding.
    """
    length = rounded_length(max(len(prompt) for prompt in prompts))
    token_ids = np.zeros((rows, length), "int32")
    padding = np.full(rows, length - 1, "int32")
    for row, prompt in enumerate(prompts):
        token_ids[row, length - len(prompt) :] = prompt
        padding[row] = length - len(prompt)
    return token_ids, padding


def _padded_end_ids(end_ids: Sequence[int]) -> np.ndarray:
    if len(end_ids) > _MAX_END_IDS:
        raise InputError(f"At most {_MAX_END_IDS} end tokens; received {len(end_ids)}.")
    # No token is -2, and a row that is done chooses -1.
    return np.array([*end_ids, *[-2] * (_MAX_END_IDS - len(end_ids))], "int32")


def _done(state, stopped: np.ndarray | None) -> np.ndarray:
    done = np.array(ops.convert_to_numpy(state["done"]))
    if stopped is not None:
        done[: len(stopped)] |= stopped
    return done


def _to_numpy(tokens, log_probabilities, count: int) -> Chunk:
    return Chunk(
        ops.convert_to_numpy(tokens)[:count], ops.convert_to_numpy(log_probabilities)[:count]
    )
