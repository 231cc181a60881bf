"""Adapter files by themselves: what is written, read and refused, without a model."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from llama_keras.errors import InputError
from llama_keras.weights.adapters import NOTE, Adapter, LowRank, Made, read_adapter, write_adapter
from tests.golden.parity_table import HERE

GOLDEN = HERE / "adapter"
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")


def adapter(modules=MODULES, **changes):
    draw = np.random.default_rng(0).normal
    updates = {
        name: LowRank(a=draw(size=(2, 6)).astype("float32"), b=draw(size=(8, 2)).astype("float32"))
        for name in modules
    }
    made = Made(
        task="TextClassifier",
        settings={"labels": ["no", "yes"]},
        backbone={"num_layers": 2},
        fingerprint="ab" * 32,
    )
    beside = {"head/kernel": draw(size=(6, 2)).astype("float32")}
    parts = {"rank": 2, "alpha": 3.0, "updates": updates, "beside": beside, "made": made}
    return Adapter(**{**parts, **changes})


@pytest.fixture
def folder(tmp_path):
    """A copy of PEFT's adapter, to spoil."""
    return shutil.copytree(GOLDEN, tmp_path / "peft")


def edit_config(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(file, change):
    """Rewrites a safetensors file with the reference's writer, its metadata kept."""
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    change(tensors, metadata)
    safetensors.numpy.save_file(tensors, file, metadata=metadata)


@pytest.mark.parametrize("name", ["x.safetensors", "new/x.safetensors", "folder"])
def test_what_is_written_is_read_back(name, tmp_path):
    ours = adapter()
    write_adapter(ours, tmp_path / name)
    read = read_adapter(tmp_path / name)
    assert (read.rank, read.alpha, read.made) == (2, 3.0, ours.made)
    assert read.updates.keys() == ours.updates.keys()
    for module, update in ours.updates.items():
        np.testing.assert_array_equal(read.updates[module].a, update.a)
        np.testing.assert_array_equal(read.updates[module].b, update.b)
    np.testing.assert_array_equal(read.beside["head/kernel"], ours.beside["head/kernel"])


def test_pefts_own_file_holds_nothing_but_its_matrices(tmp_path):
    write_adapter(adapter(), tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "beside.safetensors"}
    names = safetensors.numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {name.split(".lora_")[1] for name in names} == {"A.weight", "B.weight"}


def test_target_modules_say_which_layers(tmp_path):
    for modules, targets in ((MODULES, ["q_proj"]), (MODULES[:1], [MODULES[0]])):
        write_adapter(adapter(modules=modules), tmp_path / str(len(modules)))
        config = json.loads((tmp_path / str(len(modules)) / "adapter_config.json").read_text())
        assert config["target_modules"] == targets


def test_one_from_peft_is_read_and_written_alike(tmp_path):
    read = read_adapter(GOLDEN)
    assert (read.rank, read.alpha, read.beside, read.made) == (3, 5.0, {}, None)
    write_adapter(adapter(rank=3, alpha=5.0, updates=read.updates, beside={}), tmp_path / "out")
    file = "adapter_model.safetensors"
    theirs = safetensors.numpy.load_file(GOLDEN / file)
    ours = safetensors.numpy.load_file(tmp_path / "out" / file)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    wanted = json.loads((GOLDEN / "adapter_config.json").read_text())
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert {key: wanted[key] for key in config} == {**config, "task_type": "CAUSAL_LM"}


def test_names_of_a_bare_model_mean_the_same(folder):
    def shorten(tensors, _):
        for name in list(tensors):
            tensors[name.replace("model.model.layers", "model.layers")] = tensors.pop(name)

    edit_tensors(folder / "adapter_model.safetensors", shorten)
    assert read_adapter(folder).updates.keys() == read_adapter(GOLDEN).updates.keys()


def test_rank_stabilized_scales_are_understood(folder):
    edit_config(folder, use_rslora=True)
    assert read_adapter(folder).alpha / 3 == pytest.approx(5 / np.sqrt(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora = True, which cannot be loaded"),
        ({"modules_to_save": ["score"]}, r"modules_to_save = \['score'\]"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"of_next_year": 1}, "of_next_year = 1"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base weights"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'; only LORA"),
        ({"r": "3"}, "r = '3'; expected a positive integer"),
        ({"r": True}, "r = True"),
        ({"r": 4}, r"rank 4 asks for \(4, inputs\)"),
        ({"lora_alpha": None}, "lora_alpha = None"),
        ({"lora_alpha": -1}, "lora_alpha = -1"),
    ],
)
def test_what_peft_can_do_and_we_cannot_is_refused_by_name(changes, message, folder):
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=message):
        read_adapter(folder)


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, _: t.pop(f"{Q}.lora_A.weight"), "but lora_B of"),
        (lambda t, _: t.update({"lm_head.weight": np.ones(3)}), "'lm_head.weight', which is no"),
        (lambda t, _: t.update({f"{Q}.lora_A.weight": np.ones(3)}), r"\(3,\)"),
        (lambda t, _: t.clear(), "holds no LoRA matrices"),
    ],
)
def test_odd_tensors_are_refused(change, message, folder):
    def with_floats(tensors, metadata):
        change(tensors, metadata)
        tensors.update({name: values.astype("float32") for name, values in tensors.items()})

    edit_tensors(folder / "adapter_model.safetensors", with_floats)
    with pytest.raises(InputError, match=message):
        read_adapter(folder)


def test_pickles_are_not_opened(folder, tmp_path):
    with pytest.raises(InputError, match="is a pickle by its name"):
        write_adapter(adapter(), tmp_path / "x.bin")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    for path in (folder, folder / "adapter_model.bin"):
        with pytest.raises(InputError, match=r"adapter_model\.bin' is a pickle"):
            read_adapter(path)


def test_what_is_missing_is_named(folder):
    with pytest.raises(InputError, match=r"nope\.safetensors' cannot be read"):
        read_adapter(folder / "nope.safetensors")
    with pytest.raises(InputError, match="does not say how its matrices are scaled"):
        read_adapter(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"adapter_config\.json' cannot be read"):
        read_adapter(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "adapter format 2; this version reads 1"),
        ({"rank": 0}, "is not whole"),
        ({"fingerprint": None}, "is not whole"),
        ({"beside": ["head/kernel", "head/bias"]}, "should hold"),
    ],
)
def test_a_damaged_note_is_refused(change, message, tmp_path):
    file = tmp_path / "x.safetensors"
    write_adapter(adapter(), file)
    edit_tensors(file, lambda _, m: m.update({NOTE: json.dumps(json.loads(m[NOTE]) | change)}))
    with pytest.raises(InputError, match=message):
        read_adapter(file)


def test_a_note_that_is_no_json_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    write_adapter(adapter(), file)
    edit_tensors(file, lambda _, metadata: metadata.update({NOTE: "{"}))
    with pytest.raises(InputError, match="is not whole"):
        read_adapter(file)


def test_a_cut_file_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    write_adapter(adapter(), file)
    whole = file.read_bytes()
    for length in (4, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged"):
            read_adapter(file)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    write_adapter(adapter(), file)
    before = file.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("llama_keras.weights.adapters.write_safetensors", fail)
    for path in (file, tmp_path / "folder"):
        with pytest.raises(OSError, match="disk full"):
            write_adapter(adapter(alpha=9.0), path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    assert file.read_bytes() == before


def test_a_folder_is_not_overwritten(tmp_path):
    write_adapter(adapter(), tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        write_adapter(adapter(), tmp_path / "out")
