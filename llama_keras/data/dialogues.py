"""Conversations from JSONL, as chat templates take them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_keras.data.files import find_file, jsonl_rows, read_text
from llama_keras.data.parts import split_source
from llama_keras.errors import InputError
from llama_keras.text.chat import ROLES

# Turns that do not say whose they are.
_ROLES = ("user", "assistant")

Conversation = list[dict[str, str]]


@dataclass(frozen=True)
class DialogueData:
    """Conversations in file order, each a list of `{"role", "content"}`."""

    conversations: list[Conversation]
    source: str
    """What was asked for, for messages and result files."""

    def __len__(self) -> int:
        return len(self.conversations)

    def head(self, count: int) -> "DialogueData":
        """Gives the first `count` conversations (all, when there are fewer)."""
        return DialogueData(self.conversations[:count], self.source)


def load_dialogues(
    source: str | Path, *, split: str | None = None, column: str = "turns"
) -> DialogueData:
    """Gives the conversations of a JSONL file, one a line.

    A turn is a string, or an object of `text` or `content` and perhaps `role`. Turns without a
    role are the user's and the assistant's by turns.

    Args:
        source: a `.jsonl` file, with `.gz` after it or not; a folder that holds `SPLIT.jsonl`;
            `package:FILE` or `shared:FILE`, and parts such as `x.jsonl[::4]`, see
            `data.load_classification`.
        split: the split of a folder.
        column: the key that holds the turns.

    Raises:
        InputError: the source is missing, malformed or empty, a turn has no text or a role that
            is not known, or no turn is the assistant's.
    """
    source, part = split_source(str(source))
    file = find_file(source, split)
    rows = jsonl_rows(read_text(file), file)
    found = [conversation_of(row, column, f"{file}, {place}") for place, row in rows]
    found = part.of(found)
    if not found:
        raise InputError(f"{source} holds no conversations; give a file with at least one.")
    return DialogueData(found, f"{source}{part}")


def conversation_of(row: Mapping[str, Any], column: str, place: str) -> Conversation:
    """Gives the messages of a row.

    Args:
        row: of a file.
        column: the key that holds the turns.
        place: where the row stands, for messages.

    Raises:
        InputError: see `load_dialogues`.
    """
    turns = row.get(column)
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{place}: there is no list of turns {column!r}; it has {list(row)}.")
    messages = [_message(turn, number, place) for number, turn in enumerate(turns)]
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError(
            f"{place}: no turn has the role 'assistant', so there is nothing to learn; add its "
            "answer, or leave the conversation out."
        )
    return messages


def _message(turn: Any, number: int, place: str) -> dict[str, str]:
    fields = turn if isinstance(turn, Mapping) else {"text": turn}
    content = fields.get("content", fields.get("text"))
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{place}: turn {number} has no text; it is {turn!r}.")
    role = fields.get("role", _ROLES[number % 2])
    if role not in ROLES:
        raise InputError(
            f"{place}: turn {number} has the role {role!r}; expected one of {list(ROLES)}. Rename "
            "it, such as human to user and gpt to assistant."
        )
    return {"role": role, "content": content}
