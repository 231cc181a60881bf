"""Steps per second and memory of each device: `keras.distribution` beside one device, under JAX.

    python -m benchmarks.jax_distribution                          # the GPUs or TPUs that JAX sees
    python -m benchmarks.jax_distribution --cpu-devices 2          # two virtual CPU devices

Each layout trains the same model on the same global batch in a process of its own, so that a peak
of memory is its own. Virtual CPU devices share the cores: they show that weights are split, not
that anything gets faster.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# name -> arguments of the backbone
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocabulary_size": 8192, "num_layers": 4, "hidden_dim": 256, "intermediate_dim": 768,
        "num_query_heads": 8, "num_key_value_heads": 4,
    },
    "135m": {
        "vocabulary_size": 49152, "num_layers": 30, "hidden_dim": 576, "intermediate_dim": 1536,
        "num_query_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "1b": {
        "vocabulary_size": 128256, "num_layers": 16, "hidden_dim": 2048, "intermediate_dim": 8192,
        "num_query_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
}  # fmt: skip
# name -> (data axis, model axis) of N devices; None is no distribution, one number DataParallel
LAYOUTS: dict[str, Any] = {
    "one device": lambda n: None,
    "DataParallel": lambda n: (n,),
    "ModelParallel 1 x N": lambda n: (1, n),
    "ModelParallel N x 1": lambda n: (n, 1),
}


def main() -> None:
    """Measures the layouts one after another and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--batch", type=int, default=8, help="rows of the global batch")
    parser.add_argument("--tokens", type=int, default=128, help="of a row")
    parser.add_argument("--steps", type=int, default=10, help="timed, after two that warm up")
    parser.add_argument("--dtype", default="float32", help="such as mixed_bfloat16")
    parser.add_argument("--cpu-devices", type=int, default=0, help="virtual ones; 0 leaves JAX be")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--layout", choices=LAYOUTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.layout:
        print(json.dumps(measure(options)))
        return
    rows = [ask(layout, options) for layout in LAYOUTS]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def ask(layout: str, options) -> dict[str, Any]:
    """Measures one layout in a process of its own."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if options.cpu_devices:
        environment |= {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={options.cpu_devices}",
        }
    command = [sys.executable, "-m", "benchmarks.jax_distribution", "--layout", layout]
    for name in ("model", "batch", "tokens", "steps", "dtype"):
        command += [f"--{name}", str(getattr(options, name))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return {"layout": layout, "error": reason[:200]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def measure(options) -> dict[str, Any]:
    """Trains under one layout and gives its figures."""
    import jax
    import keras
    import numpy as np

    arguments = MODELS[options.model]
    devices = keras.distribution.list_devices()
    shape = LAYOUTS[options.layout](len(devices))
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(distribution_of(shape, arguments))
    model, backbone = causal_model(arguments, options.dtype)
    size = (options.batch, options.tokens)
    ids = np.random.default_rng(0).integers(1, arguments["vocabulary_size"], size, dtype="int32")
    batch = {"token_ids": ids, "padding_mask": np.ones_like(ids)}

    def train(steps: int) -> float:
        start = time.perf_counter()
        model.fit(repeated(batch, steps), verbose=0)  # waits for the last step's loss
        return time.perf_counter() - start

    train(2)
    seconds = train(options.steps)
    state = [*model.variables, *model.optimizer.variables]
    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "layout": options.layout,
        "devices": 1 if shape is None else len(devices),
        "device": device.device_kind,
        "parameters": backbone.count_params(),
        "steps_per_second": options.steps / seconds,
        "tokens_per_second": options.steps * ids.size / seconds,
        "state_bytes_per_device": sum(v.value.addressable_shards[0].data.nbytes for v in state),
        "peak_bytes_per_device": peak,
    }


def distribution_of(shape, arguments) -> Any:
    """Gives the distribution of an entry of `LAYOUTS`."""
    import keras

    from llama_keras.models import LlamaBackbone

    if shape is None:
        return None
    if len(shape) == 1:
        return keras.distribution.DataParallel()
    mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"))
    layout_map = LlamaBackbone.get_layout_map(mesh, config=arguments)
    return keras.distribution.ModelParallel(layout_map=layout_map, batch_dim_name="batch")


def causal_model(arguments, dtype: str):
    """Gives a compiled model that learns next tokens, its loss in chunks, and its backbone."""
    import keras

    from llama_keras.models import LlamaBackbone
    from llama_keras.objectives import OBJECTIVES

    class Causal(keras.Model):
        def __init__(self):
            super().__init__()
            self.backbone = LlamaBackbone(**arguments, dtype=dtype)

        def call(self, inputs, training=None):
            rows = {"targets": inputs["token_ids"], "weights": inputs["padding_mask"]}
            scores: Any = OBJECTIVES["causal"](self.backbone, {**inputs, **rows}, training=training)
            total = keras.ops.sum(scores.weights)
            self.add_loss(keras.ops.sum(scores.losses * scores.weights) / total)
            return scores.losses

    model = Causal()
    model.compile(keras.optimizers.AdamW(1e-4, global_clipnorm=1.0))
    return model, model.backbone


def repeated(batch, steps: int):
    """Gives the same batch again and again, as Keras takes it."""
    import keras

    class Repeated(keras.utils.PyDataset):
        def __len__(self):
            return steps

        def __getitem__(self, index):
            return (batch,)

    return Repeated()


def table(rows: list[dict[str, Any]]) -> str:
    """Gives the figures in Markdown."""
    lines = [
        "| layout | devices | steps/s | tokens/s | state of a device | peak of a device |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['layout']} | – | {row['error']} | – | – | – |")
            continue
        memory = [row["state_bytes_per_device"], row["peak_bytes_per_device"]]
        told = [f"{size / 2**20:,.0f} MiB" if size else "–" for size in memory]
        speed = [f"{row['steps_per_second']:.2f}", f"{row['tokens_per_second']:,.0f}"]
        lines.append("| " + " | ".join([row["layout"], str(row["devices"]), *speed, *told]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
