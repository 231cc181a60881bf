import pytest

from llama_keras.cli import launch
from tests.cli.test_cli import llama_keras


@pytest.fixture
def launched(monkeypatch):
    """Gives what would be launched, in place of launching it."""
    import llama_keras.training.launching as launching

    found = []

    class Launch:
        def __init__(self, command, **arguments):
            found.append((command[3:], arguments))

        def run(self):
            return 9

    monkeypatch.setattr(launching, "Launch", Launch)
    return found


def call(*words: str) -> int:
    import typer
    from typer.testing import CliRunner

    app = typer.Typer()
    app.callback()(lambda: None)
    launch.register(app)
    return CliRunner().invoke(app, ["launch", *words], catch_exceptions=False).exit_code


def test_what_follows_the_verb_is_the_workers(launched):
    words = ["train", "sst2", "--output", "runs/x", "--set", "train.epochs=1", "--workers"]
    code = call("--workers", "3", "--restarts", "2", *words)
    assert code == 9
    assert launched == [
        (
            [*words, "--strategy", "multi_worker"],
            {"workers": 3, "restarts": 2, "gpus": None},
        )
    ]


def test_gpus_of_each_worker(launched):
    call("--workers", "2", "--gpus", "1", "pretrain", "plain_text", "--output", "x")
    assert launched[0][1]["gpus"] == 1


def test_mistakes_are_one_paragraph():
    done = llama_keras("launch", "--workers", "2", "serve", "x")
    assert done.returncode == 2
    assert done.stderr.startswith("llama-keras: launch starts `train` and `pretrain`")
    done = llama_keras("launch", "train", "x")
    assert done.returncode == 2 and "--workers" in done.stderr
