"""`keras.distribution`: refused where it does nothing, exact under JAX, in other processes."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.models.distribution import check_distribution
from tests.models.jax_distribution_worker import CASES, LAYOUTS, SIZES

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the refusal is TensorFlow's"
)
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
FAST = ("one", "model2")
QUANTIZED = ("int8", "int4")
# Weights move by 3e-3 a step; sums over devices round otherwise, which Adam's division magnifies.
TOLERANCE = 2e-5


@only_tensorflow
@pytest.mark.parametrize("layout", ["data2", "model1"])
def test_tensorflow_backend_refuses(layout):
    kinds = keras.distribution
    mesh: Any = kinds.DeviceMesh((1, 1), ("batch", "model"), devices=["cpu:0"])
    layout_map = LlamaBackbone.get_layout_map(mesh)
    chosen = kinds.ModelParallel(layout_map=layout_map, batch_dim_name="batch")
    chosen = kinds.DataParallel() if layout == "data2" else chosen
    with chosen.scope(), pytest.raises(InputError, match=r"does nothing on the tensorflow backend"):
        check_distribution()
    with chosen.scope(), pytest.raises(InputError, match=r"tf\.distribute.*KERAS_BACKEND=jax"):
        LlamaBackbone.from_preset("llama-tiny")
    check_distribution()
    LlamaBackbone.from_preset("llama-tiny", load_weights=False)


def run(repository, folder, layout: str, cases) -> None:
    devices = re.sub(r"\D", "", layout) or "1"
    result = subprocess.run(
        [sys.executable, "-m", "tests.models.jax_distribution_worker", layout, folder, *cases],
        cwd=repository,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    facts = json.loads((folder / f"{layout}.json").read_text(encoding="utf-8"))
    assert facts["devices"] == int(devices)


def results_of(repository, folder, layouts, cases=()) -> dict[str, tuple[Any, Any]]:
    """Gives arrays and facts by layout; two processes run at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda layout: run(repository, folder, layout, cases), layouts))
    return {
        layout: (
            np.load(folder / f"{layout}.npz"),
            json.loads((folder / f"{layout}.json").read_text(encoding="utf-8")),
        )
        for layout in layouts
    }


@pytest.fixture(scope="module")
def few(repository, tmp_path_factory):
    return results_of(repository, tmp_path_factory.mktemp("few"), FAST, ["trained"])


@pytest.fixture(scope="module")
def all_(repository, tmp_path_factory):
    return results_of(repository, tmp_path_factory.mktemp("all"), LAYOUTS)


def assert_same(results, layout: str, case: str) -> None:
    expected, given = results["one"][0], results[layout][0]
    names = [name for name in expected.files if name.startswith(f"{case}/")]
    assert names and names == [name for name in given.files if name.startswith(f"{case}/")]
    for name in names:
        if not name.endswith("/devices"):
            np.testing.assert_allclose(
                given[name], expected[name], rtol=0, atol=TOLERANCE, err_msg=name
            )


def on_one_device(layout: str, path: str, shape) -> list[int]:
    """Gives the shape of what one device is to hold of a variable, by the layout's rules."""
    if (size := LAYOUTS[layout]) is None:
        return list(shape)
    names = [f"cpu:{index}" for index in range(size[0] * size[1])]
    mesh = keras.distribution.DeviceMesh(size, ("batch", "model"), devices=names)
    rule = LlamaBackbone.get_layout_map(mesh, config=SIZES)[path]
    devices: dict[Any, int] = dict(zip(("batch", "model"), size, strict=True))
    axes = (*(rule.axes if rule else ()), *[None] * len(shape))
    return [side // devices.get(axis, 1) for side, axis in zip(shape, axes, strict=False)]


def assert_split(results, layout: str, case: str) -> int:
    """Each device holds its part of each weight and no more; gives how many weights are split."""
    arrays, facts = results[layout]
    found = facts[case]["weights"]
    split = 0
    for index, (path, part) in enumerate(found.items()):
        shape = list(arrays[f"{case}/weight/{index}"].shape)
        assert part == on_one_device(layout, path, shape), path
        split += part != shape
    return split


@needs_jax
def test_fit_is_as_on_one_device_and_really_split(few):
    assert_same(few, "model2", "trained")
    assert_split(few, "model2", "trained")
    part = few["model2"][1]["trained"]["weights"]
    assert part["token_embedding/embeddings"] == [16, 16]  # of (32, 16)
    assert part["transformer_layer_1/attention/key_dense/kernel"] == [16, 4]  # of (16, 8)


@needs_jax
def test_moments_lie_as_their_weights(few):
    facts = few["model2"][1]["trained"]
    for path, shape in facts["weights"].items():
        for moment in ("momentum", "velocity"):
            assert facts["moments"][f"adam_w/{path.replace('/', '_')}_{moment}"] == shape


@needs_jax
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestAllLayouts:
    """Every case with data, model and both kinds of parallelism, on 2 and 4 devices."""

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one"])
    def test_is_as_on_one_device(self, all_, layout, case):
        assert_same(all_, layout, case)

    @pytest.mark.parametrize("case", ["trained", "biased", *QUANTIZED])
    @pytest.mark.parametrize("layout", [name for name, shape in LAYOUTS.items() if shape])
    def test_weights_are_split(self, all_, layout, case):
        assert assert_split(all_, layout, case) >= 12

    def test_key_value_heads_fewer_than_devices_are_kept_whole(self, all_):
        weights = all_["model4"][1]["trained"]["weights"]
        assert weights["transformer_layer_0/attention/key_dense/kernel"] == [16, 8]
        assert weights["transformer_layer_0/attention/query_dense/kernel"] == [16, 4]

    def test_accumulated_gradients_are_split(self, all_):
        facts = all_["both4"][1]["accumulated"]["moments"]
        sums = {path: shape for path, shape in facts.items() if "accumulator" in path}
        assert sums
        assert [8, 8] in sums.values()  # a query kernel of (16, 16) on 2 x 2 devices

    def test_updates_of_lora_are_split(self, all_):
        updates = all_["both4"][1]["lora"]["updates"]
        query = "transformer_layer_0/attention/query_dense/lora_kernel_"
        assert updates[query + "a"] == [8, 2] and updates[query + "b"] == [2, 8]

    def test_blocks_are_computed_anew(self, all_):
        for layout in LAYOUTS:
            assert all_[layout][1]["rematerialized"]["checkpoints"] == SIZES["num_layers"]

    def test_a_model_saved_split_loads_whole(self, all_):
        for layout in LAYOUTS:
            arrays = all_[layout][0]
            assert arrays["saved/alone/devices"] == 1
            assert arrays["saved/again/devices"] == all_[layout][1]["devices"]
            for name in [name for name in arrays.files if name.startswith("saved/weight/")]:
                for where in ("alone", "again"):
                    for kind in ("keras", "h5"):
                        loaded = arrays[name.replace("saved/", f"saved/{where}/{kind}/")]
                        np.testing.assert_array_equal(loaded, arrays[name])


@needs_jax
@pytest.mark.slow
def test_the_page_s_code_runs(repository):
    page = (repository / "docs" / "distribution.md").read_text(encoding="utf-8")
    code = re.findall(r"## JAX.*?```python\n(.*?)```", page, re.DOTALL)[0]
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "('model', 'batch')" in result.stdout.splitlines()[-1]
