import json
import random
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from llama_keras.errors import InputError
from llama_keras.weights.safetensors_file import SafetensorsFile, write_safetensors

TENSORS = {
    "a": np.arange(6, dtype="float32").reshape(2, 3),
    "b": np.array([0.1, -2.5, 1e-3], dtype="float32"),
    "empty": np.zeros((0, 4), "float32"),
}


def write(path, tensors=TENSORS, dtype="float32"):
    shapes = {name: values.shape for name, values in tensors.items()}
    write_safetensors(path, tensors.items(), shapes, dtype=dtype)
    return path


def write_raw(path, header, data=b"", *, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(begin, end, *, shape: Any = (1,), dtype: Any = "F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_round_trip(dtype, tmp_path):
    file = SafetensorsFile(write(tmp_path / "x.safetensors", dtype=dtype))
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    for name, values in TENSORS.items():
        read = file.read(name)
        assert read.dtype == stored
        np.testing.assert_array_equal(read, values.astype(stored))


def test_the_reference_reads_what_we_write(tmp_path):
    read = safetensors.numpy.load_file(write(tmp_path / "x.safetensors"))
    assert read.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(read[name], values)


def test_we_read_what_the_reference_writes(tmp_path):
    safetensors.numpy.save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert file.tensors.keys() == TENSORS.keys()
    np.testing.assert_array_equal(file.read("a"), TENSORS["a"])


def test_values_beyond_float16_are_refused(tmp_path):
    with pytest.raises(InputError, match="'big' has values beyond the range of float16"):
        write(tmp_path / "x.safetensors", {"big": np.array([1e6], "float32")}, "float16")


def test_integers_are_listed_but_not_read(tmp_path):
    header = {"ids": entry(0, 8, dtype="I64")}
    file = SafetensorsFile(write_raw(tmp_path / "x", header, bytes(8)))
    with pytest.raises(InputError, match="stored as I64; known: F32, F16, BF16"):
        file.read("ids")


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        ({"a": entry(0, 4)}, 3, "cut short"),
        ({"a": entry(0, 4)}, 5, "belong to no tensor"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, 4, "overlaps"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "gap"),
        ({"a": entry(4, 8)}, 8, "gap"),
        ({"a": entry(0, 8)}, 8, "needs 4 bytes, but its data_offsets span 8"),
        ({"a": entry(4, 0)}, 4, "span -4"),
        ({"a": entry(0, 4, shape=(-1,))}, 4, "shape"),
        ({"a": entry(0, 4, shape=(True,))}, 4, "shape"),
        ({"a": entry(0, 4, shape=(2**40, 2**40))}, 4, "needs"),
        ({"a": entry(0, 4, dtype="F33")}, 4, "unknown dtype 'F33'"),
        ({"a": entry(0, 4, dtype=["F32"])}, 4, "unknown dtype"),
        ({"a": entry(0.0, 4)}, 4, "data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "should be dtype, shape, data_offsets"),
        ({"a": 3}, 4, "should be dtype, shape, data_offsets"),
        ([1], 0, "not a JSON object"),
        (b"{", 0, "not JSON"),
        (b"\xff\xfe{}", 0, "not JSON"),
        (b"[" * 100_000, 0, "not JSON"),
        (b'{"a": 1, "a": 2}', 0, "'a' occurs twice"),
    ],
)
def test_headers_that_lie_are_refused(header, size, message, tmp_path):
    path = write_raw(tmp_path / "x.safetensors", header, bytes(size))
    with pytest.raises(InputError, match=message) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [2**63, 10_000])
def test_a_header_longer_than_the_file_is_refused(length, tmp_path):
    path = write_raw(tmp_path / "x", {}, length=length)
    with pytest.raises(InputError, match=f"header claims {length} bytes"):
        SafetensorsFile(path)


def test_missing_empty_and_short_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        SafetensorsFile(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"1234567")
    with pytest.raises(InputError, match="7 bytes, too few"):
        SafetensorsFile(tmp_path / "short")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="is empty"):
        SafetensorsFile(tmp_path / "empty")


def test_damaged_bytes_never_raise_anything_but_input_errors(tmp_path):
    path = write(tmp_path / "x.safetensors")
    whole, source = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[source.randrange(len(whole) - 36)] = source.randrange(256)
        path.write_bytes(damaged[: source.choice([None, -1, 50])])
        try:
            file = SafetensorsFile(path)
            for name in file.tensors:
                file.read(name)
        except InputError:
            refused += 1
    assert refused > 200
