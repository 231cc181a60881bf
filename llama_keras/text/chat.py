"""Conversations to text by a model's own Jinja template, in a sandbox.

What people write must not become control tokens: before rendering, each special token inside a
message is broken by a character that is nowhere in the messages, and the places are remembered
through the template. Roles are checked instead, since templates make control tokens of them.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llama_keras.errors import InputError, MissingDependencyError

ROLES = ("system", "developer", "user", "assistant", "tool", "ipython")
# Unicode reserves these for use inside a program; text has none of them.
_SHIELDS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    bos_token: str = "",
    eos_token: str = "",
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Gives the text of a conversation.

    Args:
        template: Jinja source, as found in `tokenizer_config.json` or a GGUF file.
        messages: for each turn a mapping with "role" and "content".
        add_generation_prompt: end with the beginning of the assistant's answer.
        bos_token: text of the token that begins a text, for templates that write it.
        eos_token: text of the token that ends a text, for templates that write it.
        variables: further names that the template knows (`tools`, `documents`, ...).

    Raises:
        InputError: the template is broken or rejects the messages; or the messages are not of
            the form above.
        MissingDependencyError: jinja2 is not installed.
    """
    check_messages(messages)
    try:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingDependencyError(
            "Chat templates need jinja2, which is not installed. Install it: pip install jinja2"
        ) from error

    def raise_exception(message: str) -> None:
        raise InputError(f"The chat template rejects the messages: {message}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    values = {
        "messages": [dict(message) for message in messages],
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos_token,
        "eos_token": eos_token,
        **(variables or {}),
    }
    try:
        return environment.from_string(template).render(**values)
    except InputError:
        raise
    except TemplateError as error:
        raise InputError(f"The chat template cannot be rendered: {error}.") from error
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        raise InputError(f"The chat template fails on these messages: {error}.") from error


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML, which models have not been trained on.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuses what is not a list of turns with a known role.

    Raises:
        InputError: names the turn and what is wrong with it.
    """
    if isinstance(messages, str | bytes | Mapping) or not messages:
        raise InputError(
            'A conversation is a list of turns such as [{"role": "user", "content": "Hi"}]; '
            f"got {messages!r}."
        )
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InputError(f"Turn {index} is not a mapping with role and content: {message!r}.")
        if message.get("role") not in ROLES:
            raise InputError(
                f"Turn {index} has the role {message.get('role')!r}. Known: {', '.join(ROLES)}."
            )
        if not isinstance(message.get("content", ""), str | list | None):
            raise InputError(f"Turn {index} has content that is not text: {message['content']!r}.")


def shield_messages(
    messages: Sequence[Mapping[str, Any]], special_tokens: Sequence[str]
) -> tuple[list[dict[str, Any]], str]:
    """Gives the messages with their special tokens broken, and the character that breaks them.

    A tail or head of a special token at the edge of a text is broken too, so that template and
    content together cannot form one.

    Raises:
        InputError: the messages hold every character that could serve.
    """
    check_messages(messages)
    everything = "".join([*_strings(messages), *special_tokens])
    shield = next((char for char in _SHIELDS if char not in everything), None)
    if shield is None:
        raise InputError("The messages hold all of the noncharacters U+FDD0 to U+FDEF.")
    texts = [text for text in special_tokens if text]
    pattern = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")

    def shielded_key(key: Any) -> Any:
        return pattern.sub(lambda m: _broken(m, shield), key) if isinstance(key, str) else key

    def shielded(value: Any) -> Any:
        if isinstance(value, str):
            return _shield_text(value, shield, pattern, texts)
        if isinstance(value, Mapping):
            # Templates may print keys, too, as those of a tool's arguments.
            return {shielded_key(key): shielded(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [shielded(part) for part in value]
        return value

    return [{**shielded(message), "role": message["role"]} for message in messages], shield


def split_shielded(text: str, special_tokens: Sequence[str], shield: str) -> list[tuple[str, bool]]:
    """Gives the parts of a rendered conversation: text, and whether it is a special token.

    Args:
        text: rendered from shielded messages.
        special_tokens: texts of the special tokens.
        shield: the character that `shield_messages` used; it is taken out.
    """
    longest_first = sorted(special_tokens, key=len, reverse=True)
    if not longest_first:
        return [(text.replace(shield, ""), False)]
    parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
    return [(part.replace(shield, ""), index % 2 == 1) for index, part in enumerate(parts) if part]


def _broken(match: re.Match[str], shield: str) -> str:
    # Every character: a special token may hold a shorter one.
    return shield.join(match.group()) + shield


def _shield_text(text: str, shield: str, pattern: re.Pattern[str], special: list[str]) -> str:
    text = pattern.sub(lambda match: _broken(match, shield), text)
    tail, head = text.rstrip(), text.lstrip()
    for size in range(1, max(map(len, special), default=1)):
        if tail and any(token.startswith(tail[-size:]) for token in special):
            at = len(tail) - size + 1
            text = text[:at] + shield + text[at:]
            break
    if any(token.endswith(head[:size]) for token in special for size in range(1, len(token))):
        at = len(text) - len(text.lstrip())
        text = text[:at] + shield + text[at:]
    return text


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for part in value.items() for text in _strings(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _strings(part)]
    return []
