"""Suites with `task: multiple_choice`: the likeliest continuation is the answer.

`acc`, `acc_norm` and `acc_bytes` are those of lm-evaluation-harness (`api/task.py`,
`process_results`): the sum of log-probabilities alone, divided by the characters of the choice, by
its UTF-8 bytes; the delimiter counts in none. The first of equals wins, as in `numpy.argmax`.

A prompt whose context has `{choice}`, and whose `scored` is one text, asks after which choice that
text is likeliest: partial scoring, as in lm-evaluation-harness's winogrande.
"""

from collections.abc import Sequence

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.kinds.kind import (
    EvalKind,
    MetricKind,
    Row,
    context_of,
    exponential_of_mean,
    filled,
    json_docs,
    mean_of,
    with_shots,
)
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite


def choices_of(doc: Doc, suite: Suite) -> list[str]:
    """Gives the choices of an example.

    Raises:
        InputError: there are fewer than two, or they are no texts.
    """
    named = suite.prompt.choices
    choices = named if isinstance(named, list) else doc.get(named)
    if not isinstance(choices, list) or len(choices) < 2 or not all(map(_is_text, choices)):
        raise InputError(
            f"{suite.name}: prompt.choices={named!r} must name a list of at least two texts; "
            f"received {choices!r}."
        )
    return choices


def _is_text(value) -> bool:
    return isinstance(value, str) and value != ""


def gold_of(doc: Doc, suite: Suite) -> int:
    """Gives the number of the right choice.

    Raises:
        InputError: the example has none, or one that is not among its choices.
    """
    choices, answer = choices_of(doc, suite), doc.get(suite.prompt.answer)
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    raise InputError(
        f"{suite.name}: the right choice {suite.prompt.answer}={answer!r} is none of {choices}."
    )


def _parts(doc: Doc, choice: str, suite: Suite) -> tuple[str, str]:
    """Gives what comes before a choice, and what is scored, without the delimiter."""
    values = {**doc, "choice": choice}
    return context_of(values, suite), filled(suite.prompt.scored, values, suite)


def _requests(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> list[Request]:
    gold_of(doc, suite)
    delimiter = suite.prompt.delimiter

    def solved(shot: Doc) -> str:
        return delimiter.join(_parts(shot, choices_of(shot, suite)[gold_of(shot, suite)], suite))

    requests = []
    for choice in choices_of(doc, suite):
        context, scored = _parts(doc, choice, suite)
        context = with_shots(suite, shots, solved, context)
        requests.append({"context": context, "continuation": delimiter + scored})
    return requests


def _row(doc: Doc, suite: Suite, answers: Sequence[Answer]) -> Row:
    choices, gold = choices_of(doc, suite), gold_of(doc, suite)
    scored = [_parts(doc, choice, suite)[1] for choice in choices]
    logprobs = np.array([answer["logprob"] for answer in answers], "float64")
    by_characters = logprobs / [len(text) for text in scored]
    by_bytes = logprobs / [len(text.encode("utf-8", "surrogatepass")) for text in scored]
    best = int(np.argmax(logprobs))
    shares = np.exp(logprobs - logprobs.max())
    return {
        "expected": choices[gold],
        "predicted": choices[best],
        "acc": float(best == gold),
        "acc_norm": float(np.argmax(by_characters) == gold),
        "acc_bytes": float(np.argmax(by_bytes) == gold),
        "choice_perplexity": float(-np.log(max(shares[gold] / shares.sum(), 1e-300))),
        "confidence": float(shares[best] / shares.sum()),
    }


KIND = EvalKind(
    request="loglikelihood",
    load=json_docs,
    requests=_requests,
    row=_row,
    metrics={
        "acc": MetricKind(mean_of("acc")),
        "acc_norm": MetricKind(mean_of("acc_norm")),
        "acc_bytes": MetricKind(mean_of("acc_bytes")),
        "choice_perplexity": MetricKind(
            exponential_of_mean("choice_perplexity"), higher_is_better=False
        ),
    },
    prompted=True,
)
