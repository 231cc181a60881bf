"""Where each weight of a Llama lies when `keras.distribution` splits it over devices.

Dimensions: V vocabulary, E model width, Q all query heads, K all key-value heads, F intermediate
width; P learned positions and R LoRA's rank, which are never split.
"""

import re
from collections.abc import Mapping
from typing import Any

import keras

from llama_keras.errors import InputError
from llama_keras.models.config import LlamaConfig

_BLOCK = r"transformer_layer_\d+/"
_ATTENTION, _FEED_FORWARD = _BLOCK + "attention/", _BLOCK + "feed_forward/"
_EMBEDDINGS = {
    "token_embedding/embeddings": "VE",
    "token_embedding/reverse_embeddings": "EV",
    "token_embedding/lora_embeddings_a": "VR",
    "token_embedding/lora_embeddings_b": "RE",
    "position_embedding/embeddings": "PE",
    "position_embedding/lora_embeddings_a": "PR",
    "position_embedding/lora_embeddings_b": "RE",
}
# What goes into a projection, and what comes out.
_PROJECTIONS = {
    _ATTENTION + "query_dense": "EQ",
    _ATTENTION + "(key|value)_dense": "EK",
    _ATTENTION + "output_dense": "QE",
    _FEED_FORWARD + "(gate|up)_dense": "EF",
    _FEED_FORWARD + "down_dense": "FE",
}
# Kept whole, whatever their rank: norms, and the small things that quantization adds.
_WHOLE = (
    f"({_BLOCK}(attention|feed_forward)|layer)_norm/scale",
    _ATTENTION + "attention_kernel/log_temperature",
    r"(.+/)?\w*seed_generator(_\d+)?/seed_generator_state",
    r".+_(embedding|dense)/(\w+_(scales?|zero|amax_history)|g_idx)",
)


def _projection_rules(path: str, into: str, out: str) -> dict[str, str]:
    return {
        f"{path}/kernel": into + out,
        f"{path}/lora_kernel_a": into + "R",
        f"{path}/lora_kernel_b": "R" + out,
        # Output and down biases join sums over the devices, which all devices have whole.
        f"{path}/bias": "" if out == "E" else out,
    }


RULES: dict[str, str] = dict(_EMBEDDINGS)
for _path, _ends in _PROJECTIONS.items():
    RULES |= _projection_rules(_path, *_ends)
RULES |= dict.fromkeys(_WHOLE, "")
"""The end of a variable's path, a regular expression -> its dimensions; "" keeps it whole."""

# The mesh axis of each dimension: Megatron's split of heads, of the feed-forward network and of the
# vocabulary (arXiv 1909.08053) over one, ZeRO's split of the other dimension (arXiv 1910.02054)
# over the other, so that weights and moments are split over all devices.
_MODEL, _DATA = "VQKF", "E"


def layout_map(
    device_mesh,
    *,
    model_parallel_dim_name: str = "model",
    data_parallel_dim_name: str = "batch",
    config: LlamaConfig | Mapping[str, Any] | str | None = None,
) -> keras.distribution.LayoutMap:
    """Gives the layout of a backbone's weights; see `LlamaBackbone.get_layout_map`.

    Raises:
        InputError: `device_mesh` is no mesh, lacks an axis, or `config` describes no backbone.
    """
    if not isinstance(device_mesh, keras.distribution.DeviceMesh):
        raise InputError(
            "device_mesh must be a keras.distribution.DeviceMesh; received "
            f"{type(device_mesh).__name__}."
        )
    names = (model_parallel_dim_name, data_parallel_dim_name)
    for argument, name in zip(("model_parallel", "data_parallel"), names, strict=True):
        if name not in device_mesh.axis_names:
            raise InputError(
                f"{argument}_dim_name={name!r} is no axis of the mesh; it has "
                f"{list(device_mesh.axis_names)}."
            )
    axes: dict[str, str | None] = {
        **dict.fromkeys(_MODEL, model_parallel_dim_name),
        **dict.fromkeys(_DATA, data_parallel_dim_name),
    }
    if config is not None:
        devices = dict(zip(device_mesh.axis_names, device_mesh.shape, strict=True))
        parts = _parts(_as_config(config))
        axes = {d: axis if parts[d] % devices[axis] == 0 else None for d, axis in axes.items()}
    result = keras.distribution.LayoutMap(device_mesh)
    for path, dimensions in RULES.items():
        result[f"(.+/)?{path}"] = tuple(axes.get(letter) for letter in dimensions)
    return result


def check_layout(distribution, config: LlamaConfig) -> None:
    """Checks that a distribution can split the weights of a backbone.

    JAX says of the first weight that does not fit what its shape is, not what to do.

    Raises:
        InputError: a dimension is no multiple of the devices that it is split over.
    """
    mesh = distribution.device_mesh
    devices = dict(zip(mesh.axis_names, mesh.shape, strict=True))
    for path, shape in _shapes(config).items():
        layout = distribution.get_tensor_layout(path)  # None for DataParallel
        for size, axis in zip(shape, layout.axes if layout else (), strict=False):
            if axis and size % devices[axis]:
                raise InputError(
                    f"{path} {shape} cannot be split: {size} is no multiple of the "
                    f"{devices[axis]} devices of the mesh's axis {axis!r}. Make the layout by "
                    "LlamaBackbone.get_layout_map(mesh, config=…), which keeps whole what does "
                    "not divide, or take another mesh."
                )


def _parts(config: LlamaConfig) -> dict[str, int]:
    """Gives how many parts each dimension may be cut into: heads stay whole.

    Half a head can be split too, but then every layer gathers it before its scores. Key-value heads
    fewer than devices are therefore kept by all: they are a small share of the weights.
    """
    return {
        "V": config.vocabulary_size,
        "E": config.hidden_dim,
        "Q": config.num_query_heads,
        "K": config.num_key_value_heads,
        "F": config.intermediate_dim or 0,
    }


def _shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Gives the shapes of the embeddings and of the first block's kernels, by variable path."""
    head = config.head_dim or 0
    sizes = {**_parts(config), "P": config.max_sequence_length}
    sizes |= {"Q": config.num_query_heads * head, "K": config.num_key_value_heads * head}
    paths = ["token_embedding/embeddings"]
    paths += [] if config.tie_word_embeddings else ["token_embedding/reverse_embeddings"]
    paths += ["position_embedding/embeddings"] if config.positions == "learned" else []
    for layer in ("attention/query", "attention/key", "attention/value", "attention/output"):
        paths.append(f"transformer_layer_0/{layer}_dense/kernel")
    for layer in ("up", "down") if config.feed_forward == "mlp" else ("gate", "up", "down"):
        paths.append(f"transformer_layer_0/feed_forward/{layer}_dense/kernel")
    rules = {path: next(d for r, d in RULES.items() if re.fullmatch(r, path)) for path in paths}
    return {path: tuple(sizes[d] for d in dimensions) for path, dimensions in rules.items()}


def _as_config(config) -> LlamaConfig:
    if isinstance(config, LlamaConfig):
        return config
    if isinstance(config, str):
        from llama_keras.weights.presets import backbone_config, resolve

        config = backbone_config(resolve(config))
    names = LlamaConfig.__dataclass_fields__
    try:
        return LlamaConfig(**{key: value for key, value in config.items() if key in names})
    except (AttributeError, TypeError) as error:
        raise InputError(
            "config must be a preset's name, a LlamaConfig or the arguments of a LlamaBackbone; "
            f"received {config!r}."
        ) from error
