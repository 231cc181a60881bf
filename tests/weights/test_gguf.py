import random
import struct

import gguf
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.weights.gguf import GGUFFile, gguf_config
from llama_keras.weights.presets import PRESETS, backbone_config, resolve
from tests.golden.parity_table import CHECKPOINTS
from tests.weights.gguf_files import write_llama


@pytest.fixture
def small(tmp_path):
    return write_llama(tmp_path / "small.gguf")


def test_metadata_are_python_values(small):
    metadata = GGUFFile(small).metadata
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.block_count"] == 2
    assert metadata["llama.attention.layer_norm_rms_epsilon"] == 1e-5  # not 9.99e-6
    assert metadata["general.languages"] == ["en", "zh"]


def test_every_value_type_is_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "types.gguf", "llama")
    numbers = {"uint8": 7, "int8": -7, "uint16": 700, "int16": -700, "uint32": 70_000}
    numbers |= {"int32": -70_000, "uint64": 2**40, "int64": -(2**40), "float32": 0.1}
    numbers |= {"float64": 0.1, "bool": True, "string": "今天"}
    for kind, value in numbers.items():
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    arrays = {"ints": [1, 2, 3], "floats": [0.1, 0.2], "texts": ["a", "é"], "truths": [True, False]}
    for name, value in arrays.items():
        writer.add_array(f"x.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata = GGUFFile(tmp_path / "types.gguf").metadata
    assert {k: metadata[f"x.{k}"] for k in numbers | arrays} == numbers | arrays


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_storage_types_are_dequantized(kind, tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 64)).astype("float32")
    path = write_llama(tmp_path / "x.gguf", quantization=kind, tensors={"extra": values})
    file = GGUFFile(path)
    read = file.read("extra")
    quantization = gguf.GGMLQuantizationType[kind]
    expected = gguf.quants.dequantize(gguf.quants.quantize(values, quantization), quantization)
    assert file.tensors["extra"].dtype == kind
    assert read.dtype == np.float32 and read.shape == (6, 64)
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_allclose(read, values, atol=0.4)


@pytest.mark.parametrize(
    "variant",
    ["tied_gqa", "untied", "attention_bias", "mlp_bias", "head_dim", "linear_rope", "llama3_rope"],
)
def test_config_equals_the_hugging_face_one(variant, tmp_path):
    file = GGUFFile(write_llama(tmp_path / "x.gguf", variant))
    assert gguf_config(file) == backbone_config(resolve(CHECKPOINTS / variant))


def test_smollm2_equals_its_preset_row(smollm2):
    file = GGUFFile(smollm2)
    row = PRESETS["smollm2-135m-instruct"]
    assert gguf_config(file) == row.config
    assert sum(np.prod(t.shape) for t in file.tensors.values()) == row.parameters
    reader = {t.name: t for t in gguf.GGUFReader(smollm2).tensors}
    for name in ("blk.3.attn_q.weight", "output_norm.weight"):
        expected = gguf.quants.dequantize(reader[name].data, reader[name].tensor_type)
        np.testing.assert_array_equal(file.read(name), expected)


def test_absent_head_size_key_heads_and_base_take_their_defaults(tmp_path):
    left_out = ["attention.key_length", "attention.value_length", "rope.dimension_count"]
    left_out += ["attention.head_count_kv", "rope.freq_base", "vocab_size"]
    keys = {f"llama.{key}": None for key in left_out}
    config = gguf_config(GGUFFile(write_llama(tmp_path / "x.gguf", "multi_head", keys=keys)))
    assert config == backbone_config(resolve(CHECKPOINTS / "multi_head"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"llama.expert_count": 8}, r"llama\.expert_count = 8"),
        ({"llama.attention.sliding_window": 64}, r"not understood: llama\.attention\.sliding_win"),
        ({"llama.rope.dimension_count": 4}, r"llama\.rope\.dimension_count = 4; only 8"),
        ({"llama.rope.scaling.type": "yarn"}, "'yarn'; known: none, linear"),
        ({"llama.rope.scaling.factor": "big"}, "is no number: 'big'"),
        ({"llama.block_count": None}, r"lacks the keys llama\.block_count"),
        ({"llama.block_count": 2.5}, "one positive number, but is float 2.5"),
        ({"llama.feed_forward_length": [48, 32]}, "one positive number, but is list"),
        ({"llama.vocab_size": 65}, "vocab_size = 65, but its embedding has 64 rows"),
        ({"split.count": 3}, "one part of 3"),
    ],
)
def test_keys_that_are_not_understood_are_refused(keys, message, tmp_path):
    path = write_llama(tmp_path / "x.gguf", keys=keys)
    with pytest.raises(InputError, match=message):
        gguf_config(GGUFFile(path))


def test_linear_scaling_by_one_is_none(tmp_path):
    keys = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 1.0}
    file = GGUFFile(write_llama(tmp_path / "x.gguf", keys=keys))
    assert gguf_config(file)["rope_scaling"] is None


def test_unknown_architecture_names_the_known(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"architecture 'mamba'; known: llama"):
        gguf_config(GGUFFile(tmp_path / "x.gguf"))


def test_missing_file_and_other_kinds(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        GGUFFile(tmp_path / "none.gguf")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(InputError, match="is empty"):
        GGUFFile(tmp_path / "empty.gguf")
    (tmp_path / "page.gguf").write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match="not a GGUF file"):
        GGUFFile(tmp_path / "page.gguf")


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_unknown_versions_are_refused(version, small):
    small.write_bytes(_at(small.read_bytes(), 4, struct.pack("<I", version)))
    with pytest.raises(InputError, match="known are the little-endian versions 2, 3"):
        GGUFFile(small)


@pytest.mark.parametrize("keep", [5, 20, 100, 700, 2500, -1, -5000])
def test_truncated_files_are_refused(keep, small):
    small.write_bytes(small.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"ends too early|is truncated"):
        GGUFFile(small)


def test_lies_about_counts_and_lengths_are_refused(small):
    whole = small.read_bytes()
    huge = struct.pack("<Q", 2**63)
    for offset in (8, 16, 24):  # tensor count, key count, length of the first key
        small.write_bytes(_at(whole, offset, huge))
        with pytest.raises(InputError):
            GGUFFile(small)


@pytest.mark.parametrize(
    ("offset", "message"),
    [(2**62, "truncated"), (64, "overlap"), (3, "alignment")],
)
def test_lies_about_tensor_offsets_are_refused(offset, message, small):
    whole = small.read_bytes()
    name = b"output_norm.weight"  # then: 1 dimension, its size, type, offset
    field = whole.index(name) + len(name) + 4 + 8 + 4
    small.write_bytes(_at(whole, field, struct.pack("<Q", offset)))
    with pytest.raises(InputError, match=message):
        GGUFFile(small)


def test_tensors_and_keys_that_occur_twice_are_refused(small):
    whole = small.read_bytes()
    twice = whole.replace(b"blk.1.attn_norm.weight", b"blk.0.attn_norm.weight")
    small.write_bytes(twice)
    with pytest.raises(InputError, match=r"'blk\.0\.attn_norm\.weight' occurs twice"):
        GGUFFile(small)
    small.write_bytes(whole.replace(b"llama.rope.freq_base", b"llama.context_length"))
    with pytest.raises(InputError, match=r"'llama\.context_length' occurs twice"):
        GGUFFile(small)


def test_nested_arrays_end_in_an_error_not_a_stack_overflow(tmp_path):
    array = struct.pack("<IQ", gguf.GGUFValueType.ARRAY, 1) * 5000
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<I", gguf.GGUFValueType.ARRAY)
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + array)
    with pytest.raises(InputError, match="unknown value type"):
        GGUFFile(path)


def test_damaged_bytes_never_raise_anything_but_input_errors(small):
    whole, source = small.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(3000)] = source.choice([0, 1, 255, source.randrange(256)])
        small.write_bytes(damaged)
        try:
            file = GGUFFile(small)
            gguf_config(file)
            for name in file.tensors:
                file.read(name)
        except InputError as error:
            refused += 1
            assert str(small) in str(error) and "\n" not in str(error)
    assert refused > 200


def test_a_name_that_is_not_there(small):
    with pytest.raises(InputError, match="no tensor 'nope'"):
        GGUFFile(small).read("nope")


def _at(whole: bytes, offset: int, new: bytes) -> bytes:
    return whole[:offset] + new + whole[offset + len(new) :]
