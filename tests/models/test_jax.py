"""The same layers and backbone under JAX, which Keras takes at start-up: in other processes."""

import ast
import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from llama_keras.models import LlamaBackbone
from tests.models.backbone_suite import SIZES, VARIANTS, numpy, perturbed, toy_batch

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
    pytest.mark.skipif(keras.backend.backend() == "jax", reason="this is the inner run"),
]

JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


def run(repository, *arguments):
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=repository,
        env={**os.environ, **JAX},
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def here():
    """Gives the inputs for the worker and this backend's results, by variant."""
    weights, results = {}, {}
    for variant, arguments in VARIANTS.items():
        backbone = perturbed(LlamaBackbone(**{**SIZES, **arguments}))
        for index, variable in enumerate(backbone.weights):
            weights[f"{variant}/weight/{index}"] = numpy(variable)
        output = backbone(toy_batch((6, 4), mode=backbone.config.attention_mask))
        results[f"{variant}/output"] = numpy(output)
        results[f"{variant}/logits"] = numpy(backbone.token_embedding(output, reverse=True))
    return weights, results


@pytest.fixture(scope="module")
def under_jax(here, repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jax")
    np.savez(folder / "in.npz", **here[0])
    files = [str(folder / name) for name in ("in.npz", "out.npz")]
    run(repository, "-m", "tests.models.jax_worker", "--hide-tensorflow", *files)
    return np.load(folder / "out.npz")


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_equal_tensorflow_s(here, under_jax, variant):
    for name in ("output", "logits"):
        expected = here[1][f"{variant}/{name}"]
        np.testing.assert_allclose(under_jax[f"{variant}/{name}"], expected, rtol=1e-4, atol=1e-4)


def test_imports_need_no_tensorflow(under_jax):
    roots = {name.split(".")[0] for name in under_jax["modules"].tolist()}
    assert {"llama_keras", "keras_hub", "jax"} <= roots
    assert not roots & {"tensorflow", "tensorflow_text"}


def test_our_sources_do_not_import_tensorflow(repository):
    for package in ("layers", "models"):
        for file in (repository / "llama_keras" / package).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, (ast.Import, ast.ImportFrom)):
                    continue
                names = [alias.name for alias in node.names]
                names.append(getattr(node, "module", None) or "")
                roots = {name.split(".")[0] for name in names}
                assert not roots & {"tensorflow", "tensorflow_text"}, file


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_layers_and_suite_pass_under_jax(repository):
    chosen = "not TestVariants or plain or bidirectional or article"
    output = run(
        repository, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen,
        "tests/layers", "tests/models/test_backbone.py", "tests/models/test_config.py",
    )  # fmt: skip
    summary = output.strip().splitlines()[-1]
    assert " passed" in summary and " failed" not in summary
