"""Takes one sentence through cleaning, token ids, noise, embeddings, attention, FFN and output.

Axes: T tokens, E model width, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_keras.errors import InputError, MissingDependencyError
from llama_keras.explain.forward import run_forward
from llama_keras.explain.labels import guess, step_label, tokens_of, visible, without_text
from llama_keras.explain.records import Corruption, Explanation, Prediction, Token, Vectors

if TYPE_CHECKING:
    from llama_keras.text.cleaning import StepLike

NEWCOMERS_PRESET = "smollm2-135m-instruct"
# The settings of a Gaussian kernel in `LlamaConfig`, as they are for dot products.
_NO_GAUSSIAN = {
    "attention_temperature": 1.0,
    "learned_temperature": False,
    "normalize_attention": True,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is shown.

    Attributes:
        clean: cleaning steps, as `text.Cleaning` takes them; by default those that the preset
            learned with, or none.
        temperature: α of the Gaussian kernels that are shown; by default the model's own, or 1.
            A preset of the Gaussian kernel runs with it, a model at hand goes on with its own.
        layers: the blocks whose values are kept, counted from 1; none stands for the first, the
            middle and the last.
        rate: share of the tokens that noise hits.
        seed: of the noise.
        max_tokens: tokens after which the text is cut; T × T weights have to be looked at.
        top_k: likeliest tokens at a place.
    """

    clean: "Sequence[StepLike] | None" = None
    temperature: float | None = None
    layers: tuple[int, ...] = ()
    rate: float = 0.15
    seed: int = 0
    max_tokens: int = 64
    top_k: int = 5

    def __post_init__(self):
        for name in ("max_tokens", "top_k"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more; received {getattr(self, name)}.")


def default_preset() -> str:
    """Gives the real checkpoint where its package is installed, else random weights."""
    from llama_keras.weights.presets import resolve

    try:
        resolve(NEWCOMERS_PRESET)
    except MissingDependencyError:
        return "llama-tiny"
    return NEWCOMERS_PRESET


def explain_preset(
    text: str,
    *,
    preset: str | None = None,
    kernel: str | None = None,
    normalize: bool | None = None,
    attention_mask: str | None = None,
    settings: Settings | None = None,
) -> Explanation:
    """Gives every stage of a text for a checkpoint.

    Args:
        text: the sentence.
        preset: see `weights.presets.resolve`; by default `default_preset()`.
        kernel: the attention kernel that the model runs with; by default the checkpoint's own.
        normalize: whether its Gaussian weights add up to one, which the article's do not; by
            default the checkpoint's own.
        attention_mask: who may look at whom; by default the checkpoint's own.
        settings: what is shown.

    Raises:
        InputError: there is nothing to explain in the text, or no such preset or setting.
    """
    from llama_keras.text import Tokenizer, get_cleaning
    from llama_keras.weights.presets import backbone_config, preset_cleaning, resolve

    settings, preset = settings or Settings(), preset or default_preset()
    _check_text(text)
    source = resolve(preset)
    own = backbone_config(source)
    if settings.clean is None and (cleaning := get_cleaning(preset_cleaning(source))):
        settings = dataclasses.replace(settings, clean=cleaning.steps)
    changes: dict[str, Any] = {}
    if kernel is not None:
        changes["attention_kernel"] = kernel
        changes |= {} if kernel == "gaussian" else _NO_GAUSSIAN
    if (kernel or own.get("attention_kernel")) == "gaussian" and settings.temperature is not None:
        changes["attention_temperature"] = settings.temperature
        changes["learned_temperature"] = False  # what was learned would take its place
    if normalize is not None:
        changes["normalize_attention"] = normalize
    if attention_mask is not None:
        changes["attention_mask"] = attention_mask
    backbone, tokenizer = _backbone(preset, own, changes), Tokenizer.from_preset(preset)
    return explain(
        text,
        backbone=backbone,
        tokenizer=tokenizer,
        name=str(preset),
        settings=settings,
        tells_next=_tells_next(preset),
    )


def explain(
    text: str,
    *,
    backbone,
    tokenizer,
    name: str = "",
    settings: Settings | None = None,
    tells_next: bool = False,
) -> Explanation:
    """Gives every stage of a text for a model at hand.

    A causal model gets the clean tokens and says what comes next; a bidirectional one gets the
    masked tokens and says what it takes the hidden ones for.

    Args:
        text: the sentence.
        backbone: a `LlamaBackbone`.
        tokenizer: its `text.Tokenizer`.
        name: what the model is called.
        settings: what is shown.
        tells_next: whether a bidirectional model tells a token one place before it, as by
            `"masked_next_token"`, and not in its place. A hidden first token is told by none.

    Raises:
        InputError: there is nothing to explain in the text, or a setting does not fit the model.
    """
    settings = settings or Settings()
    text = _check_text(text)
    numbers = _layer_numbers(settings.layers, backbone.config.num_layers)
    cleaned = _cleaned(text, settings.clean or ())
    clean_text = cleaned[-1][1] if cleaned else text
    encoding = tokenizer.encode(clean_text, offsets=True)
    if not clean_text or not encoding.ids:
        raise InputError(
            f"Nothing is left of {visible(text[:40])!r} after the cleaning steps "
            f"{[step for step, _ in cleaned]}; leave a step out, or give another text."
        )
    limit = min(settings.max_tokens, backbone.config.max_sequence_length)
    tokens = tokens_of(tokenizer, encoding, text=clean_text)[:limit]
    masked, deleted = _corruptions(tokens, tokenizer, backbone.config.vocabulary_size, settings)
    both_ways = backbone.config.attention_mask == "bidirectional"
    input_tokens = masked.tokens if both_ways else tokens
    forward = run_forward(
        backbone,
        [token.id for token in input_tokens],
        numbers=numbers,
        temperature=settings.temperature,
    )
    places = masked.hit if both_ways else [len(tokens)]
    shift = 1 if tells_next or not both_ways else 0
    return Explanation(
        model=_model(backbone, name),
        text=text,
        cleaned=cleaned,
        clean_text=clean_text,
        token_count=len(encoding.ids),
        tokens=tokens,
        corruptions=[masked, deleted],
        model_input="masked" if both_ways else "clean",
        input_tokens=input_tokens,
        embedding_shape=(backbone.config.vocabulary_size, backbone.config.hidden_dim),
        embeddings=forward.embeddings,
        layers=forward.layers,
        contextual=forward.contextual,
        output=_predictions(
            backbone,
            tokenizer,
            forward.contextual,
            tokens,
            [place for place in places if place >= shift],
            shift=shift,
            top_k=settings.top_k,
        ),
    )


def _tells_next(preset) -> bool:
    """Says whether a preset learned to tell each token from the place before it."""
    from llama_keras.objectives import get_objective
    from llama_keras.tasks import Pretraining
    from llama_keras.tasks.presets import task_config

    objective = task_config(preset, Pretraining).get("objective")
    return objective is not None and getattr(get_objective(objective), "shift", 0) == 1


def _backbone(preset, own: dict[str, Any], changes: dict[str, Any]):
    """Gives the backbone of a preset of the settings `own` with other ones."""
    from llama_keras.models import LlamaBackbone
    from llama_keras.weights.names import variable, weight_names

    if not own.get("learned_temperature") or changes.get("learned_temperature", True):
        return LlamaBackbone.from_preset(preset, **changes)
    # A checkpoint is loaded whole, and the learned α has no place in what is wanted.
    whole, backbone = LlamaBackbone.from_preset(preset), LlamaBackbone(**{**own, **changes})
    for row in weight_names(backbone.config):
        variable(backbone, row.path).assign(variable(whole, row.path))
    return backbone


def _check_text(text: str) -> str:
    from llama_keras.text.offsets import clean_text

    if not isinstance(text, str) or not text:
        raise InputError(f"There is nothing to explain in {text!r}; give a sentence.")
    return clean_text(text)


def _layer_numbers(wanted: Sequence[int], count: int) -> list[int]:
    wrong = [number for number in wanted if not 1 <= number <= count]
    if wrong:
        raise InputError(f"There is no layer {wrong[0]}; the model has layers 1 to {count}.")
    return sorted(set(wanted or (1, (count + 1) // 2, count)))


def _cleaned(text: str, steps: "Sequence[StepLike]") -> list[tuple[str, str]]:
    from llama_keras.text import Cleaning

    found = []
    for step in Cleaning(steps).steps:  # every one is checked before the first is done
        (text,) = Cleaning([step]).clean([text])
        found.append((step_label(step), text))
    return found


def _corruptions(
    tokens: list[Token], tokenizer, vocabulary_size: int, settings: Settings
) -> tuple[Corruption, Corruption]:
    """Gives the tokens after the article's plain masking, and after deletion."""
    from llama_keras.tasks.mask_tokens import free_ids
    from llama_keras.text import NoiseVocabulary, RandomDeletion, RandomMasking

    # A vocabulary without an id to spare: padding is what no text becomes.
    mask_id = next(iter(free_ids(tokenizer, vocabulary_size)), tokenizer.pad_id)
    vocabulary = NoiseVocabulary.of(tokenizer, mask_id=mask_id)
    noise = {"rate": settings.rate, "seed": settings.seed}
    found = []
    for corruption in (
        RandomMasking(mask_rate=1.0, random_rate=0.0, **noise),
        RandomDeletion(**noise),
    ):
        rows = corruption([[token.id for token in tokens]], index=[0], vocabulary=vocabulary)
        real = rows.padding_mask.numpy()[0]
        ids = rows.token_ids.numpy()[0][real].tolist()
        places = rows.source_positions.numpy()[0][real].tolist()
        hit = np.flatnonzero(rows.prediction_mask.numpy()[0]).tolist()
        left = [
            tokens[place]
            if id_ == tokens[place].id
            else without_text(tokenizer, id_, label="<mask>")
            for id_, place in zip(ids, places, strict=True)
        ]
        found.append(Corruption(corruption.name, settings.rate, settings.seed, hit, left))
    return found[0], found[1]


def _model(backbone, name: str) -> dict[str, Any]:
    config = backbone.config
    names = (
        "attention_mask",
        "attention_kernel",
        "feed_forward",
        "positions",
        "num_layers",
        "num_query_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_dim",
        "intermediate_dim",
        "vocabulary_size",
    )
    return {"name": name, **{key: getattr(config, key) for key in names}}


def _predictions(
    backbone,
    tokenizer,
    contextual: Vectors,
    tokens: list[Token],
    places: list[int],
    *,
    shift: int,
    top_k: int,
) -> list[Prediction]:
    """Gives what stands at `places`, each told so many places before it."""
    from keras import ops

    if not places:
        return []
    hidden = contextual.values[[place - shift for place in places]]  # (places, E)
    hidden = ops.convert_to_tensor(hidden[None], dtype=backbone.compute_dtype)
    logits = ops.cast(backbone.token_embedding(hidden, reverse=True), "float32")
    scores = ops.convert_to_numpy(ops.softmax(logits, axis=-1))[0]  # (places, V)
    found = []
    for place, row in zip(places, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:top_k]
        guesses = [guess(tokenizer, id_, row[id_]) for id_ in best]
        if place == len(tokens):
            found.append(Prediction(place, None, None, guesses))
            continue
        id_ = tokens[place].id
        rank = int((row > row[id_]).sum()) + 1
        found.append(Prediction(place, guess(tokenizer, id_, row[id_]), rank, guesses))
    return found
