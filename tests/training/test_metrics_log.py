import json

import keras
import numpy as np

from llama_keras.training.metrics_log import MetricsLog


def test_lines_every_few_steps_and_at_each_end(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((10, 2), "float32")
    model.fit(
        x,
        x[:, :1],
        validation_data=(x, x[:, :1]),
        batch_size=2,
        epochs=2,
        verbose=0,
        callbacks=[MetricsLog(tmp_path / "log.jsonl", every=4)],
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (1, 5), (2, 8), (2, 10)]
    ends = [line for line in lines if line.get("end_of_epoch")]
    assert [line["step"] for line in ends] == [5, 10]
    assert all(np.isfinite(line["val_loss"]) for line in ends)
    assert "val_loss" not in lines[0] and lines[0]["loss"] > 0
