"""`-p tests.touched --slow-since COMMIT`: of the slow tests only those that changes since touch.

A change touches the tests of its own folder (`llama_keras/training` those of `tests/training`), the
test files that import what changed, and all where it says how tests run. Slow tests right in
`tests` go through the whole of the project and always run.
"""

import ast
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "llama_keras"
_HOW_TESTS_RUN = ("pyproject.toml", "run", "tests/conftest.py")


def changed_since(commit: str) -> list[str] | None:
    """Gives the files that differ from those of the commit; None where it is not known."""
    done = subprocess.run(
        ["git", "diff", "--name-only", "--no-renames", commit, "--"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    return None if done.returncode else done.stdout.splitlines()


def imported(source: str) -> set[str]:
    """Gives the places in the package that a test file imports from, as `a/b`.

    `from llama_keras.a import b` is of `a` and of `a/b`, which may be a module.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {
        name.removeprefix(f"{PACKAGE}.").replace(".", "/")
        for name in found
        if name.startswith(f"{PACKAGE}.")
    }


def is_touched(test: str, source: str, changed: list[str]) -> bool:
    """Says whether a change of these files touches a file of tests.

    Args:
        test: its path, as `tests/training/test_resume.py`.
        source: its text.
        changed: paths in the repository.
    """
    folder = Path(test).parent
    if folder == Path("tests") or any(path in _HOW_TESTS_RUN for path in changed):
        return True
    if any(Path(path).parent == folder for path in changed):
        return True
    mirrored = folder.relative_to("tests").as_posix()
    # `llama_keras/tasks` and `tasks` are the same folder.
    paths = [path.removeprefix(f"{PACKAGE}/") for path in changed if path.endswith(".py")]
    if any(path.startswith(f"{mirrored}/") for path in paths):
        return True
    return any(
        path == f"{place}.py" or path.startswith(f"{place}/")
        for path in paths
        for place in imported(source)
    )


def pytest_addoption(parser):
    """Adds the option."""
    parser.addoption(
        "--slow-since",
        metavar="COMMIT",
        help="leave out slow tests that no change since COMMIT touches",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves the tests out that nothing touches."""
    commit = config.getoption("--slow-since")
    changed = changed_since(commit) if commit else None
    if changed is None:
        return
    verdicts: dict[Path, bool] = {}

    def stays(item) -> bool:
        if not item.get_closest_marker("slow"):
            return True
        if item.path not in verdicts:
            test = item.path.relative_to(REPOSITORY).as_posix()
            verdicts[item.path] = is_touched(test, item.path.read_text(encoding="utf-8"), changed)
        return verdicts[item.path]

    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (kept if stays(item) else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)
