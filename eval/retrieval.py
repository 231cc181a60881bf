"""How well vectors find the documents that answer a query: recall at k and reciprocal rank.

Axes: N queries, M documents.
"""

from collections.abc import Collection, Sequence

import numpy as np

from llama_keras.errors import InputError
from llama_keras.eval.metrics import RESAMPLES, Metric


def ranks(similarity, relevant: Sequence[Collection[int]]) -> list[list[int]]:
    """Gives the rank of each relevant document of each query, from 1, the best first.

    A relevant document stands behind all others of the same similarity: a model that tells nothing
    apart finds nothing.

    Args:
        similarity: float `(N, M)`.
        relevant: for each query the indices of its documents.

    Raises:
        InputError: a query has no document, or one that is not there.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 2 or len(similarity) != len(relevant):
        raise InputError(
            f"The similarities have the shape {similarity.shape}; expected one row for each of the "
            f"{len(relevant)} queries."
        )
    found = []
    for query, (row, own) in enumerate(zip(similarity, relevant, strict=True)):
        if not own or not all(0 <= index < len(row) for index in own):
            raise InputError(
                f"Query {query} has the documents {sorted(own)}; expected at least one, each in "
                f"0 … {len(row) - 1}."
            )
        is_own = np.zeros(len(row), bool)
        is_own[list(own)] = True
        best = np.sort(row[is_own])[::-1]
        found.append([int((row[~is_own] >= s).sum()) + at for at, s in enumerate(best, 1)])
    return found


def retrieval_metrics(
    similarity,
    relevant: Sequence[Collection[int]],
    *,
    cutoffs: Sequence[int] = (1, 10),
    seed: int = 0,
) -> dict[str, Metric]:
    """Gives `recall@k` (share of a query's documents among the first k) and `mrr`, means over N.

    Args:
        similarity: float `(N, M)`, of each query and each document.
        relevant: for each query the indices of its documents.
        cutoffs: the k of recall.
        seed: of the bootstrap over queries.

    Returns:
        Name to metric; `mrr` is the mean of 1 / the rank of the best relevant document.

    Example:
    ```python
    from llama_keras.eval.retrieval import retrieval_metrics

    found = retrieval_metrics([[0.9, 0.1], [0.8, 0.3]], [[0], [1]])
    assert found["recall@1"].value == 0.5 and found["mrr"].value == 0.75
    ```
    """
    places = ranks(similarity, relevant)
    if not places:
        raise InputError("There is no query to measure.")
    columns = {
        f"recall@{k}": [np.mean([rank <= k for rank in ranked]) for ranked in places]
        for k in cutoffs
    }
    columns["mrr"] = [1 / ranked[0] for ranked in places]
    draws = np.random.default_rng(seed).integers(0, len(places), (RESAMPLES, len(places)))
    return {name: _metric(np.array(values, float), draws) for name, values in columns.items()}


def _metric(values: np.ndarray, draws: np.ndarray) -> Metric:
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return Metric(float(values.mean()), float(low), float(high), "bootstrap")
