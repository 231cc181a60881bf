"""The client's own messages beside TensorFlow's, and its file without this package."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llama_keras.serving import client as module
from tests.serving.fake_http import BAD, GOOD

# The messages, beside TensorFlow's own.

TYPES = {
    "DT_BOOL": "bool", "DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_INT8": "int8",
    "DT_UINT8": "uint8", "DT_INT16": "int16", "DT_UINT16": "uint16", "DT_INT32": "int32",
    "DT_INT64": "int64", "DT_UINT32": "uint32", "DT_UINT64": "uint64", "DT_HALF": "float16",
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(list(TYPES)), st.lists(st.integers(0, 3), max_size=3))
def test_tensors_are_those_of_tensorflow(data, dtype, shape):
    array = data.draw(arrays(TYPES[dtype], tuple(shape)))
    theirs: Any = tf.make_tensor_proto(array)
    sent = type(theirs).FromString(module._tensor("x", array, dtype))
    # A list that holds nothing does not show the sizes behind its first 0.
    if array.size:
        np.testing.assert_array_equal(tf.make_ndarray(sent), array)
    single = type(theirs)(dtype=theirs.dtype, tensor_shape=theirs.tensor_shape)
    field = {"DT_BOOL": "bool_val", "DT_FLOAT": "float_val", "DT_DOUBLE": "double_val"}.get(dtype)
    field = field or {"DT_HALF": "half_val", "DT_INT64": "int64_val"}.get(dtype, "int_val")
    field = {"DT_UINT32": "uint32_val", "DT_UINT64": "uint64_val"}.get(dtype, field)
    flat = array.view("uint16") if dtype == "DT_HALF" else array
    getattr(single, field).extend(flat.reshape(-1).tolist())
    for proto in (theirs, single):
        read = module._values("x", proto.SerializeToString())
        np.testing.assert_array_equal(np.array(read, array.dtype).reshape(array.shape), array)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=4))
def test_strings_are_those_of_tensorflow(texts):
    proto: Any = tf.make_tensor_proto(np.array(texts, object), tf.string)
    assert module._values("x_bytes", proto.SerializeToString()) == texts
    assert list(type(proto).FromString(module._tensor("x", texts, "DT_STRING")).string_val) == texts


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_messages_that_are_none_are_refused(raw):
    for read in (module._outputs, module._metadata, module._status):
        try:
            read(module._fields(raw))
        except (ValueError, IndexError, TypeError, AttributeError, module.struct.error):
            pass  # what `_asked` tells as "no answer of TF Serving"


def test_status_messages_are_those_of_tf_serving():
    api: Any = import_module("tensorflow_serving.apis.get_model_status_pb2")
    answer = api.GetModelStatusResponse()
    answer.model_version_status.add(version=7, state=20)
    failed = answer.model_version_status.add(version=8, state=50)
    failed.status.error_code, failed.status.error_message = 5, "gone"
    assert module._status(module._fields(answer.SerializeToString())) == [
        {"version": "7", "state": "LOADING", "status": {"error_code": "OK", "error_message": ""}},
        {
            "version": "8",
            "state": "END",
            "status": {"error_code": "NOT_FOUND", "error_message": "gone"},
        },
    ]


# The file alone.

ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"llama_keras", "tensorflow", "keras", "numpy", "google"}:
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocked())
sys.path[:0] = sys.argv[1:3]
import serving_client as c
assert "httpx" not in sys.modules and "grpc" not in sys.modules
print([c.predict(url, ["so good", "dull"], timeout=30) for url in sys.argv[3:]])
import asyncio
async def both():
    for url in sys.argv[3:]:
        async with c.AsyncClient(url, timeout=30) as client:
            print(await client.versions())
asyncio.run(both())
"""
NEEDED = (
    *("httpx", "httpcore", "h11", "certifi", "idna", "anyio", "sniffio", "grpc"),
    "typing_extensions",
)


def test_the_file_works_alone(tiny_server, tmp_path):
    """Copied into an empty folder, in a process that sees httpx, grpcio and nothing else."""
    shutil.copy(str(module.__file__), tmp_path / "serving_client.py")
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in NEEDED:
        if (spec := find_spec(name)) is not None and spec.origin:
            origin = Path(spec.origin)
            place = origin.parent if origin.name == "__init__.py" else origin
            (packages / place.name).symlink_to(place)
    urls = [tiny_server.url, tiny_server.grpc_url]
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-s", "-c", ALONE, str(tmp_path), str(packages), *urls],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == f"{[[GOOD, BAD]] * 2}\n[3]\n[3]\n", done.stderr


def test_its_imports_are_its_own():
    code = (
        "import sys, llama_keras.serving as s; s.predict; s.CApiModel; s.find_model\n"
        "print(sorted({'tensorflow', 'keras', 'starlette', 'grpc', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
