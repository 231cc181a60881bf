"""A model behind an OpenAI-compatible completions API: vLLM, llama-cpp-python and their like.

Log-probabilities of given texts are what `echo` and `logprobs` give. A server that leaves `echo`
out, as llama.cpp's does, is refused: it would score every choice alike.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from llama_keras.errors import InputError
from llama_keras.eval.requests import Answer, Request
from llama_keras.eval.targets.echoes import scored
from llama_keras.eval.targets.retries import FIRST_RETRIES, Sleep, with_retries
from llama_keras.text.offsets import clean_text

_FORM = "openai:http://HOST:PORT/v1?model=NAME"
_VERBS = ("/chat/completions", "/completions", "/embeddings", "/models")


class OpenAiTarget:
    """One model of a server.

    Args:
        address: `openai:http://HOST:PORT/v1?model=NAME`; without `model` the only one that the
            server lists. With `&key_env=VARIABLE` the environment variable's value is sent as the
            API key; the key itself stands nowhere.
        retries, timeout, sleep: see `rest.RestTarget`.

    Raises:
        UnavailableError: the server is away.
        InputError: the address is none, the variable is not set, or the model is not named and
            the server has several.
    """

    kind = "openai"
    labels: list[str] | None = None
    requests = frozenset({"loglikelihood", "generate_until", "embed"})
    settings = ("retries", "timeout")

    def __init__(
        self,
        address: str,
        *,
        retries: int = 5,
        timeout: float = 300.0,
        sleep: Sleep | None = None,
    ):
        import httpx

        from llama_keras.serving.client import is_loopback

        self._url, query = _parts(address)
        headers = {}
        if variable := query.get("key_env"):
            if not (key := os.environ.get(variable)):
                raise InputError(f"{address}: the environment variable {variable} is not set.")
            headers["Authorization"] = f"Bearer {key}"
        trust = not is_loopback(self._url)
        self._http = httpx.Client(timeout=timeout, headers=headers, trust_env=trust)
        self._retries, self._sleep, self._timeout = retries, sleep, timeout
        try:
            self._model = query.get("model") or self._only_model()
        except BaseException:
            self._http.close()
            raise
        self.location = f"openai:{self._url}?model={quote(self._model)}"

    def ask(self, kind: str, requests: Sequence[Request], *, batch_size: int = 32) -> list[Answer]:
        """Gives one answer a request, in order; see `requests.Target`."""
        answers: list[Answer | None] = [None] * len(requests)
        # One call has one limit and one list of stops.
        groups: dict[Any, list[int]] = {}
        for index, request in enumerate(requests):
            key = (request.get("until"), request.get("max_new_tokens"), request.get("chat"))
            groups.setdefault(repr(key), []).append(index)
        for members in groups.values():
            size = 1 if requests[members[0]].get("chat") else batch_size
            for start in range(0, len(members), size):
                part = members[start : start + size]
                found = _ANSWERS[kind](self, [requests[index] for index in part])
                for index, answer in zip(part, found, strict=True):
                    answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def fingerprint(self) -> None:
        """Gives None: a server does not show its files."""
        return None

    def first_tokens(self, kind: str, request: Request) -> None:
        """Gives None: a server does not show its token ids."""
        return None

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def _loglikelihood(self, requests: Sequence[Request]) -> list[Answer]:
        pairs = [(clean_text(r["context"]), clean_text(r["continuation"])) for r in requests]
        prompts = [context + continuation for context, continuation in pairs]
        # A token more than none, which some servers refuse; it comes after the text and is left.
        asked = {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        choices = self._complete(prompts, asked)
        return [
            scored(choice, *pair, self.location)
            for choice, pair in zip(choices, pairs, strict=True)
        ]

    def _generate_until(self, requests: Sequence[Request]) -> list[Answer]:
        until = list(requests[0]["until"])
        asked = {"max_tokens": requests[0]["max_new_tokens"], "temperature": 0}
        if until:
            asked["stop"] = until
        if requests[0].get("chat"):
            turn = {"role": "user", "content": clean_text(requests[0]["prompt"])}
            answer = self._post("/chat/completions", {**asked, "messages": [turn]})
            found = self._listed(answer, "choices", 1)
            texts = [_field(choice.get("message"), "content", self.location) for choice in found]
        else:
            found = self._complete([clean_text(request["prompt"]) for request in requests], asked)
            texts = [_field(choice, "text", self.location) for choice in found]
        return [
            {"text": _until(text, until), "finish_reason": choice.get("finish_reason")}
            for text, choice in zip(texts, found, strict=True)
        ]

    def _embed(self, requests: Sequence[Request]) -> list[Answer]:
        texts = [clean_text(request["text"]) for request in requests]
        answer = self._post("/embeddings", {"input": texts, "encoding_format": "float"})
        rows: list[Any] = [row.get("embedding") for row in self._listed(answer, "data", len(texts))]
        for row in rows:
            if not isinstance(row, list) or not row or not all(map(_is_number, row)):
                raise InputError(f"{self.location} gave {str(row)[:80]!r} in place of a vector.")
        return [{"embedding": [float(value) for value in row]} for row in rows]

    def _complete(self, prompts: list[str], asked: dict[str, Any]) -> list[dict[str, Any]]:
        # One prompt goes as a string: some servers take no lists.
        prompt = prompts[0] if len(prompts) == 1 else prompts
        answer = self._post("/completions", {**asked, "prompt": prompt})
        return self._listed(answer, "choices", len(prompts))

    def _listed(self, answer: dict[str, Any], key: str, count: int) -> list[dict[str, Any]]:
        """Gives the rows of an answer in the order of the request."""
        rows = answer.get(key)
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            numbers = [str(row.get("index", place)) for place, row in enumerate(rows)]
            wanted, known = (
                [str(place) for place in range(count)],
                dict(zip(numbers, rows, strict=True)),
            )
            if len(rows) == count and known.keys() == set(wanted):
                return [known[place] for place in wanted]
        got = len(rows) if isinstance(rows, list) else sorted(answer)
        raise InputError(
            f"{self.location} gave {got} in place of {count} {key}; does it take several texts at "
            "once? Else ask with a batch size of 1."
        )

    def _only_model(self) -> str:
        answer = self._asked("GET", "/models", None, retries=min(FIRST_RETRIES, self._retries))
        rows = answer.get("data")
        listed: list[Any] = rows if isinstance(rows, list) else []
        names = [row.get("id") for row in listed if isinstance(row, dict)]
        if len(names) != 1:
            raise InputError(
                f"{self._url} serves {names or 'no models that it lists'}; name one: {_FORM}."
            )
        return str(names[0])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        body = {"model": self._model, **body}
        return self._asked("POST", path, body, retries=self._retries)

    def _asked(self, method: str, path: str, body: Any, *, retries: int) -> dict[str, Any]:
        from llama_keras.serving.client import ServingError

        def call() -> dict[str, Any]:
            return self._answer(method, self._url + path, body)

        try:
            return with_retries(call, retries=retries, sleep=self._sleep)
        except ServingError as error:
            raise InputError(str(error)) from None

    def _answer(self, method: str, url: str, body: Any) -> dict[str, Any]:
        import httpx

        from llama_keras.serving.client import ServingError

        try:
            response = self._http.request(method, url, json=body)
        except httpx.TimeoutException:
            raise ServingError(f"{url} did not answer within {self._timeout:g} s.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServingError(f"No connection to {url} ({error}).") from None
        try:
            content = response.json()
        except ValueError:
            content = None
        if response.is_success and isinstance(content, dict):
            return content
        said = content.get("error", content) if isinstance(content, dict) else None
        said = said.get("message", said) if isinstance(said, dict) else said
        text = str(said or response.text.strip() or response.reason_phrase)[:300]
        hint = " Name the variable of an API key: &key_env=VARIABLE." * (
            response.status_code in (401, 403)
        )
        raise ServingError(
            f"{url} answered {response.status_code}: {text}{hint}", status=response.status_code
        )


def _parts(address: str) -> tuple[str, dict[str, str]]:
    """Gives the base URL and the query."""
    try:
        parts = urlsplit(address.removeprefix("openai:"))
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{address!r} is no address of a completions API; write {_FORM}.")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc or query.keys() - {"model", "key_env"}:
        # Not shown: there may be a key in it.
        raise InputError(
            f"An address of a completions API is {_FORM}, perhaps with &key_env=VARIABLE, the name "
            "of the environment variable that holds the API key; received something else in it."
        )
    path = parts.path.rstrip("/")
    for verb in _VERBS:
        path = path.removesuffix(verb)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}", query


def _field(value: Any, name: str, location: str) -> str:
    text = value.get(name) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise InputError(f"{location} gave {str(value)[:80]!r}, which has no {name} that is text.")
    return text


def _until(text: str, stops: Sequence[str]) -> str:
    """Cuts at the first stop string: servers take few of them, and some leave them in."""
    places = [text.find(stop) for stop in stops if stop]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


# Kind of request -> what answers it.
_ANSWERS: dict[str, Callable[[OpenAiTarget, Sequence[Request]], list[Answer]]] = {
    "loglikelihood": OpenAiTarget._loglikelihood,
    "generate_until": OpenAiTarget._generate_until,
    "embed": OpenAiTarget._embed,
}
