"""How much one token looks at another: dot products, or the article's Gaussian kernel.

Axes: B batch, T tokens, S tokens looked at (or cache length), H query heads, K key-value heads,
G = H / K queries per key-value head, D head size.
"""

import math
from typing import Any, ClassVar

import keras
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers.masking import additive

# c - (c - x) with c = x times this is float32 x rounded to the digits of the dtype. A cast there
# and back gives the same, but XLA may drop it as a pair that undoes itself.
_SPLITTERS = {"bfloat16": 2.0**16 + 1, "float16": 2.0**13 + 1}


def grouped(query, *, num_key_value_heads: int):
    """Gives queries `(B, T, H, D)` by the key-value head that they share: `(B, K, G, T, D)`."""
    batch, length, heads, size = ops.shape(query)
    kv_heads = num_key_value_heads
    query = ops.transpose(query, (0, 2, 1, 3))
    return ops.reshape(query, (batch, kv_heads, heads // kv_heads, length, size))


def mix(weights, value):
    """Gives the sums of values `(B, K, S, D)` under weights `(B, K, G, T, S)`: `(B, T, H, D)`."""
    batch, kv_heads, groups, length, slots = ops.shape(weights)
    weights = ops.reshape(weights, (batch, kv_heads, -1, slots))
    mixed = ops.matmul(weights, value)  # (B, K, G * T, D)
    size = ops.shape(mixed)[-1]
    mixed = ops.reshape(mixed, (batch, kv_heads * groups, length, size))
    return ops.transpose(mixed, (0, 2, 1, 3))


def by_head(weights):
    """Gives weights `(B, K, G, T, S)` as float32 `(B, H, T, S)`."""
    batch, kv_heads, groups, length, slots = ops.shape(weights)
    weights = ops.reshape(weights, (batch, kv_heads * groups, length, slots))
    return ops.cast(weights, "float32")


class AttentionKernel(keras.layers.Layer):
    """What the kernels share. A kernel of one's own is a subclass with its `scores`.

    Keys and values are never repeated for the heads of a group: the group is folded into the token
    axis of one batched product (on the TensorFlow backend `ops.dot_product_attention` repeats
    them and takes 1.3 to 1.5 times as long).

    Call arguments:
        query: `(B, T, H, D)`.
        key, value: `(B, S, K, D)`; K divides H.
        mask: optional bool `(B, 1, T, S)`, true where a token may look. A token that may look
            nowhere gets zeros.

    Returns:
        `(B, T, H, D)`.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ()
    """Names of the constructor's own arguments, which are also attributes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # the argument `mask` is ours; none comes out

    def settings(self) -> dict[str, Any]:
        """Gives the constructor's own arguments as plain values."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    def scores(self, query, key):
        """Gives what `to_weights` turns into weights: `(B, K, G, T, S)`.

        Args:
            query: `(B, K, G, T, D)`, from `grouped`.
            key: `(B, K, S, D)`, heads first, as a cache holds them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scores.")

    def to_weights(self, scores):
        """Gives float32 weights of the same shape; they add up to one over the last axis."""
        return ops.softmax(scores, axis=-1)

    def weigh(self, query, key, bias=None):
        """Gives the attention weights `(B, K, G, T, S)`, in the keys' dtype.

        For a token that may look nowhere they are finite and of no use.

        Args:
            query, key: as for `scores`.
            bias: optional, added to the scores, broadcast to `(B, 1, T, S)`; see
                `masking.additive`.
        """
        scores = self.scores(query, key)
        if bias is not None:
            scores = scores + ops.expand_dims(bias, 1)
        return ops.cast(self.to_weights(ops.cast(scores, "float32")), key.dtype)

    def call(self, query, key, value, mask=None):
        """Attends; see the class."""
        _check(query, key, value, mask)
        mixed = mix(self._weigh(query, key, mask), ops.transpose(value, (0, 2, 1, 3)))
        if mask is None:
            return mixed
        sees = ops.any(ops.cast(mask, "bool"), axis=-1)[:, 0, :, None, None]  # (B, T, 1, 1)
        return ops.where(sees, mixed, ops.zeros_like(mixed))

    def attention_weights(self, query, key, mask=None):
        """Gives how much each token looks at each: float32 `(B, H, T, S)`.

        Args: as in a call; where `mask` is false, the weight is zero.
        """
        query, key = (ops.convert_to_tensor(x, dtype=self.compute_dtype) for x in (query, key))
        _check(query, key, key, mask)
        weights = by_head(self._weigh(query, key, mask))
        return weights if mask is None else weights * ops.cast(ops.cast(mask, "bool"), "float32")

    def _weigh(self, query, key, mask):
        bias = None if mask is None else additive(ops.cast(mask, "bool"), query.dtype)
        query = grouped(query, num_key_value_heads=key.shape[2])
        return self.weigh(query, ops.transpose(key, (0, 2, 1, 3)), bias)

    def compute_mask(self, inputs, previous_mask=None):
        """Passes no mask on: that of a call says who sees whom, not which tokens are real."""
        return None

    def compute_output_spec(self, query, key, value, mask=None):
        """Gives the shape without computing it."""
        _check(query, key, value, mask)
        return keras.KerasTensor((*query.shape[:3], value.shape[3]), dtype=self.compute_dtype)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {**super().get_config(), **self.settings()}


@keras.saving.register_keras_serializable(package="llama_keras")
class DotProduct(AttentionKernel):
    """Scaled dot-product attention: `softmax(q · k / sqrt(D))`, LLaMA's own.

    Source: Attention Is All You Need, arXiv 1706.03762, equation 1. Call arguments and result: see
    `AttentionKernel`.

    Example:
    ```python
    query = keras.random.normal((2, 8, 4, 16))
    key = value = keras.random.normal((2, 8, 2, 16))
    hidden = DotProduct()(query=query, key=key, value=value)
    ```
    """

    def scores(self, query, key):
        """Gives the scaled products `(B, K, G, T, S)`."""
        return _products(query * query.shape[-1] ** -0.5, key)


@keras.saving.register_keras_serializable(package="llama_keras")
class GaussianKernel(AttentionKernel):
    """The article's attention: `exp(-‖q - k‖² / (D α))`, which sees what is near.

    Normalized, the weights are divided by their sum over the tokens looked at. The query's own
    norm then cancels, and what is left is `softmax((2 q · k - ‖k‖²) / (D α))`: a dot product with
    one more feature, `[k, ‖k‖²]` against `[2 q, -1]`. So the differences `q - k` are never made,
    and the speed is that of dot products. Unnormalized, `‖q‖²` goes the same way, and the weights
    are summed as they are, as in the article. In half precision both norms do, each as two
    features, a rounded one and the rest: products add up in float32, so that what is rounded is
    the distance, not the much larger products and norms that it comes from.

    The article's own example (section 2; E of rows `[1 2 3] [4 5 6] [7 8 9]`, W_q the identity,
    W_k all ones, d' = 3, α = 1) has an erratum: it prints four rows and columns of scores for
    three tokens, with values that the formula does not give. Its squared distances are
    `[50 509 1454] [5 302 1085] [14 149 770]`; see `docs/article.md`.

    It is experimental: no pretrained Llama uses it. For encoders it did as well as softmax
    (Skyformer, arXiv 2111.00035). Rotary positions keep norms, so distances stay relative.

    Args:
        temperature: α, positive; its first value where it is learned.
        learned_temperature: whether α is a weight; it stays positive, for its logarithm is learned.
        normalize: whether the weights add up to one; without, a token far from all gets zeros.

    Call arguments and result: see `AttentionKernel`.

    Example:
    ```python
    query = keras.random.normal((2, 8, 4, 16))
    key = value = keras.random.normal((2, 8, 2, 16))
    mask = keras.ops.tril(keras.ops.ones((2, 1, 8, 8), dtype="bool"))
    hidden = GaussianKernel(temperature=0.5)(query=query, key=key, value=value, mask=mask)
    ```
    """

    SETTINGS = ("temperature", "learned_temperature", "normalize")

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        learned_temperature: bool = False,
        normalize: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.temperature = check_temperature(temperature)
        self.learned_temperature = bool(learned_temperature)
        self.normalize = bool(normalize)
        self.log_temperature: Any = None  # a variable once built, where it is learned

    def build(self, query_shape=None):
        """Makes the learned temperature; the shape is of no matter."""
        if self.learned_temperature:
            self.log_temperature = self.add_weight(
                name="log_temperature",
                shape=(),
                initializer=keras.initializers.Constant(math.log(self.temperature)),
                autocast=False,
            )
        self.built = True

    def current_temperature(self):
        """Gives α: a number, or a float32 scalar where it is learned."""
        if self.log_temperature is None:
            return self.temperature
        return ops.exp(ops.cast(self.log_temperature, "float32"))

    def scores(self, query, key):
        """Gives `-‖q - k‖² / (D α)`, `(B, K, G, T, S)`.

        Normalized in float32 the query's norm is left out, for the softmax cancels it. In half
        precision it stays: scores of near keys are then near zero, where rounding does least.
        """
        scale = 1.0 / (query.shape[-1] * self.current_temperature())
        query = ops.cast(ops.cast(query, "float32") * (2.0 * scale), query.dtype)
        far = _features(_norms(key) * scale, key.dtype)
        queries = [query, *(ops.full_like(query[..., :1], -1.0) for _ in far)]
        keys = [key, *far]
        if len(far) > 1 or not self.normalize:
            own = _features(_norms(query) / (-4.0 * scale), query.dtype)
            queries += own
            keys += [ops.ones_like(key[..., :1]) for _ in own]
        return _products(ops.concatenate(queries, axis=-1), ops.concatenate(keys, axis=-1))

    def to_weights(self, scores):
        """Gives float32 weights: a softmax, or the kernel's plain values, at most one."""
        if self.normalize:
            return super().to_weights(scores)
        return ops.exp(ops.minimum(scores, 0.0))  # rounding may leave a distance below zero


# attention_kernel -> its class
KERNELS: dict[str, type[AttentionKernel]] = {"dot_product": DotProduct, "gaussian": GaussianKernel}


def get_kernel(kernel: str | dict | AttentionKernel = "dot_product", *, dtype=None) -> Any:
    """Gives the kernel of a name or of `kernel_config`, or the given one.

    Args:
        kernel: a key of `KERNELS`; or a dict with such a `name` and the kernel's settings; or a
            kernel.
        dtype: Keras dtype policy of a kernel that is made.

    Raises:
        InputError: there is none of that name, or it has no such setting.
    """
    if isinstance(kernel, AttentionKernel):
        return kernel
    fields = {"name": kernel} if isinstance(kernel, str) else dict(kernel)
    name = fields.pop("name", None)
    if name not in KERNELS:
        raise InputError(
            f"attention_kernel={name!r} is not known; expected one of {list(KERNELS)}."
        )
    known = KERNELS[name].SETTINGS
    if unknown := sorted(set(fields) - set(known)):
        raise InputError(
            f"The attention kernel {name!r} has no setting {', '.join(unknown)}; it takes "
            f"{list(known)}."
        )
    return KERNELS[name](**fields, dtype=dtype, name="attention_kernel")


def kernel_config(kernel: AttentionKernel) -> dict[str, Any]:
    """Gives a kernel's name and settings as plain values, for `get_kernel`."""
    names = [name for name, kind in KERNELS.items() if kind is type(kernel)]
    if not names:
        raise InputError(
            f"{type(kernel).__name__} is no attention kernel of KERNELS; add it there."
        )
    return {"name": names[0], **kernel.settings()}


def check_temperature(temperature: float) -> float:
    """Gives the temperature back when it is a positive, finite number, else `InputError`."""
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not (number and 0.0 < temperature < math.inf):
        raise InputError(f"The temperature must be a positive number; received {temperature!r}.")
    return float(temperature)


def _products(query, key):
    """Gives all `q · k`: `(B, K, G, T, D)` and `(B, K, S, D)` to `(B, K, G, T, S)`."""
    batch, kv_heads, groups, length, size = ops.shape(query)
    folded = ops.reshape(query, (batch, kv_heads, -1, size))
    products = ops.matmul(folded, ops.transpose(key, (0, 1, 3, 2)))  # (B, K, G * T, S)
    return ops.reshape(products, (batch, kv_heads, groups, length, ops.shape(key)[2]))


def _norms(x):
    return ops.sum(ops.square(ops.cast(x, "float32")), axis=-1, keepdims=True)


def _features(x, dtype):
    """Gives float32 `x` as features whose sum it is: one, or two where the dtype has 16 bits."""
    splitter = _SPLITTERS.get(keras.backend.standardize_dtype(dtype))
    if splitter is None:
        return [ops.cast(x, dtype)]
    grown = x * splitter
    high = grown - (grown - x)
    return [ops.cast(high, dtype), ops.cast(x - high, dtype)]


def _check(query, key, value, mask) -> None:
    """Raises `InputError` where the shapes of a call do not fit together."""
    shapes = {"query": query.shape, "key": key.shape, "value": value.shape}
    told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    if any(len(shape) != 4 for shape in shapes.values()):
        raise InputError(f"query, key and value must be (B, T, heads, D); received {told}.")
    if query.shape[2] % key.shape[2]:
        raise InputError(f"The heads of the key must divide those of the query; received {told}.")
    if query.shape[3] != key.shape[3] or key.shape[1:3] != value.shape[1:3]:
        raise InputError(f"query, key and value do not fit together; received {told}.")
    if mask is None:
        return
    wanted = (query.shape[0], 1, query.shape[1], key.shape[1])
    pairs = zip(mask.shape, wanted, strict=False)
    if len(mask.shape) != 4 or not all(None in (a, b) or a in (1, b) for a, b in pairs):
        raise InputError(
            f"The mask must be (B, 1, T, S), here {wanted}, true where a token may look; received "
            f"{tuple(mask.shape)}."
        )
