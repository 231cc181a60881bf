import numpy as np
import pytest

from llama_keras.objectives import info_nce
from llama_keras.tasks.embedding_loss import (
    InBatchContrastive,
    RetrievalAccuracy,
    in_batch_scores,
)

T = 0.1


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def pairs_by_hand(numbers, vectors, temperature):
    """Losses, hits and weights, one candidate after the other."""
    losses, hits, weights = [], [], []
    for i, (own, _) in enumerate(zip(numbers, vectors, strict=True)):
        positives = {row[1] for row in numbers if row[0] == own[0]}
        right = np.exp(cosine(vectors[i, 0], vectors[i, 1]) / temperature)
        wrong = [
            np.exp(cosine(vectors[i, 0], vectors[j, view]) / temperature)
            for view in range(1, vectors.shape[1])
            for j in range(len(numbers))
            if (view, j) != (1, i) and numbers[j][view] not in positives | {own[0]}
        ]
        losses.append(-np.log(right / (right + sum(wrong))))
        hits.append(float(all(right > value for value in wrong)))
        weights.append(float(bool(wrong)))
    return losses, hits, weights


def classes_by_hand(classes, vectors, temperature):
    losses, hits, weights = [], [], []
    for i, own in enumerate(classes):
        others = [j for j in range(len(classes)) if j != i]
        scores = {j: np.exp(cosine(vectors[i], vectors[j]) / temperature) for j in others}
        mates = [j for j in others if classes[j] == own]
        total = sum(scores.values())
        losses.append(-sum(np.log(scores[j] / total) for j in mates) / max(len(mates), 1))
        hits.append(float(max(others, key=scores.__getitem__) in mates))
        weights.append(float(0 < len(mates) < len(others)))
    return losses, hits, weights


CASES = {
    "pairs": ([[0, 1], [2, 3], [4, 5]], draw(3, 2, 4)),
    "equal positives": ([[0, 1], [2, 1], [4, 5], [6, 5]], draw(4, 2, 4)),
    "equal anchors": ([[0, 1], [0, 3], [4, 5]], draw(3, 2, 4)),
    "an anchor as a positive": ([[0, 1], [2, 0], [4, 5]], draw(3, 2, 4)),
    "nothing but like": ([[0, 1], [2, 1]], draw(2, 2, 4)),
    "one pair": ([[0, 1]], draw(1, 2, 4)),
    "triples": ([[0, 1, 2], [3, 4, 5], [6, 7, 8]], draw(3, 3, 4)),
    "a negative that is a positive elsewhere": ([[0, 1, 4], [3, 4, 1]], draw(2, 3, 4)),
    "a negative of an equal anchor": ([[0, 1, 2], [0, 3, 1], [5, 6, 7]], draw(3, 3, 4)),
    "one triple": ([[0, 1, 2]], draw(1, 3, 4)),
    "classes": ([0, 1, 0, 2, 1, 0], draw(6, 4)),
    "one class": ([0, 0, 0], draw(3, 4)),
    "all classes": ([0, 1, 2], draw(3, 4)),
    "one text": ([0], draw(1, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_equal_those_by_hand(name):
    numbers, vectors = CASES[name]
    by_hand = pairs_by_hand if vectors.ndim == 3 else classes_by_hand
    if name == "one text":
        losses, hits, weights = [0.0], [0.0], [0.0]
    else:
        losses, hits, weights = by_hand(numbers, vectors, T)
    found = in_batch_scores(np.array(numbers, "int32"), vectors, temperature=T)
    assert np.abs(np.array(found.weights) - weights).max() == 0
    assert np.abs(np.array(found.losses) - losses).max() < 1e-5
    assert np.abs(np.array(found.hits) - hits).max() == 0
    loss = float(InBatchContrastive(T)(np.array(numbers, "int32"), vectors))
    kept = np.array(weights) > 0
    assert loss == pytest.approx(np.array(losses)[kept].mean() if kept.any() else 0.0, abs=1e-5)
    accuracy = RetrievalAccuracy()
    accuracy.update_state(np.array(numbers, "int32"), vectors)
    expected = np.array(hits)[kept].mean() if kept.any() else 0.0
    assert float(accuracy.result()) == pytest.approx(expected)


def test_equals_info_nce_where_all_texts_differ():
    vectors = draw(5, 2, 8)
    numbers = np.arange(10, dtype="int32").reshape(5, 2)
    found = in_batch_scores(numbers, vectors, temperature=T)
    expected = info_nce(vectors[:, 0], vectors[:, 1], temperature=T)
    assert np.abs(np.array(found.losses) - np.array(expected.losses)).max() < 1e-5
    assert (np.array(found.hits) == np.array(expected.hits)).all()


def test_the_loss_comes_back_from_its_config():
    assert InBatchContrastive.from_config(InBatchContrastive(0.3).get_config()).temperature == 0.3
