"""Refuses what `keras.distribution` cannot do before it goes wrong without a word."""

import keras

from llama_keras.errors import InputError
from llama_keras.models.config import LlamaConfig
from llama_keras.models.layout import check_layout


def check_distribution(config: LlamaConfig | None = None) -> None:
    """Checks that the distribution in use, if any, acts on this Keras backend.

    On the TensorFlow backend Keras takes a `DataParallel` or `ModelParallel` and does nothing with
    it: `fit` runs on one device, with every weight on it (Keras 3.15; its `distribute_value` there
    is a TODO).

    Args:
        config: of the backbone about to be made; its weights must divide among the devices.

    Raises:
        InputError: the backend ignores the distribution, or a weight does not divide.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return
    backend = keras.backend.backend()
    if backend != "jax":
        raise InputError(
            f"keras.distribution.{type(distribution).__name__} does nothing on the {backend} "
            "backend: training would run on one device. Use a strategy of tf.distribute (such as "
            "MirroredStrategy) there, or set KERAS_BACKEND=jax before Keras is imported; "
            "keras.distribution.set_distribution(None) takes it back. See docs/distribution.md."
        )
    if config is not None:
        check_layout(distribution, config)
