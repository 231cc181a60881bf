"""What generation gives back, and how it becomes text while stop strings are watched for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

from llama_keras.errors import InputError

if TYPE_CHECKING:
    from llama_keras.text import Tokenizer


@dataclasses.dataclass(frozen=True)
class Generation:
    """How a prompt was continued."""

    text: str
    """The new text, without the prompt and without the stop string that ended it."""
    token_ids: list[int]
    """The new tokens, without the token that ended the text; where a stop string did, up to and
    with the token that completed it."""
    finish_reason: Literal["stop", "length"]
    """`"stop"`: an end token or a stop string came; `"length"`: `max_new_tokens` or the model's
    context was used up."""
    num_prompt_tokens: int
    """Tokens of the prompt, control tokens included."""
    log_probabilities: list[float]
    """Of each of `token_ids` under the model, in nats, before temperature, top-k and top-p."""


class Completion:
    """One row's answer in the making: takes tokens, gives text that no stop string will cut.

    Args:
        tokenizer: turns the tokens into text.
        prompt: token ids that the answer continues.
        end_ids: tokens that end the answer.
        stop: strings that end the answer; they may span tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt: Sequence[int],
        end_ids: Collection[int],
        stop: Sequence[str],
    ):
        from llama_keras.text import StreamDecoder

        self._decoder = StreamDecoder(tokenizer)
        # SentencePiece drops the space before a text's first word; this answer has a text before.
        self._decoder.push(prompt[-1])
        self._prompt_length = len(prompt)
        self._end_ids, self._stop = frozenset(end_ids), stop
        self._held = ""  # may be the beginning of a stop string
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._log_probabilities: list[float] = []
        self.finished = False

    def push(self, token_ids, log_probabilities) -> str:
        """Takes the row's tokens of one chunk and gives the text that is now certain."""
        pieces = []
        for token_id, log_probability in zip(token_ids, log_probabilities, strict=True):
            if self.finished or token_id < 0:
                break
            if token_id in self._end_ids:
                self.finished = True
                pieces.append(self._certain("", at_end=True))
                break
            self._token_ids.append(int(token_id))
            self._log_probabilities.append(float(log_probability))
            pieces.append(self._certain(self._decoder.push(int(token_id))))
        return self._shown("".join(pieces))

    def finish(self) -> str:
        """Gives what was held back when no more tokens come."""
        return "" if self.finished else self._shown(self._certain("", at_end=True))

    def result(self) -> Generation:
        """Gives the answer; call `finish` before."""
        return Generation(
            text="".join(self._text),
            token_ids=self._token_ids,
            finish_reason="stop" if self.finished else "length",
            num_prompt_tokens=self._prompt_length,
            log_probabilities=self._log_probabilities,
        )

    def _shown(self, piece: str) -> str:
        self._text.append(piece)
        return piece

    def _certain(self, piece: str, *, at_end: bool = False) -> str:
        text = self._held + piece + (self._decoder.finish() if at_end else "")
        cuts = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if cuts:
            self.finished, self._held = True, ""
            return text[: min(cuts)]
        keep = 0 if at_end else max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def check_stop(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Gives stop strings as a tuple; raises `InputError` when one is empty or no string."""
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise InputError(f"stop must hold strings that are not empty; received {string!r}.")
    return strings
