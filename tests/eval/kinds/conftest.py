import pytest

from llama_keras.eval.kinds import get_kind
from llama_keras.eval.suite import Suite


@pytest.fixture
def make_suite():
    """A suite of a task, of fields given by name."""

    def make(task, **fields):
        return Suite.model_validate(
            {"name": "toy", "task": task, "data": {"source": "toy.jsonl"}, **fields}
        )

    return make


@pytest.fixture
def score():
    """From a suite, examples and their answers: rows, and metrics by name."""

    def run(suite, docs, answers, *names):
        kind = get_kind(suite.task)
        rows = [kind.row(doc, suite, given) for doc, given in zip(docs, answers, strict=True)]
        return rows, {name: kind.metrics[name].compute(rows, suite, 0) for name in names}

    return run
