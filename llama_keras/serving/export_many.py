"""One backbone and several heads in one SavedModel: the backbone's weights are in it once."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from llama_keras.errors import InputError
from llama_keras.serving.export import signatures_of, version_folder, write_export
from llama_keras.serving.export_dtype import stored_as
from llama_keras.serving.export_manifest import content, record, weights_sha256
from llama_keras.serving.signature_def import DEFAULT_SIGNATURE
from llama_keras.training.adapters import merged_lora, weights_without_lora

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def export_many(
    tasks: Mapping[str, Any],
    directory,
    *,
    dtype: str = "float32",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    evaluation: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Writes several tasks that share a backbone as one SavedModel.

    The signature NAME is what a task's own export has as `serving_default`; its others are
    `NAME_tokens` and so on, and `serving_default` is that of the first task. The tasks may share
    one backbone object, or have been loaded one by one: weights that are equal are written once.

    ```python
    labels = ["negative", "positive"]
    mood = lk.tasks.TextClassifier.from_preset("llama-tiny", labels=labels)
    names = lk.tasks.TokenClassifier(
        backbone=mood.backbone, tokenizer=mood.tokenizer, labels=["PER", "LOC"]
    )
    lk.serving.export_many({"mood": mood, "names": names}, "saved_models/both")
    ```

    Args:
        tasks: name to task; a name is letters, digits and "_".
        directory: as `export_task` takes it.
        dtype: how the backbone's large matrices are stored, see `export_task`.
        settings: of each task, what `export_task` takes.
        evaluation: of each task, what the manifest tells of its quality.

    Returns:
        The version's folder.

    Raises:
        InputError: a name or a setting is wrong, the folder exists, or a task's backbone has other
            weights than the first's, as after full fine-tuning or LoRA of its own.
    """
    _check_names(tasks, settings or {}, evaluation or {})
    target = version_folder(directory)
    first = next(iter(tasks))
    functions, trackables, manifests, examples = {}, {}, {}, {}
    with ExitStack() as stack:
        backbones = {id(task.backbone): task for task in tasks.values()}
        for task in backbones.values():
            stack.enter_context(merged_lora(task))
        stack.enter_context(_shared_variables(tasks))
        variables = stack.enter_context(stored_as(dtype, *tasks.values()))
        for name, task in tasks.items():
            signatures = signatures_of(task, **(settings or {}).get(name, {}))
            told = record(task, signatures, evaluation=(evaluation or {}).get(name))
            own = _renamed(name, signatures.functions)
            told["signatures"] = _renamed(name, told["signatures"], like=signatures.functions)
            if taken := sorted(own.keys() & functions.keys()):
                raise InputError(f"Two tasks give the signature {taken[0]!r}; rename {name!r}.")
            functions |= own
            trackables |= {f"{name}_{key}": value for key, value in signatures.trackables.items()}
            examples |= dict.fromkeys(own, told["example"])
            manifests[name] = told
        functions[DEFAULT_SIGNATURE] = functions[first]
        examples[DEFAULT_SIGNATURE] = examples[first]
        return write_export(
            target,
            functions=functions,
            trackables=trackables,
            variables=variables,
            manifest={**_told_of_all(manifests, tasks), "stored_dtype": dtype},
            examples=examples,
        )


def _check_names(tasks: Mapping[str, Any], *others: Mapping[str, Any]) -> None:
    if not tasks:
        raise InputError("There is no task to export; give name and task of each.")
    for name in tasks:
        if not _NAME.fullmatch(name) or name == DEFAULT_SIGNATURE:
            raise InputError(
                f"{name!r} cannot name a signature: letters, digits and '_', the first a letter, "
                f"and not {DEFAULT_SIGNATURE!r}."
            )
    for other in others:
        if unknown := sorted(other.keys() - tasks.keys()):
            raise InputError(f"There is no task {unknown[0]!r}; the tasks are {list(tasks)}.")


@contextmanager
def _shared_variables(tasks: Mapping[str, Any]) -> Iterator[None]:
    """Has the tasks read the largest backbone among them while the block runs."""
    # A probe keeps the blocks below the one that it reads: the deepest has those of all.
    first = max(tasks, key=lambda name: len(weights_without_lora(tasks[name].backbone)))
    shared = weights_without_lora(tasks[first].backbone)
    known = {content(variable): variable.value for variable in shared}
    replaced = []
    try:
        for name in tasks:
            backbone = tasks[name].backbone
            if backbone is tasks[first].backbone:
                continue
            for variable in weights_without_lora(backbone):
                same = known.get(content(variable))
                if same is None:
                    raise InputError(_other_weights(first, name, variable.path))
                replaced.append((variable, variable.value))
                # Keras has no way to say this; a graph reads what stands here when it is traced.
                variable._value = same
        yield
    finally:
        for variable, value in replaced:
            variable._value = value


def _other_weights(first: str, name: str, path: str) -> str:
    return (
        f"The backbone of {name!r} has other weights than that of {first!r} (the first of them is "
        f"{path}), so one backbone does not serve both. Heads share a backbone that they leave as "
        "it is: train them with the strategy 'linear_probe' on one checkpoint, or export them each "
        "for itself."
    )


def _renamed(
    name: str, items: Mapping[str, Any], *, like: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Gives what signatures are called here; a second name of the default one is left out."""
    functions = like or items
    default = functions[DEFAULT_SIGNATURE]
    others = {
        f"{name}_{key}": value for key, value in items.items() if functions[key] is not default
    }
    return {name: items[DEFAULT_SIGNATURE], **others}


def _told_of_all(manifests: Mapping[str, dict], tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the manifest: what holds for all, the first one's example, and each head's own."""
    first = next(iter(manifests.values()))
    all_weights = [v for task in tasks.values() for v in weights_without_lora(task)]
    weights = {id(v.value): v for v in all_weights}.values()
    signatures = {
        key: value for told in manifests.values() for key, value in told["signatures"].items()
    }
    common = ("versions", "weights")
    return {
        "task": "several",
        "signatures": {DEFAULT_SIGNATURE: next(iter(signatures.values())), **signatures},
        "example": first["example"],
        "weights": {
            "sha256": weights_sha256(weights),
            "parameters": sum(math.prod(v.shape) for v in weights),
        },
        "tokenizer": first["tokenizer"],
        "versions": first["versions"],
        "heads": {
            name: {key: value for key, value in told.items() if key not in common}
            for name, told in manifests.items()
        },
    }
