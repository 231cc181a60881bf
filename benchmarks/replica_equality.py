"""Whether training on several replicas gives the weights of training on one.

    python -m benchmarks.replica_equality                    # the whole table, Markdown
    python -m benchmarks.replica_equality --cases adamw/plain muon/all --replicas 2

Each case is a few steps of a tiny causal model on texts of unequal length, in one process for each
number of replicas (logical CPU devices under `MirroredStrategy`). The last batch of an epoch has
one row, so it leaves replicas empty. The table shows the largest difference of any weight from
those of one replica; in the column `Keras` the same run with Keras's own training step.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# Name of a Keras optimizer, or of ours → its arguments.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"learning_rate": 0.05, "momentum": 0.9},
    "Adam": {"learning_rate": 1e-3},
    "AdamW": {"learning_rate": 1e-3, "weight_decay": 0.01},
    "llama_keras.AdamW": {"learning_rate": 1e-3, "weight_decay": 0.01},
    "Adafactor": {"learning_rate": 1e-2},
    "Lion": {"learning_rate": 1e-4},
    "Muon": {"learning_rate": 1e-3},
}
ROWS, BATCH, EPOCHS = 33, 8, 2


@dataclass(frozen=True)
class Variant:
    """What a case does beside an optimizer's step.

    Attributes:
        settings: further arguments of the optimizer.
        parts: `gradient_accumulation_steps` of `compile`.
        dtype: Keras dtype policy.
        packed: whether rows hold several texts.
    """

    settings: dict[str, Any]
    parts: int = 1
    dtype: str = "float32"
    packed: bool = False


# Small thresholds, so that every step is clipped.
_ALL = {"global_clipnorm": 0.05, "use_ema": True, "ema_momentum": 0.9}
VARIANTS = {
    "plain": Variant({}),
    "clipnorm": Variant({"clipnorm": 0.02}),
    "global_clipnorm": Variant({"global_clipnorm": 0.05}),
    "clipvalue": Variant({"clipvalue": 0.002}),
    "accumulation": Variant({}, parts=3),
    "ema": Variant({"use_ema": True, "ema_momentum": 0.9}),
    "packed": Variant({"global_clipnorm": 0.05}, packed=True),
    "all": Variant(_ALL, parts=2, packed=True),
    "mixed_bfloat16": Variant({"global_clipnorm": 0.05}, dtype="mixed_bfloat16"),
    "mixed_float16": Variant({"global_clipnorm": 0.05}, dtype="mixed_float16"),
}
CASES = [f"{optimizer.lower()}/{variant}" for optimizer in OPTIMIZERS for variant in VARIANTS]
# What the table shows: each optimizer with what matters most, one of them with everything.
SHOWN = [
    case
    for case in CASES
    if "adamw/" in case or case.split("/")[1] in ("plain", "global_clipnorm", "all")
]


def train(case: str, *, stock: bool = False) -> list[np.ndarray]:
    """Gives the weights after the steps of a case, under the strategy whose scope is open."""
    import keras

    from llama_keras.tasks import CausalLM
    from llama_keras.training import optimizers

    name, variant = case.split("/")
    optimizer = next(o for o in OPTIMIZERS if o.lower() == name)
    chosen = VARIANTS[variant]
    keras.utils.set_random_seed(1)
    kind = _with_stock_steps(CausalLM) if stock else CausalLM
    model = kind.from_preset("llama-tiny", dtype=chosen.dtype, backbone_arguments={"num_layers": 1})
    home = optimizers if optimizer.startswith("llama_keras.") else keras.optimizers
    made = getattr(home, optimizer.rpartition(".")[2])
    step: Any = made(**OPTIMIZERS[optimizer], **chosen.settings)
    if chosen.dtype == "mixed_float16":
        step = keras.optimizers.LossScaleOptimizer(step)
    parts = {} if stock else {"gradient_accumulation_steps": chosen.parts}
    model.compile(step, **parts)
    if chosen.packed:
        model.fit(_packed(), epochs=EPOCHS, verbose=0, shuffle=False)
    else:
        texts = ["word " * (1 + number * 7 % 19) + str(number) for number in range(ROWS)]
        model.fit(texts, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return [np.asarray(weight, dtype="float32") for weight in model.get_weights()]


def _packed() -> Any:
    """Gives batches of rows that hold up to three texts, as a `tf.data.Dataset`."""
    import tensorflow as tf

    numbers = np.random.default_rng(0)
    shape = (ROWS, 24)
    segments = np.sort(numbers.integers(0, 3, shape), axis=1).astype("int32")
    ends = numbers.integers(6, 25, ROWS)
    mask = (np.arange(24)[None] < ends[:, None]).astype("int32")
    first = [[int(np.argmax(row == row[i])) for i in range(24)] for row in segments]
    token_ids = numbers.integers(3, 200, shape).astype("int32")
    rows = {
        "token_ids": token_ids,
        "padding_mask": mask,
        "segment_ids": segments,
        "positions": (np.arange(24)[None] - np.array(first)).astype("int32"),
        "targets": token_ids,
        "weights": mask.astype("float32"),
    }
    options = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return tf.data.Dataset.from_tensor_slices(rows).batch(BATCH).with_options(options)


def _with_stock_steps(kind: type) -> type:
    """Gives a task that is trained by Keras's own steps."""
    import keras

    names = ("train_step", "test_step", "make_train_function", "make_test_function")
    own = {name: getattr(keras.Model, name) for name in (*names, "_maybe_symbolic_build")}

    def compile(self, optimizer, **kwargs):
        with self.scope():
            keras.Model.compile(self, optimizer, **kwargs)

    def compute_loss(self, *args, **kwargs):  # scaled, as Keras's own losses are
        return kind.compute_loss(self, *args, **kwargs) / self.num_replicas

    return type(kind.__name__, (kind,), {**own, "compile": compile, "compute_loss": compute_loss})


def differences(
    cases: list[str], *, replicas: list[int], with_keras: bool = False
) -> dict[str, dict[str, float | str]]:
    """Gives for each case the largest difference of a weight from training on one replica.

    Args:
        cases: of `CASES`.
        replicas: their numbers, more than one each.
        with_keras: whether Keras's own steps are measured too, on the first of these numbers.

    Returns:
        Title of a column → case → the difference, or the first line of its error.
    """
    one = _run(cases, replicas=1)
    columns = {f"{n} replicas": _compared(one, _run(cases, replicas=n)) for n in replicas}
    if with_keras:
        stock = _run(cases, replicas=replicas[0], stock=True)
        columns[f"Keras, {replicas[0]} replicas"] = _compared(one, stock)
    return columns


def _compared(one: dict[str, Any], several: dict[str, Any]) -> dict[str, float | str]:
    result: dict[str, float | str] = {}
    for case, weights in several.items():
        if isinstance(weights, str):
            result[case] = weights
            continue
        pairs = zip(one[case], weights, strict=True)
        result[case] = max(float(np.abs(a - b).max()) for a, b in pairs)
    return result


def _run(cases, *, replicas: int, stock: bool = False) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.npz"
        words = [sys.executable, "-m", "benchmarks.replica_equality", "--worker", str(file)]
        words += ["--replicas", str(replicas), *(["--stock"] if stock else [])]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [*words, "--cases", *cases],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        with np.load(file) as arrays:
            for case in cases:
                if case not in found:
                    names = [n for n in arrays.files if n.startswith(f"{case}#")]
                    found[case] = [arrays[n] for n in sorted(names, key=_place)]
    return found


def _place(name: str) -> int:
    return int(name.rpartition("#")[2])


def _work(options: argparse.Namespace) -> None:
    """Trains the cases in this process; prints the errors, writes the weights."""
    import tensorflow as tf

    scope: Any = contextlib.nullcontext()
    replicas = options.replicas[0]
    if replicas > 1:
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, devices)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
        scope = strategy.scope()
    errors, weights = {}, {}
    with scope:
        for case in options.cases:
            try:
                found = train(case, stock=options.stock)
            except Exception as error:  # a table of what works and what does not
                if not options.stock:
                    raise
                errors[case] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
                continue
            weights |= {f"{case}#{place}": value for place, value in enumerate(found)}
    np.savez(options.worker, **weights)
    print(json.dumps(errors))


def _table(cases: list[str], replicas: list[int]) -> str:
    columns = differences(cases, replicas=replicas, with_keras=True)
    lines = ["| optimizer | variant | " + " | ".join(columns) + " |"]
    lines.append("|---|---|" + "---|" * len(columns))
    for case in cases:
        cells = [column[case] for column in columns.values()]
        shown = [cell if isinstance(cell, str) else f"{cell:.1e}" for cell in cells]
        lines.append("| " + " | ".join([*case.split("/"), *shown]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replica_equality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="*", default=SHOWN, choices=CASES, metavar="CASE")
    parser.add_argument("--replicas", nargs="*", type=int, default=[2, 4])
    parser.add_argument("--worker", metavar="FILE.npz", help=argparse.SUPPRESS)
    parser.add_argument("--stock", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options)
    else:
        print(_table(options.cases, options.replicas))
    return 0


if __name__ == "__main__":
    sys.exit(main())
