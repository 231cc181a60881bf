"""`TextClassifier`: raw text in, one label out.

Axes: N texts, B batch, T tokens, E model width, C classes.
"""

import logging
import math

import keras
import numpy as np

from llama_keras.errors import InputError
from llama_keras.layers import Pooling
from llama_keras.tasks.task import Task
from llama_keras.tasks.text_data import as_texts_and_labels, clean_texts, is_raw_text

logger = logging.getLogger("llama_keras")

# What a causal and a bidirectional model have seen of the text at their best token.
DEFAULT_POOLING = {"causal": "last", "bidirectional": "mean"}


@keras.saving.register_keras_serializable(package="llama_keras")
class TextClassifier(Task):
    """Classifies raw text with a Llama backbone, pooling and a dense layer.

    `fit`, `evaluate` and `predict` take a list of strings (and of labels), a `tf.data.Dataset` of
    `(text, label)`, or token features as Keras does.

    Args:
        backbone: a `LlamaBackbone`.
        tokenizer: a `text.Tokenizer`.
        labels: the class names.
        pooling: `"last"` or `"mean"`; by default the one that suits the attention mask.
        dropout: share of pooled features dropped in training.
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
        max_sequence_length: int = 512,
        cleaning=None,
        strategy="full",
        **kwargs,
    ):
        from llama_keras.training.fine_tuning import get_strategy

        super().__init__(backbone=backbone, tokenizer=tokenizer, cleaning=cleaning, **kwargs)
        labels = list(labels)
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise InputError(f"labels must be two or more different names; received {labels}.")
        self.labels = labels
        self.strategy = get_strategy(strategy)
        self.max_sequence_length = min(max_sequence_length, backbone.config.max_sequence_length)
        self.pooling = Pooling(
            pooling or DEFAULT_POOLING[backbone.config.attention_mask],
            dtype=backbone.dtype_policy,
            name="pooling",
        )
        self.dropout = keras.layers.Dropout(dropout, dtype="float32", name="dropout")
        self.head = keras.layers.Dense(len(labels), dtype="float32", name="head")
        self.head.build((None, backbone.config.hidden_dim))
        self._graph = None  # made by the first `predict`
        self.built = True

    def call(self, inputs, training=None):
        """Gives logits, float32 `(B, C)`, of token features."""
        hidden = self.backbone(inputs, training=training)
        pooled = self.pooling(hidden, inputs["padding_mask"])
        return self.head(self.dropout(pooled, training=training))

    def fit(
        self,
        x,
        y=None,
        *,
        validation_data=None,
        batch_size: int = 32,
        epochs: int = 1,
        seed: int = 0,
        **kwargs,
    ):
        """Fine-tunes by the task's strategy.

        Args:
            x: list of N strings, or a `tf.data.Dataset` of `(text, label)`; anything else goes to
                `keras.Model.fit` as it is.
            y: list of N labels (names, or numbers as in `labels`).
            validation_data: a pair `(texts, labels)` or a dataset.
            batch_size: texts in a batch.
            epochs: passes over the data.
            seed: of the order of texts.
            **kwargs: of `keras.Model.fit`; `linear_probe` takes `callbacks` and `verbose` only.

        Returns:
            A Keras `History`.

        Raises:
            InputError: no texts, a label that the model does not know, lengths that differ.
        """
        if not is_raw_text(x):
            return super().fit(
                x,
                y,
                validation_data=validation_data,
                batch_size=batch_size,
                epochs=epochs,
                **kwargs,
            )
        train = self.token_rows(*as_texts_and_labels(x, y))
        validation = None
        if validation_data is not None:
            pair = (
                validation_data if isinstance(validation_data, tuple) else (validation_data, None)
            )
            validation = self.token_rows(*as_texts_and_labels(*pair))
        self.strategy.prepare(self)
        self._graph = None  # LoRA and the probe change what a call computes
        if self.strategy.name == "linear_probe":
            return self._fit_probe(train, validation, batch_size=batch_size, **kwargs)
        return self._fit_steps(
            train, validation, batch_size=batch_size, epochs=epochs, seed=seed, **kwargs
        )

    def _fit_steps(self, train, validation, *, batch_size, epochs, seed, **kwargs):
        from llama_keras.data.bucketing import inference_batches, training_batches

        dataset, steps = training_batches(train, batch_size=batch_size, seed=seed)
        if not self.compiled:
            self.compile(total_steps=steps * epochs)
        if validation is not None:
            validation, _ = inference_batches(validation, batch_size=batch_size)
        return super().fit(
            dataset,
            steps_per_epoch=steps,
            validation_data=validation,
            epochs=epochs,
            **{"shuffle": False, **kwargs},
        )

    def _fit_probe(self, train, validation, *, batch_size, callbacks=(), verbose="auto"):
        """Solves the head; `callbacks` see one epoch, and `verbose` has nothing to show."""
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

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", total_steps=None, **kwargs):
        """Prepares training; `"auto"` chooses what suits the task.

        Args:
            optimizer: by default AdamW with the strategy's learning rate.
            loss: by default cross-entropy over the classes.
            metrics: by default the accuracy.
            total_steps: length of the schedule (a tenth of it warms up, then a cosine to zero);
                by default the rate stays.
            **kwargs: of `keras.Model.compile`.
        """
        if loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if metrics == "auto":
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        if optimizer == "auto":
            optimizer = _adamw(self.strategy.learning_rate, total_steps)
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def evaluate(self, x, y=None, *, batch_size: int = 32, **kwargs):
        """Gives loss and metrics as a dict, for raw text or token features."""
        kwargs = {"return_dict": True, **kwargs}
        if not is_raw_text(x):
            return super().evaluate(x, y, batch_size=batch_size, **kwargs)
        from llama_keras.data.bucketing import inference_batches

        if not self.compiled:
            self.compile()
        rows = self.token_rows(*as_texts_and_labels(x, y))
        dataset, _ = inference_batches(rows, batch_size=batch_size)
        return super().evaluate(dataset, **kwargs)

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
        from llama_keras.data.inference import graph_of, run_rows

        texts, _ = as_texts_and_labels(x, None)
        if not texts:
            return []
        if self._graph is None:
            self._graph = graph_of(lambda features: self(features, training=False))
        title = "predict" if verbose else ""
        (logits,) = run_rows(
            self._graph, self.token_rows(texts), batch_size=batch_size, title=title
        )
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

    def export(self, directory, **kwargs):
        """Writes a SavedModel that takes strings; see `serving.export.export_task`."""
        from llama_keras.serving.export import export_task

        return export_task(self, directory, **kwargs)

    def get_config(self):
        """Gives the arguments of the constructor."""
        from llama_keras.training.fine_tuning import strategy_config

        return {
            **super().get_config(),
            "labels": self.labels,
            "pooling": self.pooling.mode,
            "dropout": self.dropout.rate,
            "max_sequence_length": self.max_sequence_length,
            "strategy": strategy_config(self.strategy),
        }


def _adamw(learning_rate: float, total_steps: int | None):
    rate = learning_rate
    if total_steps:
        warmup = math.ceil(total_steps / 10)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=max(total_steps - warmup, 1),
            warmup_target=learning_rate,
            warmup_steps=warmup,
        )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["scale", "bias"])
    return optimizer


def _softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _hold_out(rows):
    """Splits a tenth off, at random, to choose the probe's layer and penalty by."""
    count = len(rows.token_ids)
    held = np.zeros(count, bool)
    held[np.random.default_rng(0).permutation(count)[: max(count // 10, 1)]] = True
    return rows.take(np.flatnonzero(~held)), rows.take(np.flatnonzero(held))
