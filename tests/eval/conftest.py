import shutil
from pathlib import Path

import pytest

from tests.toy_records import DRAWS, write_record


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> tuple[Path, Path]:
    """Two evaluations of the toy suites, the second by the better model; not to be written to."""
    folder = tmp_path_factory.mktemp("records")
    return write_record(folder / "a", skill=0.6), write_record(folder / "b", skill=0.85)


@pytest.fixture
def record(records, tmp_path) -> Path:
    """A copy of the first that a test may change."""
    return Path(shutil.copytree(records[0], tmp_path / "record"))


@pytest.fixture
def few_draws(monkeypatch) -> None:
    """Metrics are computed as those of the records were."""
    monkeypatch.setattr("llama_keras.eval.metrics.RESAMPLES", DRAWS)
