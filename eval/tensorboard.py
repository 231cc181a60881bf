"""The figures of a finished evaluation as TensorBoard scalars."""

from collections.abc import Sequence
from pathlib import Path

from llama_keras.errors import InputError
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.results import Result


def write_scalars(
    results: str | Path | Sequence[Result], *, directory: str | Path, step: int = 0
) -> None:
    """Writes `SUITE/METRIC`, the ends of its interval and the rate of requests.

    Args:
        results: The folder of a finished evaluation, or results.
        directory: The log directory; made where it is not there, added to where it is.
        step: Where on the axis: of several evaluations of one training, its step.

    Raises:
        InputError: There is no finished evaluation, or the directory cannot be written.
    """
    if isinstance(results, str | Path):
        results = list(read_evaluation(results).results.values())
    import tensorflow as tf

    place = Path(directory).expanduser()
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; name a folder for TensorBoard's logs.")
    try:
        place.mkdir(parents=True, exist_ok=True)
        writer = tf.summary.create_file_writer(str(place))
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"{place} cannot be written for TensorBoard ({error}).") from None
    with writer.as_default(step):
        for result in results:
            for name, metric in result.metrics.items():
                tf.summary.scalar(f"{result.suite}/{name}", metric.value)
                tf.summary.scalar(f"{result.suite}/{name}_low", metric.low)
                tf.summary.scalar(f"{result.suite}/{name}_high", metric.high)
            if result.asked:
                tf.summary.scalar(f"{result.suite}/requests_per_second", result.requests_per_second)
    writer.close()
