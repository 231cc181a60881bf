import json
import shutil

import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.weights.safetensors import open_checkpoint, write_checkpoint, write_weights
from tests.golden.parity_table import CHECKPOINTS, VARIANTS, golden, load, logits, relative_error

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path):
    return shutil.copytree(CHECKPOINTS / "sharded", tmp_path / "sharded")


@pytest.fixture(scope="module")
def backbone():
    return load(CHECKPOINTS / "tied_gqa")


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("variant", VARIANTS)
def test_written_tensors_equal_the_read_ones_byte_for_byte(variant, tmp_path):
    stored = json.loads((CHECKPOINTS / variant / "config.json").read_text())["dtype"]
    write_checkpoint(load(CHECKPOINTS / variant), tmp_path / "out", dtype=stored)
    before, after = open_checkpoint(CHECKPOINTS / variant), open_checkpoint(tmp_path / "out")
    assert before.tensors.keys() == after.tensors.keys()
    for name in before.tensors:
        a, b = before.read(name), after.read(name)
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_a_written_checkpoint_gives_the_same_logits(tmp_path):
    written = write_checkpoint(load(CHECKPOINTS / "llama3_rope"), tmp_path / "out")
    token_ids, theirs = golden("llama3_rope")
    assert relative_error(logits(load(written), token_ids), theirs) < 1e-5


def test_a_bfloat16_backbone_writes_bfloat16_by_default(tmp_path):
    backbone = LlamaBackbone.from_preset(CHECKPOINTS / "tied_gqa", dtype="bfloat16")
    write_checkpoint(backbone, tmp_path / "out", extra_config={"eos_token_id": 2})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16" and config["eos_token_id"] == 2
    before, after = open_checkpoint(CHECKPOINTS / "tied_gqa"), open_checkpoint(tmp_path / "out")
    name = "model.layers.1.mlp.down_proj.weight"
    assert before.read(name).tobytes() == after.read(name).tobytes()


def test_an_existing_folder_is_not_overwritten(backbone, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        write_checkpoint(backbone, out)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_failed_write_leaves_nothing(backbone, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("llama_keras.weights.safetensors.write_safetensors", fail)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(backbone, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("frozen_heap")
def test_what_cannot_be_written_is_refused(backbone, tmp_path):
    with pytest.raises(InputError, match="dtype 'int8' cannot be written"):
        write_checkpoint(backbone, tmp_path / "out", dtype="int8")
    two_way = load(CHECKPOINTS / "tied_gqa", attention_mask="bidirectional")
    with pytest.raises(InputError, match="bidirectional"):
        write_checkpoint(two_way, tmp_path / "out")
    write_weights(two_way, tmp_path / "weights.safetensors")  # the weights alone are as good
    two_way.quantize("int8")
    with pytest.raises(InputError, match="was quantized to int8"):
        write_weights(two_way, tmp_path / "int8.safetensors")


def test_lora_is_merged_into_what_is_written(tmp_path):
    backbone = load(CHECKPOINTS / "untied")
    backbone.enable_lora(2)
    changed = [weight for weight in backbone.trainable_weights if "lora" in weight.path]
    for weight in changed:
        weight.assign(np.full(weight.shape, 0.1))
    token_ids, plain = golden("untied")
    adapted = logits(backbone, token_ids)
    assert changed and relative_error(adapted, plain) > 1e-2
    written = write_checkpoint(backbone, tmp_path / "out")
    assert relative_error(logits(load(written), token_ids), adapted) < 1e-5


def test_shards_are_read_as_one(sharded):
    checkpoint = open_checkpoint(sharded)
    assert len(checkpoint.tensors) == 21
    assert checkpoint.read("lm_head.weight").shape == (64, 32)
    with pytest.raises(InputError, match="no tensor 'nope'"):
        checkpoint.read("nope")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a\\b", "..", "", 3, None])
def test_an_index_that_reaches_outside_is_refused(name, sharded):
    edit_index(sharded, lambda index: index["weight_map"].update({"lm_head.weight": name}))
    with pytest.raises(InputError, match="no plain file name"):
        open_checkpoint(sharded)


def test_an_index_that_does_not_match_is_refused(sharded):
    files = sorted(p.name for p in sharded.glob("model-*"))
    whole = (sharded / INDEX).read_text()
    for change, message in (
        (lambda i: i["weight_map"].pop("lm_head.weight"), "does not list tensor 'lm_head.weight'"),
        (lambda i: i["weight_map"].update(nope=files[0]), "'nope' into .* which lacks it"),
        (lambda i: i["weight_map"].update(nope="absent.safetensors"), "cannot be read"),
        (lambda i: i.pop("weight_map"), "no object 'weight_map'"),
    ):
        (sharded / INDEX).write_text(whole)
        edit_index(sharded, change)
        with pytest.raises(InputError, match=message):
            open_checkpoint(sharded)


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="model-00002-of-00002"):
        open_checkpoint(sharded)


def test_pickles_are_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle"):
        open_checkpoint(tmp_path)


def test_values_survive_a_cast_there_and_back(backbone, tmp_path):
    write_checkpoint(backbone, tmp_path / "out", dtype="float32")
    before, after = open_checkpoint(CHECKPOINTS / "tied_gqa"), open_checkpoint(tmp_path / "out")
    for name in before.tensors:
        np.testing.assert_array_equal(after.read(name), before.read(name).astype("float32"))
