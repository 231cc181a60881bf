"""Text out of ids one at a time, without ever showing half a character."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_keras.text.tokenizer import Tokenizer


class StreamDecoder:
    """Turns ids into text as they come; the pieces joined equal `decode` of all ids.

    Args:
        tokenizer: what the ids belong to.
        skip_special_tokens: leave control tokens out of the text.

    Example:

    ```python
    tokenizer = Tokenizer.from_preset("llama-tiny")
    stream = StreamDecoder(tokenizer)
    shown = [stream.push(id_) for id_ in tokenizer.encode("né")] + [stream.finish()]
    assert shown == ["n", "", "é", ""]
    ```
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._pieces = tokenizer.token_bytes
        self._skip_special_tokens = skip_special_tokens
        self._reset()

    def _reset(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True

    def push(self, token_id: int) -> str:
        """Gives the text that `token_id` completes; incomplete characters wait for the next id."""
        data = self._pieces.text_of(
            token_id, at_start=self._at_start, skip_special_tokens=self._skip_special_tokens
        )
        self._at_start = self._pieces.is_special(token_id)
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Gives what is left, U+FFFD for an incomplete character, and starts afresh."""
        rest = self._decoder.decode(b"", final=True)
        self._reset()
        return rest
