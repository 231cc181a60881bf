"""Answers of an export: whole, by one call of `generate_ids`, or as they grow.

Growing ones come of `prefill` and `decode`; the text is the same for the same settings.

Axes: B rows, T tokens, N new tokens of a call.
"""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tasks.completion import Completion
from .chat_text import ChatText, run
from .served import Servable, ServedModels

# Rows of one call.
MAX_ROWS = 32
# A stream's calls shall take so long: tokens few enough that text flows, enough for rare calls.
_CALL_SECONDS = 0.15
_FIRST_STEPS, _MOST_STEPS = 4, 16
_TYPES = {
    "max_new_tokens": "int32",
    "temperature": "float32",
    "top_k": "int32",
    "top_p": "float32",
    "seed": "int64",
}
_STATE = ("cache", "padding", "last_token", "step", "done", "max_new_tokens")


@dataclass(frozen=True)
class Row:
    """One answer that is asked for.

    Attributes:
        prompt: token ids.
        settings: a value for each setting of `generate`, without `stop`.
    """

    prompt: list[int]
    settings: dict[str, Any]


@dataclass
class Answer:
    """One answer, or what has come of it since the last call.

    Attributes:
        text: without the stop string that ended it.
        token_ids: new tokens; with the one that ended the answer where `ended_by_id`.
        log_probabilities: of these tokens; empty where they were not asked for.
        finish_reason: "stop" or "length"; None where more is to come.
        ended_by_id: whether the last of `token_ids` is a token that ends answers.
    """

    text: str
    token_ids: list[int]
    log_probabilities: list[float]
    finish_reason: str | None
    ended_by_id: bool = False

    @property
    def count(self) -> int:
        """Tokens of the answer."""
        return len(self.token_ids) - self.ended_by_id

    def add(self, new: "Answer") -> None:
        """Takes what has come since."""
        self.text += new.text
        self.token_ids += new.token_ids
        self.log_probabilities += new.log_probabilities
        self.finish_reason, self.ended_by_id = new.finish_reason, new.ended_by_id


async def answer_whole(
    served: ServedModels, servable: Servable, rows: Sequence[Row], *, stop: Sequence[str]
) -> list[Answer]:
    """Gives the answers to all rows by `generate_ids`."""
    answers = []
    for start in range(0, len(rows), MAX_ROWS):
        part = rows[start : start + MAX_ROWS]
        stops = np.empty((len(part), max(len(stop), 1)), object)
        stops[:] = [text.encode("utf-8", "replace") for text in stop] or [b""]
        found = await run(served, servable, "generate_ids", **_inputs(part), stop=stops)
        for text, reason, ids in zip(
            found["text"], found["finish_reason"], found["token_ids"].tolist(), strict=True
        ):
            kept = [id_ for id_ in ids if id_ >= 0]
            answers.append(Answer(text.decode(), kept, [], reason.decode()))
    return answers


async def answer_stepwise(
    served: ServedModels,
    servable: Servable,
    rows: Sequence[Row],
    *,
    stop: Sequence[str],
    chat: ChatText,
) -> AsyncIterator[tuple[int, Answer]]:
    """Gives what is new of each row, as (number of the row, `Answer`), until all have ended.

    Args:
        served, servable: who runs it.
        rows: what is asked.
        stop: strings that end an answer; none of them is ever shown in part.
        chat: the export's tokenizer.
    """
    for start in range(0, len(rows), MAX_ROWS):
        part = rows[start : start + MAX_ROWS]
        growing = [_Growing(chat, row.prompt, stop) for row in part]
        async for outputs in _outputs(served, servable, part, growing):
            for index, row in enumerate(growing):
                answer = row.push(outputs, index)
                if answer is not None:
                    yield start + index, answer


def answer_of_one(chat: ChatText, row: Row, token_id: int, value: float, *, stop: Sequence[str]):
    """Gives the `Answer` to a row that gets one token, which is known already."""
    outputs = {
        "token_ids": np.array([[token_id]]),
        "log_probability": np.array([[value]]),
        "done": np.array([True]),
    }
    answer = _Growing(chat, row.prompt, stop).push(outputs, 0)
    assert answer is not None, "a row's first token is news"
    return answer


async def answer_scored(
    served: ServedModels,
    servable: Servable,
    rows: Sequence[Row],
    *,
    stop: Sequence[str],
    chat: ChatText,
) -> list[Answer]:
    """Gives the answers to all rows with each token's log-probability; see `answer_stepwise`."""
    answers = [Answer("", [], [], None) for _ in rows]
    async for index, new in answer_stepwise(served, servable, rows, stop=stop, chat=chat):
        answers[index].add(new)
    return answers


async def _outputs(served, servable, rows: Sequence[Row], growing: "Sequence[_Growing]"):
    """Gives the outputs of `prefill`, then of one `decode` after another."""
    inputs = _inputs(rows)
    outputs = await run(served, servable, "prefill", **inputs)
    yield outputs
    settings = {name: inputs[name] for name in _TYPES}
    steps = _FIRST_STEPS
    while not all(row.finished for row in growing):
        state = {name: outputs[name] for name in _STATE}
        # Where a stop string has come, the graph does not know of it.
        state["done"] = state["done"] | np.array([row.finished for row in growing])
        wanted = np.full(len(rows), steps, "int32")
        began = time.monotonic()
        outputs = await run(served, servable, "decode", **{**settings, **state}, steps=wanted)
        yield outputs
        each = (time.monotonic() - began) / max(1, outputs["token_ids"].shape[1])
        steps = max(1, min(_MOST_STEPS, int(_CALL_SECONDS / each)))


class _Growing:
    """One row's answer while it grows."""

    def __init__(self, chat: ChatText, prompt: list[int], stop: Sequence[str]):
        # To a `Completion` a `ChatText` is tokenizer enough.
        tokenizer: Any = chat
        self._completion = Completion(tokenizer, prompt=prompt, end_ids=chat.end_ids, stop=stop)
        self._end_ids, self.finished = chat.end_ids, False

    def push(self, outputs: dict[str, np.ndarray], row: int) -> Answer | None:
        """Gives what a call has added, None once the answer has ended."""
        if self.finished:
            return None
        answer = Answer("", [], [], None)
        columns = (outputs["token_ids"][row].tolist(), outputs["log_probability"][row].tolist())
        for token_id, value in zip(*columns, strict=True):
            if token_id < 0 or self.finished:
                break
            answer.text += self._completion.push([token_id], [value])
            answer.token_ids.append(token_id)
            answer.log_probabilities.append(value)
            self.finished = self._completion.finished
            answer.ended_by_id = token_id in self._end_ids
        if not self.finished and outputs["done"][row]:
            answer.text += self._completion.finish()
            self.finished = True
        if self.finished:
            answer.finish_reason = "stop" if self._completion.finished else "length"
        return answer


def _inputs(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Gives prompts padded to the longest, and one value of each setting a row."""
    # The graph pads for itself: a rounded width only lets more requests share a batch.
    longest = max(len(row.prompt) for row in rows)
    length = next(width for power in range(5, 31) if (width := 1 << power) >= longest)
    token_ids, mask = (np.zeros((len(rows), length), "int32") for _ in range(2))
    for index, row in enumerate(rows):
        token_ids[index, length - len(row.prompt) :] = row.prompt
        mask[index, length - len(row.prompt) :] = 1
    columns = {
        name: np.array([row.settings[name] for row in rows], dtype)
        for name, dtype in _TYPES.items()
    }
    return {"token_ids": token_ids, "padding_mask": mask, **columns}
