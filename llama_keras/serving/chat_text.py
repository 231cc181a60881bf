"""Texts and conversations to ids and back, by an export alone: its manifest and its signatures.

What `text.Tokenizer` does where the model was made. The server has no tokenizer, so `tokenize` and
`vocabulary` of the SavedModel stand for it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..text.chat import render_chat, shield_messages, split_shielded
from ..text.offsets import clean_text
from .openai_errors import OpenAiError
from .served import Servable, ServedModels

# What an export must have to be talked to token by token.
NEEDED = ("tokenize", "vocabulary", "token_scores", "prefill", "decode", "generate_ids")
# What its manifest must tell.
_TOLD = ("vocabulary", "context_length", "defaults", "chat_template")
# Texts that become ids in one call.
_MAX_TEXTS = 64


async def run(
    served: ServedModels, servable: Servable, signature: str, **inputs: Any
) -> dict[str, np.ndarray]:
    """Gives the outputs of a signature; other requests may share its batch."""
    return await asyncio.wrap_future(served.submit(servable, signature, inputs))


def strings(texts: Sequence[str]) -> np.ndarray:
    """Gives texts as a signature takes them, lone surrogates as U+FFFD."""
    array = np.empty(len(texts), object)
    array[:] = [clean_text(text).encode() for text in texts]
    return array


class ChatText:
    """The tokenizer of one export, and what else its manifest tells of generation.

    Make it with `ChatText.of`.

    Attributes:
        context_length: tokens that the model can read and write.
        defaults: settings of the export.
        chat_template: Jinja source, None where the model does not chat.
        end_ids: ids that end an answer.
        pieces: the bytes of each id, U+FFFD as the last one, for ids beyond.
    """

    def __init__(self, manifest: Mapping[str, Any], pieces: Sequence[bytes]):
        known = manifest["vocabulary"]
        self.context_length: int = manifest["context_length"]
        self.defaults: Mapping[str, Any] = manifest["defaults"]
        self.chat_template: str | None = manifest["chat_template"]
        self.end_ids = frozenset(known["end_ids"])
        self.pieces = pieces
        self._known = known
        self._special: dict[str, int] = known["special_tokens"]
        self._special_ids = frozenset(self._special.values())

    @classmethod
    async def of(cls, servable: Servable) -> "ChatText | None":
        """Reads a version's manifest and vocabulary; None where it does not generate."""
        if any(name not in servable.model.signatures for name in NEEDED):
            return None
        manifest = servable.manifest.content
        if any(name not in manifest for name in _TOLD):
            return None
        ids = np.arange(manifest["vocabulary"]["vocabulary_size"] + 1, dtype="int32")
        # Asked for once, by nobody's request: no limit of requests holds for it.
        run_arrays = servable.model.run_arrays
        found = await asyncio.to_thread(run_arrays, "vocabulary", {"token_ids": ids})
        return cls(manifest, found["piece_bytes"].tolist())

    # A `Completion` takes this for its tokenizer: all that it asks of one is the following.

    @property
    def token_bytes(self) -> "ChatText":
        """What each id stands for: this."""
        return self

    def is_special(self, token_id: int) -> bool:
        """Says whether `token_id` is a control token."""
        return token_id in self._special_ids

    def text_of(self, token_id: int, *, at_start: bool, skip_special_tokens: bool) -> bytes:
        """Gives the bytes of one id, as `text.token_bytes.TokenBytes.text_of` does."""
        special = token_id in self._special_ids
        if skip_special_tokens and special:
            return b""
        piece = self.piece(token_id)
        strip = at_start and self._known["strip_space"] and not special
        return piece.removeprefix(b" ") if strip else piece

    def piece(self, token_id: int) -> bytes:
        """Gives the bytes of one id as they stand within a text."""
        return self.pieces[min(token_id, len(self.pieces) - 1)]

    async def encode(
        self, served: ServedModels, servable: Servable, texts: Sequence[str]
    ) -> list[list[int]]:
        """Gives the ids that `generate` reads for prompts."""
        begin = [self._known["bos_id"]] if self._known["add_bos"] else []
        end = [self._known["eos_id"]] if self._known["add_eos"] else []
        rows = [[*begin, *row, *end] for row in await self._plain(served, servable, texts)]
        return [row or [self._known["start_id"]] for row in rows]

    async def encode_chat(
        self, served: ServedModels, servable: Servable, messages: Sequence[Mapping[str, Any]]
    ) -> list[int]:
        """Gives the ids of a conversation as `Tokenizer.encode_chat` does: none forges a turn.

        Raises:
            InputError: the template rejects the messages, or they are no conversation.
        """
        special = list(self._special)
        shielded, shield = shield_messages(messages, special)
        text = render_chat(
            self.chat_template or "",
            shielded,
            bos_token=self._text_of(self._known["bos_id"]),
            eos_token=self._text_of(self._known["eos_id"]),
        )
        parts = split_shielded(text, special, shield)
        texts = [part for part, is_special in parts if not is_special]
        rest = iter(await self._plain(served, servable, texts))
        known = {**self._special, **self._known["user_tokens"]}
        ids: list[int] = []
        for part, is_special in parts:
            ids += [known[part]] if is_special else next(rest)
        return ids

    def adds_bos(self) -> bool:
        """Whether a text's ids begin with one that is no part of it."""
        return bool(self._known["add_bos"])

    def _text_of(self, token_id: int | None) -> str:
        return "" if token_id is None else self.pieces[token_id].decode()

    async def _plain(
        self, served: ServedModels, servable: Servable, texts: Sequence[str]
    ) -> list[list[int]]:
        rows: list[list[int]] = []
        for start in range(0, len(texts), _MAX_TEXTS):
            part = strings(texts[start : start + _MAX_TEXTS])
            found = await run(served, servable, "tokenize", text=part)
            rows += [[id_ for id_ in row if id_ >= 0] for row in found["token_ids"].tolist()]
        return rows


def chat_template_of(servable: Servable) -> str | None:
    """Gives the chat template of a version that generates text, None where it has none."""
    return servable.manifest.content.get("chat_template")


class Chats:
    """The served models, and the tokenizer of each version, which is read by its first use.

    Args:
        served: what answers.
    """

    def __init__(self, served: ServedModels):
        self.served = served
        self._known: WeakKeyDictionary[Servable, ChatText] = WeakKeyDictionary()

    async def of(self, servable: Servable) -> ChatText:
        """Gives a version's tokenizer.

        Raises:
            OpenAiError: the model does not generate text, or was exported before it could so here.
        """
        if servable not in self._known:
            found = await ChatText.of(servable)
            if found is None:
                raise OpenAiError(
                    400,
                    f"{servable.name} (task {servable.manifest.task or 'unknown'}) does not "
                    "generate text here: it has no signatures prefill, decode and tokenize. Ask "
                    "another model, or export it again if it is a CausalLM.",
                    param="model",
                    code="unsupported_model",
                )
            self._known[servable] = found
        return self._known[servable]
