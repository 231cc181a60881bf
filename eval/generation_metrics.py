"""BLEU and chrF of generated texts, by sacrebleu (arXiv 1804.08771).

Axes: N texts.
"""

from collections.abc import Sequence

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from llama_keras.errors import InputError
from llama_keras.eval.metrics import RESAMPLES, Metric

# Both on their usual scale of 0 … 100.
_METRICS = {"bleu": BLEU, "chrf": CHRF}


def generation_metrics(expected: Sequence[str], found: Sequence[str]) -> dict[str, Metric]:
    """Gives corpus BLEU and chrF with bootstrap intervals.

    Args:
        expected: N right texts.
        found: N generated ones; "" counts as a text that has nothing right.

    Raises:
        InputError: the numbers differ, or there are no texts.
    """
    if not expected or len(expected) != len(found):
        raise InputError(f"Compare as many texts as there are; {len(found)} of {len(expected)}.")
    result = {}
    for name, metric in _METRICS.items():
        references = [list(expected)]
        scores = metric(references=references).corpus_score(
            list(found), None, n_bootstrap=RESAMPLES
        )
        low, high = scores._mean - scores._ci, scores._mean + scores._ci
        result[name] = Metric(float(scores.score), float(low), float(high), "bootstrap")
    return result


def signatures() -> dict[str, str]:
    """Gives sacrebleu's signature of each metric, to be stated beside its values."""
    scorers = {name: metric(references=[["a"]]) for name, metric in _METRICS.items()}
    for scorer in scorers.values():
        scorer.corpus_score(["a"], None)
    return {name: str(scorer.get_signature()) for name, scorer in scorers.items()}
