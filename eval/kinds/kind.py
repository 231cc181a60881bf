"""The record that every task of a suite fills in, and what tasks share.

Axes: N examples.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.metrics import RESAMPLES, Metric, wilson_interval
from llama_keras.eval.requests import Answer, Doc, Request
from llama_keras.eval.suite import Suite

Row = dict[str, Any]
"""What is known of one scored example: `expected`, `predicted` and what metrics need."""
Compute = Callable[[Sequence[Row], Suite, int], Metric]
"""From all rows, the suite and the bootstrap's seed, a metric."""


@dataclass(frozen=True)
class MetricKind:
    """A metric of a task.

    Attributes:
        compute: see `Compute`.
        higher_is_better: whether more is better.
    """

    compute: Compute
    higher_is_better: bool = True


@dataclass(frozen=True)
class EvalKind:
    """What a suite's `task` stands for.

    Attributes:
        request: what is asked, a key of `requests.REQUESTS`.
        load: from the suite and a source and its split, the examples.
        requests: from an example, the suite and its worked examples, what is asked.
        row: from an example, the suite and the answers to its requests, what is known.
        metrics: by name.
        prompted: whether the suite's prompt and shots are used.
        check: raises `InputError` where suite, examples and the target's labels differ.
        labels: from all examples, the labels of a suite that names none.
        signatures: of metrics, what their values depend on, to be stated beside them.
    """

    request: str
    load: Callable[[Suite, str, str | None], list[Doc]]
    requests: Callable[[Doc, Suite, Sequence[Doc]], list[Request]]
    row: Callable[[Doc, Suite, Sequence[Answer]], Row]
    metrics: Mapping[str, MetricKind]
    prompted: bool = False
    check: Callable[[Suite, Sequence[Doc], list[str] | None], None] = lambda suite, docs, known: (
        None
    )
    labels: Callable[[Sequence[Doc]], list[str] | None] = lambda docs: None
    signatures: Callable[[], dict[str, str]] = dict


def nearest(name: str, known: Sequence[str]) -> str:
    """Gives the end of a message that offers what is spelt most like `name`, or all."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}? There are: {', '.join(known)}."
    return f"there are: {', '.join(known)}."


def mean_of(key: str) -> Compute:
    """Gives the mean of a number of each row: Wilson's interval for shares, else the bootstrap's.

    Rows without the key do not count.
    """

    def compute(rows: Sequence[Row], suite: Suite, seed: int) -> Metric:
        values = np.array([row[key] for row in rows if row.get(key) is not None], float)
        if not len(values):
            raise InputError(f"{suite.name}: no example has a value for {key}.")
        return mean_metric(values, seed)

    return compute


def exponential_of_mean(key: str) -> Compute:
    """Gives the exponential of `mean_of(key)`, as a perplexity is of nats."""

    def compute(rows: Sequence[Row], suite: Suite, seed: int) -> Metric:
        metric = mean_of(key)(rows, suite, seed)
        values = {name: float(np.exp(getattr(metric, name))) for name in ("value", "low", "high")}
        return replace(metric, **values)

    return compute


def mean_metric(values: np.ndarray, seed: int) -> Metric:
    """Gives the mean of N numbers with its interval; see `mean_of`."""
    count, mean = len(values), float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        return Metric(mean, *wilson_interval(int(values.sum()), count), "wilson")
    # Drawing examples with replacement draws the counts of their distinct values.
    distinct, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(count, counts / count, size=RESAMPLES)
    low, high = np.percentile(draws @ distinct / count, [2.5, 97.5])
    return Metric(mean, float(low), float(high), "bootstrap")


def bootstrap_sums(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int
) -> Metric:
    """Gives a statistic of column sums with the bootstrap's interval over rows.

    Args:
        values: float `(N, K)`, one row an example.
        statistic: from sums `(…, K)`, numbers `(…)`.
        seed: of the draws.
    """
    count = len(values)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    value = float(statistic(values.sum(axis=0)))
    low, high = np.percentile(statistic(draws @ values), [2.5, 97.5])
    return Metric(value, float(low), float(high), "bootstrap")


def json_docs(suite: Suite, source: str, split: str | None) -> list[Doc]:
    """Gives the rows of a JSONL, CSV or TSV file, or of a folder's split, or a part `[80%:]`."""
    from llama_keras.data.files import file_rows, find_file
    from llama_keras.data.parts import split_source

    if source.startswith("tfds:"):
        raise InputError(f"{source}: a {suite.task} suite reads files; write the set as JSONL.")
    name, part = split_source(source)
    return part.of([row for _, row in file_rows(find_file(name, split))])


def filled(template: str, doc: Doc, suite: Suite) -> str:
    """Gives a template with `{key}` replaced by the example's values.

    Raises:
        InputError: the template has a key that the example lacks.
    """
    try:
        return template.format_map({key: str(value) for key, value in doc.items()})
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"{suite.name}: the prompt {template!r} does not fit an example with the keys "
            f"{sorted(doc)} ({type(error).__name__}: {error}). Write {{{{ and }}}} for braces."
        ) from None


def context_of(doc: Doc, suite: Suite) -> str:
    """Gives an example's context: the template filled in, and the suite's replacements made."""
    text = filled(suite.prompt.context, doc, suite)
    for pattern, replacement in suite.prompt.replace.items():
        text = re.sub(pattern, replacement, text)
    return text


def with_shots(suite: Suite, shots: Sequence[Doc], solved: Callable[[Doc], str], last: str) -> str:
    """Gives worked examples and then what is asked, as one text."""
    return suite.prompt.separator.join([*(solved(shot) for shot in shots), last])


def with_solved_shots(doc: Doc, suite: Suite, shots: Sequence[Doc]) -> str:
    """Gives the context of an example behind worked examples, each with its target."""
    prompt = suite.prompt

    def solved(shot: Doc) -> str:
        return context_of(shot, suite) + prompt.delimiter + filled(prompt.target, shot, suite)

    return with_shots(suite, shots, solved, context_of(doc, suite))
