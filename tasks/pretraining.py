"""`Pretraining`: plain text in, a backbone that has learned by an objective out.

Axes: N texts, B batch, T tokens, V vocabulary.
"""

import logging
from dataclasses import replace
from typing import Any, ClassVar

import keras

from llama_keras.errors import InputError
from llama_keras.objectives import get_objective, objective_config
from llama_keras.tasks.mask_tokens import MaskTokens
from llama_keras.tasks.objective_scores import ObjectiveScores
from llama_keras.tasks.task import Task
from llama_keras.tasks.text_data import as_texts_and_labels, clean_texts, is_raw_text

logger = logging.getLogger("llama_keras")

# What corrupts texts unless somebody says otherwise, by the objective's layout.
DEFAULT_CORRUPTION = {"corrupted": "random_masking", "prefix": "random_deletion"}
LONG_TEXTS = ("cut", "split")


def room_of(layout: str, max_sequence_length: int) -> int:
    """Gives the number of a text's own tokens that a row of an objective's layout takes."""
    if layout == "prefix":  # the text twice, a separator and an end
        return (max_sequence_length - 2) // 2
    return max_sequence_length


def text_rules(layout: str, tokenizer) -> dict[str, bool]:
    """Gives the arguments of `Tokenizer.encode` for the texts of an objective's layout."""
    if layout == "prefix":  # the layout has its own separator and end
        return {"add_bos": False, "add_eos": False}
    # Where a text ends is the one thing that a causal model cannot learn elsewhere.
    has_end = tokenizer.eos_id is not None
    return {"add_eos": True} if layout == "clean" and has_end else {}


@keras.saving.register_keras_serializable(package="llama_keras")
class Pretraining(ObjectiveScores, Task):
    """Trains a backbone on plain text by an objective of `objectives.OBJECTIVES`.

    As a Keras model it maps token features to logits `(B, T, V)`, or, given `targets` and
    `weights` among them, to the objective's `Scores`, for which the logits never exist at once.
    Losses, accuracies and perplexities are means over the predicted tokens, whatever the batches.

    Args:
        backbone: a `LlamaBackbone` whose attention mask suits the objective.
        tokenizer: a `text.Tokenizer`.
        objective: a name, settings or object, see `objectives.get_objective`.
        corruption: a name, settings or object, see `text.corruption.get_corruption`; by default
            masking or, for `"denoising"`, deletion. Objectives on clean text take none.
        mask_id, separator_id, sentinel_ids: see `mask_tokens.MaskTokens`; by default ids that no
            text holds.
        max_sequence_length: tokens of one row.
        long_texts: `"cut"` leaves out what is beyond that, `"split"` makes further rows of it.
        cleaning: see `Task`.

    Example:
    ```python
    model = Pretraining.from_preset("llama-tiny", objective="causal")
    model.fit(["Rain falls in May.", "Snow falls in winter."], epochs=2, verbose=0)
    print(model.evaluate(["Snow falls."], verbose=0))  # {"loss": …, "accuracy": …, "perplexity": …}
    ```
    """

    cleans_text = True
    default_objective: ClassVar[str] = "causal"
    # Layouts of the objectives that the task's answers come from.
    layouts: ClassVar[tuple[str, ...]] = ("clean", "corrupted", "prefix", "views")

    def __init__(
        self,
        *,
        backbone,
        tokenizer,
        objective=None,
        corruption=None,
        mask_id: int | None = None,
        separator_id: int | None = None,
        sentinel_ids=None,
        max_sequence_length: int = 512,
        long_texts: str = "cut",
        cleaning=None,
        **kwargs,
    ):
        super().__init__(backbone=backbone, tokenizer=tokenizer, cleaning=cleaning, **kwargs)
        self.objective: Any = get_objective(objective or self.default_objective)
        self._check_objective()
        if long_texts not in LONG_TEXTS:
            raise InputError(f"long_texts must be one of {LONG_TEXTS}; received {long_texts!r}.")
        self.long_texts = long_texts
        self.max_sequence_length = min(max_sequence_length, backbone.config.max_sequence_length)
        if self.row_limit < 1:
            raise InputError(
                f"max_sequence_length={self.max_sequence_length} leaves no room for a text."
            )
        self.corruption = self._get_corruption(corruption)
        self._given_ids = {
            "mask_id": mask_id,
            "separator_id": separator_id,
            "sentinel_ids": sentinel_ids,
        }
        self._noise = self._mask_tokens = None  # a loaded model's tokenizer is filled later
        self._check_sentinels()
        self.make_token_metrics()
        self.built = True

    def _check_objective(self):
        if self.objective.layout not in self.layouts:
            raise InputError(
                f"A {type(self).__name__} does not learn by the objective {self.objective.name!r}; "
                f"use {self.default_objective!r}, or the task Pretraining."
            )
        if getattr(self.objective, "views", "dropout") != "dropout":
            raise InputError("Plain texts have no pairs; use contrastive with views='dropout'.")
        self.objective.check(self.backbone)

    def _get_corruption(self, corruption):
        from llama_keras.data.corrupted import check_corruption
        from llama_keras.text.corruption import get_corruption

        layout = self.objective.layout
        found = get_corruption(corruption or DEFAULT_CORRUPTION.get(layout))
        if found is not None and layout not in DEFAULT_CORRUPTION:
            raise InputError(
                f"The objective {self.objective.name!r} learns from clean text; leave corruption "
                "out, or take 'masked' or 'denoising'."
            )
        check_corruption(found, layout=layout)
        return found

    @property
    def _has_sentinels(self) -> bool:
        return getattr(self.corruption, "marker", None) == "sentinel"

    def _check_sentinels(self):
        # A loaded model was given those that it was saved with.
        if not self._has_sentinels or self._given_ids["sentinel_ids"]:
            return
        if not self.mask_tokens.sentinel_ids:
            raise InputError(
                "span_corruption with marker='sentinel' needs ids that no text holds, and "
                "the vocabulary has none to spare beside mask and separator. Take marker='mask', "
                "give sentinel_ids=[…], or build the backbone with a vocabulary_size larger than "
                f"the tokenizer's {self.tokenizer.vocabulary_size}."
            )

    @property
    def mask_tokens(self) -> MaskTokens:
        """The ids of mask, separator, end and sentinels."""
        if self._mask_tokens is None:
            size = self.backbone.config.vocabulary_size
            self._mask_tokens = MaskTokens.of(
                self.tokenizer, vocabulary_size=size, **self._given_ids
            )
        return self._mask_tokens

    @property
    def sentinel_ids(self) -> tuple[int, ...]:
        """The ids of hidden spans in their order, where the corruption marks spans so."""
        return self.mask_tokens.sentinel_ids if self._has_sentinels else ()

    @property
    def noise(self):
        """What makes the objective's inputs, a `data.corrupted.Noise`."""
        from llama_keras.data.corrupted import Noise
        from llama_keras.text.corruption_rows import NoiseVocabulary

        if self._noise is None and self.corruption is None:
            self._noise = Noise(layout=self.objective.layout)
        if self._noise is None:
            tokens = self.mask_tokens
            vocabulary = NoiseVocabulary.of(self.tokenizer, mask_id=tokens.mask_id)
            if self.sentinel_ids:  # which may lie beyond the tokenizer's ids
                size = self.backbone.config.vocabulary_size
                vocabulary = replace(vocabulary, size=size, sentinel_ids=self.sentinel_ids)
            self._noise = Noise(
                layout=self.objective.layout,
                corruption=self.corruption,
                vocabulary=vocabulary,
                separator_id=tokens.separator_id,
                end_id=tokens.end_id,
            )
        return self._noise

    @classmethod
    def from_preset(cls, preset, *, dtype=None, backbone_arguments: dict | None = None, **kwargs):
        """Builds the task on a checkpoint, which looks where the objective needs it to look.

        So a causal checkpoint becomes bidirectional for a masked objective; it has to learn that.

        Args:
            preset: see `weights.presets.resolve`.
            dtype: Keras dtype policy of the backbone, such as `"mixed_bfloat16"`.
            backbone_arguments: replace those of the checkpoint, such as `dropout`.
            **kwargs: arguments of the constructor.
        """
        from llama_keras.weights.presets import backbone_config, resolve

        kwargs = {**cls._settings_of(preset, kwargs), **kwargs}
        objective = get_objective(kwargs.get("objective") or cls.default_objective)
        mask = backbone_config(resolve(preset)).get("attention_mask", "causal")
        arguments = dict(backbone_arguments or {})
        if mask not in objective.attention_masks:
            arguments.setdefault("attention_mask", objective.attention_masks[0])
        model = super().from_preset(preset, dtype=dtype, backbone_arguments=arguments, **kwargs)
        if objective.layout in DEFAULT_CORRUPTION:
            _ = model.noise  # tells at once when an id is wrong
        return model

    @classmethod
    def _settings_of(cls, preset, given):
        saved = super()._settings_of(preset, given)
        taught = get_objective(saved.get("objective") or cls.default_objective)
        wanted = get_objective(given.get("objective") or taught)
        if wanted != taught or wanted.layout not in cls.layouts:
            # Another objective has noise and rows of its own; the ids are the model's.
            return {name: saved[name] for name in ("mask_id", "separator_id") if name in saved}
        return saved

    @property
    def row_limit(self) -> int:
        """The number of a text's own tokens that a row takes."""
        return room_of(self.objective.layout, self.max_sequence_length)

    def call(self, inputs, training=None):
        """Gives logits, or the objective's `Scores`; see the class."""
        if "targets" in inputs or self.objective.layout == "views":
            return self.objective(self.backbone, inputs, training=training)
        hidden = self.backbone(inputs, training=training)
        return self.backbone.token_embedding(hidden, reverse=True)

    def compile(self, optimizer="auto", *, total_steps=None, learning_rate=5e-4, **kwargs):
        """Prepares training; the loss is the objective's.

        Args:
            optimizer: by default AdamW.
            total_steps: length of the schedule (a tenth of it warms up, then a cosine to zero);
                by default the rate stays.
            learning_rate: its peak; 5e-4 suits small models from scratch, a released checkpoint
                wants 5e-5 or less.
            **kwargs: of `keras.Model.compile`.
        """
        if optimizer == "auto":
            from llama_keras.training.optimizers import default_adamw

            with self.scope():
                optimizer = default_adamw(learning_rate, total_steps)
        self._check_parts(kwargs.get("gradient_accumulation_steps", 1))
        super().compile(optimizer=optimizer, **kwargs)

    def _check_parts(self, parts: int) -> None:
        # What the rows of a batch are compared by never leaves the objective.
        if self.objective.layout == "views" and (self.num_replicas > 1 or parts > 1):
            raise InputError(
                f"The objective {self.objective.name!r} compares the texts of a batch with each "
                "other, so here it takes one replica and gradient_accumulation_steps=1; an "
                "Embedder learns from pairs on several replicas."
            )

    def fit(
        self,
        x,
        y=None,
        *,
        validation_data=None,
        batch_size: int = 32,
        epochs: int = 1,
        initial_epoch: int = 0,
        seed: int = 0,
        packing: bool = False,
        checkpoints=None,
        **kwargs,
    ):
        """Trains on plain text with `keras.Model.fit`.

        Args:
            x: list of N strings, or a finite `tf.data.Dataset` of strings; anything else goes to
                `keras.Model.fit` as it is.
            y: nothing; texts are their own targets.
            validation_data: texts like `x`.
            batch_size: texts in a batch.
            epochs: passes over the data; each has an order and noise of its own.
            initial_epoch: the epoch to go on with, with the batches that it would have had.
            seed: of the order of texts; that of the noise is the corruption's.
            packing: whether several texts share a row, so that all rows have
                `max_sequence_length` tokens and hardly any padding; `batch_size` counts such rows.
                No text sees another one, and each has the noise that it would have alone.
            checkpoints: see `FineTunedTask.fit`.
            **kwargs: of `keras.Model.fit`, such as `callbacks`.

        Returns:
            A Keras `History`.

        Raises:
            InputError: there is no text; the objective cannot pack; or the checkpoints are of
                another run.
        """
        if packing:
            self._check_packing(is_raw=is_raw_text(x))
        epochs_of = {"epochs": epochs, "initial_epoch": initial_epoch}
        if not is_raw_text(x):
            if checkpoints is not None:
                raise InputError("checkpoints= needs texts: other data cannot be resumed in.")
            return super().fit(
                x, y, validation_data=validation_data, batch_size=batch_size, **epochs_of, **kwargs
            )
        from llama_keras.data.corrupted import objective_stream

        rows = self.token_rows(x)
        self._check_negatives(rows, batch_size)
        order = {"batch_size": batch_size, "seed": seed}
        width = self.row_limit if packing else None
        return self.fit_stream(
            objective_stream(rows, noise=self.noise, width=width, **order),
            lengths=rows.lengths,
            order=order,
            validation=validation_data,
            checkpoints=checkpoints,
            identity=lambda: self._identity(rows),
            **epochs_of,
            **kwargs,
        )

    def _check_packing(self, *, is_raw: bool) -> None:
        from llama_keras.data.corrupted import check_packing

        check_packing(self.objective.layout)
        if not is_raw:
            raise InputError("packing=True needs texts; batches of your own stay as given.")

    def _check_negatives(self, rows, batch_size: int) -> None:
        if self.objective.layout != "views":
            return
        if batch_size < 2 or len(set(map(tuple, rows.token_ids))) < 2:
            raise InputError(
                f"The objective {self.objective.name!r} tells a text from the others of its batch: "
                "give at least two different texts and batch_size=2 or more."
            )

    def _identity(self, rows):
        from llama_keras.text.corruption import corruption_config
        from llama_keras.training.run_identity import digest_of

        return {
            "data": digest_of(rows),
            "objective": objective_config(self.objective),
            "corruption": corruption_config(self.corruption) if self.corruption else None,
        }

    def evaluate(self, x, y=None, *, batch_size: int = 32, **kwargs):
        """Gives loss, accuracy and perplexity of texts, with the same noise each time.

        Contrastive ones depend on `batch_size`: each text has to find itself, under another draw of
        dropout, among the texts of its batch, which are of like length.
        """
        kwargs = {"return_dict": True, **kwargs}
        if not is_raw_text(x):
            return super().evaluate(x, y, batch_size=batch_size, **kwargs)
        self.compile_by_default()
        data, steps = self._inference_batches(x, batch_size)
        return super().evaluate(data, **{"steps": steps, **kwargs})

    def _inference_batches(self, x, batch_size: int):
        from llama_keras.data.corrupted import objective_inference_batches

        rows = self.token_rows(x)
        self._check_negatives(rows, batch_size)

        def batches(share):
            return objective_inference_batches(
                rows, noise=self.noise, batch_size=batch_size, share=share
            )

        return self.once(batches, steps=-(-len(rows.token_ids) // batch_size))

    def token_rows(self, x):
        """Cleans and tokenizes texts, as `data.bucketing.TokenRows`; tells what it leaves out."""
        from llama_keras.data.bucketing import TokenRows

        texts = clean_texts(as_texts_and_labels(x, None)[0], cleaning=self.cleaning)
        rules = text_rules(self.objective.layout, self.tokenizer)
        found = self.tokenizer.encode(texts, **rules) if texts else []
        rows = [row for row, text in zip(found, texts, strict=True) if row and text]
        if empty := len(texts) - len(rows):
            logger.warning("%d of %d texts are empty and were left out", empty, len(texts))
        if not rows:
            raise InputError("There is no text to learn from; give at least one that is not empty.")
        limit = self.row_limit
        if long := sum(len(row) > limit for row in rows):
            done = "cut to" if self.long_texts == "cut" else "split into rows of"
            logger.warning("%d of %d texts were %s %d tokens", long, len(rows), done, limit)
        if self.long_texts == "cut":
            rows = [row[:limit] for row in rows]
        else:
            rows = [row[at : at + limit] for row in rows for at in range(0, len(row), limit)]
        return TokenRows(rows, self.tokenizer.pad_id)

    def save_to_preset(self, preset_dir, *, attention_mask: str | None = None) -> None:
        """Writes backbone, tokenizer, cleaning and settings to a new preset directory.

        See `Task.save_to_preset`.

        Args:
            preset_dir: must not exist.
            attention_mask: that the models on this preset have unless they are told otherwise; by
                default that of the training.
        """
        if not self.writes_files():
            return
        backbone = self.backbone
        if attention_mask not in (None, backbone.config.attention_mask):
            changed = {**backbone.get_config(), "attention_mask": attention_mask}
            backbone = type(backbone).from_config(changed)
            backbone.set_weights(self.backbone.get_weights())
        self._write_preset(preset_dir, backbone)

    def learning_config(self) -> dict[str, Any]:
        """Gives objective, corruption and their ids as chosen; saved models and exports keep it."""
        from llama_keras.text.corruption import corruption_config

        ids = dict(self._given_ids)
        if self.corruption is not None:
            # As chosen, so that a later rule of choice changes no saved model.
            tokens = self.mask_tokens
            ids |= {"mask_id": tokens.mask_id, "separator_id": tokens.separator_id}
            ids["sentinel_ids"] = list(self.sentinel_ids) or None
        return {
            "objective": objective_config(self.objective),
            "corruption": None if self.corruption is None else corruption_config(self.corruption),
            **ids,
        }

    def get_config(self):
        """Gives the arguments of the constructor."""
        return {
            **super().get_config(),
            **self.learning_config(),
            "max_sequence_length": self.max_sequence_length,
            "long_texts": self.long_texts,
        }
