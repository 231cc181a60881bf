"""Exact match and F1 of extractive answers, by SQuAD's and by CMRC 2018's rules.

SQuAD (arXiv 1606.05250, 1806.03822): answers are lower-cased, punctuation and articles are taken
out, white space is joined; F1 counts the words in common. CMRC 2018 (arXiv 1810.07366): answers are
cut into Chinese characters and Latin words without punctuation; F1 counts the longest common run.
Of several right answers the one that scores best counts; "" is the answer "there is none".

Axes: N questions.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.metrics import RESAMPLES, Metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What CMRC 2018's evaluation leaves out; other punctuation stays, as in its script.
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# Its script splits Latin text by NLTK's Penn Treebank rules; this differs in contractions only.
_CMRC_PIECE = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+(?:[.,][^\W\u4e00-\u9fa5]+)*|[^\w\s]")


def normalize_squad(text: str) -> str:
    """Gives an answer as SQuAD's evaluation compares it."""
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def normalize_cmrc(text: str) -> str:
    """Gives an answer as CMRC 2018's evaluation compares it."""
    return "".join(char for char in text.lower().strip() if char not in _CMRC_PUNCTUATION)


def _squad_f1(predicted: str, expected: str) -> float:
    found, right = normalize_squad(predicted).split(), normalize_squad(expected).split()
    if not found or not right:
        return float(found == right)
    return _f1((Counter(found) & Counter(right)).total(), len(found), len(right))


def _cmrc_f1(predicted: str, expected: str) -> float:
    found, right = (_CMRC_PIECE.findall(normalize_cmrc(text)) for text in (predicted, expected))
    if not found or not right:
        return float(found == right)
    return _f1(_longest_common_run(found, right), len(found), len(right))


def _f1(common: int, found: int, right: int) -> float:
    return 2 * common / (found + right)


def _longest_common_run(left: Sequence[str], right: Sequence[str]) -> int:
    best, before = 0, [0] * (len(right) + 1)
    for item in left:
        row = [0] * (len(right) + 1)
        for index, other in enumerate(right):
            if item == other:
                row[index + 1] = before[index] + 1
        best, before = max(best, *row), row
    return best


@dataclass(frozen=True)
class AnswerRule:
    """How one answer is compared with one right answer.

    Attributes:
        normalize: gives what exact match compares.
        f1: predicted and expected answer to F1.
    """

    normalize: Callable[[str], str]
    f1: Callable[[str, str], float]


RULES = {
    "squad": AnswerRule(normalize_squad, _squad_f1),
    "cmrc": AnswerRule(normalize_cmrc, _cmrc_f1),
}


def get_rule(rule: str) -> AnswerRule:
    """Gives the rule of a name of `RULES`.

    Raises:
        InputError: there is none of that name.
    """
    if rule not in RULES:
        raise InputError(f"rule={rule!r} is not known; expected one of {list(RULES)}.")
    return RULES[rule]


def answer_scores(
    predicted: str, expected: Sequence[str], *, rule: str = "squad"
) -> tuple[float, float]:
    """Gives exact match and F1 of one answer, each from 0 to 1.

    Args:
        predicted: the answer; "" says that there is none.
        expected: the right answers; none, or empty ones only, where there is no answer.
        rule: a name of `RULES`.
    """
    chosen = get_rule(rule)
    right = [text for text in expected if chosen.normalize(text)] or [""]
    exact = max(chosen.normalize(predicted) == chosen.normalize(text) for text in right)
    return float(exact), max(chosen.f1(predicted, text) for text in right)


def compute_answer_metrics(
    expected: Sequence[Sequence[str]],
    predicted: Sequence[str],
    *,
    rule: str = "squad",
    seed: int = 0,
) -> dict[str, Metric]:
    """Gives the means over all questions with bootstrap intervals.

    Args:
        expected: N lists of right answers, empty where there is no answer.
        predicted: N answers, "" for none.
        rule: a name of `RULES`.
        seed: of the bootstrap's draws.

    Returns:
        `exact_match` and `f1`; where some questions have no answer also `has_answer_f1` and
        `no_answer_accuracy` (the share of such questions that got none).
    """
    scores = np.array(
        [answer_scores(p, e, rule=rule) for p, e in zip(predicted, expected, strict=True)]
    ).reshape(-1, 2)
    if not len(scores):
        raise InputError("There are no answers to score: the data set is empty.")
    columns = {"exact_match": scores[:, 0], "f1": scores[:, 1]}
    normalize = get_rule(rule).normalize
    has_answer = np.array([any(map(normalize, right)) for right in expected])
    if not has_answer.all():
        columns["no_answer_accuracy"] = scores[~has_answer, 0]
        if has_answer.any():
            columns["has_answer_f1"] = scores[has_answer, 1]
    return {name: _mean(column, seed) for name, column in columns.items()}


def _mean(scores: np.ndarray, seed: int) -> Metric:
    # Drawing questions with replacement draws the counts of their distinct scores.
    values, counts = np.unique(scores, return_counts=True)
    total = len(scores)
    draws = np.random.default_rng(seed).multinomial(total, counts / total, size=RESAMPLES)
    low, high = np.percentile(draws @ values / total, [2.5, 97.5])
    return Metric(float(scores.mean()), float(low), float(high), "bootstrap")


def best_null_threshold(null_scores: Sequence[float], gains: Sequence[Sequence[float]]) -> float:
    """Gives the bound above which "no answer" is the better answer.

    Args:
        null_scores: probability of "no answer" for each of N questions.
        gains: what the span and what "no answer" would score, `(N, 2)`.
    """
    order = np.argsort(null_scores, kind="stable")
    scores, gained = np.asarray(null_scores)[order], np.asarray(gains, float)[order]
    # Entry k: the k questions of the lowest scores get their span, the others none.
    spans = np.concatenate([[0.0], np.cumsum(gained[:, 0])])
    nulls = np.concatenate([[0.0], np.cumsum(gained[::-1, 1])])[::-1]
    edges = np.concatenate([[scores[0] / 2], (scores[1:] + scores[:-1]) / 2, [1.0]])
    total = spans + nulls
    total[1:-1][scores[1:] == scores[:-1]] = -1.0  # equal scores cannot be told apart
    return float(edges[int(np.argmax(total))])
