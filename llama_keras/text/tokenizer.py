"""The tokenizer that people use: texts to ids and back, as a Keras layer and from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import keras
import numpy as np
import tensorflow as tf

from llama_keras.atomic import write_text
from llama_keras.errors import InputError
from llama_keras.text.byte_pair import BytePairGraph
from llama_keras.text.chat import render_chat, shield_messages, split_shielded
from llama_keras.text.engine import Encoding, Engine, Settings
from llama_keras.text.graph import Ids
from llama_keras.text.sentence_piece import SentencePieceGraph
from llama_keras.text.spec import TokenizerSpec
from llama_keras.text.token_bytes import TokenBytes

FILE_NAME = "llama_keras_tokenizer.json"
# Texts in one graph call: enough to keep it busy, few enough that memory stays flat.
_BATCH = 4096


@keras.saving.register_keras_serializable(package="llama_keras")
class Tokenizer(keras.layers.Layer):
    """Texts to token ids and back, exactly as the reference tokenizer does it.

    The work is done by `graph`, a `tf.Module` that can be exported in a SavedModel; it needs
    nothing but TensorFlow and TF-Text there.

    Args:
        spec: vocabulary and rules; without it the tokenizer is empty until `load_assets`.
        name: the layer's name.

    Example:

    ```python
    tokenizer = Tokenizer.from_preset("llama-tiny")
    assert tokenizer.decode(tokenizer.encode("Hi!")) == "Hi!"
    found = tokenizer.encode(["née"], offsets=True)[0]
    assert found.offsets == [(0, 1), (1, 2), (1, 2), (2, 3)]
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [2]
    ids = tokenizer(tf.constant(["in the graph"]))  # tf.RaggedTensor (1, None)
    ```
    """

    def __init__(self, spec: TokenizerSpec | None = None, *, name: str | None = None) -> None:
        super().__init__(name=name, trainable=False, dtype="int32", autocast=False)
        self._engine: Engine | None = None
        if spec is not None:
            self._set_spec(spec)
        self.built = True

    def _set_spec(self, spec: TokenizerSpec) -> None:
        self._engine = Engine(spec)
        # An attribute of its own, so that a SavedModel of this layer finds the resources.
        self._graph_module = self._engine.graph

    @classmethod
    def from_preset(cls, preset: str | Path) -> Tokenizer:
        """Gives the tokenizer of a model.

        Args:
            preset: a built-in name ("smollm2-135m-instruct", "llama-tiny"), a `.gguf` file, a
                Hugging Face directory, a directory written by llama-keras, or `hf://org/name`.

        Raises:
            InputError: nothing is there, or its tokenizer is broken or of an unknown kind.
            MissingDependencyError: the package that holds the files is not installed.
        """
        if preset == "llama-tiny":
            return cls(TokenizerSpec.tiny())
        if (Path(preset) / FILE_NAME).is_file():
            return cls.load_from_directory(preset)
        from llama_keras.weights.presets import resolve

        source = resolve(preset)
        if source.kind not in _SOURCES or source.path is None:
            raise InputError(f"{preset}: no tokenizer in a model of kind {source.kind!r}.")
        return cls(_SOURCES[source.kind](source.path))

    @property
    def _ready(self) -> Engine:
        if self._engine is None:
            raise InputError(
                "This tokenizer is empty. Make one with Tokenizer.from_preset(...) or "
                "load it with Tokenizer.load_from_directory(...)."
            )
        return self._engine

    @property
    def spec(self) -> TokenizerSpec:
        """The tokenizer's definition."""
        return self._ready.spec

    @property
    def token_bytes(self) -> TokenBytes:
        """What each id stands for."""
        return self._ready.token_bytes

    @property
    def graph(self) -> BytePairGraph | SentencePieceGraph:
        """The ops and tables; attach it to a `tf.Module` to export it."""
        return self._ready.graph

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        return len(self.spec.tokens)

    @property
    def bos_id(self) -> int | None:
        """Id that begins a text, if there is one."""
        return self.spec.bos_id

    @property
    def eos_id(self) -> int | None:
        """Id that ends a text, if there is one."""
        return self.spec.eos_id

    @property
    def pad_id(self) -> int:
        """Id to fill up rows with: the vocabulary's own, else the one that ends a text, else 0."""
        found = (id_ for id_ in (self.spec.pad_id, self.spec.eos_id) if id_ is not None)
        return next(found, 0)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a generation."""
        return self.spec.end_ids

    @property
    def special_tokens(self) -> dict[str, int]:
        """Control tokens by text."""
        return dict(self.spec.special_tokens)

    @property
    def chat_template(self) -> str | None:
        """Jinja template of a conversation, if there is one."""
        return self.spec.chat_template

    # fmt: off
    @overload
    def encode(self, texts: str, *, offsets: Literal[False] = False, parse_special: bool = False,
               add_bos: bool | None = None, add_eos: bool | None = None) -> list[int]: ...
    @overload
    def encode(self, texts: str, *, offsets: Literal[True], parse_special: bool = False,
               add_bos: bool | None = None, add_eos: bool | None = None) -> Encoding: ...
    @overload
    def encode(self, texts: Iterable[str], *, offsets: Literal[False] = False,
               parse_special: bool = False, add_bos: bool | None = None,
               add_eos: bool | None = None) -> list[list[int]]: ...
    @overload
    def encode(self, texts: Iterable[str], *, offsets: Literal[True], parse_special: bool = False,
               add_bos: bool | None = None, add_eos: bool | None = None) -> list[Encoding]: ...
    # fmt: on

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        offsets: bool = False,
        parse_special: bool = False,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
    ) -> Any:
        """Gives the ids of one text or of many.

        Args:
            texts: one string or several.
            offsets: give `Encoding` records, which also say where each token is in the text.
            parse_special: see special tokens such as `<|im_end|>` in the texts; otherwise they
                are plain text. Leave it off for text that other people wrote.
            add_bos: begin with `bos_id`; None follows the tokenizer's own rule.
            add_eos: end with `eos_id`; None follows the tokenizer's own rule.

        Returns:
            For a string one list of ids (or one `Encoding`), for several a list of them.

        Raises:
            InputError: something in `texts` is not a string.
        """
        rows = [texts] if isinstance(texts, str) else list(texts)
        for index, text in enumerate(rows):
            if not isinstance(text, str):
                raise InputError(
                    f"Text {index} is {text!r} of type {type(text).__name__}; expected a string."
                )
        settings = Settings(offsets, parse_special, add_bos, add_eos)
        found: list[Any] = []
        for at in range(0, len(rows), _BATCH):
            found += self._ready.encode(rows[at : at + _BATCH], settings)
        return found[0] if isinstance(texts, str) else found

    @overload
    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...
    @overload
    def decode(
        self, ids: Sequence[Sequence[int]], *, skip_special_tokens: bool = False
    ) -> list[str]: ...

    def decode(self, ids: Any, *, skip_special_tokens: bool = False) -> str | list[str]:
        """Gives the text of one list of ids or the texts of several.

        Args:
            ids: ids, or lists of ids; arrays and ragged tensors will do.
            skip_special_tokens: leave control tokens out.

        Returns:
            Text; bytes that are no UTF-8 show as U+FFFD.

        Raises:
            InputError: an id is not a whole number, or negative.
        """
        rows = ids.to_list() if isinstance(ids, tf.RaggedTensor) else ids
        rows = rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
        is_batch = bool(rows) and np.ndim(rows[0]) > 0
        texts = [
            self.token_bytes.decode(_checked_ids(row), skip_special_tokens=skip_special_tokens)
            for row in (rows if is_batch else [rows])
        ]
        return texts if is_batch else texts[0]

    def call(self, inputs: tf.Tensor) -> tf.RaggedTensor:
        """Gives the ids of string tensor `inputs` (B,), ragged (B, None) int32."""
        return self.graph.tokenize(inputs)

    def tokenize_with_offsets(self, texts: tf.Tensor, *, parse_special: bool = False) -> Ids:
        """Gives (ids, starts, ends) of string tensor `texts` (B,): ragged int32, in bytes."""
        return self.graph.tokenize_with_offsets(texts, parse_special=parse_special)

    def detokenize(self, ids: tf.RaggedTensor, *, skip_special_tokens: bool = False) -> tf.Tensor:
        """Gives the texts (B,) of ragged `ids` (B, None)."""
        return self.graph.detokenize(ids, skip_special_tokens=skip_special_tokens)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Gives the text of a conversation; to get ids use `encode_chat`, which is safe.

        Args:
            messages: for each turn a mapping with "role" and "content".
            add_generation_prompt: end with the beginning of the assistant's answer.
            variables: further names that the template knows (`tools`, ...).

        Raises:
            InputError: there is no chat template, or it rejects the messages.
        """
        if self.chat_template is None:
            raise InputError("This tokenizer has no chat template, so its model does not chat.")
        return render_chat(
            self.chat_template,
            messages,
            add_generation_prompt=add_generation_prompt,
            bos_token=self._text_of(self.bos_id),
            eos_token=self._text_of(self.eos_id),
            variables=variables,
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Gives the ids of a conversation in which only the template makes control tokens.

        `<|im_end|>` inside a message stays plain text, so that no one can end a turn in another's
        name. Arguments and errors: see `apply_chat_template`.
        """
        known = {**self.spec.special_tokens, **self.spec.user_tokens}
        shielded, shield = shield_messages(messages, list(self.spec.special_tokens))
        text = self.apply_chat_template(
            shielded, add_generation_prompt=add_generation_prompt, variables=variables
        )
        parts = split_shielded(text, list(self.spec.special_tokens), shield)
        plain = self.encode(
            [part for part, is_special in parts if not is_special], add_bos=False, add_eos=False
        )
        rest = iter(plain)
        ids: list[int] = []
        for part, is_special in parts:
            ids += [known[part]] if is_special else next(rest)
        return ids

    def _text_of(self, token_id: int | None) -> str:
        return "" if token_id is None else self.token_bytes.texts[token_id].decode()

    def get_config(self) -> dict[str, Any]:
        """Gives the constructor's arguments; the vocabulary travels as an asset."""
        return {"name": self.name}

    def save_assets(self, directory: str | Path) -> None:
        """Writes the tokenizer's definition into an existing directory."""
        write_text(Path(directory) / FILE_NAME, self.spec.to_json())

    def load_assets(self, directory: str | Path) -> None:
        """Reads what `save_assets` wrote.

        Raises:
            InputError: the file is missing or damaged.
        """
        self._set_spec(_read_spec(Path(directory)))

    def save_to_directory(self, directory: str | Path) -> None:
        """Writes the tokenizer into a directory, which is made if it is not there."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        self.save_assets(directory)

    @classmethod
    def load_from_directory(cls, directory: str | Path) -> Tokenizer:
        """Gives the tokenizer that `save_to_directory` wrote.

        Raises:
            InputError: the file is missing or damaged.
        """
        return cls(_read_spec(Path(directory)))


def _checked_ids(ids: Any) -> list[int]:
    try:
        return [int(id_) for id_ in ids]
    except (TypeError, ValueError) as error:
        raise InputError(f"Token ids are whole numbers; got {ids!r}.") from error


def _read_spec(directory: Path) -> TokenizerSpec:
    path = directory / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}). Expected a directory that "
            "Tokenizer.save_to_directory wrote."
        ) from error
    return TokenizerSpec.from_json(text, name=str(path))


def _from_gguf(path: Path) -> TokenizerSpec:
    from llama_keras.weights.gguf import GGUFFile

    return TokenizerSpec.from_gguf(GGUFFile(path).metadata)


_SOURCES = {
    "gguf": _from_gguf,
    "huggingface": TokenizerSpec.from_hugging_face,
    "keras": _read_spec,
}
