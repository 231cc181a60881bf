"""Our AdamW beside Keras's: a step on the weights of SmolLM2-135M, clipped by the global norm.

Both are compiled as `tf.function`, as `fit` does. The figure counts weights.
"""

from typing import Any

from benchmarks import smollm2
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow

CLAIM = "a step of AdamW"


def _runs(make: Any) -> Runs:
    import tensorflow as tf

    weights = smollm2.our_backbone("float32").trainable_variables
    gradients = [tf.random.normal(weight.shape) for weight in weights]
    optimizer = make(1e-4, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.build(weights)

    @tf.function
    def step():
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return optimizer.iterations

    count = sum(float(tf.size(gradient)) for gradient in gradients)
    return Runs(runs={CLAIM: {"float32": lambda: step().numpy()}}, amounts={CLAIM: count})


def ours(options: dict[str, Any]) -> Runs:
    """Builds the run of ours."""
    limit_tensorflow()
    from llama_keras.training.optimizers import AdamW

    return _runs(AdamW)


def theirs(options: dict[str, Any]) -> Runs:
    """Builds that of Keras's."""
    limit_tensorflow()
    import keras

    return _runs(keras.optimizers.AdamW)


SUITE = Suite(
    claims=(Claim(CLAIM, "weights", aim=1.5, peers=("keras",)),),
    libraries={"llama_keras": Library(ours), "keras": Library(theirs)},
)
