import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.eval.retrieval import ranks, retrieval_metrics

SIMILARITY = [[0.9, 0.1, 0.5], [0.9, 0.3, 0.5], [0.2, 0.8, 0.4]]


def test_ranks_by_hand():
    assert ranks(SIMILARITY, [[0], [1], [0, 2]]) == [[1], [3], [2, 3]]
    assert ranks(np.zeros((2, 4)), [[0], [1, 2]]) == [[4], [3, 4]]  # nothing is told apart


def test_metrics_by_hand():
    found = retrieval_metrics(SIMILARITY, [[0], [1], [0, 2]], cutoffs=(1, 2, 3))
    values = {name: metric.value for name, metric in found.items()}
    assert values == pytest.approx(
        {"recall@1": 1 / 3, "recall@2": 1.5 / 3, "recall@3": 1, "mrr": (1 + 1 / 3 + 1 / 2) / 3}
    )
    assert all(metric.low <= metric.value <= metric.high for metric in found.values())


@pytest.mark.parametrize("relevant", [[[0], [1], []], [[0], [1], [3]], [[0]]])
def test_bad_judgements_are_named(relevant):
    with pytest.raises(InputError, match="expected"):
        retrieval_metrics(SIMILARITY, relevant)
    with pytest.raises(InputError, match="no query"):
        retrieval_metrics(np.zeros((0, 3)), [])
