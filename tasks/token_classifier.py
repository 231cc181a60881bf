"""`TokenClassifier`: raw text in, named entities with their places out.

Axes: N texts, B batch, T tokens, U units of a text (`text.units`), C tags.
"""

import logging

import keras
from keras import ops

from llama_keras.errors import InputError
from llama_keras.layers import LinearChainCRF
from llama_keras.layers.dropout import Dropout
from llama_keras.tasks import tagging
from llama_keras.tasks.entity_data import (
    SpanReport,
    as_texts_and_spans,
    is_raw_entities,
    unit_tags,
)
from llama_keras.tasks.fine_tuned import FineTunedTask
from llama_keras.tasks.tag_loss import TagAccuracy, TagLoss

logger = logging.getLogger("llama_keras")

HEADS = ("dense", "crf")
SCHEMES = ("IOB2", "IOBES")
# A causal model has seen a word only at its last token.
DEFAULT_TAGGED_TOKEN = {"causal": "last", "bidirectional": "first"}
# The transitions learn this much faster than a pretrained model.
CRF_SCALE = 100.0


@keras.saving.register_keras_serializable(package="llama_keras")
class TokenClassifier(FineTunedTask):
    """Finds named entities with a Llama backbone and a tag for each word.

    `fit` and `evaluate` take lists of words with lists of tags, or texts with lists of
    `{"start", "end", "label"}` in characters (Unicode code points), or a `tf.data.Dataset` of
    (words, tags). Words are joined to a text first, so that training reads what `predict` reads.

    A text is cut into units by a rule that needs only the text: words, marks of punctuation,
    characters of scripts without spaces; tokens that share one make one unit (see `text.units`).
    One token of each unit has its tag. What does not fit the units is counted and logged, see
    `span_report`. A text longer than `max_sequence_length` tokens is read in overlapping windows.

    Args:
        backbone: a `LlamaBackbone`.
        tokenizer: a `text.Tokenizer`.
        labels: the types of entities.
        scheme: `"IOB2"` or `"IOBES"`, how the head spells entities.
        head: `"dense"` (each tag by itself) or `"crf"` (whole sequences); both answer with the best
            legal sequence.
        tagged_token: `"first"` or `"last"` token of a unit; by default first, but last for a causal
            model, which has not seen the word before.
        word_separator: stands between words that are joined; see `entity_data.join_words`.
        dropout: share of features dropped in training.
        max_sequence_length: tokens of a window.
        cleaning: steps of `text.cleaning` that keep characters in their places.
        strategy: `"full"`, `"lora"`, or an object of `training.fine_tuning`.

    Example:
    ```python
    model = TokenClassifier.from_preset("llama-tiny", labels=["PER", "LOC"])
    model.fit([["Ann", "Lee", "in", "Rome"]], [["B-PER", "I-PER", "O", "B-LOC"]], verbose=0)
    model.predict(["Ann Lee in Rome"])  # [[{"text": …, "label": …, "start": …, "end": …, …}]]
    ```
    """

    cleans_text = tells_places = True

    def __init__(
        self,
        *,
        backbone,
        tokenizer,
        labels,
        scheme: str = "IOB2",
        head: str = "dense",
        tagged_token: str | None = None,
        word_separator: str | None = None,
        dropout: float = 0.0,
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
        self.labels = list(labels)
        self.scheme, self.head_kind = scheme, head
        self.tagged_token = tagged_token or DEFAULT_TAGGED_TOKEN[backbone.config.attention_mask]
        self.word_separator = word_separator
        self._check_arguments()
        self.tags = tagging.tag_names(self.labels, scheme=scheme)
        self.dropout = Dropout(dropout, dtype="float32", name="dropout")
        self.head = keras.layers.Dense(len(self.tags), dtype="float32", name="head")
        self.head.build((None, None, backbone.config.hidden_dim))
        self.chain = LinearChainCRF(
            len(self.tags),
            **tagging.allowed(self.tags, scheme=scheme),
            learned=head == "crf",
            scale=CRF_SCALE,
            dtype="float32",
            name="chain",
        )
        self._runner = None  # made when first asked for
        self.built = True

    def _check_arguments(self):
        labels = self.labels
        if not labels or len(set(labels)) != len(labels) or not all(labels):
            raise InputError(f"labels must be one or more different types; received {labels}.")
        given = (
            ("scheme", self.scheme, SCHEMES),
            ("head", self.head_kind, HEADS),
            ("tagged_token", self.tagged_token, ("first", "last")),
        )
        for name, value, known in given:
            if value not in known:
                raise InputError(f"{name}={value!r} is not known; expected one of {list(known)}.")

    def call(self, inputs, training=None):
        """Gives the scores of tags, float32 `(B, T, C)`, of token features."""
        hidden = self.backbone(inputs, training=training)
        return self.head(self.dropout(hidden, training=training))

    def is_raw(self, x) -> bool:
        """Says whether `x` holds texts or lists of words, not token features."""
        return is_raw_entities(x)

    def default_loss(self):
        """Gives the mean over tagged tokens of the negative log-likelihood."""
        return TagLoss(self.chain if self.head_kind == "crf" else None)

    def default_metrics(self):
        """Gives the accuracy of tags, of the best legal sequence."""
        return [TagAccuracy(self.chain, name="accuracy")]

    def texts_and_spans(self, x, y=None):
        """Gives raw examples as texts and lists of `tagging.Span` in characters, as `fit` does.

        Raises:
            InputError: an example is malformed, or a label is not among the model's.
        """
        texts, spans = as_texts_and_spans(x, y, separator=self.word_separator)
        for number, row in enumerate(spans or []):
            unknown = sorted({span.label for span in row} - set(self.labels))
            if unknown:
                raise InputError(
                    f"Text {number} has an entity of the unknown type {unknown[0]!r}; the model "
                    f"knows {self.labels}."
                )
        return texts, spans

    def example_rows(self, x, y):
        """Gives the windows of texts with a tag number for each token; see `FineTunedTask`."""
        return self._rows_and_report(x, y, warn=True)[0]

    def span_report(self, x, y) -> SpanReport:
        """Gives how many entities fit the units and windows, and how many do not, and why."""
        return self._rows_and_report(x, y, warn=False)[1]

    def _rows_and_report(self, x, y, *, warn: bool):
        texts, spans = self.texts_and_spans(x, y)
        if spans is None:
            raise InputError("There are no entities to learn from; pass tags or spans as y.")
        from llama_keras.data.bucketing import TokenRows

        report = SpanReport()
        rows: tuple[list, list] = ([], [])
        for batch in self.runner.encoded(texts):
            windows, labels = self._labelled(batch, texts, spans, report)
            rows[0].extend(windows)
            rows[1].extend(labels)
        if warn and report.misfits:
            logger.warning("%s", report)
        return TokenRows(rows[0], self.tokenizer.pad_id, rows[1]), report

    def _labelled(self, batch, texts, spans, report: SpanReport):
        """Gives the windows of a batch of texts and the labels of their tokens."""
        from llama_keras.data.entity_runner import training_rows

        numbers = {tag: number for number, tag in enumerate(self.tags)}
        tags, entities = [], []
        for index in range(len(batch)):
            number, units = batch.first + index, batch.of(index)
            names, found = unit_tags(
                texts[number],
                spans[number],
                batch.starts[units],
                batch.ends[units],
                scheme=self.scheme,
                report=report,
                where=f"text {number}",
            )
            tags.append([numbers[name] for name in names])
            entities.append(found)
        labels, cut = training_rows(batch, tags, entities)
        for index, entity in cut:
            number, units = batch.first + index, batch.of(index)
            first, last = entities[index][entity]
            start, end = batch.starts[units][first], batch.ends[units][last - 1]
            place = tagging.Span(int(start), int(end), "")
            report.add("cut", f"text {number}", texts[number], place)
        return batch.windows, labels

    @property
    def entity_graph(self):
        """The graphs before and after the model, see `data.entities.EntityGraph`."""
        from llama_keras.data.entities import EntityGraph

        split = [tagging.split_tag(tag) for tag in self.tags]
        return EntityGraph(
            tokenizer=self.tokenizer,
            cleaning=self.cleaning,
            limit=self.max_sequence_length,
            tagged_token=self.tagged_token,
            begins=tuple(prefix in ("B", "S") for prefix, _ in split),
            labels=tuple(self.labels.index(name) if name else 0 for _, name in split),
        )

    @property
    def runner(self):
        """What runs these graphs on Python strings, see `data.entity_runner.EntityRunner`."""
        from llama_keras.data.entity_runner import EntityRunner

        if self._runner is None:
            self._runner = EntityRunner(self.entity_graph, self.best_tags)
        return self._runner

    def best_tags(self, emissions, mask):
        """Gives the best legal tags, int32 `(B, U)`, and the probability of each, float32."""
        tags = self.chain(emissions, mask)
        marginals = self.chain.marginals(emissions, mask)
        return tags, ops.take_along_axis(marginals, tags[..., None], axis=-1)[..., 0]

    def predict(self, x, *, batch_size: int = 32, verbose="auto", **kwargs):
        """Gives the entities of each text.

        Args:
            x: list of N texts (or one), or of lists of words, which are joined as in training; or
                token features as Keras takes them.
            batch_size: windows in a batch.
            verbose: 0 shows no progress bar.
            **kwargs: of `keras.Model.predict`, for token features.

        Returns:
            For raw text N lists of dicts, in the order of the text: `text`, `label`, `start` and
            `end` (characters of the raw text, code points, so that `text == raw[start:end]`),
            `score` (mean probability of its tags). For token features scores `(N, T, C)`.
        """
        if not is_raw_entities(x):
            return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)
        if kwargs:
            raise InputError(f"predict takes no {sorted(kwargs)} for raw text.")
        from llama_keras.data.inference import graph_of

        texts, _ = self.texts_and_spans(x)
        if self._graph is None:
            self._graph = graph_of(lambda features: self(features, training=False))
        rows = self.runner.entities(
            self._graph, texts, batch_size=batch_size, title="predict" if verbose else ""
        )
        return [
            [
                {
                    "text": text[start:end],
                    "label": self.labels[label],
                    "start": start,
                    "end": end,
                    "score": score,
                }
                for start, end, label, score in row
            ]
            for text, row in zip(texts, rows, strict=True)
        ]

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            "labels": self.labels,
            "scheme": self.scheme,
            "head": self.head_kind,
            "tagged_token": self.tagged_token,
            "word_separator": self.word_separator,
            "dropout": self.dropout.rate,
        }
