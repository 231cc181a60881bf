"""What all tasks share: a backbone, a tokenizer, a head; made from a preset, saved whole."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from llama_keras.atomic import new_directory, new_file
from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.tasks.trainer import Trainer
from llama_keras.text.cleaning import get_cleaning


class Task(Trainer):
    """A Keras model over token ids that takes and gives what people read.

    Subclasses add a head (built in their constructor, so that a saved file can be filled), `call`
    (token ids and padding mask to logits) and the way from raw text and back.

    Args:
        backbone: a `LlamaBackbone`.
        tokenizer: a `text.Tokenizer`; it travels in the saved file.
        cleaning: what is done to raw text before the tokenizer sees it, as `get_cleaning` of
            `text.cleaning` takes it; it travels in the saved file. None leaves text as it is;
            `from_preset` without it takes what the preset's model learned from.

    Raises:
        InputError: there is no such cleaning step, or this kind of task takes text as it is, or
            the cleaning moves characters that the task tells the places of.
    """

    # Whether raw text goes through `cleaning`; a subclass that does so says it here.
    cleans_text: ClassVar[bool] = False
    # Whether answers are places in the raw text, which cleaning must not move.
    tells_places: ClassVar[bool] = False

    def __init__(self, *, backbone: LlamaBackbone, tokenizer, cleaning=None, **kwargs):
        super().__init__(**kwargs)
        self.cleaning = get_cleaning(cleaning)
        if self.cleaning and not self.cleans_text:
            raise InputError(f"A {type(self).__name__} takes text as it is; leave cleaning out.")
        if self.cleaning and self.tells_places and not self.cleaning.preserves_offsets:
            raise InputError(
                f"A {type(self).__name__} tells where things are in the text, so its cleaning must "
                "keep every character in its place, as lower does; this one does not: "
                f"{self.cleaning.get_config()}."
            )
        self._compiled_by_default = False
        self.compile_settings: dict[str, Any] = {}
        self.backbone = backbone
        self.tokenizer = tokenizer

    @classmethod
    def from_preset(cls, preset, *, dtype=None, backbone_arguments: dict | None = None, **kwargs):
        """Builds the task on a checkpoint, with a new head where the checkpoint has none.

        What `save_to_preset` of a task of this class wrote gives that task back, settings and head;
        only `strategy` begins anew.

        Args:
            preset: see `weights.presets.resolve`.
            dtype: Keras dtype policy of the backbone, such as `"mixed_bfloat16"`.
            backbone_arguments: replace those of the checkpoint, such as `attention_mask`.
            **kwargs: arguments of the task's constructor; they replace those of the preset's task.
                With other labels, or a head of another form, the head begins anew.

        Raises:
            InputError: there is no such preset, or its model learned from text that was cleaned
                as this kind of task cannot clean; `cleaning=None` takes text as it is.
        """
        from llama_keras.tasks.presets import load_head
        from llama_keras.text import Tokenizer

        if "cleaning" not in kwargs and (cleaning := cls._cleaning_of(preset)):
            kwargs["cleaning"] = cleaning
        saved = cls._settings_of(preset, kwargs)
        backbone = LlamaBackbone.from_preset(preset, dtype=dtype, **(backbone_arguments or {}))
        tokenizer = Tokenizer.from_preset(preset)
        task = cls(backbone=backbone, tokenizer=tokenizer, **{**saved, **kwargs})
        if saved:
            load_head(task, preset, saved)
        return task

    @classmethod
    def _settings_of(cls, preset, given: Mapping[str, Any]) -> dict[str, Any]:
        """Gives the settings of the task in a preset that go with the arguments `given`."""
        from llama_keras.tasks.presets import task_config

        return task_config(preset, cls)

    def save_to_preset(self, preset_dir) -> None:
        """Writes backbone, tokenizer, cleaning, settings and head to a new preset directory.

        Tasks of this class get all of it by `from_preset`, other classes the backbone, tokenizer
        and cleaning. LoRA's updates are merged into the weights that they adapt. Of several workers
        that train together the chief alone writes.

        Args:
            preset_dir: must not exist; it appears when it is complete.

        Raises:
            InputError: the directory exists already, or the backbone is quantized.
        """
        if self.writes_files():
            self._write_preset(preset_dir, self.backbone)

    def _write_preset(self, directory, backbone) -> None:
        from llama_keras.models.presets import write_preset
        from llama_keras.tasks.presets import write_task

        cleaning = self.cleaning.get_config() if self.cleaning and self.cleaning.steps else None
        with new_directory(directory) as folder:
            write_preset(folder, backbone=backbone, tokenizer=self.tokenizer, cleaning=cleaning)
            write_task(self, folder)

    @classmethod
    def _cleaning_of(cls, preset):
        from llama_keras.weights.presets import preset_cleaning, resolve

        cleaning = get_cleaning(preset_cleaning(resolve(preset)))
        if cleaning is None:
            return None
        if not cls.cleans_text or (cls.tells_places and not cleaning.preserves_offsets):
            steps = [step["name"] for step in cleaning.get_config()["steps"]]
            raise InputError(
                f"The model of '{preset}' learned from text cleaned by {steps}, and a "
                f"{cls.__name__} cannot clean so. Give cleaning=None (in a recipe, clean: []) to "
                "take text as it is."
            )
        return cleaning

    @classmethod
    def load(cls, path) -> Self:
        """Gives the task that `save` wrote.

        Raises:
            InputError: the file is missing, no Keras archive, or holds another kind of model.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"There is no saved model at '{path}'; give a .keras file.")
        _register_tasks()
        try:
            model = keras.saving.load_model(path)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"'{path}' is not a readable .keras file: {error}") from error
        if not isinstance(model, cls):
            raise InputError(f"'{path}' holds a {type(model).__name__}, not a {cls.__name__}.")
        return model

    def save(self, filepath, overwrite: bool = True, **kwargs):
        """Writes the whole task, tokenizer included, to a `.keras` file.

        The file appears under its name only when it is complete; an earlier one is kept till then.
        Of several workers that train together the chief alone writes, outside of
        `strategy.scope()`.
        """
        path = Path(filepath)
        if path.suffix != ".keras":
            raise InputError(f"A task is saved to a name ending in .keras; received '{path}'.")
        if path.exists() and not overwrite:
            raise InputError(f"'{path}' exists already; remove it or pass overwrite=True.")
        if not self.writes_files():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            keras.saving.save_model(self, temporary, overwrite=True, **kwargs)

    def export(self, directory, **kwargs):
        """Writes a SavedModel that takes strings; see `serving.export.export_task`."""
        from llama_keras.serving.export import export_task

        return export_task(self, directory, **kwargs)

    def compile(self, *args, **kwargs):
        """Prepares training; see `keras.Model.compile`."""
        super().compile(*args, **kwargs)
        self._compiled_by_default = False

    def compile_by_default(self, *, total_steps: int | None = None, goes_on: bool = False) -> None:
        """Compiles unless the caller did so; each `fit` gets a schedule of its own.

        What else `compile` is given is in the attribute `compile_settings`, a dict.

        Args:
            total_steps: of the `fit` to come; None before an evaluation.
            goes_on: whether an earlier `fit` is resumed, whose schedule is kept.
        """
        over = self._compiled_by_default and total_steps is not None and not goes_on
        if not self.compiled or over:
            settings = {} if total_steps is None else {"total_steps": total_steps}
            if keras.backend.backend() == "tensorflow":
                # Keras would have XLA compile on GPUs, anew for each width of a batch.
                settings["jit_compile"] = False
            self.compile(**{**settings, **self.compile_settings})
            self._compiled_by_default = True

    def make_test_function(self, force=False):
        """Makes what `evaluate` calls for each batch, on TensorFlow without XLA.

        Held-out batches have many widths, for each of which XLA would compile anew.
        """
        compiled = self.jit_compile
        if keras.backend.backend() == "tensorflow":
            self.jit_compile = False
        try:
            return super().make_test_function(force)
        finally:
            self.jit_compile = compiled

    def fit_stream(
        self, stream, *, lengths, order, validation, checkpoints, identity, epochs, **kwargs
    ):
        """Trains on batches of rows, resumably: the end of `fit` from raw examples.

        Args:
            stream: a function from (share, first step) to batches, the steps of an epoch, and the
                `data.packing.Packing` of packed rows or None.
            lengths: int64 `(N,)`, tokens of each text; None where batches are not filled by them.
            order: `batch_size` and `seed` of the stream.
            validation: what the task's `_inference_batches` takes, or None.
            checkpoints: a `training.Checkpoints` or None.
            identity: gives what else must be the same in a run that is resumed.
            epochs: passes over the data.
            **kwargs: of `keras.Model.fit`.
        """
        from llama_keras.training.resume import resumable_fit

        batches, steps, packed = stream
        goes_on = bool(kwargs.get("initial_epoch"))
        self.compile_by_default(total_steps=steps * epochs, goes_on=goes_on)
        held_out = {}
        if validation is not None:
            data, length = self._inference_batches(validation, order["batch_size"])
            held_out = {"validation_data": data, "validation_steps": length}
        self.batch_sizes = None
        if lengths is not None:
            self.note_sizes(lengths, **order, packing=packed)
        plan = {**order, "packing": packed.width} if packed else order
        return resumable_fit(
            super().fit,
            model=self,
            batches=batches,
            checkpoints=checkpoints,
            steps=steps,
            epochs=epochs,
            plan=plan | identity() if checkpoints else plan,
            **{"shuffle": False, **held_out, **kwargs},
        )

    def _inference_batches(self, rows, batch_size: int):
        """Gives the batches of held-out rows and what Keras calls `steps`; see `once`."""
        raise NotImplementedError

    def note_sizes(self, lengths, *, batch_size: int, seed: int, packing=None) -> None:
        """Notes what the batches of the fit to come hold, for `training.throughput`.

        Args:
            lengths: int64 `(N,)`, tokens of each text.
            batch_size, seed: of `data.bucketing.training_batches`.
            packing: the `data.packing.Packing` of packed batches.
        """
        from llama_keras.data.bucketing import epoch_sizes

        sizes = packing.sizes if packing else functools.partial(epoch_sizes, lengths)
        self.batch_sizes = functools.partial(
            sizes, batch_size=batch_size, seed=seed, replicas=self.num_replicas
        )

    def get_compile_config(self):
        """Gives nothing: how a task was trained is no part of it, and `fit` compiles by itself."""
        return {}

    def compile_from_config(self, config):
        """Does nothing; see `get_compile_config`."""

    def get_config(self):
        """Gives the backbone and tokenizer, serialized; subclasses add their head's arguments."""
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "cleaning": self.cleaning.get_config() if self.cleaning else None,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Builds the task that `get_config` described."""
        import llama_keras.text.tokenizer  # noqa: F401  (its import registers the class with Keras)

        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("backbone", "tokenizer")
        }
        return cls(**{**config, **parts})


def _register_tasks() -> None:
    """Imports every task: Keras only finds the class of a saved model when it is registered."""
    import llama_keras.tasks as tasks

    for name in tasks.__all__:
        getattr(tasks, name)
