"""What `explain` found at each stage, as plain records.

Axes: T tokens, H heads, E model width, V vocabulary.
"""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Token:
    """One token id and the characters behind it."""

    id: int
    label: str
    """What is shown: the characters, with what cannot be seen spelled out. Of several tokens that
    share the same characters each has its number after a middle dot."""
    start: int | None
    """First character of the cleaned text that it covers, in Unicode code points; None for a token
    that stands for no text (begin, mask, …)."""
    end: int | None
    """One past the last."""


@dataclasses.dataclass(frozen=True)
class Corruption:
    """The tokens after one kind of noise."""

    name: str
    rate: float
    seed: int
    hit: list[int]
    """Places of the clean tokens that were hidden or taken out."""
    tokens: list[Token]
    """What is left; a hidden token has become the mask."""


@dataclasses.dataclass(frozen=True)
class Vectors:
    """One vector for each token, `(T, E)`."""

    values: np.ndarray

    def to_dict(self, *, first: int) -> dict[str, Any]:
        """Gives shape, the first numbers of each vector, and its length."""
        return {
            "shape": list(self.values.shape),
            "first": _rounded(self.values[:, :first]),
            "norm": _rounded(self.norms),
        }

    @property
    def norms(self) -> np.ndarray:
        """Length of each vector, `(T,)`."""
        return np.linalg.norm(self.values, axis=-1)


_NEAR = "exp(−‖q_i − k_j‖² / (d'α))"
# Kernel and whether its weights are divided by their sum -> its formula.
_FORMULAS = {
    ("dot_product", True): "softmax_j(q_i·k_j / √d')",
    ("gaussian", True): f"{_NEAR} / Σ_j {_NEAR}",
    ("gaussian", False): _NEAR,
}


@dataclasses.dataclass(frozen=True)
class Attention:
    """How much each token looks at each, by one kernel: `(H, T, T)`."""

    kernel: str
    temperature: float | None
    """α of the Gaussian kernel."""
    normalized: bool
    """Whether the weights of a token add up to one; the article's do not."""
    in_use: bool
    """Whether this kernel made the vectors that the next stage gets."""
    weights: np.ndarray

    @property
    def formula(self) -> str:
        """How much token i looks at token j."""
        return _FORMULAS[self.kernel, self.normalized]

    @property
    def title(self) -> str:
        """The kernel's name and settings."""
        if self.temperature is None:
            return self.kernel
        form = "normalized" if self.normalized else "unnormalized"
        return f"{self.kernel}, {form}, α = {self.temperature:g}"

    @property
    def mean(self) -> np.ndarray:
        """The mean over the heads, `(T, T)`."""
        return self.weights.mean(axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values."""
        return {
            "kernel": self.kernel,
            "temperature": self.temperature,
            "normalized": self.normalized,
            "formula": self.formula,
            "in_use": self.in_use,
            "weights": _rounded(self.weights),
        }


@dataclasses.dataclass(frozen=True)
class Layer:
    """One transformer block."""

    number: int
    """Counted from 1."""
    attention: list[Attention]
    """The same queries and keys through each kernel, the Gaussian one in both its forms."""
    feed_forward: Vectors
    """What the feed-forward network adds to the tokens' vectors."""
    hidden: Vectors
    """The vectors that leave the block."""


@dataclasses.dataclass(frozen=True)
class Guess:
    """A token that may stand at a place, and its probability among all V."""

    id: int
    label: str
    score: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model makes of one place."""

    place: int
    """The token that is predicted; T is the one after the text."""
    true: Guess | None
    """The clean token that was hidden there."""
    rank: int | None
    """Its place among all V, 1 for the likeliest."""
    guesses: list[Guess]
    """The likeliest ones."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A sentence at every stage of the pipeline.

    `to_dict` gives plain values for JSON.
    """

    model: dict[str, Any]
    """Its name, shape and settings."""
    text: str
    cleaned: list[tuple[str, str]]
    """Each cleaning step, with its settings, and the text after it."""
    clean_text: str
    token_count: int
    """Tokens of the whole text."""
    tokens: list[Token]
    """The first of them, which all further stages are about."""
    corruptions: list[Corruption]
    model_input: str
    """"clean" (causal and prefix models) or "masked" (bidirectional ones)."""
    input_tokens: list[Token]
    embedding_shape: tuple[int, int]
    """Of the embedding matrix E, `(V, E)`."""
    embeddings: Vectors
    layers: list[Layer]
    contextual: Vectors
    output: list[Prediction]

    def to_dict(self, *, first: int = 8) -> dict[str, Any]:
        """Gives plain values: of vectors the first numbers, of attention every weight."""
        found = {f.name: _plain(getattr(self, f.name), first) for f in dataclasses.fields(self)}
        found["cleaned"] = [{"step": step, "text": text} for step, text in self.cleaned]
        return found


def _plain(value: Any, first: int) -> Any:
    if isinstance(value, Vectors):
        return value.to_dict(first=first)
    if isinstance(value, Attention):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name), first) for field in fields}
    if isinstance(value, (list, tuple)):
        return [_plain(item, first) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, first) for key, item in value.items()}
    return value


def _rounded(values: np.ndarray) -> Any:
    return np.round(values.astype("float64"), 6).tolist()
