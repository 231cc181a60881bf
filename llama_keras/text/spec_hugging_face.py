"""Tokenizers out of Hugging Face directories.

tokenizer.json is read when it holds byte-level BPE; each of its parts is recognised or refused by
name. Otherwise tokenizer.model (SentencePiece) is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.text import sentence_piece_proto as sp
from llama_keras.text.pre_tokenizers import LLAMA3_PATTERN
from llama_keras.text.spec import TokenizerSpec, end_ids, split_merge


def spec_from_hugging_face(directory: Path) -> TokenizerSpec:
    """Gives the tokenizer of a directory; see `TokenizerSpec.from_hugging_face`."""
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory.")
    try:
        return _read(directory)
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"The tokenizer files in {directory} are damaged: {type(error).__name__} {error}."
        ) from error


def _read(directory: Path) -> TokenizerSpec:
    config = _Json(directory / "tokenizer_config.json", required=False)
    tokenizer = _Json(directory / "tokenizer.json", required=False)
    model_path = directory / "tokenizer.model"
    model = tokenizer.values.get("model")
    is_byte_level = isinstance(model, dict) and not model.get("byte_fallback", False)
    if tokenizer.values and (is_byte_level or not model_path.is_file()):
        found = _byte_pair(tokenizer, config)
    elif model_path.is_file():
        found = _sentence_piece(model_path, config)
    else:
        raise InputError(f"{directory} holds neither tokenizer.json nor tokenizer.model.")
    ids = {text: id_ for id_, text in enumerate(found["tokens"])}
    named = {
        f"{name}_id": _token_id(config, f"{name}_token", ids)
        for name in ("bos", "eos", "pad", "unk")
    }
    found |= {name: id_ for name, id_ in named.items() if id_ is not None}
    for name in ("add_bos", "add_eos"):
        rule = config.values.get(f"{name}_token")
        if isinstance(rule, bool) and found["kind"] == "sentence_piece":
            found[name] = rule
    generation = _Json(directory / "generation_config.json", required=False).values
    stops = generation.get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    stops = [id_ for id_ in stops if isinstance(id_, int) and 0 <= id_ < len(ids)]
    return TokenizerSpec(
        **found,
        end_ids=end_ids(found["special_tokens"], found.get("eos_id"), *stops),
        chat_template=_chat_template(directory, config),
    )


class _Json:
    """A JSON file whose errors name it."""

    def __init__(self, path: Path, *, required: bool = True) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        if not required and not path.is_file():
            return
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as JSON: {error}.") from error
        if not isinstance(values, dict):
            raise InputError(f"{path} is not a JSON object.")
        self.values = values

    def refuse(self, what: str, value: Any, known: str) -> InputError:
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) < 300 else shown[:300] + "..."
        return InputError(f"{self.path}: {what} is {shown}. Known: {known}.")


def _byte_pair(tokenizer: _Json, config: _Json) -> dict[str, Any]:
    values = tokenizer.values
    if values.get("normalizer") is not None:
        raise tokenizer.refuse("normalizer", values["normalizer"], "none at all (null)")
    if _type(values.get("decoder")) not in ("ByteLevel", None):
        raise tokenizer.refuse("decoder", values["decoder"], "ByteLevel")
    model = values.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise tokenizer.refuse("model.type", _type(model), "BPE")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise tokenizer.refuse(
                f"model.{key}", model[key], "none; beside a tokenizer.model file it is not needed"
            )
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise tokenizer.refuse("model", sorted(model), "a vocab object and a merges list")
    added = _added_tokens(tokenizer)
    tokens = _in_id_order(tokenizer, {**vocabulary, **{text: id_ for text, id_, _ in added}})
    special = {text: id_ for text, id_, is_special in added if is_special}
    unknown = model.get("unk_token")
    return {
        "kind": "byte_pair",
        "tokens": tokens,
        "merges": tuple(map(split_merge, merges)),
        "pre_tokenizer": _pre_tokenizer(tokenizer),
        "ignore_merges": bool(model.get("ignore_merges", False)),
        "missing_byte_id": vocabulary.get(unknown) if unknown else None,
        "special_tokens": special,
        "user_tokens": {text: id_ for text, id_, is_special in added if not is_special},
        **_framing(tokenizer, special),
    }


def _added_tokens(tokenizer: _Json) -> list[tuple[str, int, bool]]:
    found = []
    for entry in tokenizer.values.get("added_tokens") or []:
        for flag in ("lstrip", "rstrip", "single_word"):
            if entry.get(flag):
                raise tokenizer.refuse(f"added_tokens: {flag}", entry, "false")
        text, id_ = entry.get("content"), entry.get("id")
        if not isinstance(text, str) or not text or not isinstance(id_, int):
            raise tokenizer.refuse("added_tokens", entry, "a content text and an id")
        found.append((text, id_, bool(entry.get("special", False))))
    return found


def _in_id_order(tokenizer: _Json, vocabulary: Mapping[str, Any]) -> tuple[str, ...]:
    by_id: dict[int, str] = {}
    for text, id_ in vocabulary.items():
        if (
            not isinstance(id_, int)
            or not 0 <= id_ < 1 << 24
            or by_id.setdefault(id_, text) != text
        ):
            raise tokenizer.refuse("a vocabulary entry", {text: id_}, "an id of its own")
    # Some vocabularies skip ids; no text becomes these.
    return tuple(by_id.get(id_, f"<|unused_{id_}|>") for id_ in range(max(by_id, default=-1) + 1))


def _type(part: Any) -> str | None:
    return part.get("type") if isinstance(part, dict) else None


def _parts(part: Any, key: str) -> list[Any]:
    """Gives the parts of a Sequence, or the one part by itself."""
    if _type(part) == "Sequence":
        return list(part.get(key) or [])
    return [] if part is None else [part]


def _pre_tokenizer(tokenizer: _Json) -> str:
    parts = _parts(tokenizer.values.get("pre_tokenizer"), "pretokenizers")
    shape = tuple(map(_pre_tokenizer_part, parts))
    if shape not in _PRE_TOKENIZERS:
        raise tokenizer.refuse(
            "pre_tokenizer",
            tokenizer.values.get("pre_tokenizer"),
            "those of GPT-2 (ByteLevel), SmolLM (Digits, ByteLevel) and Llama 3 (Split by its "
            "regular expression, ByteLevel), none with add_prefix_space",
        )
    return _PRE_TOKENIZERS[shape]


def _pre_tokenizer_part(part: Any) -> str | None:
    if _type(part) == "ByteLevel" and part.get("add_prefix_space", True) is False:
        return "bytes and words" if part.get("use_regex", True) else "bytes"
    if _type(part) == "Digits" and part.get("individual_digits"):
        return "digits"
    if _type(part) == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        pattern = part.get("pattern")
        return pattern.get("Regex") if isinstance(pattern, dict) else None
    return None


_PRE_TOKENIZERS: dict[tuple[str | None, ...], str] = {
    ("bytes and words",): "gpt2",
    ("digits", "bytes and words"): "smollm",
    (LLAMA3_PATTERN, "bytes"): "llama3",
}


def _framing(tokenizer: _Json, special: Mapping[str, int]) -> dict[str, Any]:
    """Gives what the post-processor puts around a text."""
    found: dict[str, Any] = {}
    for part in _parts(tokenizer.values.get("post_processor"), "processors"):
        if _type(part) == "ByteLevel":  # Moves offsets only.
            continue
        if _type(part) != "TemplateProcessing":
            raise tokenizer.refuse("post_processor", part, "ByteLevel, TemplateProcessing")
        items = part.get("single") or []
        kinds = ["A" if "Sequence" in item else "special" for item in items]
        if kinds not in (["A"], ["special", "A"], ["A", "special"], ["special", "A", "special"]):
            raise tokenizer.refuse("post_processor.single", items, "[BOS] text [EOS]")
        at = kinds.index("A")
        for name, around in (("bos", items[:at]), ("eos", items[at + 1 :])):
            if around:
                text = around[0]["SpecialToken"]["id"]
                if text not in special:
                    raise tokenizer.refuse("post_processor.single", text, "a special token")
                found |= {f"{name}_id": special[text], f"add_{name}": True}
    return found


def _sentence_piece(path: Path, config: _Json) -> dict[str, Any]:
    data = path.read_bytes()
    model = sp.read_model(data, name=str(path))
    tokens = [piece.text for piece in model.pieces]
    special = {
        piece.text: id_ for id_, piece in enumerate(model.pieces) if piece.kind == sp.CONTROL
    }
    user: dict[str, int] = {}
    added = config.values.get("added_tokens_decoder") or {}
    for id_text, entry in sorted(added.items(), key=lambda item: int(item[0])):
        id_, text = int(id_text), entry.get("content")
        if id_ < len(tokens) and tokens[id_] == text:
            continue
        if id_ != len(tokens) or not isinstance(text, str) or not text:
            raise config.refuse("added_tokens_decoder", {id_text: entry}, "ids after the model's")
        tokens.append(text)
        (special if entry.get("special") else user)[text] = id_
    ids = {"bos_id": model.bos_id, "eos_id": model.eos_id, "pad_id": model.pad_id}
    return {
        "kind": "sentence_piece",
        "tokens": tuple(tokens),
        "sentence_piece": data,
        "special_tokens": special,
        "user_tokens": user,
        "add_bos": model.bos_id >= 0,
        **{name: id_ if 0 <= id_ < len(tokens) else None for name, id_ in ids.items()},
    }


def _token_id(config: _Json, name: str, ids: Mapping[str, int]) -> int | None:
    token = config.values.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    if text is None:
        return None
    if text not in ids:
        raise config.refuse(name, token, "a token of the vocabulary")
    return ids[text]


def _chat_template(directory: Path, config: _Json) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.values.get("chat_template")
    if isinstance(template, list):  # Several by name.
        template = next((row["template"] for row in template if row.get("name") == "default"), None)
    if template is not None and not isinstance(template, str):
        raise config.refuse("chat_template", template, "a text, or texts by name")
    return template
