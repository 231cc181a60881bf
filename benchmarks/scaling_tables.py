"""The tables and the picture of docs/scaling.md.

.venv/bin/python -m benchmarks.scaling_tables             # prints the tables
.venv/bin/python -m benchmarks.scaling_tables --picture docs/scaling_memory.svg
"""

import argparse
from pathlib import Path

from llama_keras.planning.plan import Plan, plan
from llama_keras.planning.terminal import markdown, memory_picture

TOKENS = 10e9
# Title -> preset, what all rows share, what each row changes.
H100 = {"device": "h100", "devices": 8, "sequence_length": 4096, "attention": "fused"}
V5E = {"device": "v5e", "sequence_length": 4096, "attention": "fused", "remat": True}
ONE, EIGHT = "llama-3.2-1b", "llama-3.1-8b"
TABLES: dict[str, tuple[str, dict, list[dict]]] = {
    "Llama 3.2 1B, all weights, 8 x H100": (
        ONE,
        H100,
        [
            {"strategy": "data", "batch_size": 16},
            {"strategy": "data", "batch_size": 64, "remat": True},
            {"strategy": "zero", "batch_size": 32},
            {"strategy": "zero", "batch_size": 128, "remat": True},
            {"strategy": "model", "batch_size": 8},
            {"strategy": "data", "batch_size": 16, "remat": True, "attention": "scores"},
        ],
    ),
    "Llama 3.1 8B, all weights, 8 x H100": (
        EIGHT,
        H100,
        [
            {"strategy": "data", "batch_size": 8, "remat": True},
            {"strategy": "zero", "batch_size": 16},
            {"strategy": "zero", "batch_size": 64, "remat": True},
            {"strategy": "model", "model_parallel": 2, "batch_size": 32, "remat": True},
            {"strategy": "model", "batch_size": 16, "remat": True},
            {"strategy": "zero", "batch_size": 8, "remat": True, "attention": "scores"},
        ],
    ),
    "Llama 3.1 8B, LoRA rank 16, 8 x H100": (
        EIGHT,
        {**H100, "lora_rank": 16, "remat": True},
        [
            {"strategy": "data", "batch_size": 32},
            {"strategy": "data", "batch_size": 32, "dtype": "bfloat16"},
            {"strategy": "zero", "batch_size": 64},
        ],
    ),
    "Llama 3.2 1B, all weights, v5e": (
        ONE,
        V5E,
        [
            {"strategy": "data", "devices": 8, "batch_size": 8},
            {"strategy": "zero", "devices": 8, "batch_size": 16},
            {"strategy": "zero", "devices": 64, "batch_size": 256},
            {"strategy": "zero", "devices": 256, "batch_size": 1024},
        ],
    ),
    "Llama 3.1 8B, all weights, v5e": (
        EIGHT,
        V5E,
        [
            {"strategy": "zero", "devices": 8, "batch_size": 8},
            {"strategy": "zero", "devices": 16, "batch_size": 16},
            {"strategy": "zero", "devices": 64, "batch_size": 128},
            {"strategy": "zero", "devices": 256, "batch_size": 512},
            {"strategy": "model", "model_parallel": 8, "devices": 256, "batch_size": 256},
        ],
    ),
}
PICTURE = {
    "1B, data": (ONE, {**H100, "batch_size": 16}),
    "1B, data, remat": (ONE, {**H100, "batch_size": 16, "remat": True}),
    "8B, data, remat": (EIGHT, {**H100, "batch_size": 16, "remat": True}),
    "8B, zero": (EIGHT, {**H100, "strategy": "zero", "batch_size": 16}),
    "8B, zero, remat": (EIGHT, {**H100, "strategy": "zero", "batch_size": 16, "remat": True}),
    "8B, LoRA, data, remat": (EIGHT, {**H100, "batch_size": 16, "remat": True, "lora_rank": 16}),
    "8B, zero, remat, 64 x v5e": (
        EIGHT,
        {**V5E, "strategy": "zero", "devices": 64, "batch_size": 128},
    ),
}


def plans_of(title: str) -> list[Plan]:
    preset, shared, rows = TABLES[title]
    return [plan(preset, **{**shared, **row}) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, help="File to write the picture to.")
    arguments = parser.parse_args()
    if arguments.picture:
        plans = [plan(preset, **settings) for preset, settings in PICTURE.values()]
        arguments.picture.write_text(memory_picture(plans, labels=list(PICTURE)), encoding="utf-8")
        return
    for title in TABLES:
        print(f"### {title}\n\n{markdown(plans_of(title), tokens=TOKENS)}\n")


if __name__ == "__main__":
    main()
