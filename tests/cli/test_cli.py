import subprocess
import sys
from pathlib import Path

import pytest

from llama_keras import cli
from llama_keras.cli import VERBS
from tests.test_package import HEAVY


def llama_keras(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "llama_keras.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_file_of_the_folder_is_a_verb_of_the_table():
    files = {file.stem for file in Path(cli.__file__).parent.glob("*.py")}
    parts = {"__init__", "__main__", "quiet", "evaluate_records", "evaluate_parity"}
    assert files - parts == set(VERBS)


def test_help_lists_every_verb_with_one_line():
    done = llama_keras("--help")
    assert done.returncode == 0
    for verb in VERBS:
        (line,) = [line for line in done.stdout.splitlines() if f"│ {verb} " in line]
        assert len(line.strip("│ ").split()) > 3


@pytest.mark.parametrize("arguments", [[], *([verb] for verb in VERBS)])
def test_help_loads_nothing_heavy(arguments):
    code = f"""
import sys
from llama_keras.cli import main
sys.argv = ["llama-keras", *{arguments}, "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [name for name in {HEAVY} if name in sys.modules]
assert not heavy, heavy
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_version():
    from llama_keras import __version__

    assert llama_keras("--version").stdout == f"llama-keras {__version__}\n"


@pytest.mark.parametrize("kind", ["InputError", "MissingDependencyError"])
def test_a_users_mistake_is_one_paragraph_and_exit_code_2(kind):
    code = f"""
from llama_keras import cli, errors
def build_app():
    raise errors.{kind}("First line.\\n  Second line.")
cli.build_app = build_app
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "llama-keras: First line. Second line.\n"


def test_a_fault_of_ours_keeps_its_traceback():
    code = "from llama_keras import cli; cli.build_app = lambda: 1 / 0; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
