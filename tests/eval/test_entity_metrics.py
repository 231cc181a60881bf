import random
from typing import Any

import pytest
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

from llama_keras.eval.entity_metrics import entity_metrics, metrics_by_type
from llama_keras.tasks.tagging import Span, spans_of_tags, tags_of_spans

A, B, C = (0, 2, "PER"), (3, 4, "LOC"), (6, 9, "ORG")


@pytest.mark.parametrize(
    ("expected", "found", "precision", "recall", "f1"),
    [
        ([[A, B]], [[A, B]], 1, 1, 1),
        ([[A, B]], [[A]], 1, 1 / 2, 2 / 3),
        ([[A], [B]], [[A, C], []], 1 / 2, 1 / 2, 1 / 2),
        ([[A]], [[(0, 2, "LOC")]], 0, 0, 0),  # right place, wrong type
        ([[A]], [[(0, 1, "PER"), (1, 2, "PER")]], 0, 0, 0),  # two halves are no whole
        ([[A], []], [[], [A]], 0, 0, 0),  # right, but of another text
        ([[A, B, C]], [[A, B, (5, 9, "ORG"), (10, 11, "ORG")]], 2 / 4, 2 / 3, 4 / 7),
        ([[]], [[]], 0, 0, 0),
        ([[A, A]], [[A]], 1, 1 / 2, 2 / 3),
    ],
)
def test_by_hand(expected, found, precision, recall, f1):
    metrics = entity_metrics(expected, found)
    values = [metrics[name].value for name in ("precision", "recall", "f1")]
    assert values == pytest.approx([precision, recall, f1])


def random_sentences(seed):
    """Gives right and answered tags of sentences: entities kept, moved, retyped, made up."""
    generator, types = random.Random(seed), ["LOC", "PER", "ORG"]
    rows = ([], [])
    for _ in range(120):
        length = generator.randint(3, 12)
        right, at = [], 0
        while (at := at + generator.randint(0, 3)) < length - 1:
            end = min(length, at + generator.randint(1, 3))
            right.append(Span(at, end, generator.choice(types)))
            at = end
        answer = []
        for span in right:
            kind = generator.random()
            if kind < 0.6:
                answer.append(span)
            elif kind < 0.75 and span.end - span.start > 1:
                answer.append(Span(span.start, span.end - 1, span.label))
            elif kind < 0.9:
                answer.append(Span(span.start, span.end, generator.choice(types)))
        for row, spans in zip(rows, (right, answer), strict=True):
            row.append(tags_of_spans(spans, length=length, scheme="IOB2"))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_are_seqeval_s(seed):
    right, answer = random_sentences(seed)
    options: dict[str, Any] = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    report: Any = classification_report(right, answer, output_dict=True, **options)
    spans = [[spans_of_tags(row, scheme="IOB2") for row in rows] for rows in (right, answer)]
    metrics, by_type = entity_metrics(*spans), metrics_by_type(*spans)
    found = {"micro avg": {name: metric.value for name, metric in metrics.items()}, **by_type}
    for kind, scores in found.items():
        theirs = report[kind]
        assert scores["f1"] == pytest.approx(theirs["f1-score"])
        assert scores["precision"] == pytest.approx(theirs["precision"])
        assert scores["recall"] == pytest.approx(theirs["recall"])
    assert {kind: int(report[kind]["support"]) for kind in by_type} == {
        kind: scores["support"] for kind, scores in by_type.items()
    }


def test_interval_holds_the_value_and_shrinks_with_more_texts():
    few = entity_metrics([[A, B], [C], [A]] * 5, [[A], [C], []] * 5)["f1"]
    many = entity_metrics([[A, B], [C], [A]] * 500, [[A], [C], []] * 500)["f1"]
    assert few.low < few.value < few.high and few.interval == "bootstrap"
    assert many.value == pytest.approx(few.value)
    assert many.high - many.low < (few.high - few.low) / 5
    assert entity_metrics([[A]] * 9, [[A]] * 9)["f1"].low == 1.0
    assert few == entity_metrics([[A, B], [C], [A]] * 5, [[A], [C], []] * 5)["f1"]
