"""Recipes with `task: causal_lm`: prompts and the responses to learn, or conversations."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llama_keras.data import load_classification
from llama_keras.errors import InputError
from llama_keras.eval.metrics import RESAMPLES, Metric
from llama_keras.kinds.kind import Measured, TaskKind, model_arguments, no_labels
from llama_keras.tasks.recipe import Recipe, RecipeGeneration

logger = logging.getLogger("llama_keras")


@dataclass(frozen=True)
class ResponseData:
    """One part of a data set, as `CausalLM.fit` takes it.

    Attributes:
        prompts: texts, or conversations.
        responses: of texts; None for conversations, which hold theirs.
        source: what was asked for, for messages and result files.
        generation: which responses are also generated, and how, to be measured.
    """

    prompts: list[Any]
    responses: list[str] | None
    source: str
    generation: RecipeGeneration

    def __len__(self) -> int:
        return len(self.prompts)

    def head(self, count: int) -> "ResponseData":
        """Gives the first `count` examples (all, when there are fewer)."""
        responses = None if self.responses is None else self.responses[:count]
        return replace(self, prompts=self.prompts[:count], responses=responses)


def _load(recipe: Recipe, source: str, split: str | None) -> ResponseData:
    if recipe.data.turns_column is not None:
        return _load_dialogues(recipe, source, split)
    part = load_classification(
        source,
        split=split,
        text_column=recipe.data.text_column,
        label_column=recipe.data.label_column,
        data_dir=recipe.data.data_dir,
    )
    prompts = [recipe.data.prompt.replace("{text}", str(text)) for text in part.texts]
    responses = [recipe.data.response.replace("{label}", str(label)) for label in part.labels]
    return ResponseData(prompts, responses, part.source, recipe.generation)


def _load_dialogues(recipe: Recipe, source: str, split: str | None) -> ResponseData:
    from llama_keras.data.dialogues import load_dialogues

    if recipe.generation.examples:
        raise InputError(
            "generation.examples needs prompts with one response each; conversations have several."
        )
    part = load_dialogues(source, split=split, column=recipe.data.turns_column or "")
    return ResponseData(list(part.conversations), None, part.source, recipe.generation)


def _build(recipe: Recipe, labels, strategy):
    from llama_keras.tasks import CausalLM

    return CausalLM.from_preset(recipe.preset, **model_arguments(recipe, strategy))


def _measure(model, part: ResponseData) -> Measured:
    scores = model.score_examples(part.prompts, part.responses)
    draws = np.random.default_rng(0).integers(len(scores), size=(RESAMPLES, len(scores)))

    def metric(value) -> Metric:
        low, high = np.quantile([value(scores[draw].sum(axis=0)) for draw in draws], [0.025, 0.975])
        return Metric(float(value(scores.sum(axis=0))), float(low), float(high), "bootstrap")

    generated = _generated(model, part)
    metrics = {
        "loss": metric(lambda sums: sums[0] / sums[1]),
        "perplexity": metric(lambda sums: np.exp(sums[0] / sums[1])),
        "accuracy": metric(lambda sums: sums[2] / sums[1]),
    }
    return Measured(metrics | generated.metrics, {"n": len(scores)} | generated.counts)


def _generated(model, part: ResponseData) -> Measured:
    """Gives BLEU and chrF of responses to the first prompts, where the recipe asks for them."""
    count = part.generation.examples
    if not count or part.responses is None:
        return Measured({})
    from llama_keras.eval.generation_metrics import generation_metrics

    prompts = part.prompts[:count]
    fitting = _fitting(model, prompts)
    counts = {"generated": len(fitting), "prompts_too_long": len(prompts) - len(fitting)}
    if len(fitting) < len(prompts):
        logger.warning(
            "no response is generated to %d of %d prompts: they fill the model's context",
            *(counts["prompts_too_long"], len(prompts)),
        )
    if not fitting:
        return Measured({}, counts)
    found = model.generate(
        [prompts[at] for at in fitting],
        max_new_tokens=part.generation.max_new_tokens,
        stop=part.generation.stop,
    )
    answers = [answer.text.strip() for answer in found]
    expected = [part.responses[at].strip() for at in fitting]
    return Measured(generation_metrics(expected, answers), counts)


def _fitting(model, prompts: list[str]) -> list[int]:
    """Gives the places of the prompts that leave room for a response in the model's context."""
    limit = model.backbone.config.max_sequence_length
    return [at for at, ids in enumerate(model.tokenizer.encode(prompts)) if len(ids) < limit]


KIND = TaskKind(
    noun="examples",
    load=_load,
    labels=no_labels,
    build=_build,
    examples=lambda part: (part.prompts, part.responses),
    measure=_measure,
)
