"""`TextClassifier`: raw text or pairs of texts in, one label or several out.

Axes: N texts, B batch, T tokens, E model width, C classes.
"""

import logging

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import Pooling
from llama_keras.layers.dropout import Dropout
from llama_keras.tasks.fine_tuned import FineTunedTask
from llama_keras.tasks.label_sets import (
    class_weights,
    label_matrix,
    label_numbers,
    label_set_metrics,
)
from llama_keras.tasks.text_data import as_texts_and_labels, clean_texts, is_raw_text
from llama_keras.tasks.text_pairs import are_pairs, as_pairs_and_labels, is_raw_pairs

logger = logging.getLogger("llama_keras")

# What a causal and a bidirectional model have seen of the text at their best token.
DEFAULT_POOLING = {"causal": "last", "bidirectional": "mean"}


@keras.saving.register_keras_serializable(package="llama_keras")
class TextClassifier(FineTunedTask):
    """Classifies raw text with a Llama backbone, pooling and a dense layer.

    `fit`, `evaluate` and `predict` take a list of strings (and of labels), a `tf.data.Dataset` of
    `(text, label)`, or token features as Keras does. With `pairs=True` two texts stand in place of
    each one. What stands outside decides, as in KerasHub: a tuple holds the two columns,
    `(firsts, seconds)`; a list holds the pairs, `[(first, second), …]`; a dataset has elements
    `((first, second), label)`. Tokens of a pair that is too long are left out one by one at the end
    of the longer text (`data.text_pairs`).

    A label is a name, or an integer: the number of its class, as in Keras. Of a model with
    `labels=["1", "2", "3"]` an integer could be either, and is refused.

    With `multi_label=True` each label is decided by itself, and a text's labels are a list of
    names, possibly empty, or a row of a matrix `(N, C)` of 0 and 1.

    Args:
        backbone: a `LlamaBackbone`.
        tokenizer: a `text.Tokenizer`; for pairs with an end-of-text token, which parts the texts.
        labels: the class names, strings.
        pairs: whether each example is a pair of texts.
        multi_label: whether a text may have several labels, or none.
        threshold: with `multi_label`, probability above which a label is given.
        pooling: `"last"` or `"mean"`; by default the one that suits the attention mask.
        dropout: share of pooled features dropped in training.
        label_smoothing: share of each target spread over all labels in the default loss (with
            `multi_label`, over "yes" and "no" of each label).
        max_sequence_length: tokens after which a text is cut, or a pair shortened.
        cleaning: steps of `text.cleaning` that raw text goes through first, such as
            `["lower", "collapse_whitespace"]`; by default none.
        strategy: `"full"`, `"linear_probe"` (not with `multi_label`), `"lora"`, or an object of
            `training.fine_tuning`.

    Example:
    ```python
    model = TextClassifier.from_preset("llama-tiny", labels=["negative", "positive"])
    model.fit(["Awful.", "Lovely."], ["negative", "positive"], epochs=1, verbose=0)
    model.predict(["A lovely film."])  # [{"label": …, "score": …, "scores": {…}}]
    model = TextClassifier.from_preset("llama-tiny", labels=["no", "yes"], pairs=True)
    model.fit([("Is it?", "It is."), ("Is it?", "Not yet.")], ["yes", "no"], verbose=0)
    model = TextClassifier.from_preset("llama-tiny", labels=["film", "music"], multi_label=True)
    model.fit(["A film score.", "A recipe."], [["film", "music"], []], verbose=0)
    model.predict(["A song."])  # [{"labels": […], "scores": {…}}]
    ```
    """

    cleans_text = True

    def __init__(
        self,
        *,
        backbone,
        tokenizer,
        labels,
        pairs: bool = False,
        multi_label: bool = False,
        threshold: float = 0.5,
        pooling: str | None = None,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        max_sequence_length: int = 512,
        cleaning=None,
        strategy="full",
        **kwargs,
    ):
        super().__init__(
            backbone=backbone,
            tokenizer=tokenizer,
            cleaning=cleaning,
            max_sequence_length=max_sequence_length,
            strategy=strategy,
            **kwargs,
        )
        labels = list(labels)
        if wrong := [name for name in labels if not isinstance(name, str)]:
            raise InputError(
                f"labels must be strings; received {wrong[0]!r} among {labels}. Write numbers as "
                '"1".'
            )
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise InputError(f"labels must be two or more different names; received {labels}.")
        if not 0.0 < threshold < 1.0:
            raise InputError(f"threshold={threshold} must lie between 0 and 1.")
        if multi_label and self.strategy.name == "linear_probe":
            raise InputError(
                "linear_probe solves for one label a text; with multi_label=True choose another "
                "strategy, such as lora."
            )
        self.labels = labels
        self.multi_label = multi_label
        self.threshold = threshold
        self.pairs = pairs
        self._pair_tokenizer = None  # made with the first pairs: a loaded tokenizer is empty yet
        self.label_smoothing = label_smoothing
        self.pooling = Pooling(
            pooling or DEFAULT_POOLING[backbone.config.attention_mask],
            dtype=backbone.dtype_policy,
            name="pooling",
        )
        self.dropout = Dropout(dropout, dtype="float32", name="dropout")
        # As BERT and the Llamas draw theirs. A Llama's features are large: what Keras's three times
        # wider draw says of them has to be unlearned first (`docs/LOG.md`).
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.head = keras.layers.Dense(
            len(labels), kernel_initializer=small, dtype="float32", name="head"
        )
        self.head.build((None, backbone.config.hidden_dim))
        self.built = True

    def call(self, inputs, training=None):
        """Gives logits, float32 `(B, C)`, of token features."""
        hidden = self.backbone(inputs, training=training)
        pooled = self.pooling(hidden, inputs["padding_mask"])
        return self.head(self.dropout(pooled, training=training))

    def pair_tokenizer(self):
        """Gives what makes rows of pairs, a `data.text_pairs.PairTokenizer`."""
        from llama_keras.data.text_pairs import PairTokenizer

        return PairTokenizer(self.tokenizer, limit=self.max_sequence_length)

    def is_raw(self, x) -> bool:
        """Says whether `x` holds raw texts, or pairs where the model takes these.

        Raises:
            InputError: it holds pairs, but the model takes single texts.
        """
        if self.pairs:
            return is_raw_pairs(x)
        if are_pairs(x):
            raise InputError(
                "The examples are pairs of texts, but this model takes single texts; make it with "
                "pairs=True."
            )
        return is_raw_text(x)

    def example_rows(self, x, y):
        """Gives texts and labels as token rows; see `FineTunedTask.example_rows`."""
        return self.token_rows(*self._examples(x, y))

    def _examples(self, x, y=None):
        return (as_pairs_and_labels if self.pairs else as_texts_and_labels)(x, y)

    def default_loss(self):
        """Gives the cross-entropy over the classes, or the mean of those of each label."""
        if self.multi_label:
            return keras.losses.BinaryCrossentropy(
                from_logits=True, label_smoothing=self.label_smoothing
            )
        return SmoothedCrossEntropy(self.label_smoothing)

    def default_metrics(self):
        """Gives the accuracy; for several labels the subset accuracy and micro-averaged F1."""
        if self.multi_label:
            return label_set_metrics(self.threshold)
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def fit(self, x, y=None, **kwargs):
        """Fine-tunes; see `FineTunedTask.fit`.

        Args:
            x, y: see there.
            **kwargs: see there. `class_weight` has weights by label names or class numbers, 1 where
                a label is left out; or is `"balanced"`, for raw text: rare labels then count as
                much as frequent ones.

        Returns:
            A Keras `History`.

        Raises:
            InputError: `class_weight` with several labels a text, or with an unknown label; or see
                there.
        """
        if kwargs.get("class_weight") is not None:
            if self.multi_label:
                # Keras would take each row's first label for its class.
                raise InputError(
                    "class_weight is for one label a text; leave it out with multi_label."
                )
            if not self.is_raw(x):
                kwargs["class_weight"] = class_weights(kwargs["class_weight"], names=self.labels)
        return super().fit(x, y, **kwargs)

    def class_weights(self, given, rows):
        """Gives the weights of classes by their numbers; see `FineTunedTask.class_weights`."""
        return class_weights(given, names=self.labels, labels=rows.labels)

    def _fit_probe(self, train, validation, *, batch_size, callbacks=(), verbose="auto", **kwargs):
        """Solves the head; `callbacks` see one epoch, and `verbose` has nothing to show."""
        if kwargs:
            raise InputError(
                f"linear_probe solves its head without steps; leave {sorted(kwargs)} out."
            )
        from llama_keras.training.linear_probe import fit_probe

        if validation is None:
            train, validation = _hold_out(train)
        fit = fit_probe(
            self.backbone,
            train,
            validation,
            layer=self.strategy.layer,
            penalties=self.strategy.penalties,
            pooling=self.pooling.mode,
            batch_size=batch_size,
            num_classes=len(self.labels),
        )
        if fit.layer != self.backbone.config.num_layers:
            shorter = self.backbone.truncated(fit.layer)
            del self.backbone
            self.backbone = shorter
            self.backbone.trainable = False
        self.head.set_weights([fit.kernel, fit.bias])
        self.compile()
        seen = keras.callbacks.CallbackList(
            callbacks, add_history=True, model=self, epochs=1, steps=1, verbose=0
        )
        seen.on_train_begin()
        seen.on_epoch_begin(0)
        seen.on_epoch_end(0, {"val_accuracy": fit.accuracy})
        seen.on_train_end()
        history = self.history
        history.history.update(layer=[fit.layer], val_by_layer=[fit.by_layer])
        return history

    def predict(self, x, *, batch_size: int = 32, verbose="auto", **kwargs):
        """Gives one answer for each text.

        Args:
            x: list of N strings (or one string), N pairs where the model takes pairs, or token
                features as Keras takes them.
            batch_size: texts in a batch.
            verbose: 0 shows no progress bar.
            **kwargs: of `keras.Model.predict`, for token features.

        Returns:
            For raw text N dicts: `label`, `score` (its probability), `scores` (of every label);
            with `multi_label` `labels` (those above the threshold, in the model's order) and
            `scores`. For token features logits `(N, C)`.
        """
        if not self.is_raw(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)
        if kwargs:
            raise InputError(f"predict takes no {sorted(kwargs)} for raw text.")
        texts, _ = self._examples(x)
        if not texts:
            return []
        (logits,) = self.run_head(self.token_rows(texts), batch_size=batch_size, verbose=verbose)
        to_probabilities = _sigmoid if self.multi_label else _softmax
        return [self._answer(row) for row in to_probabilities(logits)]

    def _answer(self, probabilities) -> dict:
        scores = {k: float(p) for k, p in zip(self.labels, probabilities, strict=True)}
        if self.multi_label:
            chosen = [label for label, score in scores.items() if score > self.threshold]
            return {"labels": chosen, "scores": scores}
        best = int(np.argmax(probabilities))
        return {"label": self.labels[best], "score": float(probabilities[best]), "scores": scores}

    def token_rows(self, texts, labels=None):
        """Cleans and tokenizes texts and numbers labels.

        Args:
            texts: N strings, or tuples of two strings where the model takes pairs.
            labels: N labels or lists of labels, or None.

        Returns:
            `data.bucketing.TokenRows` with labels int32 `(N,)`, or `(N, C)` of 0 and 1.
        """
        from llama_keras.data.bucketing import TokenRows

        if labels is not None and len(labels) != len(texts):
            raise InputError(f"There are {len(texts)} texts but {len(labels)} labels.")
        rows = (self._pair_ids if self.pairs else self._text_ids)(list(texts))
        numbers = None if labels is None else self._label_numbers(labels)
        return TokenRows(rows, self.tokenizer.pad_id, numbers)

    def _text_ids(self, texts: list[str]) -> list[list[int]]:
        limit = self.max_sequence_length
        texts = clean_texts(texts, cleaning=self.cleaning)
        token_ids = self.tokenizer.encode(texts) if texts else []
        cut = sum(len(row) > limit for row in token_ids)
        if cut:
            logger.warning("%d of %d texts were cut to %d tokens", cut, len(texts), limit)
        # An empty text still gets an answer: that of a lone padding token.
        return [row[:limit] or [self.tokenizer.pad_id] for row in token_ids]

    def _pair_ids(self, pairs: list[tuple[str, str]]) -> list[list[int]]:
        first, second = (
            clean_texts([pair[place] for pair in pairs], cleaning=self.cleaning) for place in (0, 1)
        )
        if self._pair_tokenizer is None:
            self._pair_tokenizer = self.pair_tokenizer()
        token_ids, cut = self._pair_tokenizer.encode(first, second)
        if cut:
            limit = self.max_sequence_length
            logger.warning("%d of %d pairs were shortened to %d tokens", cut, len(pairs), limit)
        return token_ids

    def _label_numbers(self, labels):
        if self.multi_label:
            return label_matrix(labels, names=self.labels)
        if wrong := [x for x in labels if isinstance(x, (list, tuple, set, np.ndarray))]:
            raise InputError(
                f"Received the labels {wrong[0]!r:.80} for one text, but this model gives one "
                "label a text; make it with multi_label=True."
            )
        return label_numbers(labels, names=self.labels)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the task; names that an earlier version took as numbers become strings."""
        labels = [str(name) for name in config["labels"]]
        return super().from_config({**config, "labels": labels}, custom_objects)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "labels": self.labels,
            "pairs": self.pairs,
            "multi_label": self.multi_label,
            "threshold": self.threshold,
            "pooling": self.pooling.mode,
            "dropout": self.dropout.rate,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="llama_keras")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy of label numbers `(B,)` and logits `(B, C)` (arXiv 1512.00567, section 7).

    Args:
        smoothing: share of each target that is spread evenly over all classes.
        **kwargs: of `keras.losses.Loss`.
    """

    def __init__(self, smoothing: float = 0.0, *, name="cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        """Gives the loss of each example, `(B,)`."""
        log_probabilities = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)
        numbers = ops.reshape(ops.cast(y_true, "int32"), (-1, 1))
        exact = -ops.take_along_axis(log_probabilities, numbers, axis=-1)[:, 0]
        if not self.smoothing:
            return exact
        return (1 - self.smoothing) * exact - self.smoothing * ops.mean(log_probabilities, axis=-1)

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {**super().get_config(), "smoothing": self.smoothing}


def _softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _sigmoid(logits):
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _hold_out(rows):
    """Splits a tenth off, at random, to choose the probe's layer and penalty by."""
    count = len(rows.token_ids)
    held = np.zeros(count, bool)
    held[np.random.default_rng(0).permutation(count)[: max(count // 10, 1)]] = True
    return rows.take(np.flatnonzero(~held)), rows.take(np.flatnonzero(held))
