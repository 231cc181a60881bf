"""What requests of OpenAI's API may hold here.

Names and ranges are those of https://platform.openai.com/docs/api-reference. Fields that only say
what is so anyway (`"presence_penalty": 0`) are taken, others that nothing here can do are refused
by name: a setting that is left out of account silently would give wrong answers.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..text.offsets import clean_text
from .openai_errors import OpenAiError

# The most rows of one request: prompts times `n`.
MAX_CHOICES = 128
# Field -> values of it that change nothing; such fields are dropped.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "suffix": (None, ""),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "store": (None, False),
    "service_tier": (None, "auto", "default"),
    "dimensions": (None,),
}
# Fields that tell of the caller; they may hold anything.
_IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key")

# Field that may hold several types -> which.
_SHAPES = {
    "prompt": "a text, or a list of texts, token ids or lists of token ids; no list is empty",
    "input": "a text, or a list of 1 to 2048 texts",
    "stop": "a text, or a list of texts",
}

_Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


_Kind = TypeVar("_Kind", bound=BaseModel)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = {}
        for name, value in data.items():
            known = _NEUTRAL.get(name, ()) if name not in cls.model_fields else ()
            if name not in _IGNORED and not any(value == neutral for neutral in known):
                kept[name] = value
        return kept


class StreamOptions(BaseModel):
    """What a stream tells besides the text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class _Generation(_Request):
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: _Count | None = None  # not OpenAI's: as vLLM has it
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > 32 or any(not 0 < len(text) <= 1000 for text in stops):
            raise ValueError("stop takes at most 32 strings of 1 to 1000 characters")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for requests with stream: true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(_Generation):
    """The body of `POST /v1/completions`."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[_Count], Field(min_length=1)]
        | Annotated[list[Annotated[list[_Count], Field(min_length=1)]], Field(min_length=1)]
    )
    max_tokens: _Count | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if len(self.prompts) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(f"prompts times n are at most {MAX_CHOICES}; send several requests")
        return self

    @property
    def prompts(self) -> Sequence[str | list[int]]:
        """The prompts, one or several, as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[id_ for id_ in self.prompt if isinstance(id_, int)]]
        return [part for part in self.prompt if not isinstance(part, int)]

    @property
    def limit(self) -> int:
        """The most new tokens; 16 by default, as OpenAI has it."""
        return 16 if self.max_tokens is None else self.max_tokens


class ChatRequest(_Generation):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_tokens: Annotated[_Count, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[_Count, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for requests with logprobs: true")
        return self

    @property
    def limit(self) -> int | None:
        """The most new tokens."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class EmbeddingRequest(_Request):
    """The body of `POST /v1/embeddings`."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None


def parse(kind: type[_Kind], body: bytes) -> _Kind:
    """Gives a request's body as a record.

    Raises:
        OpenAiError: it is no JSON object, or a field is not what it may be.
    """
    try:
        document = _clean(json.loads(body))
    except (ValueError, RecursionError):
        raise OpenAiError(400, "The body is not JSON.", code="invalid_json") from None
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or None
    field = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden":
        message = f"{where} is not supported here; leave it out."
        raise OpenAiError(400, message, param=field, code="unsupported_parameter")
    message = first["msg"].removeprefix("Value error, ")
    message = f"{where}: {message}" if where else message
    if field in _SHAPES and first["type"] != "missing":
        message = f"{field} is {_SHAPES[field]}."
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    raise OpenAiError(400, message, param=field, code=code)


def _clean(value: Any) -> Any:
    """Gives a JSON value without lone surrogates, which no answer could repeat."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(part) for part in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(part) for key, part in value.items()}
    return value
