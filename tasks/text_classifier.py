"""`TextClassifier`: raw text in, one label out.

Axes: N texts, B batch, T tokens, E model width, C classes.
"""

import logging

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import Pooling
from llama_keras.tasks.fine_tuned import FineTunedTask
from llama_keras.tasks.text_data import as_texts_and_labels, clean_texts, is_raw_text

logger = logging.getLogger("llama_keras")

# What a causal and a bidirectional model have seen of the text at their best token.
DEFAULT_POOLING = {"causal": "last", "bidirectional": "mean"}


@keras.saving.register_keras_serializable(package="llama_keras")
class TextClassifier(FineTunedTask):
    """Classifies raw text with a Llama backbone, pooling and a dense layer.

    `fit`, `evaluate` and `predict` take a list of strings (and of labels), a `tf.data.Dataset` of
    `(text, label)`, or token features as Keras does.

    Args:
        backbone: a `LlamaBackbone`.
        tokenizer: a `text.Tokenizer`.
        labels: the class names.
        pooling: `"last"` or `"mean"`; by default the one that suits the attention mask.
        dropout: share of pooled features dropped in training.
        label_smoothing: share of each target spread over all labels in the default loss.
        max_sequence_length: tokens after which a text is cut.
        cleaning: steps of `text.cleaning` that raw text goes through first, such as
            `["lower", "collapse_whitespace"]`; by default none.
        strategy: `"full"`, `"linear_probe"`, `"lora"`, or an object of `training.fine_tuning`.

    Example:
    ```python
    model = TextClassifier.from_preset("llama-tiny", labels=["negative", "positive"])
    model.fit(["Awful.", "Lovely."], ["negative", "positive"], epochs=1, verbose=0)
    model.predict(["A lovely film."])  # [{"label": …, "score": …, "scores": {…}}]
    ```
    """

    cleans_text = True

    def __init__(
        self,
        *,
        backbone,
        tokenizer,
        labels,
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
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise InputError(f"labels must be two or more different names; received {labels}.")
        self.labels = labels
        self.label_smoothing = label_smoothing
        self.pooling = Pooling(
            pooling or DEFAULT_POOLING[backbone.config.attention_mask],
            dtype=backbone.dtype_policy,
            name="pooling",
        )
        self.dropout = keras.layers.Dropout(dropout, dtype="float32", name="dropout")
        self.head = keras.layers.Dense(len(labels), dtype="float32", name="head")
        self.head.build((None, backbone.config.hidden_dim))
        self.built = True

    def call(self, inputs, training=None):
        """Gives logits, float32 `(B, C)`, of token features."""
        hidden = self.backbone(inputs, training=training)
        pooled = self.pooling(hidden, inputs["padding_mask"])
        return self.head(self.dropout(pooled, training=training))

    def example_rows(self, x, y):
        """Gives texts and labels as token rows; see `FineTunedTask.example_rows`."""
        return self.token_rows(*as_texts_and_labels(x, y))

    def default_loss(self):
        """Gives the cross-entropy over the classes."""
        return SmoothedCrossEntropy(self.label_smoothing)

    def default_metrics(self):
        """Gives the accuracy."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

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
            x: list of N strings (or one string), or token features as Keras takes them.
            batch_size: texts in a batch.
            verbose: 0 shows no progress bar.
            **kwargs: of `keras.Model.predict`, for token features.

        Returns:
            For raw text N dicts: `label`, `score` (its probability), `scores` (of every label).
            For token features logits `(N, C)`.
        """
        if not is_raw_text(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)
        if kwargs:
            raise InputError(f"predict takes no {sorted(kwargs)} for raw text.")
        texts, _ = as_texts_and_labels(x, None)
        if not texts:
            return []
        (logits,) = self.run_head(self.token_rows(texts), batch_size=batch_size, verbose=verbose)
        return [self._answer(row) for row in _softmax(logits)]

    def _answer(self, probabilities) -> dict:
        best = int(np.argmax(probabilities))
        return {
            "label": self.labels[best],
            "score": float(probabilities[best]),
            "scores": {k: float(p) for k, p in zip(self.labels, probabilities, strict=True)},
        }

    def token_rows(self, texts, labels=None):
        """Cleans and tokenizes texts and numbers labels, as `data.bucketing.TokenRows`."""
        from llama_keras.data.bucketing import TokenRows

        if labels is not None and len(labels) != len(texts):
            raise InputError(f"There are {len(texts)} texts but {len(labels)} labels.")
        limit = self.max_sequence_length
        texts = clean_texts(list(texts), cleaning=self.cleaning)
        token_ids = self.tokenizer.encode(texts) if texts else []
        cut = sum(len(row) > limit for row in token_ids)
        if cut:
            logger.warning("%d of %d texts were cut to %d tokens", cut, len(texts), limit)
        pad_id = self.tokenizer.pad_id
        # An empty text still gets an answer: that of a lone padding token.
        rows = [row[:limit] or [pad_id] for row in token_ids]
        numbers = None if labels is None else self._label_numbers(labels)
        return TokenRows(rows, pad_id, numbers)

    def _label_numbers(self, labels):
        numbers = {name: number for number, name in enumerate(self.labels)}
        if all(isinstance(x, (int, np.integer)) for x in labels):
            wrong = {int(x) for x in labels} - set(numbers.values())
            found = [int(x) for x in labels]
        else:
            wrong = {x for x in labels if x not in numbers}
            found = [numbers.get(x, -1) for x in labels]
        if wrong:
            shown = sorted(map(str, wrong))[:5]
            raise InputError(f"Unknown label {', '.join(shown)}; the model knows {self.labels}.")
        return np.array(found, dtype="int32")

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "labels": self.labels,
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


def _hold_out(rows):
    """Splits a tenth off, at random, to choose the probe's layer and penalty by."""
    count = len(rows.token_ids)
    held = np.zeros(count, bool)
    held[np.random.default_rng(0).permutation(count)[: max(count // 10, 1)]] = True
    return rows.take(np.flatnonzero(~held)), rows.take(np.flatnonzero(held))
