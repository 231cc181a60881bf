"""Read TF Serving's own configuration files: `models.config` and `batching.config`.

They are protobuf text (tensorflow_serving/config/model_server_config.proto and
servables/tensorflow/session_bundle_config.proto); a field that is not known here is refused by
name.
"""

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from ..errors import InputError
from .batching import Batching
from .messages import message_classes
from .versions import ModelSource, VersionPolicy, find_source

_PLATFORM = "tensorflow"
# As `messages.message_classes` takes them; the numbers only matter on the wire.
_TABLE = {
    "Latest": [("num_versions", 1, "uint32")],
    "All": [],
    "Specific": [("versions", 1, "[int64]")],
    "Policy": [("latest", 100, "Latest"), ("all", 101, "All"), ("specific", 102, "Specific")],
    "Labels": [("key", 1, "string"), ("value", 2, "int64")],
    "Config": [
        ("name", 1, "string"),
        ("base_path", 2, "string"),
        ("model_platform", 4, "string"),
        ("model_version_policy", 7, "Policy"),
        ("version_labels", 8, "[Labels]"),
    ],
    "ConfigList": [("config", 1, "[Config]")],
    "ModelServerConfig": [("model_config_list", 1, "ConfigList")],
    "Number": [("value", 1, "int64")],
    "BatchingParameters": [
        ("max_batch_size", 1, "Number"),
        ("batch_timeout_micros", 2, "Number"),
        ("num_batch_threads", 3, "Number"),
        ("max_enqueued_batches", 4, "Number"),
        ("allowed_batch_sizes", 6, "[int64]"),
    ],
}


def read_models_config(file: str | Path) -> list[ModelSource]:
    """Gives the models that a `models.config` names.

    Raises:
        InputError: it cannot be read, has a field that is not known here, or names a folder with
            nothing to serve.
    """
    configs = _parse(file, "ModelServerConfig").model_config_list.config
    if not configs:
        raise InputError(f"{file} names no model; write model_config_list {{ config {{ … }} }}.")
    return [_source(config, Path(file)) for config in configs]


def read_batching_config(file: str | Path) -> Batching:
    """Gives the settings of a `batching.config`, TF Serving's `--batching_parameters_file`.

    Raises:
        InputError: it cannot be read, or has a field that is not known here.
    """
    message = _parse(file, "BatchingParameters")
    numbers = {
        field.name: value.value for field, value in message.ListFields() if hasattr(value, "value")
    }
    return Batching(**numbers, allowed_batch_sizes=tuple(message.allowed_batch_sizes))


def _source(config: Any, file: Path) -> ModelSource:
    if not config.name or not config.base_path:
        raise InputError(f"{file}: a model has a name and a base_path; got {str(config)!r}.")
    if config.model_platform not in ("", _PLATFORM):
        raise InputError(
            f"{file}: the platform {config.model_platform!r} is not served; {_PLATFORM!r} is."
        )
    # TF Serving wants absolute paths; a relative one is meant from the file's own folder.
    base = file.resolve().parent / config.base_path
    labels = {label.key: label.value for label in config.version_labels}
    policy = _policy(config.model_version_policy)
    return find_source(base, name=config.name, policy=policy, labels=labels)


def _policy(policy: Any) -> VersionPolicy:
    if policy.HasField("specific"):
        return VersionPolicy(limit=None, specific=tuple(policy.specific.versions))
    if policy.HasField("all"):
        return VersionPolicy(limit=None)
    return VersionPolicy(limit=policy.latest.num_versions or 1)


def _parse(file: str | Path, kind: str) -> Any:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The file {file} cannot be read: {error}.") from None
    try:
        return text_format.Parse(text, _classes()[kind]())
    except text_format.ParseError as error:
        raise InputError(f"{file} is not a {kind} that is known here: {error}.") from None


@cache
def _classes() -> dict[str, Any]:
    return message_classes("llama_keras.models_config", _TABLE)
