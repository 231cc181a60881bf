"""adapter_config.json of Hugging Face's PEFT, both ways: keys consumed, ignored, or refused."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.weights.huggingface import read_json

WEIGHTS_FILE = "adapter_model.safetensors"
# Sources: PEFT's guide "PEFT checkpoint format"; the fields of peft.LoraConfig, version 0.21.
CONSUMED = {"peft_type", "r", "lora_alpha", "use_rslora", "init_lora_weights"}
# Of training, of other frameworks, or repeated by the names of the tensors.
IGNORED = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "target_modules", "exclude_modules", "runtime_config"),
    *("layers_to_transform", "layers_pattern", "megatron_core", "megatron_config"),
    *("loftq_config", "eva_config", "qalora_group_size", "ensure_weight_tying"),
}
# Features of other keys are off at these values; PEFT gains such keys with each version.
OFF = (None, False, {}, [], "none")
# Other ways to start change the base weights too (PiSSA, OLoRA, CorDA, LoftQ).
INITIALIZERS = (True, False, "gaussian", "eva", "orthogonal")
TASK_TYPES = {"CausalLM": "CAUSAL_LM"}


def peft_config(
    *, rank: int, alpha: float, modules: Iterable[str], num_layers: int, task: str
) -> dict[str, Any]:
    """Gives the content of adapter_config.json.

    Args:
        rank: Of the updates.
        alpha: They are multiplied with `alpha / rank`.
        modules: Hugging Face's names of the projections.
        num_layers: Blocks of the model.
        task: Class name of the task.
    """
    return {
        "peft_type": "LORA",
        "task_type": TASK_TYPES.get(task),
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": 0.0,
        "target_modules": _shortest(list(modules), num_layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _shortest(modules: list[str], num_layers: int) -> list[str]:
    """Gives last names, which mean every layer, where that is so; else whole names."""
    last = sorted({module.split(".")[-1] for module in modules})
    return last if len(modules) == len(last) * num_layers else sorted(modules)


def read_peft_config(path: Path) -> dict[str, Any]:
    """Gives a checked adapter_config.json.

    Raises:
        InputError: It is missing, no LoRA, or asks for a feature that is not understood.
    """
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"'{path}' has peft_type {config.get('peft_type')!r}; only LORA can be loaded."
        )
    features = sorted(
        key for key, value in config.items() if key not in CONSUMED | IGNORED and value not in OFF
    )
    if features:
        shown = ", ".join(f"{key} = {config[key]!r}" for key in features)
        raise InputError(
            f"'{path}' asks for {shown}, which cannot be loaded: the model would not be what was "
            "trained. Merge it with PEFT's merge_and_unload and load the merged checkpoint."
        )
    start = config.get("init_lora_weights", True)
    if start not in INITIALIZERS:
        raise InputError(
            f"'{path}' has init_lora_weights = {start!r}, which changes the base weights too. "
            "Convert it with PEFT's save_pretrained(path_initial_model_for_weight_conversion=…)."
        )
    return config


def peft_scale(config: Mapping[str, Any], *, path: Path) -> tuple[int, float]:
    """Gives rank and alpha, such that updates are multiplied with `alpha / rank`.

    Raises:
        InputError: One of them is missing or no positive number.
    """
    rank, alpha = config.get("r"), config.get("lora_alpha")
    # JSON's true is an int to isinstance.
    if type(rank) is not int or rank < 1:
        raise InputError(f"'{path}' has r = {rank!r}; expected a positive integer.")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise InputError(f"'{path}' has lora_alpha = {alpha!r}; expected a positive number.")
    # Rank-stabilized LoRA divides by the rank's root (arXiv 2312.03732).
    return rank, float(alpha) * (math.sqrt(rank) if config.get("use_rslora") else 1.0)
