import pytest

from tests.touched import changed_since, imported, is_touched

TEST = "tests/training/test_resume.py"
SOURCE = """
import llama_keras.data.streams
from llama_keras.layers import SwiGLU
from llama_keras.tasks.embedder import Embedder
from tests.training.killed_fit import fit
"""


def test_imports_of_the_package():
    assert imported(SOURCE) == {
        "data/streams",
        *("layers", "layers/SwiGLU"),
        *("tasks/embedder", "tasks/embedder/Embedder"),
    }


@pytest.mark.parametrize(
    "changed",
    [
        "tests/training/killed_fit.py",
        "llama_keras/training/optimizers.py",
        "llama_keras/data/streams.py",
        "llama_keras/layers/feed_forward.py",
        "tasks/embedder.py",
        "pyproject.toml",
    ],
)
def test_what_touches(changed):
    assert is_touched(TEST, SOURCE, ["docs/x.md", changed])


@pytest.mark.parametrize(
    "changed",
    [
        "README.md",
        "llama_keras/training/notes.md",
        "llama_keras/data/pairs.py",
        "llama_keras/serving/rest.py",
        "tasks/text_classifier.py",
        "tests/tasks/test_embedder.py",
    ],
)
def test_what_does_not(changed):
    assert not is_touched(TEST, SOURCE, [changed])


def test_tests_of_the_whole_always_run():
    assert is_touched("tests/test_runner.py", "", [])


def test_an_unknown_commit_leaves_nothing_out():
    assert changed_since("0" * 40) is None
