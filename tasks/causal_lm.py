"""`CausalLM`: prompts in, text out; and how likely given texts are."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone, generation
from llama_keras.models.sampling import SamplingSettings
from llama_keras.objectives import OBJECTIVES
from llama_keras.tasks.compiled import Compiled
from llama_keras.tasks.completion import Completion, Generation, check_stop
from llama_keras.tasks.engines import EngineName, Engines
from llama_keras.tasks.fine_tuned import FineTunedTask
from llama_keras.tasks.likelihood_scores import LikelihoodScores
from llama_keras.tasks.objective_scores import ObjectiveScores
from llama_keras.tasks.response_data import (
    is_conversation,
    weigh_conversations,
    weigh_responses,
    weigh_texts,
)
from llama_keras.tasks.text_data import as_texts_and_labels, is_raw_text

logger = logging.getLogger("llama_keras")

# One value for all prompts, or one for each.
PerRow = float | Sequence[float]


@keras.saving.register_keras_serializable(package="llama_keras")
class CausalLM(LikelihoodScores, ObjectiveScores, FineTunedTask):
    """A Llama that continues text, and learns to from texts, responses or conversations.

    As a Keras model it maps token ids and padding mask `(B, T)` to logits `(B, T, V)`, or, given
    `targets` and `weights` among them, to the `Scores` of next-token prediction, for which the
    logits never exist at once.

    `fit` and `evaluate` take prompts and their responses (two lists of strings; the responses
    alone count), conversations (each a list of messages with "role" and "content"; what the
    assistant says counts), or plain texts (all of it counts). Loss, accuracy and perplexity are
    means over the tokens that count.

    Settings of `generate`, `chat` and `stream`:
        max_new_tokens: at most so many; fewer when the model's context is full.
        temperature: 0 takes the likeliest token each time; 1 samples from the model as it is.
        top_k: sample among the k likeliest tokens; 0 for all.
        top_p: sample among the likeliest tokens that together have this probability; 1 for all.
        seed: the same seed gives the same text, whatever else is in the batch.
        stop: a string or several; the text ends before the first that is complete.
        engine: `"keras"`, or `"litert"`: on CPU several times as fast for few texts, with int8
            weights and therefore slightly other answers. The first call writes a file for the
            weights (SmolLM2-135M: half a minute, 137 MB), see `serving.litert.cached_decoder`.
            `"litert_float32"` keeps the weights as they are.

    Args:
        backbone: a causal `LlamaBackbone`.
        tokenizer: its `text.Tokenizer`.
        jit_generate: whether XLA compiles the decoding loop; `None` chooses, see
            `engines.default_jit`.
        max_sequence_length: tokens after which a training example is cut.
        strategy: how `fit` fine-tunes, see `training.fine_tuning`.

    Example:
    ```python
    model = CausalLM.from_preset("llama-tiny")
    answer = model.generate("Once upon a time", max_new_tokens=8, temperature=0.7, seed=1)
    print(answer.text, answer.finish_reason)
    model.loglikelihood([("The sky is", " blue")])  # [(sum of log-probabilities, is greedy)]
    ```
    """

    attention_masks = ("causal",)
    objective = OBJECTIVES["causal"]
    can_pack = True

    def __init__(
        self, *, backbone: LlamaBackbone, tokenizer, jit_generate: bool | None = None, **kwargs
    ):
        super().__init__(backbone=backbone, tokenizer=tokenizer, **kwargs)
        self.make_token_metrics()
        self.jit_generate = jit_generate
        self._engines = Engines(backbone, jit_generate=jit_generate)
        self.built = True

    def call(self, inputs, training=None):
        """Gives logits `(B, T, V)`, or `Scores`; see the class."""
        if "targets" in inputs:
            return self.objective(self.backbone, inputs, training=training)
        hidden = self.backbone(inputs, training=training)
        return self.backbone.token_embedding(hidden, reverse=True)

    def is_raw(self, x) -> bool:
        """Says whether `x` holds texts or conversations."""
        return is_raw_text(x) or _are_conversations(x)

    def example_rows(self, x, y):
        """Gives texts, responses or conversations as token rows; see the class.

        Raises:
            InputError: an example is not what the class says, or nothing of it is left to learn.
        """
        from llama_keras.data.bucketing import TokenRows

        if _are_conversations(x):
            if y is not None:
                raise InputError("Conversations hold their answers; leave the responses out.")
            rows = weigh_conversations(self.tokenizer, x)
        else:
            texts, responses = as_texts_and_labels(x, y)
            if responses is not None:
                rows = weigh_responses(self.tokenizer, texts, responses)
            else:
                rows = weigh_texts(self.tokenizer, texts) if texts else []
        limit = self.max_sequence_length
        kept = [(ids[:limit], weights[:limit]) for ids, weights in rows]
        # The first token has nothing before it that could predict it.
        kept = [row for row in kept if any(row[1][1:])]
        cut = sum(len(ids) > limit for ids, _ in rows)
        if cut:
            logger.warning("%d of %d examples were cut to %d tokens", cut, len(rows), limit)
        if lost := len(rows) - len(kept):
            logger.warning("%d of %d examples have no token to learn", lost, len(rows))
        if rows and not kept:
            raise InputError(
                f"No example has a token to learn within max_sequence_length={limit}; shorten the "
                "prompts or raise it."
            )
        ids, weights = [row[0] for row in kept], [row[1] for row in kept]
        return TokenRows(ids, self.tokenizer.pad_id, weights)

    def as_batches(self, dataset):
        """Gives batches of `data.bucketing` as inputs with `targets` and `weights`."""
        return dataset.map(
            lambda features, weights: {
                **features,
                "targets": features["token_ids"],
                "weights": weights * features["padding_mask"],  # -1 in padding
            }
        )

    def score_examples(self, x, y=None, *, batch_size: int = 32) -> np.ndarray:
        """Gives for each example what `evaluate` sums up.

        Args:
            x, y: as `fit` takes them.
            batch_size: examples in a batch.

        Returns:
            float32 `(N, 3)`: nats, how many tokens counted, how many were the likeliest. Examples
            with nothing to learn are not among the N.
        """
        from llama_keras.data.bucketing import inference_batches

        def sums(inputs):
            scores = self(inputs, training=False)
            parts = (scores.losses * scores.weights, scores.weights, scores.hits * scores.weights)
            return ops.stack([ops.sum(part, axis=1) for part in parts], axis=1)

        rows = self.example_rows(x, y)
        dataset, order = inference_batches(rows, batch_size=batch_size)
        compiled = Compiled(sums, variables=self.variables)
        found = [ops.convert_to_numpy(compiled(batch)) for batch in self.as_batches(dataset)]
        result = np.empty((len(order), 3), "float32")
        result[order] = np.concatenate(found)
        return result

    def default_loss(self):
        """Gives nothing: `compute_loss` reads the objective's `Scores`."""
        return None

    # fmt: off
    @overload
    def generate(self, prompts: str, *, max_new_tokens: PerRow = 64, temperature: PerRow = 0.0,
                 top_k: PerRow = 0, top_p: PerRow = 1.0, seed: PerRow = 0,
                 stop: str | Sequence[str] = (), engine: EngineName = "keras") -> Generation: ...
    @overload
    def generate(self, prompts: Sequence[str], *, max_new_tokens: PerRow = 64,
                 temperature: PerRow = 0.0, top_k: PerRow = 0, top_p: PerRow = 1.0,
                 seed: PerRow = 0, stop: str | Sequence[str] = (),
                 engine: EngineName = "keras") -> list[Generation]: ...
    # fmt: on

    def generate(
        self,
        prompts,
        *,
        max_new_tokens: PerRow = 64,
        temperature: PerRow = 0.0,
        top_k: PerRow = 0,
        top_p: PerRow = 1.0,
        seed: PerRow = 0,
        stop: str | Sequence[str] = (),
        engine: EngineName = "keras",
    ):
        """Continues each prompt; the answer does not depend on the other prompts.

        Args:
            prompts: one string or several.
            max_new_tokens, temperature, top_k, top_p, seed: see the class; one value for all
                prompts or one for each.
            stop, engine: see the class.

        Returns:
            A `Generation` for a string, a list of them for several.

        Raises:
            InputError: a setting is out of range, or a prompt fills the model's context.
        """
        one = isinstance(prompts, str)
        texts = [prompts] if one else list(prompts)
        settings = _per_row(
            len(texts),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        answers = self._generate(self._encode(texts), settings, check_stop(stop), engine)
        return answers[0] if one else answers

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stop: str | Sequence[str] = (),
        engine: EngineName = "keras",
        **settings,
    ) -> Generation:
        """Answers a conversation through the checkpoint's chat template.

        Args:
            messages: for each turn a mapping with "role" and "content".
            stop, engine: see the class.
            **settings: `max_new_tokens`, `temperature`, `top_k`, `top_p`, `seed`; see the class.

        Raises:
            InputError: there is no chat template, it rejects the messages, or a setting is wrong.
        """
        prompt = self.tokenizer.encode_chat(messages)
        rows = _per_row(1, **settings)
        return self._generate([prompt], rows, check_stop(stop), engine)[0]

    def stream(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        stop: str | Sequence[str] = (),
        engine: EngineName = "keras",
        **settings,
    ) -> Iterator[str]:
        """Gives the answer piece by piece; the pieces joined are the text of `generate` or `chat`.

        Args:
            prompt: a string, or the messages of a conversation.
            stop, engine: see the class.
            **settings: `max_new_tokens`, `temperature`, `top_k`, `top_p`, `seed`; see the class.
        """
        is_text = isinstance(prompt, str)
        ids = self._encode([prompt])[0] if is_text else self.tokenizer.encode_chat(prompt)
        return self._stream(ids, _per_row(1, **settings), check_stop(stop), engine)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {**super().get_config(), "jit_generate": self.jit_generate}

    def _encode(self, texts: list[str]) -> list[list[int]]:
        rows = self.tokenizer.encode(texts) if texts else []
        begin = (self.tokenizer.bos_id, self.tokenizer.eos_id, self.tokenizer.pad_id)
        start = next(token_id for token_id in begin if token_id is not None)
        return [row or [start] for row in rows]  # an empty text still needs a token to start from

    def _generate(self, prompts, settings, stop, engine) -> list[Generation]:
        limit = self.backbone.config.max_sequence_length
        for prompt in prompts:
            generation.check_room(len(prompt), limit)
        answers: dict[int, Generation] = {}
        by_length = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
        for start in range(0, len(prompts), generation.MAX_ROWS):
            batch = by_length[start : start + generation.MAX_ROWS]
            rows = [self._completion(prompts[row], stop) for row in batch]
            chosen = [settings[row] for row in batch]
            for _ in self._advance(rows, [prompts[row] for row in batch], chosen, engine):
                pass
            for index, row in zip(batch, rows, strict=True):
                row.finish()
                answers[index] = row.result()
        return [answers[index] for index in range(len(prompts))]

    def _stream(self, prompt, settings, stop, engine) -> Iterator[str]:
        row = self._completion(prompt, stop)
        for pieces in self._advance([row], [prompt], settings, engine):
            if pieces[0]:
                yield pieces[0]
        if rest := row.finish():
            yield rest

    def _completion(self, prompt, stop) -> Completion:
        return Completion(self.tokenizer, prompt=prompt, end_ids=self.tokenizer.end_ids, stop=stop)

    def _advance(
        self, rows: list[Completion], prompts, settings, engine: EngineName
    ) -> Iterator[list[str]]:
        """Runs one batch and gives each row's new text, chunk by chunk."""
        stopped = np.zeros(len(rows), bool)
        chunks = self._engines.get(engine).generator.run(
            prompts, settings=settings, end_ids=self.tokenizer.end_ids, stopped=stopped
        )
        for chunk in chunks:
            yield [
                row.push(ids, values)
                for row, ids, values in zip(
                    rows, chunk.token_ids, chunk.log_probabilities, strict=True
                )
            ]
            stopped[:] = [row.finished for row in rows]


def _are_conversations(x) -> bool:
    return isinstance(x, (list, tuple)) and bool(x) and all(is_conversation(item) for item in x)


def _per_row(rows: int, **settings) -> list[SamplingSettings]:
    known = [field.name for field in dataclasses.fields(SamplingSettings)]
    columns = {}
    for name, value in settings.items():
        if name not in known:
            raise InputError(f"There is no setting {name!r}; expected one of {[*known, 'stop']}.")
        values = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value] * rows
        if len(values) != rows:
            raise InputError(f"{name} has {len(values)} values for {rows} prompts.")
        columns[name] = values
    return [
        SamplingSettings(**{name: values[row] for name, values in columns.items()})
        for row in range(rows)
    ]
