"""`Embedder`: raw text in, one vector out; close vectors for texts that belong together.

Axes: N, M texts, V views, B batch, T tokens, E vector.
"""

import logging

import keras
import numpy as np
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import Pooling
from llama_keras.tasks.embedding_loss import InBatchContrastive, RetrievalAccuracy
from llama_keras.tasks.fine_tuned import FineTunedTask
from llama_keras.tasks.pair_data import as_texts, as_views, is_raw_views
from llama_keras.tasks.text_classifier import DEFAULT_POOLING
from llama_keras.tasks.text_data import clean_texts

logger = logging.getLogger("llama_keras")


@keras.saving.register_keras_serializable(package="llama_keras")
class Embedder(FineTunedTask):
    """Turns raw text into vectors with a Llama backbone and pooling.

    `predict` takes a list of strings. `fit` and `evaluate` take examples of one form, as a list
    or a `tf.data.Dataset`: `(anchor, positive)` pairs, or `(anchor, positive, negative)` triples,
    each anchor to be closer to its positive than to all others of the batch; single texts, each
    to be found under another draw of dropout (SimCSE, arXiv 2104.08821; `fit` alone); single texts
    and labels, equal labels to be close. Equal texts are never each other's negatives.

    Args:
        backbone: a `LlamaBackbone`.
        tokenizer: a `text.Tokenizer`.
        pooling: `"last"` or `"mean"`; by default the one that suits the attention mask.
        normalize: whether vectors have length 1.
        dimensions: the first so many numbers of a vector are kept, and scaled to length 1 again
            (arXiv 2205.13147); training sees the short vectors. By default all.
        layer: the block that vectors are taken from, through the final norm; those above are
            dropped. By default the last.
        temperature: of the similarities in training.
        max_sequence_length: tokens after which a text is cut.
        cleaning: see `TextClassifier`.
        strategy: a name of `training.fine_tuning.STRATEGIES` but `"linear_probe"`, or such an
            object.

    Example:
    ```python
    model = Embedder.from_preset("llama-tiny", strategy="lora")
    pairs = [("How are you?", "你好吗？"), ("Thank you.", "谢谢。"), ("Good night.", "晚安。")]
    model.fit(pairs, epochs=1, verbose=0)
    vectors = model.predict(["Thanks!", "谢谢。"], verbose=0)  # float32 (2, 64)
    model.similarity("Thanks!", ["谢谢。", "晚安。"])  # cosines, float32 (1, 2)
    ```
    """

    cleans_text = True
    loss_couples_rows = True

    def __init__(
        self,
        *,
        backbone,
        tokenizer,
        pooling: str | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        layer: int | None = None,
        temperature: float = 0.05,
        max_sequence_length: int = 512,
        cleaning=None,
        strategy="full",
        **kwargs,
    ):
        if layer is not None and layer != backbone.config.num_layers:
            backbone = backbone.truncated(layer)
        super().__init__(
            backbone=backbone,
            tokenizer=tokenizer,
            cleaning=cleaning,
            max_sequence_length=max_sequence_length,
            strategy=strategy,
            **kwargs,
        )
        width = backbone.config.hidden_dim
        if dimensions is not None and not 2 <= dimensions <= width:
            raise InputError(f"dimensions must lie in 2 … {width}; received {dimensions!r}.")
        if not temperature > 0:
            raise InputError(f"temperature must be positive; received {temperature!r}.")
        self.dimensions = dimensions or width
        self.normalize, self.temperature = normalize, temperature
        self.pooling = Pooling(
            pooling or DEFAULT_POOLING[backbone.config.attention_mask],
            dtype="float32",
            name="pooling",
        )
        self.built = True

    def call(self, inputs, training=None):
        """Gives vectors, float32 `(B, E)`, of token features.

        Training's features hold further texts, under names that begin with `positive_` and
        `negative_`; then the answer is `(B, V, E)`.
        """
        prefixes = [name.removesuffix("token_ids") for name in inputs if name.endswith("token_ids")]
        vectors = [
            self._vectors(inputs[f"{p}token_ids"], inputs[f"{p}padding_mask"], training)
            for p in sorted(prefixes, key=("", "positive_", "negative_").index)
        ]
        return vectors[0] if len(vectors) == 1 else ops.stack(vectors, axis=1)

    def _vectors(self, token_ids, padding_mask, training):
        features = {"token_ids": token_ids, "padding_mask": padding_mask}
        hidden = self.backbone(features, training=training)
        pooled = self.pooling(hidden, padding_mask)[:, : self.dimensions]
        return ops.normalize(pooled, axis=-1) if self.normalize else pooled

    def is_raw(self, x) -> bool:
        """Says whether `x` holds texts, pairs or triples, not token features."""
        return is_raw_views(x)

    def default_loss(self):
        """Gives InfoNCE, or for texts with labels the supervised contrastive loss."""
        return InBatchContrastive(self.temperature)

    def default_metrics(self):
        """Gives the share of examples that find their own text in the batch."""
        return [RetrievalAccuracy()]

    def example_rows(self, x, y=None):
        """Gives examples as `data.pairs.ViewRows`.

        Raises:
            InputError: an example is not what the task takes, or there is nothing to tell apart.
        """
        from llama_keras.data.pairs import ViewRows

        found = as_views(x, y)
        views = tuple(self.token_rows(column) for column in found.columns)
        if found.labels is not None:
            classes = {label: number for number, label in enumerate(dict.fromkeys(found.labels))}
            numbers = np.array([classes[label] for label in found.labels], "int32")
            if not 1 < len(classes) < len(numbers):
                raise InputError(
                    "Learning from labels needs two or more of them, and one that two texts have; "
                    f"received {len(numbers)} texts with {len(classes)} labels."
                )
            return ViewRows(views, numbers)
        if len(views) == 1:
            if not self.backbone.config.dropout:
                raise InputError(
                    "Single texts are told apart under two draws of dropout, and this backbone has "
                    "none; make the model with backbone_arguments={'dropout': 0.1}, or give pairs."
                )
            views *= 2
        rows = ViewRows(views, _text_numbers(views))
        _check_negatives(rows)
        return rows

    def _fit_steps(self, train, validation, *, batch_size, epochs, seed, checkpoints, **kwargs):
        from llama_keras.data.pairs import view_batches
        from llama_keras.training.run_identity import digest_of

        if batch_size < 2 and len(train.views) < 3:
            raise InputError(
                f"batch_size={batch_size} leaves no negatives: they are the other examples of a "
                "batch. Take 2 or more, the more the better."
            )
        if validation is not None:
            _check_retrieval(validation)
        order = {"batch_size": batch_size, "seed": seed}

        def batches(share, first_step):
            return view_batches(train, first_step=first_step, share=share, **order)[0]

        return self.fit_stream(
            (batches, -(-len(train.numbers) // batch_size), None),
            lengths=None,
            order=order,
            validation=validation,
            checkpoints=checkpoints,
            identity=lambda: {"data": digest_of(train)},
            epochs=epochs,
            **kwargs,
        )

    def _inference_batches(self, rows, batch_size: int):
        # The same company for each text every time.
        import tensorflow as tf

        from llama_keras.data.pairs import view_batches

        steps = -(-len(rows.numbers) // batch_size)

        def batches(share):
            dataset, _ = view_batches(rows, batch_size=batch_size, seed=0, share=share)
            count = steps * share.count
            # Keras warns of data sets that end where it did not see it coming.
            return dataset.take(count).apply(tf.data.experimental.assert_cardinality(count))

        return self.once(batches, steps=steps)

    def evaluate(self, x, y=None, *, batch_size: int = 32, **kwargs):
        """Gives `loss` and `retrieval_accuracy` within batches, as a dict.

        Args:
            x: pairs, triples, or single texts; or token features.
            y: labels of single texts.
            batch_size: examples in a batch; both numbers depend on it. Who meets whom is drawn
                once and for all.
            **kwargs: of `keras.Model.evaluate`.
        """
        if not self.is_raw(x):
            return super().evaluate(x, y, batch_size=batch_size, **kwargs)
        rows = self.example_rows(x, y)
        _check_retrieval(rows)
        self.compile_by_default()
        batches, steps = self._inference_batches(rows, batch_size)
        return keras.Model.evaluate(
            self, batches, **{"return_dict": True, "steps": steps, **kwargs}
        )

    def predict(self, x, *, batch_size: int = 32, verbose: int | str = "auto", **kwargs):
        """Gives one vector for each text.

        Args:
            x: list of N strings (or one string), or token features as Keras takes them. An empty
                text has the vector of a lone padding token.
            batch_size: texts in a batch.
            verbose: 0 shows no progress bar.
            **kwargs: of `keras.Model.predict`, for token features.

        Returns:
            float32 `(N, E)`.

        Raises:
            InputError: `x` is a list, but not of texts.
        """
        if not self.is_raw(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)
        if kwargs:
            raise InputError(f"predict takes no {sorted(kwargs)} for raw text.")
        texts = as_texts(x)
        if not texts:
            return np.zeros((0, self.dimensions), "float32")
        rows = self.token_rows(texts)
        return self.run_head(rows, batch_size=batch_size, verbose=verbose)[0]

    def similarity(self, a, b=None, *, batch_size: int = 32):
        """Gives the cosine of each of `a` and each of `b`.

        Args:
            a: N texts, or their vectors, float `(N, E)`.
            b: M texts or vectors; by default `a`.
            batch_size: texts in a batch.

        Returns:
            float32 `(N, M)`.
        """
        left = self._unit(a, batch_size)
        right = left if b is None else self._unit(b, batch_size)
        if left.shape[-1] != right.shape[-1]:
            raise InputError(f"Vectors of shapes {left.shape} and {right.shape} do not compare.")
        return left @ right.T

    def _unit(self, x, batch_size: int) -> np.ndarray:
        is_vectors = isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.ndim == 2
        vectors = x if is_vectors else self.predict(x, batch_size=batch_size, verbose=0)
        vectors = np.asarray(vectors, "float32")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)

    def search(self, queries, documents, *, top_k: int = 5, batch_size: int = 32) -> list:
        """Gives the documents nearest to each query.

        Args:
            queries: N texts or vectors.
            documents: M texts or vectors.
            top_k: most documents for each query.
            batch_size: texts in a batch.

        Returns:
            N lists of dicts: `index` of the document and `score`, its cosine; the best first.
        """
        if top_k < 1:
            raise InputError(f"top_k must be at least 1; received {top_k}.")
        scores = self.similarity(queries, documents, batch_size=batch_size)
        order = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
        return [
            [{"index": int(i), "score": float(row[i])} for i in best]
            for row, best in zip(scores, order, strict=True)
        ]

    def token_rows(self, texts):
        """Cleans and tokenizes texts, as `data.bucketing.TokenRows`."""
        from llama_keras.data.bucketing import TokenRows

        limit, pad_id = self.max_sequence_length, self.tokenizer.pad_id
        texts = clean_texts(list(texts), cleaning=self.cleaning)
        token_ids = self.tokenizer.encode(texts) if texts else []
        if cut := sum(len(row) > limit for row in token_ids):
            logger.warning("%d of %d texts were cut to %d tokens", cut, len(texts), limit)
        return TokenRows([row[:limit] or [pad_id] for row in token_ids], pad_id)

    def get_config(self):
        """Gives the arguments of the constructor; the backbone ends at `layer` already."""
        return {
            **super().get_config(),
            "pooling": self.pooling.mode,
            "normalize": self.normalize,
            "dimensions": self.dimensions,
            "temperature": self.temperature,
        }


def _text_numbers(views) -> np.ndarray:
    """Gives int32 `(N, V)`, equal for texts that are equal to the model."""
    known: dict[tuple[int, ...], int] = {}
    columns = [
        [known.setdefault(tuple(row), len(known)) for row in view.token_ids] for view in views
    ]
    return np.array(columns, "int32").T


def _check_negatives(rows) -> None:
    numbers = rows.numbers
    if len(rows.views) == 3:
        if (wrong := np.flatnonzero(np.any(numbers[:, :2] == numbers[:, 2:], axis=1))).size:
            raise InputError(
                f"Example {wrong[0]} has a negative that equals its anchor or its positive."
            )
    elif len(np.unique(numbers[:, 1])) < 2:
        raise InputError(
            "There are no negatives: they are the other examples of a batch. Give at least two "
            "different examples, or triples."
        )


def _check_retrieval(rows) -> None:
    if rows.is_same_twice:
        raise InputError(
            "A text always finds itself, so single texts measure nothing; evaluate on pairs, or on "
            "texts with labels."
        )
