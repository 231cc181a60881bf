import pytest

from llama_keras.errors import InputError
from llama_keras.eval.folder import read_evaluation
from llama_keras.eval.tensorboard import write_scalars


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(e.step, float(make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_values_and_intervals_are_scalars(records, tmp_path):
    write_scalars(records[0], directory=tmp_path / "logs")
    results = read_evaluation(records[1]).results
    write_scalars(list(results.values()), directory=tmp_path / "logs", step=5)
    found = scalars(tmp_path / "logs")
    before = read_evaluation(records[0]).results
    for suite, result in results.items():
        for name, metric in result.metrics.items():
            first = before[suite].metrics[name]
            for suffix, values in (
                ("", (first.value, metric.value)),
                ("_low", (first.low, metric.low)),
                ("_high", (first.high, metric.high)),
            ):
                assert [step for step, _ in found[f"{suite}/{name}{suffix}"]] == [0, 5]
                numbers = [value for _, value in found[f"{suite}/{name}{suffix}"]]
                assert numbers == pytest.approx(list(values), rel=1e-6)
        assert found[f"{suite}/requests_per_second"][0][1] > 0


def test_places_that_do_not_fit_are_told(records, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; name a folder"):
        write_scalars(records[0], directory=tmp_path / "file")
    with pytest.raises(InputError, match="no finished evaluation"):
        write_scalars(tmp_path, directory=tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
