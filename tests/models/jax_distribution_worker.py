"""Run with KERAS_BACKEND=jax: trains tiny models under a distribution, writes what came out.

    python -m tests.models.jax_distribution_worker LAYOUT FOLDER [CASE …]

LAYOUT is a name of `LAYOUTS`; the device count comes from XLA_FLAGS. FOLDER gets `LAYOUT.npz` with
`CASE/weight/INDEX`, `CASE/moment/INDEX` and `CASE/loss`, and `LAYOUT.json` with facts by case.
"""

import contextlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from llama_keras.models import LlamaBackbone
from llama_keras.objectives import OBJECTIVES
from tests.models.backbone_suite import numpy, perturbed, quantized

# Everything divides by 4 but the key-value heads.
SIZES: dict[str, Any] = {
    "vocabulary_size": 32,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
# name -> (devices of the data axis, devices of the model axis); None is no ModelParallel.
LAYOUTS: dict[str, tuple[int, int] | None] = {
    "one": None,
    "data2": None,
    "model2": (1, 2),
    "width2": (2, 1),
    "data4": None,
    "both4": (2, 2),
    "model4": (1, 4),
}
ROWS, TOKENS, STEPS = 8, 6, 4


def distribution(layout: str) -> Any:
    shape = LAYOUTS[layout]
    if layout == "one":
        return None
    if shape is None:
        return keras.distribution.DataParallel()
    mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"))
    layout_map = LlamaBackbone.get_layout_map(mesh, config=SIZES)
    layout_map["head/kernel"] = ("batch", "model")
    return keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")


def rows() -> dict[str, np.ndarray]:
    """Gives texts of very unequal lengths."""
    generator = np.random.default_rng(3)
    ids = generator.integers(1, SIZES["vocabulary_size"], size=(ROWS, TOKENS), dtype="int32")
    lengths = np.array([6, 6, 5, 6, 2, 3, 2, 2])
    mask = (np.arange(TOKENS) < lengths[:, None]).astype("int32")
    return {"token_ids": ids * mask, "padding_mask": mask}


def functional(*, own_head: bool = False, **arguments) -> keras.Model:
    """Gives a plain functional model: rows to logits of the next tokens.

    Keras reloads no functional model that shares a layer with one inside it, such as the head
    without `own_head` with the backbone.
    """
    backbone: Any = perturbed(LlamaBackbone(**{**SIZES, **arguments}))
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in rows()}
    head = keras.layers.Dense(SIZES["vocabulary_size"], use_bias=False, name="head")
    hidden = backbone(inputs)
    logits = head(hidden) if own_head else backbone.token_embedding(hidden, reverse=True)
    return keras.Model(inputs, logits)


class ByObjective(keras.Model):
    """Learns by the causal objective: its loss is a mean over real tokens, computed in chunks."""

    def __init__(self):
        super().__init__()
        self.backbone = perturbed(LlamaBackbone(**SIZES, tie_word_embeddings=True))
        self.objective = OBJECTIVES["causal"]

    def call(self, inputs, training=None):
        inputs = {**inputs, "targets": inputs["token_ids"], "weights": inputs["padding_mask"]}
        scores: Any = self.objective(self.backbone, inputs, training=training)
        total = keras.ops.sum(scores.weights)
        self.add_loss(keras.ops.sum(scores.losses * scores.weights) / total)
        return scores.losses


def adamw(**arguments):
    return keras.optimizers.AdamW(3e-3, weight_decay=0.01, **arguments)


def next_tokens(batch):
    """Gives the targets and how much each counts."""
    ids, mask = batch["token_ids"], batch["padding_mask"]
    return np.roll(ids, -1, axis=1), (mask * np.roll(mask, -1, axis=1)).astype("float32")


def fit(model, *, optimizer=None, epochs: int = STEPS, batch_size: int = ROWS) -> list[float]:
    if not model.compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer or adamw(global_clipnorm=0.1), loss=loss)
    x = rows()
    y, weights = next_tokens(x)
    options = {"batch_size": batch_size, "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit(x, y, sample_weight=weights, **options).history["loss"]


def found(model, losses=()) -> dict[str, Any]:
    """Gives weights, moments and losses."""
    moments = model.optimizer.variables if model.compiled else []
    return {
        **{f"weight/{i}": numpy(v) for i, v in enumerate(model.variables)},
        **{f"moment/{i}": numpy(v) for i, v in enumerate(moments)},
        "loss": np.array(losses),
    }


def shards(variables) -> dict[str, list[int]]:
    """Gives the shape of what one device has of each variable, by path."""
    return {v.path: list(v.value.addressable_shards[0].data.shape) for v in variables}


def trained(folder: Path):
    model = functional()
    losses = fit(model)
    facts = {
        "weights": shards(model.variables),
        "moments": shards(model.optimizer.variables),
    }
    return found(model, losses), facts


def biased(folder: Path):
    model = functional(
        attention_bias=True, feed_forward="mlp", positions="learned", max_sequence_length=8,
        attention_kernel="gaussian", learned_temperature=True,
    )  # fmt: skip
    return found(model, fit(model)), {"weights": shards(model.variables)}


def objective(folder: Path):
    model = ByObjective()
    model.compile(adamw(global_clipnorm=0.1))
    losses = model.fit(rows(), batch_size=ROWS, epochs=STEPS, verbose=0).history["loss"]
    return found(model, losses), {}


def accumulated(folder: Path):
    model = functional()
    optimizer = adamw(gradient_accumulation_steps=2, global_clipnorm=0.1)
    losses = fit(model, optimizer=optimizer, batch_size=ROWS // 2)
    return found(model, losses), {"moments": shards(optimizer.variables)}


def rematerialized(folder: Path):
    model = functional(rematerialize=True)
    return found(model, fit(model)), {"checkpoints": checkpoints(model)}


def checkpoints(model) -> int:
    """Gives how many parts of the backward pass compute their forward pass anew."""
    import jax

    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]

    def loss(trainable):
        return keras.ops.sum(model.stateless_call(trainable, rest, rows(), training=True)[0])

    program = str(jax.make_jaxpr(jax.grad(loss))(trainable))
    return len(re.findall(r"= (?:remat\w*|checkpoint)\[", program))  # by JAX's version


def lora(folder: Path):
    model = functional()
    backbone: Any = model.layers[-2]
    backbone.enable_lora(2, target_layer_names=["query_dense", "value_dense", "output_dense"])
    updates = [v for v in model.trainable_variables if "lora" in v.path]
    generator = np.random.default_rng(5)
    for variable in updates:
        variable.assign(generator.normal(size=variable.shape) * 0.1)
    return found(model, fit(model)), {"updates": shards(updates)}


def int8(folder: Path):
    return _quantized("int8")


def int4(folder: Path):
    return _quantized("int4")


def _quantized(mode: str):
    backbone = quantized(perturbed(LlamaBackbone(**SIZES)), mode)
    results = {f"weight/{i}": numpy(v) for i, v in enumerate(backbone.variables)}
    return {**results, "output": numpy(backbone(rows()))}, {"weights": shards(backbone.variables)}


def saved(folder: Path):
    """Saves in mid-training; loads with and without the distribution, and trains on."""
    model = functional(own_head=True)
    fit(model, epochs=2)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    here = keras.distribution.distribution()
    results = {}
    for name, scope in (("again", here), ("alone", None)):
        keras.distribution.set_distribution(scope)
        loaded: Any = keras.saving.load_model(folder / "model.keras")
        filled = functional(own_head=True)
        filled.load_weights(folder / "model.weights.h5")
        for kind, other in (("keras", loaded), ("h5", filled)):
            results |= {f"{name}/{kind}/{k}": v for k, v in found(other).items()}
        devices = len(loaded.variables[0].value.sharding.device_set)
        results[f"{name}/devices"] = np.array(devices)
        fit(loaded, epochs=2)
        results |= {f"{name}/on/{k}": v for k, v in found(loaded).items()}
    keras.distribution.set_distribution(here)
    results |= found(model)
    return results, {}


CASES: dict[str, Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]] = {
    "trained": trained,
    "biased": biased,
    "objective": objective,
    "accumulated": accumulated,
    "rematerialized": rematerialized,
    "lora": lora,
    "int8": int8,
    "int4": int4,
    "saved": saved,
}


def main(layout: str, folder: Path, cases: list[str]) -> None:
    assert keras.backend.backend() == "jax"
    arrays: dict[str, Any] = {}
    facts: dict[str, Any] = {"devices": len(keras.distribution.list_devices())}
    inner = folder / layout
    inner.mkdir()
    with _scope(distribution(layout)):
        for case in cases or CASES:
            keras.utils.set_random_seed(0)
            results, facts[case] = CASES[case](inner)
            arrays |= {f"{case}/{name}": value for name, value in results.items()}
    np.savez(folder / f"{layout}.npz", allow_pickle=False, **arrays)
    (folder / f"{layout}.json").write_text(json.dumps(facts), encoding="utf-8")


def _scope(distribution):
    return distribution.scope() if distribution else contextlib.nullcontext()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
