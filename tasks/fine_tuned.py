"""What tasks that learn from examples share: raw examples in, `model.fit` by a strategy.

Axes: N examples, B batch, T tokens.
"""

import logging
from typing import Any, ClassVar

from llama_keras.errors import InputError
from llama_keras.tasks.task import Task
from llama_keras.tasks.text_data import is_raw_text

logger = logging.getLogger("llama_keras")


class FineTunedTask(Task):
    """A task with a head that learns from raw examples.

    A subclass says how raw examples become tokens (`example_rows`), what its head computes
    (`call`), and what loss and metrics suit it (`default_loss`, `default_metrics`).

    Args:
        backbone, tokenizer, cleaning: see `Task`.
        max_sequence_length: tokens of one row of a batch.
        strategy: a name of `training.fine_tuning.STRATEGIES`, or such an object.

    Raises:
        InputError: the task cannot use a backbone of that attention mask; or see `Task`.
    """

    # Of the backbones that the task can use.
    attention_masks: ClassVar[tuple[str, ...]] = ("causal", "bidirectional")
    # Whether `fit` takes packing=True: whether answers are given token by token.
    can_pack: ClassVar[bool] = False

    def __init__(
        self,
        *,
        backbone,
        tokenizer,
        cleaning=None,
        max_sequence_length: int = 512,
        strategy="full",
        **kwargs,
    ):
        from llama_keras.training.fine_tuning import get_strategy

        if (mask := backbone.config.attention_mask) not in self.attention_masks:
            raise InputError(
                f"{type(self).__name__} needs a backbone with attention_mask="
                f"{' or '.join(map(repr, self.attention_masks))}; this one has {mask!r}. Give "
                "from_preset backbone_arguments={'attention_mask': …}."
            )
        super().__init__(backbone=backbone, tokenizer=tokenizer, cleaning=cleaning, **kwargs)
        self.strategy: Any = get_strategy(strategy)
        self.max_sequence_length = min(max_sequence_length, backbone.config.max_sequence_length)
        self._graph = None  # made by the first `predict`
        self._awaits_steps = False

    def is_raw(self, x) -> bool:
        """Says whether `x` holds raw examples, not token features."""
        return is_raw_text(x)

    def example_rows(self, x, y):
        """Gives raw examples as `data.bucketing.TokenRows`, with labels where `y` or `x` has them.

        Raises:
            InputError: an example or a label is not what the task takes.
        """
        raise NotImplementedError

    def default_loss(self):
        """Gives the loss of `compile(loss="auto")`."""
        raise NotImplementedError

    def default_metrics(self) -> list:
        """Gives the metrics of `compile(metrics="auto")`."""
        return []

    def class_weights(self, given, rows) -> dict[int, float]:
        """Gives `class_weight` of `fit` by class numbers.

        Args:
            given: what `fit` was given.
            rows: the `data.bucketing.TokenRows` to learn from.

        Raises:
            InputError: a class or a weight is wrong, or the task has no classes.
        """
        raise InputError(f"class_weight is not for a {type(self).__name__}; leave it out.")

    def as_batches(self, dataset):
        """Gives a dataset of `data.bucketing` as Keras is to have it."""
        return dataset

    def fit(
        self,
        x,
        y=None,
        *,
        validation_data=None,
        batch_size: int = 32,
        epochs: int = 1,
        seed: int = 0,
        packing: bool = False,
        checkpoints=None,
        **kwargs,
    ):
        """Fine-tunes by the task's strategy, and logs (INFO) how many weights learn.

        Args:
            x: N raw examples as a list, or a `tf.data.Dataset` of them (with labels, where the
                task has labels); anything else goes to `keras.Model.fit` as it is.
            y: N labels.
            validation_data: a pair `(x, y)` or a dataset.
            batch_size: rows in a batch.
            epochs: passes over the data.
            seed: of the order of examples.
            packing: whether several examples share a row, so that all rows have
                `max_sequence_length` tokens and hardly any padding; `batch_size` counts such rows.
                No example sees another one. For a `CausalLM`.
            checkpoints: a `training.Checkpoints`. Where it has one already, by an interrupted fit
                of the same examples and settings, training goes on from there, to the same
                weights. `linear_probe` has no steps and begins anew.
            **kwargs: of `keras.Model.fit`; `linear_probe` takes `callbacks` and `verbose` only.

        Returns:
            A Keras `History`.

        Raises:
            InputError: there are no examples, or one is not what the task takes; no weight can
                learn; the task cannot pack; or the checkpoints are of another run.
        """
        self._check_packing(packing, is_raw=self.is_raw(x))
        if not self.is_raw(x):
            if checkpoints is not None:
                raise InputError("checkpoints= needs raw examples: others cannot be resumed in.")
            return super().fit(
                x,
                y,
                validation_data=validation_data,
                batch_size=batch_size,
                epochs=epochs,
                **kwargs,
            )
        train = self.example_rows(x, y)
        validation = None
        if validation_data is not None:
            pair = (
                validation_data if isinstance(validation_data, tuple) else (validation_data, None)
            )
            validation = self.example_rows(*pair)
        self._prepare_strategy()
        if self.strategy.name == "linear_probe":
            return self._fit_probe(train, validation, batch_size=batch_size, **kwargs)
        return self._fit_steps(
            train,
            validation,
            batch_size=batch_size,
            epochs=epochs,
            seed=seed,
            checkpoints=checkpoints,
            **({"packing": True} if packing else {}),
            **kwargs,
        )

    def _prepare_strategy(self) -> None:
        from llama_keras.training.fine_tuning import trainable_share

        with self.scope():
            self.strategy.prepare(self)
        self._forget_traces()
        # Who has no probe for its head says so itself.
        if not self.trainable_weights and self.strategy.name != "linear_probe":
            raise InputError(
                f"With strategy={self.strategy.name!r} no weight of this {type(self).__name__} can "
                "learn; choose another one, such as full, or set backbone.trainable = True."
            )
        logger.info("%s; %s", self.strategy.name, trainable_share(self))

    def _check_packing(self, packing: bool, *, is_raw: bool) -> None:
        if not packing:
            return
        if not self.can_pack:
            raise InputError(
                f"A {type(self).__name__} reads one answer from each row, so packing=True is not "
                "for it; leave it out: texts of like length share a batch."
            )
        if not is_raw:
            raise InputError("packing=True needs raw examples; batches of your own stay as given.")
        if self.strategy.name == "linear_probe":
            raise InputError("linear_probe has no steps; leave packing out.")

    def _forget_traces(self) -> None:
        # LoRA and the probe change what a call computes; an evaluation before `fit` was traced
        # without them.
        self._graph = None
        self.train_function = self.test_function = self.predict_function = None

    def _fit_steps(
        self, train, validation, *, batch_size, epochs, seed, checkpoints, packing=False, **kwargs
    ):
        from llama_keras.data.bucketing import weighted
        from llama_keras.training.run_identity import digest_of

        if (class_weight := kwargs.pop("class_weight", None)) is not None:
            train = weighted(train, self.class_weights(class_weight, train))
        order = {"batch_size": batch_size, "seed": seed}
        return self.fit_stream(
            self._training_stream(train, **order, packing=packing),
            lengths=train.lengths,
            order=order,
            validation=validation,
            checkpoints=checkpoints,
            identity=lambda: {"data": digest_of(train)},
            epochs=epochs,
            **kwargs,
        )

    def _training_stream(self, train, *, batch_size: int, seed: int, packing: bool):
        """Gives a function to batches from a share and a step, the steps of an epoch, the packing.

        The packing is None where each text has a row of its own.
        """
        from llama_keras.data.bucketing import training_batches
        from llama_keras.data.packing import Packing, packed_training_batches

        order = {"batch_size": batch_size, "seed": seed}
        if packing:
            packed = Packing.of(train.lengths, width=self.max_sequence_length)

            def rows_of_texts(share, first_step):
                return self.as_batches(
                    packed_training_batches(
                        train, packed, first_step=first_step, share=share, **order
                    )
                )

            return rows_of_texts, packed.steps(batch_size), packed

        def texts(share, first_step):
            dataset, _ = training_batches(train, first_step=first_step, share=share, **order)
            return self.as_batches(dataset)

        return texts, -(-len(train.token_ids) // batch_size), None

    def _inference_batches(self, rows, batch_size: int):
        from llama_keras.data.bucketing import inference_batches

        def batches(share):
            dataset, _ = inference_batches(rows, batch_size=batch_size, share=share)
            return self.as_batches(dataset)

        return self.once(batches, steps=-(-len(rows.token_ids) // batch_size))

    def _fit_probe(self, train, validation, *, batch_size, **kwargs):
        raise InputError(
            f"A {type(self).__name__} has no linear_probe; choose another strategy, such as lora."
        )

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", total_steps=None, **kwargs):
        """Prepares training; `"auto"` chooses what suits the task.

        Args:
            optimizer: by default AdamW with the strategy's learning rate, and with its rates of
                each depth; those of `gradual_unfreezing` follow the steps of the next `fit`.
            loss: by default the task's.
            metrics: by default the task's.
            total_steps: length of the schedule (a tenth of it warms up, then a cosine to zero);
                by default the rate stays.
            **kwargs: of `keras.Model.compile`.

        Raises:
            InputError: the strategy is a matter of the default optimizer, and another one is given.
        """
        self._check_optimizer(optimizer)
        is_default = optimizer == "auto"
        with self.scope():
            if loss == "auto":
                loss = self.default_loss()
            if metrics == "auto":
                metrics = self.default_metrics()
            if optimizer == "auto":
                optimizer = self._default_optimizer(total_steps)
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        self._awaits_steps = is_default and not total_steps

    def _depth_rates(self, total_steps: int):
        return self.strategy.depth_rates(self.backbone.config.num_layers, total_steps)

    def _default_optimizer(self, total_steps):
        from llama_keras.training.optimizers import default_adamw

        rates = self._depth_rates(total_steps or 0)
        return default_adamw(self.strategy.learning_rate, total_steps, depth_rates=rates)

    def _check_optimizer(self, optimizer) -> None:
        from llama_keras.training.optimizers import DepthwiseAdamW

        if optimizer in ("auto", None) or self._depth_rates(0) is None:
            return
        if not isinstance(getattr(optimizer, "inner_optimizer", optimizer), DepthwiseAdamW):
            raise InputError(
                f"strategy={self.strategy.name!r} gives each depth a learning rate of its own in "
                "the default optimizer, so another one would train all weights alike; leave "
                "optimizer out, or choose another strategy, such as full."
            )

    def compile_by_default(self, *, total_steps: int | None = None, goes_on: bool = False) -> None:
        """Compiles unless the caller did so, and tells the default optimizer when blocks join in.

        Args:
            total_steps, goes_on: see `Task.compile_by_default`.
        """
        super().compile_by_default(total_steps=total_steps, goes_on=goes_on)
        if self._awaits_steps and total_steps:
            self._awaits_steps = False
            if (rates := self._depth_rates(total_steps)) is not None:
                optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
                optimizer.starts = list(rates.starts)

    def evaluate(self, x, y=None, *, batch_size: int = 32, **kwargs):
        """Gives loss and metrics as a dict, for raw examples or token features."""
        kwargs = {"return_dict": True, **kwargs}
        if not self.is_raw(x):
            return super().evaluate(x, y, batch_size=batch_size, **kwargs)
        self.compile_by_default()
        data, steps = self._inference_batches(self.example_rows(x, y), batch_size)
        return super().evaluate(data, **{"steps": steps, **kwargs})

    def run_head(self, rows, *, batch_size: int, verbose: int | str = "auto") -> list:
        """Gives the head's outputs for all rows, traced once for all lengths.

        Args:
            rows: `data.bucketing.TokenRows`.
            batch_size: rows in a batch.
            verbose: 0 shows no progress bar.

        Returns:
            One entry for each output of `call`, see `data.inference.run_rows`.
        """
        from llama_keras.data.inference import graph_of, run_rows

        if self._graph is None:
            self._graph = graph_of(lambda features: self(features, training=False))
        title = "predict" if verbose else ""
        return run_rows(self._graph, rows, batch_size=batch_size, title=title)

    def save_adapter(self, path) -> None:
        """Writes what LoRA has learned, the head included, to a small file of its own.

        Args:
            path: a name ending in `.safetensors`, replaced where it exists; else a new folder in
                the layout of Hugging Face's PEFT, which reads the backbone's part of it.

        Raises:
            InputError: the backbone has no LoRA updates, or the folder exists.

        Example:
        ```python
        import tempfile
        from llama_keras.tasks import TextClassifier

        path = tempfile.mkdtemp() + "/mood.safetensors"
        labels = ["negative", "positive"]
        model = TextClassifier.from_preset("llama-tiny", labels=labels, strategy="lora")
        model.fit(["Awful.", "Lovely."], labels, epochs=1, verbose=0)
        model.save_adapter(path)
        model.load_adapter(path)  # into this, or another task on the same base model
        model.merge_lora()  # a plain model, for `save`, `backbone.save_to_preset`
        ```
        """
        from llama_keras.training.adapters import save_adapter

        save_adapter(self, path)

    def load_adapter(self, path, *, check_base: bool = True) -> None:
        """Takes over the LoRA updates and the head of an adapter; a failed load changes nothing.

        The strategy becomes `lora` with the adapter's rank and targets, so that `fit` goes on
        with them; a compiled task keeps its loss and settings and gets a fresh optimizer.

        Args:
            path: what `save_adapter` wrote, or a folder from PEFT (which has no head).
            check_base: whether the base weights must be those that the adapter was made on.

        Raises:
            InputError: the adapter is missing, damaged, or made for another model, task or head.
        """
        from llama_keras.training.adapters import load_adapter

        load_adapter(self, path, check_base=check_base)
        self._forget_traces()

    def merge_lora(self) -> None:
        """Adds the LoRA updates to the weights that they adapt, which leaves a plain model.

        The strategy stays: after `lora`, a further `fit` starts new updates on the merged weights.
        A compiled task keeps its loss and settings and gets a fresh optimizer.

        Raises:
            InputError: there are no updates, or the backbone is quantized.
        """
        from llama_keras.training.adapters import merge_lora

        merge_lora(self)
        self._forget_traces()

    def get_config(self):
        """Gives the arguments of the constructor; subclasses add their head's."""
        from llama_keras.training.fine_tuning import strategy_config

        return {
            **super().get_config(),
            "max_sequence_length": self.max_sequence_length,
            "strategy": strategy_config(self.strategy),
        }
