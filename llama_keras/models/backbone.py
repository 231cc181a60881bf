"""`LlamaBackbone`: token ids in, one vector per token out.

Axes: B batch, T tokens, S cache length, K key-value heads, D head size, E model width.
"""

import contextlib
from typing import Any

import keras
import keras_hub
from keras import ops

from llama_keras import layers
from llama_keras.errors import InputError
from llama_keras.layers.masking import check_prefix
from llama_keras.models.config import LlamaConfig
from llama_keras.models.distribution import check_distribution
from llama_keras.models.layout import layout_map

INPUTS = ("token_ids", "padding_mask")
OPTIONAL_INPUTS = ("segment_ids", "positions")
_BLOCK = "transformer_layer"


@keras.saving.register_keras_serializable(package="llama_keras")
class LlamaBackbone(keras_hub.models.Backbone):
    """LLaMA without its head, as a functional Keras model.

    RMS norms, rotary positions, grouped-query attention, SwiGLU (arXiv 2302.13971, 2307.09288,
    2407.21783); or, by arguments, the article's encoder: Gaussian-kernel attention that looks both
    ways, a two-layer MLP, learned positions. Arguments: see `LlamaConfig`; besides, `dtype`, a
    Keras dtype policy, and `rematerialize`: whether training keeps what enters each block alone and
    computes the rest of its activations again for the gradients, which takes a third more time.
    How a model was trained is no part of it: saved and loaded, it rematerializes nothing.

    Inputs, a dict of `(B, T)` tensors:
        token_ids: int32.
        padding_mask: bool or int, true for real tokens; padding may stand on either side.
        segment_ids: optional int32; tokens of a packed row see only their own segment, and tokens
            of the segment `layers.masking.SHARED_SEGMENT`.
        positions: optional int32; by default counted from 0 in each text or segment. With learned
            positions each must lie below `max_sequence_length`: an eager call says so where one
            does not; a compiled one fails on CPUs, while GPUs and XLA look up some other row.
        prefix_mask: bool or int, true for the tokens that see each other both ways (in a packed
            row, those of each segment); with `attention_mask="prefix"` needed, else refused.
            `layers.masking.prefix_mask` makes it from lengths.

    Output: `(B, T, E)`. `backbone.token_embedding(output, reverse=True)` gives logits.

    Example:
    ```python
    backbone = LlamaBackbone(
        vocabulary_size=512, num_layers=2, num_query_heads=4, num_key_value_heads=2,
        hidden_dim=64, intermediate_dim=128,
    )
    ids = keras.ops.array([[1, 2, 3]])
    hidden = backbone({"token_ids": ids, "padding_mask": keras.ops.ones_like(ids)})
    ```
    """

    def __init__(self, *, dtype=None, rematerialize: bool = False, **arguments):
        names, functional = LlamaConfig.__dataclass_fields__, INPUTS
        config = LlamaConfig(**{k: v for k, v in arguments.items() if k in names})
        rest = {k: v for k, v in arguments.items() if k not in names}
        if unknown := sorted(rest.keys() - {"name", "trainable"}):  # Keras would drop them silently
            raise InputError(f"LlamaBackbone has no argument {unknown[0]!r}; it has {list(names)}.")
        check_distribution(config)
        if config.attention_mask == "prefix":
            functional = (*INPUTS, "prefix_mask")
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in functional}
        with _remat_scope(config) if rematerialize else contextlib.nullcontext():
            parts = _Parts(config, dtype)
        super().__init__(inputs=inputs, outputs=parts.encode(**inputs), dtype=dtype, **rest)
        self._encode, self._start, self._place = parts.encode, parts.start, parts.place
        self.config = config
        self.token_embedding: Any = parts.token_embedding
        self.position_embedding: Any = parts.position_embedding
        self.rotary = parts.rotary
        self.transformer_layers = parts.transformer_layers
        self.layer_norm = parts.layer_norm

    def call(self, inputs, training=None, mask=None):
        """Runs the functional graph, or the same layers over packed rows."""
        self._check_inputs(inputs)
        if set(inputs).isdisjoint(OPTIONAL_INPUTS):
            return super().call(inputs, training=training, mask=mask)
        return self._encode(**inputs, training=training)

    def compute_output_spec(self, inputs, training=None, mask=None):
        """Gives the output's shape without computing it."""
        self._check_inputs(inputs)
        shape = (*inputs["token_ids"].shape, self.config.hidden_dim)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def _check_inputs(self, inputs):
        check_prefix(self.config.attention_mask, inputs.get("prefix_mask"))
        length = inputs["token_ids"].shape[1]
        limit = self.config.max_sequence_length
        if self.position_embedding is None or not set(inputs).isdisjoint(OPTIONAL_INPUTS):
            return  # no limit, or positions that start anew within the row: see `_Parts.start`
        if length is not None and length > limit:
            raise InputError(
                f"The rows have {length} tokens, and this model has learned {limit} positions "
                "(max_sequence_length); shorten the texts, or use positions='rotary'."
            )

    @classmethod
    def from_preset(cls, preset, load_weights: bool = True, **kwargs) -> "LlamaBackbone":
        """Builds a backbone from a checkpoint.

        Args:
            preset: a built-in name, a `.gguf` file, a Hugging Face directory or a directory that
                this project saved; see `weights.presets.resolve`.
            load_weights: `False` leaves the weights random.
            **kwargs: arguments of the constructor that replace those of the checkpoint, such as
                `dtype` or `attention_mask`.

        Raises:
            InputError: the checkpoint is missing, damaged or of another architecture.
        """
        from llama_keras.weights.load import load_weights as fill
        from llama_keras.weights.presets import backbone_config, resolve

        source = resolve(preset)
        backbone = cls(**{**backbone_config(source), **kwargs})
        if load_weights:
            fill(backbone, source)
        return backbone

    def save_to_preset(self, preset_dir, *, tokenizer=None):
        """Writes a directory that `from_preset` reads; see `models.presets.save_to_preset`."""
        from llama_keras.models.presets import save_to_preset

        save_to_preset(preset_dir, backbone=self, tokenizer=tokenizer)

    @staticmethod
    def get_layout_map(
        device_mesh,
        model_parallel_dim_name: str = "model",
        data_parallel_dim_name: str = "batch",
        *,
        config=None,
    ):
        """Gives the layout of a backbone's weights for `keras.distribution.ModelParallel` (JAX).

        Heads, feed-forward network and vocabulary are split over the model axis, the model's width
        over the data axis, and an optimizer's moments as their weights; norms, biases behind sums
        and quantization scales lie whole on every device. `docs/distribution.md` has an example.

        Args:
            device_mesh: a `keras.distribution.DeviceMesh` with both axes, of size 1 or more.
            model_parallel_dim_name, data_parallel_dim_name: the names of the axes.
            config: a preset's name, a `LlamaConfig` or the arguments of a backbone. A dimension
                that the devices of its axis do not divide is then kept whole, and so are query or
                key-value heads of which an axis would split one. Without it everything is split,
                and a backbone that does not divide is refused when it is made.

        Returns:
            A `keras.distribution.LayoutMap`.

        Raises:
            InputError: `device_mesh` is no mesh, lacks an axis, or `config` describes no backbone.
        """
        return layout_map(
            device_mesh,
            model_parallel_dim_name=model_parallel_dim_name,
            data_parallel_dim_name=data_parallel_dim_name,
            config=config,
        )

    def truncated(self, num_layers: int) -> "LlamaBackbone":
        """Gives a copy that stops after `num_layers` blocks, with the same final norm.

        Raises:
            InputError: there are fewer blocks than that.
        """
        if not 0 < num_layers <= self.config.num_layers:
            raise InputError(
                f"num_layers must lie in 1 … {self.config.num_layers}; received {num_layers}."
            )
        shorter = type(self).from_config({**self.get_config(), "num_layers": num_layers})
        pairs = zip(shorter.transformer_layers, self.transformer_layers, strict=False)
        for new, old in (
            (shorter.token_embedding, self.token_embedding),
            (shorter.position_embedding, self.position_embedding),
            *pairs,
            (shorter.layer_norm, self.layer_norm),
        ):
            if old is not None:
                new.set_weights(old.get_weights())
        return shorter

    def start(self, inputs):
        """Gives what enters the first block, `(B, T, E)`, and what all blocks are given beside it.

        Args:
            inputs: as in a call.
        """
        self._check_inputs(inputs)
        return self._start(**inputs)

    def attention_weights(self, inputs) -> list:
        """Gives how much each token looks at each, layer by layer: float32 `(B, H, T, T)` each.

        Args:
            inputs: as in a call. The weights of padding tokens mean nothing.
        """
        hidden, context = self.start(inputs)
        weights = []
        for block in self.transformer_layers:
            normed = block.attention_norm(hidden)
            weights.append(block.attention.attention_weights(normed, **context))
            hidden = block(hidden, **context)
        return weights

    def init_cache(self, batch_size, length: int):
        """Gives an empty cache: for each layer, keys and values of zeros `(B, K, S, D)`."""
        config = self.config
        shape = (batch_size, config.num_key_value_heads, length, config.head_dim)
        zeros = ops.zeros(shape, dtype=self.compute_dtype)
        return tuple((zeros, zeros) for _ in range(config.num_layers))

    def call_with_cache(self, token_ids, *, cache, cache_index, positions, bias):
        """Runs T new tokens against a cache.

        A prefix whose tokens see each other both ways must lie whole in one call.

        Args:
            token_ids: int32 `(B, T)`.
            cache: from `init_cache` or an earlier call.
            cache_index: int32 scalar; the tokens go to slots `cache_index … cache_index + T - 1`.
            positions: int32 `(B, T)`.
            bias: added to the scores, broadcast to `(B, 1, T, S)`; must hide the slots that hold
                nothing yet.

        Returns:
            The output `(B, T, E)` and the new cache.
        """
        vectors = self.token_embedding(token_ids)
        return self.vectors_with_cache(
            vectors, cache=cache, cache_index=cache_index, positions=positions, bias=bias
        )

    def vectors_with_cache(self, vectors, *, cache, cache_index, positions, bias):
        """Does what `call_with_cache` does, for tokens given as vectors `(B, T, E)`."""
        if self.config.attention_mask == "bidirectional":
            raise InputError(
                "A key-value cache needs a causal model; this one has attention_mask="
                f"{self.config.attention_mask!r}."
            )
        hidden, turns = self._place(vectors, positions)
        written = []
        for block, entry in zip(self.transformer_layers, cache, strict=True):
            hidden, entry = block(hidden, bias=bias, **turns, cache=entry, cache_index=cache_index)
            written.append(entry)
        return self.layer_norm(hidden), tuple(written)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self._layer_policies()),
            **self.config.to_dict(),
        }

    def _layer_policies(self):
        """Gives the dtype policy, or a map from layer path to policy once layers are quantized.

        KerasHub's map leaves out the default: the layers that are not quantized would reload in
        float32, and writing such a map makes Keras forget what the quantized ones came from.
        """
        maps = keras.dtype_policies.DTypePolicyMap
        if isinstance(self.dtype_policy, maps):
            return self.dtype_policy
        quantized = [layer for layer in self._flatten_layers() if layer.quantization_mode]
        policies = {layer.path: layer.dtype_policy for layer in quantized}
        return maps(self.dtype_policy, policies) if policies else self.dtype_policy


def _remat_scope(config: LlamaConfig) -> keras.RematScope:
    if config.dropout:
        raise InputError(
            f"rematerialize=True needs dropout=0; this model has {config.dropout}, and a block "
            "that is computed again would drop other values."
        )
    # Keras's mode "full" would take each part of a block, and Dropout, by itself.
    names = [f"{_BLOCK}_{index}" for index in range(config.num_layers)]
    return keras.RematScope(mode="list_of_layers", layer_names=names)


def _check_positions(positions, limit: int) -> None:
    if isinstance(positions, keras.KerasTensor):
        return
    try:
        values = ops.convert_to_numpy(positions)
    except (NotImplementedError, TypeError, RuntimeError):
        return  # TensorFlow's and JAX's graphs hold no values yet, nor one process those of others
    if values.size and values.max() >= limit:
        raise InputError(
            f"A text has a token at position {values.max()}, and this model has learned {limit} "
            "positions (max_sequence_length), counted from 0; shorten the texts of packed rows, or "
            "use positions='rotary'."
        )


class _Parts:
    """The layers of a backbone before they are wired."""

    def __init__(self, config: LlamaConfig, dtype):
        initializer = keras.initializers.RandomNormal(stddev=0.02)
        self.token_embedding = keras.layers.ReversibleEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            tie_weights=config.tie_word_embeddings,
            embeddings_initializer=initializer,
            dtype=dtype,
            name="token_embedding",
        )
        self.attention_bias = layers.AttentionBias(
            config.attention_mask, dtype=dtype, name="attention_bias"
        )
        self.token_positions = layers.TokenPositions(name="token_positions")
        self.position_embedding = self.rotary = None
        if config.positions == "learned":
            self.position_embedding = keras.layers.Embedding(
                config.max_sequence_length,
                config.hidden_dim,
                embeddings_initializer=initializer,
                dtype=dtype,
                name="position_embedding",
            )
        if config.positions == "rotary":
            self.rotary = layers.RotaryEmbedding(
                config.head_dim or 0,
                max_wavelength=config.rope_max_wavelength,
                rope_scaling=config.rope_scaling,
                dtype=dtype,
                name="rotary_embedding",
            )
        self.transformer_layers = [
            layers.TransformerBlock(
                num_query_heads=config.num_query_heads,
                num_key_value_heads=config.num_key_value_heads,
                intermediate_dim=config.intermediate_dim,
                head_dim=config.head_dim,
                layer_norm_epsilon=config.layer_norm_epsilon,
                attention_bias=config.attention_bias,
                mlp_bias=config.mlp_bias,
                attention_kernel=config.kernel,
                feed_forward=config.feed_forward,
                mlp_activation=config.mlp_activation,
                dropout=config.dropout,
                dtype=dtype,
                name=f"{_BLOCK}_{index}",
            )
            for index in range(config.num_layers)
        ]
        self.layer_norm = keras.layers.RMSNormalization(
            epsilon=config.layer_norm_epsilon, dtype=dtype, name="layer_norm"
        )

    def embed(self, token_ids, positions):
        """Gives the vectors `(B, T, E)` that enter the first block, and what turns its queries."""
        return self.place(self.token_embedding(token_ids), positions)

    def place(self, hidden, positions):
        """Gives `embed`'s answer for the tokens' vectors `(B, T, E)`."""
        if self.position_embedding is not None:
            hidden = hidden + self.position_embedding(positions)
        if self.rotary is None:
            return hidden, {}
        cos, sin = self.rotary(positions)
        return hidden, {"cos": cos, "sin": sin}

    def start(
        self, token_ids, padding_mask=None, segment_ids=None, positions=None, prefix_mask=None
    ):
        """Gives what enters the first block, and what all blocks are given beside it."""
        rows = {"padding_mask": padding_mask, "segment_ids": segment_ids}
        bias = self.attention_bias(token_ids, **rows, prefix_mask=prefix_mask)
        is_packed = segment_ids is not None or positions is not None
        positions = self.token_positions(token_ids, **rows, positions=positions)
        if is_packed and self.position_embedding is not None:
            if padding_mask is not None:
                # Padding needs no place, and may be longer than the learned positions.
                positions = positions * ops.cast(padding_mask, "int32")
            _check_positions(positions, self.position_embedding.input_dim)
        hidden, turns = self.embed(token_ids, positions)
        return hidden, {"bias": bias, **turns}

    def encode(self, token_ids, training=None, **rows):
        """Wires the layers: token ids `(B, T)` to vectors `(B, T, E)`."""
        hidden, context = self.start(token_ids, **rows)
        for block in self.transformer_layers:
            hidden = block(hidden, **context, training=training)
        return self.layer_norm(hidden)
