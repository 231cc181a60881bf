"""The one description of a Llama's shape: checkpoints, presets and the backbone share it."""

import dataclasses

from llama_keras.errors import InputError
from llama_keras.layers.masking import check_mask_mode
from llama_keras.layers.rotary import check_rope_scaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Arguments of `LlamaBackbone`, checked.

    Attributes:
        vocabulary_size: number of token ids.
        num_layers: number of transformer blocks.
        num_query_heads: query heads of each block.
        num_key_value_heads: key-value heads of each block; divides `num_query_heads`.
        hidden_dim: width of the model.
        intermediate_dim: width inside the feed-forward network.
        head_dim: width of one head; `hidden_dim / num_query_heads` by default.
        max_sequence_length: the longest text, in tokens, that the checkpoint was made for.
        rope_max_wavelength: base of the rotary frequencies (`rope_theta`).
        rope_scaling: `None` or a dict with `rope_type`, see `layers.rotary.ROPE_TYPES`.
        layer_norm_epsilon: epsilon of all RMS norms.
        tie_word_embeddings: whether logits use the transposed token embedding.
        attention_bias: whether the attention projections have biases.
        mlp_bias: whether the feed-forward projections have biases.
        dropout: share dropped in training.
        attention_mask: `"causal"` or `"bidirectional"`.
    """

    vocabulary_size: int
    num_layers: int
    num_query_heads: int
    num_key_value_heads: int
    hidden_dim: int
    intermediate_dim: int
    head_dim: int | None = None
    max_sequence_length: int = 2048
    rope_max_wavelength: float = 10000.0
    rope_scaling: dict | None = None
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    dropout: float = 0.0
    attention_mask: str = "causal"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and value > 0):
                raise InputError(f"{field.name} must be a positive integer; received {value!r}.")
            if field.type is float and not isinstance(value, (int, float)):
                raise InputError(f"{field.name} must be a number; received {value!r}.")
        if self.head_dim is None:
            if self.hidden_dim % self.num_query_heads:
                raise InputError(
                    f"hidden_dim={self.hidden_dim} is not a multiple of num_query_heads="
                    f"{self.num_query_heads}; give head_dim."
                )
            object.__setattr__(self, "head_dim", self.hidden_dim // self.num_query_heads)
        elif not (isinstance(self.head_dim, int) and self.head_dim > 0):
            raise InputError(f"head_dim must be a positive integer; received {self.head_dim!r}.")
        if self.num_query_heads % self.num_key_value_heads:
            raise InputError(
                f"num_query_heads={self.num_query_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}."
            )
        for name in ("rope_max_wavelength", "layer_norm_epsilon"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive; received {getattr(self, name)!r}.")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must lie in [0, 1); received {self.dropout!r}.")
        check_mask_mode(self.attention_mask)
        object.__setattr__(self, "rope_scaling", check_rope_scaling(self.rope_scaling))

    def to_dict(self) -> dict:
        """Gives the arguments as plain values, fit for JSON."""
        return dataclasses.asdict(self)
