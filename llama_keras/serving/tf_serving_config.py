"""TF Serving's configuration files for exports, each number with its reason.

The formats are protobuf text: tensorflow_serving/config/model_server_config.proto,
monitoring_config.proto and servables/tensorflow/session_bundle_config.proto.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..atomic import write_text
from ..errors import InputError
from .versions import find_model

MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
METRICS_PATH = "/monitoring/prometheus/metrics"
_GENERATORS = ("causal_lm", "denoising")
_HEADER = "# Written by llama-keras configure.\n"


def write_serving_config(
    directories: Sequence[str | Path],
    *,
    output: str | Path,
    base_path: str | None = None,
    cores: int | None = None,
    max_batch_size: int = 32,
) -> list[Path]:
    """Writes `models.config`, `batching.config` and `monitoring.config`.

    Args:
        directories: folders NAME/ of exports.
        output: folder of the three files.
        base_path: where the server finds the folders NAME/, such as `/models` in a container; by
            default where they are.
        cores: of the machine that serves; by default of this one.
        max_batch_size: rows that are run together at most.

    Returns:
        The files.

    Raises:
        InputError: there is no export, two have one name, a number is out of range, or a file
            that was written by others would be lost.
    """
    if max_batch_size < 1 or (cores is not None and cores < 1):
        raise InputError("max_batch_size and cores are numbers from 1.")
    folders: dict[str, Path] = {}
    for directory in directories:
        found = find_model(directory)
        if not found.path.name.isdecimal():
            raise InputError(f"{found.path} has no version number; TF Serving wants NAME/1/.")
        if found.name in folders:
            raise InputError(f"Two models have the name {found.name!r}; rename one's folder.")
        folders[found.name] = found.path.parent
    texts = {
        MODELS: models_config(folders, base_path=base_path),
        BATCHING: batching_config(
            cores=cores or os.cpu_count() or 1,
            max_batch_size=max_batch_size,
            generates=any(map(_generates, directories)),
        ),
        MONITORING: monitoring_config(),
    }
    files = {Path(output) / name: _HEADER + text for name, text in texts.items()}
    for file in files:
        if file.is_file() and not file.read_bytes().startswith(_HEADER.strip().encode()):
            raise InputError(
                f"{file} was written by someone else and is not replaced; choose another --output, "
                f"or put {_HEADER.strip()!r} on its first line."
            )
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            write_text(file, text)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error.strerror}); choose another."
        ) from None
    return list(files)


def models_config(folders: Mapping[str, Path], *, base_path: str | None = None) -> str:
    """Gives the text of `models.config`: name to folder NAME/ of each model."""
    entries = []
    for name, folder in folders.items():
        path = str(PurePosixPath(base_path) / name) if base_path else str(folder.resolve())
        entries.append(
            f"""  config {{
    name: {_quoted(name)}
    base_path: {_quoted(path)}
    model_platform: "tensorflow"
    # One version at a time: two would need twice the memory for longer than a swap takes.
    model_version_policy {{ latest {{ num_versions: 1 }} }}
  }}
"""
        )
    return f"model_config_list {{\n{''.join(entries)}}}\n"


def batching_config(*, cores: int, max_batch_size: int = 32, generates: bool = False) -> str:
    """Gives the text of `batching.config`.

    Args:
        cores: of the machine that serves.
        max_batch_size: rows run together at most.
        generates: whether a model writes text, so that a batch takes seconds.
    """
    # Powers of two: a graph meets few shapes, and at most half of a batch is filling.
    sizes = [2**power for power in range(max_batch_size.bit_length()) if 2**power < max_batch_size]
    sizes.append(max_batch_size)
    wait = 0 if generates else 2000
    reasons = (
        "A batch of text generation takes seconds and runs until its longest row ends: nothing is"
        " gained by waiting for company."
        if generates
        else "2 ms: about what a small model needs for a row on a CPU; it is the delay that a lone"
        " request pays."
    )
    lines = [
        f"# Rows run together. More do not make a CPU of {cores} cores faster, and the first waits",
        "# for the last.",
        f"max_batch_size {{ value: {max_batch_size} }}",
        f"# {reasons}",
        f"batch_timeout_micros {{ value: {wait} }}",
        "# One batch for each core: TensorFlow runs each on all cores, more would only take turns.",
        f"num_batch_threads {{ value: {cores} }}",
        "# What may wait: beyond this a request is refused at once (UNAVAILABLE), for its answer",
        "# would come after its caller has gone.",
        f"max_enqueued_batches {{ value: {max(cores * 8, 16)} }}",
        "# Batches are filled up to these sizes: a graph is optimized once for each.",
        *(f"allowed_batch_sizes: {size}" for size in sizes),
    ]
    return "\n".join(lines) + "\n"


def monitoring_config() -> str:
    """Gives the text of `monitoring.config`: metrics for Prometheus on the REST port."""
    return (
        "# Prometheus reads this path of the REST port; it is the one of TF Serving's documents.\n"
        f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'
    )


def commands(output: str | Path, *, models: str | Path | None = None, to: str = "/models") -> str:
    """Gives the line that starts TF Serving with the files.

    Args:
        output: their folder.
        models: folder that holds the folders NAME/: then the line starts a container.
        to: where the container sees that folder, the `base_path` of the files.
    """
    folder = Path(output).resolve()
    if models is None:
        return f"tensorflow_model_server --rest_api_port=8501 --port=8500 {_flags(str(folder))}"
    return (
        f"docker run -p 8501:8501 -p 8500:8500 -v {Path(models).resolve()}:{to} "
        f"-v {folder}:/config tensorflow/serving {_flags('/config')}"
    )


def _flags(folder: str) -> str:
    files = {
        "model_config_file": MODELS,
        "batching_parameters_file": BATCHING,
        "monitoring_config_file": MONITORING,
    }
    return " ".join(
        ["--enable_batching", *(f"--{flag}={folder}/{file}" for flag, file in files.items())]
    )


def _generates(directory: str | Path) -> bool:
    from .manifest import read_manifest

    manifest = read_manifest(find_model(directory).path)
    kinds = [manifest.task, *(head.get("task") for head in manifest.heads.values())]
    return any(kind in _GENERATORS for kind in kinds)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
