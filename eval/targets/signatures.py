"""How requests become inputs of an export's signatures, and outputs answers.

The same for a SavedModel in this process and behind a server: what differs is who runs it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_keras.errors import InputError
from llama_keras.eval.requests import Answer, Request
from llama_keras.text.offsets import clean_text

DEFAULT = "serving_default"
Columns = dict[str, list[Any]]
Known = Mapping[str, tuple[Collection[str], Collection[str]]]
"""Signature name -> names of its inputs and of its outputs."""
Values = Mapping[str, Any]


@dataclass(frozen=True)
class SignatureUse:
    """How a kind of request uses a signature.

    Attributes:
        name: of the signature.
        columns: from requests, its inputs.
        answer: from one row of its outputs and the model's labels, the answer.
        outputs: what a signature of another name gives that answers the same, as a head's does.
        inputs: what it takes at least.
    """

    name: str
    columns: Callable[[Sequence[Request]], Columns]
    answer: Callable[[Values, list[str] | None], Answer]
    outputs: frozenset[str]
    inputs: frozenset[str] = frozenset()


def _texts(requests: Sequence[Request]) -> Columns:
    texts = [request["text"] for request in requests]
    if all(isinstance(text, str) for text in texts):
        return {"text": [clean_text(text) for text in texts]}
    pairs = [[clean_text(part) for part in text] for text in texts]
    return {name: [pair[at] for pair in pairs] for at, name in enumerate(("text", "text_pair"))}


def _keys(*keys: str) -> Callable[[Sequence[Request]], Columns]:
    return lambda requests: {key: [clean_text(r[key]) for r in requests] for key in keys}


def _class(row: Values, labels: list[str] | None) -> Answer:
    scores = [float(score) for score in row["scores"]]
    if "chosen" not in row:
        answer = {"label": _text(row["label"]), "score": float(row["score"])}
        if labels is not None:
            answer["scores"] = dict(zip(labels, scores, strict=True))
        return answer
    if labels is None:
        raise InputError(
            "A server of lists of labels does not tell their names; measure the export's folder."
        )
    chosen = [label for label, taken in zip(labels, row["chosen"], strict=True) if taken]
    return {"labels": chosen, "scores": dict(zip(labels, scores, strict=True))}


def _entities(row: Values, labels: list[str] | None) -> Answer:
    keys = ("entity", "label", "start", "end", "score")
    found = zip(*(list(row[key])[: int(row["count"])] for key in keys), strict=True)
    return {
        "entities": [
            {
                "text": _text(text),
                "label": _text(label),
                "start": int(start),
                "end": int(end),
                "score": float(score),
            }
            for text, label, start, end, score in found
        ]
    }


def _span(row: Values, labels: list[str] | None) -> Answer:
    return {
        "text": _text(row["answer"]),
        "start": int(row["start"]),
        "end": int(row["end"]),
        "score": float(row["score"]),
    }


def _vector(row: Values, labels: list[str] | None) -> Answer:
    return {"embedding": [float(x) for x in row["embedding"]]}


def _logprob(row: Values, labels: list[str] | None) -> Answer:
    # The signature does not tell how many tokens it scored.
    return {
        "logprob": float(row["log_probability"]),
        "is_greedy": bool(row["is_greedy"]),
        "num_tokens": None,
    }


def _generated(row: Values, labels: list[str] | None) -> Answer:
    return {"text": _text(row["text"]), "finish_reason": _text(row["finish_reason"])}


def _prompts(requests: Sequence[Request]) -> Columns:
    if any(request.get("chat") for request in requests):
        raise InputError("An export takes prompts, no conversations; leave prompt.chat out.")
    count = max(len(request["until"]) for request in requests)
    return {
        "prompt": [clean_text(request["prompt"]) for request in requests],
        "max_new_tokens": [request["max_new_tokens"] for request in requests],
        "top_k": [0] * len(requests),
        "temperature": [0.0] * len(requests),
        "top_p": [1.0] * len(requests),
        "seed": [0] * len(requests),
        # "" is no stop string; a column of none still needs a width that all rows share.
        "stop": [
            [*request["until"], *[""] * (count - len(request["until"]))] for request in requests
        ],
    }


# Kind of request -> what answers it.
USES: dict[str, SignatureUse] = {
    "classify": SignatureUse("classify", _texts, _class, frozenset({"scores"})),
    "tag": SignatureUse("tag", _texts, _entities, frozenset({"entity", "count"})),
    "answer": SignatureUse("answer", _keys("question", "context"), _span, frozenset({"answer"})),
    "embed": SignatureUse("embed", _texts, _vector, frozenset({"embedding"})),
    "loglikelihood": SignatureUse(
        "score", _keys("context", "continuation"), _logprob, frozenset({"is_greedy"})
    ),
    "generate_until": SignatureUse(
        "generate",
        _prompts,
        _generated,
        frozenset({"text", "finish_reason"}),
        inputs=frozenset({"prompt", "max_new_tokens"}),
    ),
}


def used_signatures(known: Known, *, head: str | None, location: str) -> dict[str, str]:
    """Gives the kinds of requests that a model answers, and the signature of each.

    Args:
        known: the model's signatures.
        head: of one export with several heads, the name of one; or of one signature. None takes
            those of a model that has one head, or the first head. A model without one of ours
            that has `serving_default` is asked to classify.
        location: for messages.

    Raises:
        InputError: there is no such head, or it answers nothing that suites ask.
    """
    prefix = "" if head is None else f"{head}_"
    found = {kind: prefix + use.name for kind, use in USES.items() if prefix + use.name in known}
    itself = head or DEFAULT
    if head is not None or not found:
        found = dict.fromkeys(_kinds(known.get(itself)), itself) | found
    if head is None:
        return found or ({"classify": DEFAULT} if DEFAULT in known else {})
    if not found:
        has = "has no such signature" if head not in known else "it answers nothing that suites ask"
        raise InputError(f"{location}: {has}; the signatures are {sorted(known)}.")
    return found


def _kinds(signature: tuple[Collection[str], Collection[str]] | None) -> list[str]:
    """Gives the kinds of requests that one signature answers, by what it takes and gives."""
    inputs, outputs = signature or ((), ())
    if "token_ids" in inputs:  # its texts are made ids elsewhere
        return []
    uses = USES.items()
    return [k for k, use in uses if use.outputs <= set(outputs) and use.inputs <= set(inputs)]


def columns_of(
    kind: str, requests: Sequence[Request], *, inputs: Iterable[str], location: str
) -> Columns:
    """Gives the inputs of the signature that answers a kind of request.

    Raises:
        InputError: the signature has others. TF Serving would leave out what it does not know, and
            so answer about the first text of a pair alone.
    """
    columns, names = USES[kind].columns(requests), sorted(inputs)
    if sorted(columns) == names:
        return columns
    # Exports of others call their only text otherwise.
    if len(columns) == len(names) == 1:
        return {names[0]: next(iter(columns.values()))}
    raise InputError(
        f"{location} takes {names} for {kind!r}, and the suite has {sorted(columns)}; does one of "
        "them have pairs of texts?"
    )


_CUTS_NOTHING = (
    " An export cuts nothing: measure the model itself, in which texts beyond the context lose "
    "their beginning as in lm-evaluation-harness, or take fewer or shorter shots."
)
# Kind of request -> what else to do where it is refused.
_HINTS = {"loglikelihood": _CUTS_NOTHING, "generate_until": _CUTS_NOTHING}


def refusal(kind: str, reason: str) -> str:
    """Gives why a graph refused a request, and what to do."""
    # TensorFlow's own talk of nodes comes after the reason, line by line.
    lines = [line for line in reason.splitlines() if not line.lstrip().startswith("[[")]
    return " ".join(" ".join(lines).split())[:800] + _HINTS.get(kind, "")


def answers_of(
    kind: str, outputs: Mapping[str, Any], count: int, labels: list[str] | None, location: str
) -> list[Answer]:
    """Gives the answers from columns of outputs, each with one row a request.

    Raises:
        InputError: an output lacks, or has another number of rows.
    """
    columns = {name: column for name, column in outputs.items() if _rows(column) == count}
    rows = [{name: column[row] for name, column in columns.items()} for row in range(count)]
    try:
        return [USES[kind].answer(row, labels) for row in rows]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        sizes = {name: _rows(column) for name, column in sorted(outputs.items())}
        raise InputError(
            f"{location} does not answer {kind!r} requests as exports of this project do: to "
            f"{count} it gave, by name and rows, {sizes} "
            f"({type(error).__name__}: {error})."
        ) from None


def _rows(column: Any) -> int | None:
    """Gives the rows of an output; None where it has none."""
    if isinstance(column, str | bytes) or not hasattr(column, "__len__"):
        return None
    return None if getattr(column, "shape", None) == () else len(column)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
