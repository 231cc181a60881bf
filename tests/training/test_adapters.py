"""Adapters of tasks: what is learned survives as a small file, and merging changes no answer."""

import inspect
import re
from typing import Any

import keras
import numpy as np
import pytest
import safetensors.numpy

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.tasks import (
    CausalLM,
    Embedder,
    QuestionAnswerer,
    TextClassifier,
    TokenClassifier,
)
from llama_keras.tasks.fine_tuned import FineTunedTask
from llama_keras.text import Tokenizer
from llama_keras.training.adapters import renew_optimizer
from llama_keras.training.fine_tuning import Full, Lora
from tests.golden.parity_table import CHECKPOINTS, HERE, load, logits, relative_error
from tests.marks import slow

GOLDEN = HERE / "adapter"  # made by PEFT, see make_adapter.py
TEXTS = ["good day", "bad day", "a good one", "bad, bad"]
LABELS = ["yes", "no", "yes", "no"]
ALL = Lora(rank=2, learning_rate=1e-2)
ONE: dict[str, Any] = {"backbone_arguments": {"num_layers": 1}}  # where tracing takes the time


def make(task=TextClassifier, *, seed=0, labels=("no", "yes"), **arguments):
    """A task on a tiny backbone; its base weights are the same for the same seed."""
    keras.utils.set_random_seed(seed)
    if task in (TextClassifier, TokenClassifier):
        arguments["labels"] = list(labels)
    return task.from_preset("llama-tiny", **arguments)


def adapt(task, strategy=ALL, *, alpha=None):
    """Gives a task updates and a head as if it had learned."""
    strategy.prepare(task)
    for seed, weight in enumerate(task.trainable_weights):
        weight.assign(keras.random.normal(weight.shape, stddev=0.2, seed=seed))
    for layer in task.backbone._flatten_layers():
        if alpha and getattr(layer, "lora_enabled", False):
            layer.lora_alpha = alpha
    return task


def outputs(task):
    rows = {"token_ids": np.array([[5, 6, 7, 300]]), "padding_mask": np.ones((1, 4), "int32")}
    return np.asarray(task(rows), "float32")


def state(task):
    return {weight.path: np.array(weight) for weight in task.weights}


@pytest.fixture
def learned():
    return adapt(make())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "x.safetensors"
    adapt(make()).save_adapter(path)
    return path


def golden_task():
    return CausalLM(
        backbone=load(CHECKPOINTS / "tied_gqa"), tokenizer=Tokenizer.from_preset("llama-tiny")
    )


def golden_error(task):
    with np.load(GOLDEN / "logits.npz", allow_pickle=False) as arrays:
        return relative_error(logits(task.backbone, arrays["token_ids"]), arrays["logits"])


def test_pefts_adapter_gives_pefts_logits(tmp_path):
    task = golden_task()
    assert golden_error(task) > 1e-2  # the adapter shows
    task.load_adapter(GOLDEN)
    assert golden_error(task) < 1e-5
    task.save_adapter(tmp_path / "ours")
    file = "adapter_model.safetensors"
    theirs = safetensors.numpy.load_file(GOLDEN / file)
    ours = safetensors.numpy.load_file(tmp_path / "ours" / file)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    task.merge_lora()
    assert golden_error(task) < 1e-5
    again = golden_task()
    again.load_adapter(tmp_path / "ours")
    assert golden_error(again) < 1e-5


def test_the_file_added_by_hand_gives_the_same_logits(tmp_path):
    task = adapt(make(), alpha=7)
    task.save_adapter(tmp_path / "x.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    task.backbone.save_to_preset(tmp_path / "merged")
    plain = make()
    plain.backbone.save_to_preset(tmp_path / "plain")
    weights = safetensors.numpy.load_file(tmp_path / "plain" / "model.safetensors")
    names = {name.split(".lora_")[0] for name in tensors if ".lora_" in name}
    assert len(names) == 14
    for name in names:
        a, b = (tensors[f"{name}.lora_{side}.weight"] for side in "AB")
        weights[f"{name.removeprefix('base_model.model.')}.weight"] += 7 / 2 * b @ a
    merged = safetensors.numpy.load_file(tmp_path / "merged" / "model.safetensors")
    for name, values in weights.items():
        np.testing.assert_allclose(values, merged[name], atol=1e-5, err_msg=name)
    safetensors.numpy.save_file(weights, tmp_path / "plain" / "model.safetensors")
    plain.backbone = LlamaBackbone.from_preset(tmp_path / "plain")
    plain.head.set_weights([tensors["beside.head/kernel"], tensors["beside.head/bias"]])
    np.testing.assert_allclose(outputs(plain), outputs(task), atol=1e-5)


@pytest.mark.parametrize("name", ["x.safetensors", *slow("folder")])
def test_a_fitted_adapter_answers_the_same_elsewhere(name, tmp_path):
    task = make(strategy=ALL, **ONE)
    task.fit(TEXTS, LABELS, epochs=2, batch_size=2, verbose=0)
    task.save_adapter(tmp_path / name)
    other = make(**ONE)
    before = other.predict(TEXTS, verbose=0)  # traced without updates
    other.load_adapter(tmp_path / name)
    assert other.predict(TEXTS, verbose=0) == task.predict(TEXTS, verbose=0) != before
    assert (other.strategy.name, other.strategy.rank) == ("lora", 2)
    assert set(other.strategy.targets) == set(ALL.targets)
    frozen = {p: v for p, v in state(other.backbone).items() if "lora" not in p}
    other.fit(TEXTS, LABELS, epochs=1, batch_size=2, verbose=0)
    for path, values in frozen.items():
        np.testing.assert_array_equal(state(other.backbone)[path], values)


def test_the_file_is_small(saved):
    task = make()
    assert saved.stat().st_size < 0.25 * sum(np.array(weight).nbytes for weight in task.weights)


@pytest.mark.parametrize(
    ("task", "arguments", "beside"),
    [
        (CausalLM, {}, set()),
        (Embedder, {}, set()),
        (
            TokenClassifier,
            {"head": "crf"},
            {"head/kernel", "head/bias", "chain/transitions", "chain/start", "chain/end"},
        ),
        (QuestionAnswerer, {"null_answers": True}, {"head/kernel", "head/bias"}),
    ],
)
def test_every_task_keeps_its_head(task, arguments, beside, tmp_path):
    ours = adapt(make(task, **arguments))
    ours.save_adapter(tmp_path / "x.safetensors")
    names = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert {n.removeprefix("beside.") for n in names if n.startswith("beside.")} == beside
    other = make(task, **arguments)
    other.load_adapter(tmp_path / "x.safetensors")
    for path, values in state(ours).items():
        np.testing.assert_array_equal(state(other)[path], values)


@pytest.mark.parametrize(
    ("task", "arguments", "name"),
    [
        (QuestionAnswerer, {"null_answers": True}, "null_threshold"),
        (TextClassifier, {"multi_label": True}, "threshold"),
    ],
)
@pytest.mark.parametrize("file", ["x.safetensors", "folder"])
def test_the_threshold_comes_with_the_head(task, arguments, name, file, tmp_path):
    ours, other = adapt(make(task, **arguments)), make(task, **arguments)
    setattr(ours, name, 0.125)
    ours.save_adapter(tmp_path / file)
    other.load_adapter(tmp_path / file)
    assert getattr(other, name) == other.get_config()[name] == 0.125


@pytest.mark.parametrize("value", ["0.5", 7.0, float("nan")])
def test_a_threshold_that_is_none_changes_nothing(tmp_path, value):
    ours = adapt(make(multi_label=True))
    ours.threshold = value
    ours.save_adapter(tmp_path / "x.safetensors")
    other = make(multi_label=True)
    with pytest.raises(InputError, match="is damaged: threshold=.* should be a number"):
        other.load_adapter(tmp_path / "x.safetensors")
    assert other.threshold == 0.5 and not any("lora" in weight.path for weight in other.weights)


def scores(task):
    return [answer["score"] for answer in task.predict(TEXTS, verbose=0)]


def test_merging_changes_no_answer_and_leaves_a_plain_model(tmp_path):
    task = adapt(make(), alpha=3)
    before, paths = outputs(task), {weight.path for weight in make().weights}
    answers = scores(task)  # traced with updates
    task.merge_lora()
    np.testing.assert_allclose(outputs(task), before, atol=1e-5)
    assert scores(task) == pytest.approx(answers, abs=1e-5)
    assert {weight.path for weight in task.weights} == paths
    assert len(task.trainable_weights) == len(task.weights)
    assert not any("lora_rank" in layer.get_config() for layer in task.backbone._flatten_layers())
    task.backbone.save_to_preset(tmp_path / "preset")
    plain = LlamaBackbone.from_preset(tmp_path / "preset")
    for path, values in state(plain).items():
        np.testing.assert_array_equal(state(task.backbone)[path], values)
    task.save(tmp_path / "model.keras")
    loaded = TextClassifier.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(task))
    with pytest.raises(InputError, match="no LoRA updates"):
        task.merge_lora()


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    task = make(dtype=dtype)
    layer = task.backbone.transformer_layers[1].feed_forward.up_dense
    base = np.array(layer.kernel)
    adapt(task)
    update = np.array(layer.lora_kernel_a) @ np.array(layer.lora_kernel_b)
    task.merge_lora()
    merged = np.array(layer.kernel)
    assert merged.dtype == base.dtype  # mixed precision keeps float32
    expected = (base.astype("float32") + update).astype(base.dtype)
    last_bit = 2.0**-23 if base.dtype == "float32" else 2.0**-8
    np.testing.assert_allclose(
        merged.astype("float32"), expected.astype("float32"), rtol=last_bit, atol=1e-8
    )


def test_updates_of_embeddings_merge_too():
    task = adapt(make(), Lora(rank=2, targets=("token_embedding", "up_dense")))
    before = outputs(task)
    with pytest.raises(InputError, match="not those of 'token_embedding'"):
        task.save_adapter("x.safetensors")
    task.merge_lora()
    np.testing.assert_allclose(outputs(task), before, atol=1e-5)
    assert not any("lora" in weight.path for weight in task.weights)


@pytest.mark.slow
def test_fit_goes_on_after_merging_with_new_updates():
    task = make(strategy=ALL, **ONE)
    task.fit(TEXTS, LABELS, epochs=1, batch_size=2, verbose=0)
    task.merge_lora()
    merged = state(task.backbone)
    task.fit(TEXTS, LABELS, epochs=1, batch_size=2, verbose=0)
    now = state(task.backbone)
    for path, values in merged.items():
        np.testing.assert_array_equal(now[path], values)
    moved = [path for path in now if path.endswith("lora_kernel_b")]
    assert len(moved) == 7 and all(np.any(now[path]) for path in moved)


def test_a_renewed_optimizer_keeps_its_settings():
    task = make(strategy=ALL, **ONE)
    old = keras.optimizers.AdamW(0.125, weight_decay=0.5)
    old.exclude_from_weight_decay(var_names=["bias", "scale"])
    task.compile(optimizer=old, loss="sparse_categorical_crossentropy")
    renew_optimizer(task)
    assert task.optimizer is old  # it has seen no weights
    task.fit(TEXTS, LABELS, epochs=1, batch_size=2, verbose=0)
    task.merge_lora()
    new = task.optimizer
    assert new is not old and not new.built and task.loss == "sparse_categorical_crossentropy"
    assert (float(new.learning_rate), new.weight_decay) == (0.125, 0.5)
    new.build(task.trainable_weights)
    decayed = {w.name for w in task.trainable_weights if new._use_weight_decay(w)}
    assert decayed == {"kernel", "embeddings"}


@pytest.mark.slow
def test_loss_scaling_survives_merging():
    task = make(strategy=ALL, **ONE)
    plain = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    plain.exclude_from_weight_decay(var_names=["bias", "scale"])
    task.compile(optimizer=keras.optimizers.LossScaleOptimizer(plain))
    task.fit(TEXTS, LABELS, epochs=1, batch_size=2, verbose=0)
    task.merge_lora()
    inner = task.optimizer.inner_optimizer
    assert inner is not plain
    inner.build(task.trainable_weights)
    assert {w.name for w in task.trainable_weights if not inner._use_weight_decay(w)} == {
        "bias",
        "scale",
    }


def test_other_adapters_replace_the_first(saved, tmp_path):
    task = adapt(make(), alpha=5)
    for weight in task.trainable_weights:
        weight.assign(weight + 1.0)
    task.save_adapter(tmp_path / "y.safetensors")
    second = outputs(task)
    task.load_adapter(saved)
    np.testing.assert_array_equal(outputs(task), outputs(adapt(make())))
    task.load_adapter(tmp_path / "y.safetensors")
    np.testing.assert_array_equal(outputs(task), second)


def test_updates_of_some_layers_alone(tmp_path):
    task = make()
    block = task.backbone.transformer_layers[1]
    task.backbone.enable_lora(2, target_layer_names=[])
    for layer in (block.attention.value_dense, block.feed_forward.up_dense):
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(keras.random.normal(layer.lora_kernel_b.shape, seed=1))
    task.save_adapter(tmp_path / "folder")
    other = make()
    other.load_adapter(tmp_path / "folder")
    np.testing.assert_array_equal(outputs(other), outputs(task))
    assert sum("lora" in weight.path for weight in other.weights) == 4
    assert len(other.backbone._lora_enabled_layers) == 2  # so that `fit` adds no more


def test_biases_that_learned_are_kept(tmp_path):
    arguments: dict[str, Any] = {"backbone_arguments": {"attention_bias": True}}
    task = adapt(make(**arguments))
    biases = {w.path for w in task.trainable_weights if w.path.startswith("transformer_layer")}
    assert any(path.endswith("query_dense/bias") for path in biases)
    with pytest.raises(InputError, match="PEFT's layout has no place"):
        task.save_adapter(tmp_path / "folder")
    task.save_adapter(tmp_path / "x.safetensors")
    other = make(**arguments)
    other.load_adapter(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(outputs(other), outputs(task))
    assert {weight.path for weight in other.trainable_weights} == {
        weight.path for weight in task.trainable_weights
    }


@pytest.mark.usefixtures("frozen_heap")
def test_updates_on_int8_weights(tmp_path):
    def quantized():
        task = make(**ONE)
        task.backbone.quantize("int8")
        return task

    task = adapt(quantized())
    task.save_adapter(tmp_path / "x.safetensors")
    other = quantized()
    other.load_adapter(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(outputs(other), outputs(task))
    with pytest.raises(InputError, match="are quantized and would lose the updates"):
        task.merge_lora()
    with pytest.raises(InputError, match="other base weights"):
        make(**ONE).load_adapter(tmp_path / "x.safetensors")


WIDE = {"hidden_dim": 128, "head_dim": 32}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (lambda: make(labels=["no", "perhaps"]), r"labels=\['no', 'yes'\]; this one has labels="),
        (lambda: make(labels=["a", "b", "c"]), "this one has labels"),
        (lambda: make(pooling="mean"), "with pooling='last'; this one has pooling='mean'"),
        (lambda: make(CausalLM), "made for a TextClassifier; this is a CausalLM"),
        (lambda: make(seed=1), "made on other base weights.* pass check_base=False"),
        (lambda: make(backbone_arguments=WIDE), "with hidden_dim=64.*this one has hidden_dim=128"),
        (lambda: make(backbone_arguments={"num_layers": 3}), "num_layers=2"),
        (lambda: make(backbone_arguments={"layer_norm_epsilon": 1e-3}), "layer_norm_epsilon=1e-05"),
        (lambda: adapt(make(), Lora(rank=3)), "has rank 2, but .* already are of rank 3"),
        (lambda: adapt(make(), Lora(rank=2, targets=("up_dense",))), "LoRA updates already"),
    ],
)
def test_an_adapter_that_does_not_fit_changes_nothing(task, message, saved):
    task = task()
    before, strategy = state(task), task.strategy
    with pytest.raises(InputError, match=message):
        task.load_adapter(saved)
    after = state(task)
    assert after.keys() == before.keys() and task.strategy is strategy
    for path, values in before.items():
        np.testing.assert_array_equal(after[path], values)


def test_pefts_sizes_are_checked_too():
    with pytest.raises(
        InputError, match=r"down_proj' of 48 inputs and 32 outputs; here it has 128"
    ):
        make(CausalLM).load_adapter(GOLDEN)


def test_other_base_weights_can_be_allowed(saved):
    task = make(seed=1)
    task.load_adapter(saved, check_base=False)
    assert sum("lora" in weight.path for weight in task.weights) == 28


def test_what_no_adapter_can_hold_is_refused(learned, tmp_path):
    with pytest.raises(InputError, match="fit with strategy='lora'"):
        make().save_adapter(tmp_path / "x.safetensors")
    learned.backbone.transformer_layers[0].attention.query_dense.lora_alpha = 9
    with pytest.raises(InputError, match=r"differ in \(rank, alpha\): \[\(2, 2\), \(2, 9\)\]"):
        learned.save_adapter(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_wholly_trained_base_is_told_from_the_preset(saved):
    task = make(strategy=Full(learning_rate=1e-2))
    task.fit(TEXTS, LABELS, epochs=1, batch_size=2, verbose=0)
    with pytest.raises(InputError, match="other base weights"):
        task.load_adapter(saved)


def test_docstring_example_runs():
    text = inspect.getdoc(FineTunedTask.save_adapter) or ""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert not any("lora" in weight.path for weight in names["model"].weights)


@pytest.mark.slow
def test_text_is_generated_from_what_is_there_now(tmp_path):
    task = make(CausalLM, jit_generate=False)
    plain = task.generate("Hi", max_new_tokens=4).log_probabilities
    adapt(task).save_adapter(tmp_path / "x.safetensors")
    adapted = task.generate("Hi", max_new_tokens=4).log_probabilities
    assert adapted != plain
    task.merge_lora()
    merged = task.generate("Hi", max_new_tokens=4).log_probabilities
    assert merged == pytest.approx(adapted, abs=1e-4)
