"""The one description of a Llama's shape: checkpoints, presets and the backbone share it."""

import dataclasses

from llama_keras.errors import InputError
from llama_keras.layers.attention_kernels import KERNELS, check_temperature
from llama_keras.layers.feed_forward import (
    DEFAULT_BIAS,
    EXPANSION,
    check_activation,
    check_feed_forward,
)
from llama_keras.layers.masking import check_mask_mode
from llama_keras.layers.rotary import check_rope_scaling

POSITIONS = ("rotary", "learned", "none")
# A setting that acts only with one value of another.
ACTS_WITH = {
    "attention_temperature": ("attention_kernel", "gaussian"),
    "learned_temperature": ("attention_kernel", "gaussian"),
    "normalize_attention": ("attention_kernel", "gaussian"),
    "mlp_activation": ("feed_forward", "mlp"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Arguments of `LlamaBackbone`, checked.

    The defaults of everything from `attention_mask` on are LLaMA as released; the other values
    make up the article's encoder.

    Attributes:
        vocabulary_size: number of token ids.
        num_layers: number of transformer blocks.
        num_query_heads: query heads of each block.
        num_key_value_heads: key-value heads of each block; divides `num_query_heads`.
        hidden_dim: width of the model.
        intermediate_dim: width inside the feed-forward network; 4 times `hidden_dim` by default
            for `"mlp"`, needed for `"swiglu"`.
        head_dim: width of one head; `hidden_dim / num_query_heads` by default.
        max_sequence_length: the longest text, in tokens, that the checkpoint was made for, and
            the number of learned positions.
        rope_max_wavelength: base of the rotary frequencies (`rope_theta`).
        rope_scaling: `None` or a dict with `rope_type`, see `layers.rotary.ROPE_TYPES`.
        layer_norm_epsilon: epsilon of all RMS norms.
        tie_word_embeddings: whether logits use the transposed token embedding.
        attention_bias: whether the attention projections have biases.
        mlp_bias: whether the feed-forward projections have biases; by default those of `"mlp"`.
        dropout: share dropped in training.
        attention_mask: `"causal"`, `"bidirectional"` or `"prefix"`, see `layers.AttentionBias`.
        attention_kernel: `"dot_product"` or `"gaussian"`, see `layers.GaussianKernel`.
        attention_temperature: of the Gaussian kernel, in every layer; where it is learned, the
            first value.
        learned_temperature: whether each layer learns its own.
        normalize_attention: whether the Gaussian kernel's weights add up to one.
        feed_forward: `"swiglu"` or `"mlp"`.
        mlp_activation: of `"mlp"`, a name of a Keras activation.
        positions: `"rotary"`, `"learned"` (vectors added to the token embedding) or `"none"`.
    """

    vocabulary_size: int
    num_layers: int
    num_query_heads: int
    num_key_value_heads: int
    hidden_dim: int
    intermediate_dim: int | None = None
    head_dim: int | None = None
    max_sequence_length: int = 2048
    rope_max_wavelength: float = 10000.0
    rope_scaling: dict | None = None
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool | None = None
    dropout: float = 0.0
    attention_mask: str = "causal"
    attention_kernel: str = "dot_product"
    attention_temperature: float = 1.0
    learned_temperature: bool = False
    normalize_attention: bool = True
    feed_forward: str = "swiglu"
    mlp_activation: str = "relu"
    positions: str = "rotary"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not _is_size(value):
                raise InputError(f"{field.name} must be a positive integer; received {value!r}.")
            if field.type is float and not isinstance(value, (int, float)):
                raise InputError(f"{field.name} must be a number; received {value!r}.")
        self._check_heads()
        for name in ("rope_max_wavelength", "layer_norm_epsilon"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive; received {getattr(self, name)!r}.")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout must lie in [0, 1); received {self.dropout!r}.")
        check_mask_mode(self.attention_mask)
        object.__setattr__(self, "rope_scaling", check_rope_scaling(self.rope_scaling))
        self._check_options()
        self._check_feed_forward()

    def _check_heads(self):
        if self.head_dim is None:
            if self.hidden_dim % self.num_query_heads:
                raise InputError(
                    f"hidden_dim={self.hidden_dim} is not a multiple of num_query_heads="
                    f"{self.num_query_heads}; give head_dim."
                )
            object.__setattr__(self, "head_dim", self.hidden_dim // self.num_query_heads)
        elif not _is_size(self.head_dim):
            raise InputError(f"head_dim must be a positive integer; received {self.head_dim!r}.")
        if self.num_query_heads % self.num_key_value_heads:
            raise InputError(
                f"num_query_heads={self.num_query_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}."
            )

    def _check_options(self):
        for name, known in (("attention_kernel", KERNELS), ("positions", POSITIONS)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name}={getattr(self, name)!r} is not known; expected one of {list(known)}."
                )
        check_feed_forward(self.feed_forward)
        check_temperature(self.attention_temperature)
        check_activation(self.mlp_activation)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, (other, needed) in ACTS_WITH.items():
            value = getattr(self, name)
            if value != defaults[name] and getattr(self, other) != needed:
                raise InputError(f"{name}={value!r} acts only with {other}={needed!r}.")

    def _check_feed_forward(self):
        if self.intermediate_dim is None and self.feed_forward == "mlp":
            object.__setattr__(self, "intermediate_dim", EXPANSION * self.hidden_dim)
        if not _is_size(self.intermediate_dim):
            raise InputError(
                f"intermediate_dim must be a positive integer; received {self.intermediate_dim!r}."
            )
        if self.mlp_bias is None:
            object.__setattr__(self, "mlp_bias", DEFAULT_BIAS[self.feed_forward])

    @property
    def kernel(self) -> dict:
        """The attention kernel's name and settings, for `layers.attention_kernels.get_kernel`."""
        if self.attention_kernel != "gaussian":
            return {"name": self.attention_kernel}
        return {
            "name": self.attention_kernel,
            "temperature": self.attention_temperature,
            "learned_temperature": self.learned_temperature,
            "normalize": self.normalize_attention,
        }

    def to_dict(self) -> dict:
        """Gives the arguments as plain values, fit for JSON."""
        return dataclasses.asdict(self)


def _is_size(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
