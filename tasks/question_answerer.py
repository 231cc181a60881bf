"""`QuestionAnswerer`: a question and a text in, the part of the text that answers it out.

Axes: N questions, R rows (windows of contexts), B batch, T tokens.
"""

import dataclasses
import logging
from functools import partial

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers.dropout import Dropout
from llama_keras.tasks.answer_labels import LabelCounts, labelled_rows, locate
from llama_keras.tasks.fine_tuned import FineTunedTask
from llama_keras.tasks.question_data import Questions, as_questions, is_raw_questions
from llama_keras.tasks.span_loss import SpanCrossEntropy, span_accuracy

logger = logging.getLogger("llama_keras")

# The keys of eval.qa_metrics.RULES, repeated so that a model does not load scikit-learn.
ANSWER_RULES = ("squad", "cmrc")
# Logit of tokens that no answer has; finite, so that nothing becomes NaN.
_NEVER = -1e9
# Questions whose windows are made and whose answers are chosen at once, and characters of all
# their contexts: a few questions on one book are as much work as many on short texts.
_QUESTIONS_AT_ONCE = 1024
_CHARACTERS_AT_ONCE = 2**23
# Spans looked at for each answer wanted, for many have the same text.
_SPARE = 4


@keras.saving.register_keras_serializable(package="llama_keras")
class QuestionAnswerer(FineTunedTask):
    """Finds the answer to a question in a text of any length, or says that there is none.

    `fit`, `evaluate` and `predict` take a list of dicts as SQuAD has them (`question`, `context`,
    `answers`: a list of `{"text", "answer_start"}` with offsets in Unicode code points), a
    `tf.data.Dataset` of such dicts, or `(questions, contexts)`, two lists of strings.

    The question stands before the context, which is cut into overlapping windows, one row each. In
    training a window that does not hold the whole answer points at the row's last token; so does
    each window of a question without an answer. Of several answers the first that is at its offset
    is learnt. Answers that aren't in the context are counted in the log and left out.

    Args:
        backbone: a `LlamaBackbone`, causal or bidirectional.
        tokenizer: a `text.Tokenizer` with an end-of-text token.
        null_answers: whether a question may have no answer (SQuAD 2.0). Otherwise the best span is
            always given.
        null_threshold: the answer is "none" where `null_score` is above it; `fit` with
            `validation_data` chooses it.
        max_answer_tokens: tokens of the longest answer.
        max_question_tokens: tokens after which a question is cut.
        window_overlap: tokens that neighbouring windows share.
        rule: how answers are compared when the threshold is chosen, and by recipes: `"squad"`
            (words) or `"cmrc"` (Chinese characters), see `eval.qa_metrics`.
        dropout: share of features dropped in training.
        max_sequence_length: tokens of a row.
        cleaning: steps of `text.cleaning` that keep characters in their place, such as `["lower"]`.
        strategy: `"full"`, `"lora"`, or an object of `training.fine_tuning`.

    Example:
    ```python
    model = QuestionAnswerer.from_preset("llama-tiny")
    answers = [{"text": "Lima", "answer_start": 17}]
    example = {"question": "Which city?", "context": "She grew up near Lima.", "answers": answers}
    model.fit([example], verbose=0)
    found = model.predict([example], verbose=0)[0]  # text, start, end, score, null_score, n_best
    assert example["context"][found["start"] : found["end"]] == found["text"]
    ```
    """

    cleans_text = tells_places = True

    def __init__(
        self,
        *,
        backbone,
        tokenizer,
        null_answers: bool = False,
        null_threshold: float = 0.5,
        max_answer_tokens: int = 30,
        max_question_tokens: int = 64,
        window_overlap: int = 64,
        rule: str = "squad",
        dropout: float = 0.0,
        max_sequence_length: int = 384,
        cleaning=None,
        strategy="full",
        **kwargs,
    ):
        from llama_keras.data.context_windows import WindowSettings

        super().__init__(
            backbone=backbone,
            tokenizer=tokenizer,
            cleaning=cleaning,
            max_sequence_length=max_sequence_length,
            strategy=strategy,
            **kwargs,
        )
        if rule not in ANSWER_RULES:
            raise InputError(f"rule={rule!r} is not known; expected one of {ANSWER_RULES}.")
        self.rule = rule
        self.null_answers = null_answers
        self.null_threshold = null_threshold
        self.window_settings = WindowSettings(
            max_sequence_length=self.max_sequence_length,
            max_question_tokens=max_question_tokens,
            max_answer_tokens=max_answer_tokens,
            window_overlap=window_overlap,
        )
        self.dropout = Dropout(dropout, dtype="float32", name="dropout")
        self.head = keras.layers.Dense(2, dtype="float32", name="head")
        self.head.build((None, None, backbone.config.hidden_dim))
        self.built = True
        self._windows = None  # made with the first windows

    @property
    def separator_id(self) -> int:
        """The id after the question and after the window: the one that ends a text.

        Raises:
            InputError: the tokenizer has none.
        """
        if self.tokenizer.eos_id is None:
            raise InputError("A QuestionAnswerer needs a tokenizer with an end-of-text token.")
        return self.tokenizer.eos_id

    def call(self, inputs, training=None):
        """Gives logits of start and end, float32 `(B, T, 2)`, of token features.

        Tokens of the question and padding can be neither; the last token stands for "none here".
        """
        hidden = self.backbone(inputs, training=training)
        logits = self.head(self.dropout(hidden, training=training))
        mask = ops.cast(inputs["padding_mask"], "bool")
        is_separator = ops.cast((inputs["token_ids"] == self.separator_id) & mask, "int32")
        # Behind the first separator is the window, and behind it the last one.
        is_behind = ops.cumsum(is_separator, axis=1) - is_separator > 0
        return ops.where((is_behind & mask)[:, :, None], logits, _NEVER)

    def is_raw(self, x) -> bool:
        """Says whether `x` holds questions and contexts, not token features."""
        return is_raw_questions(x)

    def default_loss(self):
        """Gives the mean of the cross-entropies of start and end."""
        return SpanCrossEntropy()

    def default_metrics(self):
        """Gives the share of rows whose likeliest start and end are both right."""
        return [keras.metrics.MeanMetricWrapper(span_accuracy, name="span_accuracy")]

    def fit(self, x, y=None, *, validation_data=None, **kwargs):
        """Fine-tunes; then, with null answers, chooses `null_threshold` on `validation_data`.

        Arguments, result and errors: see `FineTunedTask.fit`.
        """
        history = super().fit(x, y, validation_data=validation_data, **kwargs)
        if self.null_answers and validation_data is not None and self.is_raw(x):
            is_labelled = isinstance(validation_data, tuple)
            self.choose_null_threshold(*(validation_data if is_labelled else (validation_data,)))
        return history

    def example_rows(self, x, y=None):
        """Gives questions with answers as token rows with the labels start and end."""
        from llama_keras.data.bucketing import TokenRows

        questions = as_questions(x, y)
        if questions.answers is None and len(questions):
            raise InputError("Training and evaluation need the answers; the examples have none.")
        empty = sum(not answers for answers in questions.answers or ())
        if empty and not self.null_answers:
            raise InputError(
                f"{empty} of {len(questions)} questions have no answer; make the model with "
                "null_answers=True, or leave them out."
            )
        counts = LabelCounts(self.window_settings.max_answer_tokens)
        rows, labels = [], []
        for part, windows in self._groups(questions):
            kept = labelled_rows(part, windows, counts)
            ids = windows.token_ids.to_list()
            rows += [ids[row] for row, _ in kept]
            labels += [label for _, label in kept]
        counts.tell()
        if len(questions) and not rows:
            raise InputError(_nothing_to_learn(questions))
        return TokenRows(rows, self.tokenizer.pad_id, np.array(labels, "int32").reshape(-1, 2))

    def _groups(self, questions: Questions):
        """Yields a part of the questions at a time, and its `Windows`."""
        import tensorflow as tf

        from llama_keras.data.context_windows import make_windows

        if self._windows is None:
            make = partial(
                make_windows,
                tokenizer=self.tokenizer.graph,
                separator_id=self.separator_id,
                settings=self.window_settings,
                cleaning=self.cleaning,
            )
            self._windows = tf.function(
                make, input_signature=[tf.TensorSpec([None], tf.string)] * 2
            )
        cut = 0
        for part in questions.groups(most=_QUESTIONS_AT_ONCE, characters=_CHARACTERS_AT_ONCE):
            windows = self._windows(part.questions, part.contexts)
            cut += int(np.sum(windows.is_cut))
            yield part, windows
        if cut:
            logger.warning(
                "%d of %d questions were cut to %d tokens",
                *(cut, len(questions), self.window_settings.max_question_tokens),
            )

    def predict(self, x, *, batch_size: int = 32, n_best: int = 5, verbose="auto", **kwargs):
        """Gives one answer to each question.

        Args:
            x: N raw questions with their contexts, or token features as Keras takes them.
            batch_size: windows in a batch.
            n_best: most entries of each answer's `n_best`.
            verbose: 0 shows no progress bar.
            **kwargs: of `keras.Model.predict`, for token features.

        Returns:
            For raw questions N dicts: `text`, a part of the context; `start` and `end`, its place
            in the context in Unicode code points; `score`, its probability among all spans of all
            windows; `null_score`, the probability that there is no answer; `n_best`, the best
            spans of different text as dicts of `text`, `start`, `end`, `score`. Where there is no
            answer (by `null_threshold`, or in an empty context) `text` is "" and the place -1.
            For token features logits `(N, T, 2)`.

        Raises:
            InputError: `n_best` is below 1, or an example is not what the task takes.
        """
        if not self.is_raw(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)
        if kwargs:
            raise InputError(f"predict takes no {sorted(kwargs)} for raw questions.")
        if n_best < 1:
            raise InputError(f"n_best must be at least 1; received {n_best}.")
        questions = as_questions(x)
        if not len(questions):
            return []
        return self._answers(questions, batch_size=batch_size, n_best=n_best, verbose=verbose)

    def _answers(self, questions: Questions, *, batch_size, n_best, verbose) -> list[dict]:
        from llama_keras.data.answer_spans import best_answers
        from llama_keras.data.bucketing import TokenRows
        from llama_keras.data.inference import graph_of

        if self._graph is None:
            self._graph = graph_of(self._wide_logits)
        answers = []
        for part, windows in self._groups(questions):
            rows = TokenRows(windows.token_ids.to_list(), self.tokenizer.pad_id)
            (logits,) = self.run_head(rows, batch_size=batch_size, verbose=verbose)
            found = best_answers(
                logits,
                part.contexts,
                windows=windows,
                settings=self.window_settings,
                count=_SPARE * n_best,
                null_answers=self.null_answers,
            )
            answers += self._records(part.contexts, found, n_best)
        return answers

    def _wide_logits(self, features):
        """Gives logits as wide as any row can be, so that those of all batches fit together."""
        logits = self(features, training=False)
        missing = self.max_sequence_length - ops.shape(logits)[1]
        return ops.pad(logits, [[0, 0], [0, missing], [0, 0]], constant_values=_NEVER)

    def _records(self, contexts, found, n_best: int) -> list[dict]:
        columns = [np.asarray(part).tolist() for part in (found.start, found.end, found.score)]
        records = []
        for index, null in enumerate(np.asarray(found.null_score).tolist()):
            spans = zip(*(column[index] for column in columns), strict=True)
            best = _distinct(contexts[index], spans, n_best)
            is_null = not best or (self.null_answers and null > self.null_threshold)
            none = {"text": "", "start": -1, "end": -1, "score": null if self.null_answers else 0.0}
            answer = none if is_null else best[0]
            records.append({**answer, "null_score": null, "n_best": best})
        return records

    def choose_null_threshold(self, x, y=None, *, batch_size: int = 32) -> float:
        """Sets `null_threshold` to what gives the best mean F1 on labelled questions.

        Args:
            x: questions, of which some should have no answer.
            y: see `fit`.
            batch_size: windows in a batch.

        Returns:
            The threshold.

        Raises:
            InputError: the questions have no answers, or there are no questions.
        """
        from llama_keras.eval.qa_metrics import answer_scores, best_null_threshold

        questions = as_questions(x, y)
        if not questions.answers:
            raise InputError("Choosing a threshold needs questions with their answers.")
        found = self._answers(questions, batch_size=batch_size, n_best=1, verbose=0)
        gains = []
        for record, answers in zip(found, questions.answers, strict=True):
            right = [answer.text for answer in answers]
            span = record["n_best"][0]["text"] if record["n_best"] else ""
            gains.append([answer_scores(text, right, rule=self.rule)[1] for text in (span, "")])
        self.null_threshold = best_null_threshold([record["null_score"] for record in found], gains)
        return self.null_threshold

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "null_answers": self.null_answers,
            "null_threshold": self.null_threshold,
            **dataclasses.asdict(self.window_settings),
            "rule": self.rule,
            "dropout": self.dropout.rate,
        }


def _nothing_to_learn(questions: Questions) -> str:
    """Says why not one of the questions, which all have answers, gives a row to learn from."""
    pairs = list(zip(questions.contexts, questions.answers or [], strict=True))
    absent = [
        answers
        for context, answers in pairs
        if all(locate(answer, context) is None for answer in answers)
    ]
    reasons = []
    if absent:
        reasons.append(
            f"{len(absent)} have no answer that is in the context, letter for letter (the first "
            f"is {absent[0][0].text!r})"
        )
    if others := len(pairs) - len(absent):
        reasons.append(
            f"{others} have an answer longer than a window, or of characters that the tokenizer "
            "lacks"
        )
    return (
        f"There is nothing to learn: all {len(pairs)} answers are lost. Of the questions "
        f"{' and '.join(reasons)}. Check that each answer is a part of its context, and raise "
        "max_sequence_length for long ones."
    )


def _distinct(context: str, spans, count: int) -> list[dict]:
    """Gives the first `count` spans that differ in text."""
    best: dict[str, dict] = {}
    for start, end, score in spans:
        text = context[start:end]
        if start >= 0 and text not in best and len(best) < count:
            best[text] = {"text": text, "start": start, "end": end, "score": score}
    return list(best.values())
