"""What comes before training: the first step of `fit` of a model of SmolLM2-135M's shape.

Each run compiles a new classifier on the same backbone and fits it to one small batch, so that
nearly all of its time is that of tracing and compiling the step. Ours has `ExactTrainer`, which
makes the variables of optimizer and metrics before; the peer is the same model as Keras trains it.
"""

from typing import Any

from benchmarks import smollm2
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow

CLAIM = "the first step of fit"
ROWS, TOKENS = 2, 16


def runs(bases: tuple[type, ...], backbone: Any) -> Runs:
    """Gives the run of one library.

    Args:
        bases: of the model's class.
        backbone: that all models share.
    """
    import keras
    import numpy as np

    kind: Any = type("Classifier", bases, {})
    shape = (ROWS, TOKENS)
    features = {name: np.ones(shape, "int32") for name in ("token_ids", "padding_mask")}
    labels = np.arange(ROWS) % 2

    def first_step() -> float:
        pooled = keras.layers.GlobalAveragePooling1D()(backbone.output)
        model = kind(backbone.input, keras.layers.Dense(2)(pooled))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(1e-5), loss, metrics=["accuracy"])
        return model.fit(features, labels, batch_size=ROWS, verbose=0).history["loss"][0]

    return Runs(runs={CLAIM: {"float32": first_step}}, amounts={CLAIM: 1.0})


def ours(options: dict[str, Any]) -> Runs:
    """Builds the run of ours."""
    limit_tensorflow()
    import keras

    from llama_keras.training import ExactTrainer

    return runs((ExactTrainer, keras.Model), smollm2.our_backbone("float32"))


def theirs(options: dict[str, Any]) -> Runs:
    """Builds that of Keras's trainer."""
    limit_tensorflow()
    import keras

    return runs((keras.Model,), smollm2.our_backbone("float32"))


SUITE = Suite(
    claims=(Claim(CLAIM, "fits", aim=1.3, peers=("keras",)),),
    libraries={"llama_keras": Library(ours), "keras": Library(theirs)},
)
