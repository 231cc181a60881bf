import math
import re

import pytest

from llama_keras.eval.metrics import Metric
from llama_keras.eval.plots import Point, interval_bar, points_plot, reliability_plot, scale_of


def numbers(picture, name):
    return [float(number) for number in re.findall(rf'\b{name}="([^"]*)"', picture)]


def test_a_bar_spans_the_interval():
    bar = interval_bar(Metric(0.5, 0.25, 0.75, "wilson"), scale=(0.0, 1.0), title="accuracy")
    _, interval, value = re.findall("<rect[^>]*>", bar)
    assert 'x="40.0"' in interval and 'width="80.0"' in interval
    assert 'x="79.0"' in value
    bar = interval_bar(Metric(0.0, -0.5, 0.5, "bootstrap"), scale=(-1.0, 1.0), title="mcc")
    assert 'x="40.0"' in bar and 'width="80.0"' in bar


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("accuracy", [0.5], (0.0, 1.0)),
        ("bleu", [33.0], (0.0, 100.0)),
        ("mcc", [0.1], (-1.0, 1.0)),
        ("word_perplexity", [20.0, 100.0, math.inf], (0.0, 115.0)),
    ],
)
def test_the_scale_is_what_the_metric_can_be(name, values, scale):
    assert scale_of(name, values) == pytest.approx(scale)


def test_points_stand_at_their_values():
    metrics = [Metric(value, value - 0.1, value + 0.1, "wilson") for value in (0.2, 0.8)]
    points = [Point(f"{n}–{n + 1}", metric, 5) for n, metric in enumerate(metrics)]
    picture = points_plot(points, scale=(0.0, 1.0), title="by length", axis="characters")
    low, high = numbers(picture, "cy")
    bottom, top = numbers(picture, "y1")[0], numbers(picture, "y1")[4]  # the grid's ends
    assert (bottom - low) / (bottom - top) == pytest.approx(0.2, abs=1e-3)
    assert (bottom - high) / (bottom - top) == pytest.approx(0.8, abs=1e-3)
    assert "0–1: 0.2 (0.1 – 0.3), n = 5" in picture


def test_a_calibrated_bin_stands_on_the_diagonal():
    bins = [{"confidence": share, "accuracy": share, "n": 10} for share in (0.2, 0.5, 1.0)]
    picture = reliability_plot(bins, title="Calibration")
    (line,) = re.findall('<line class="ideal"[^>]*>', picture)
    (x1,), (y1,), (x2,), (y2,) = (numbers(line, name) for name in ("x1", "y1", "x2", "y2"))
    for x, y in zip(numbers(picture, "cx"), numbers(picture, "cy"), strict=True):
        assert (x - x1) / (x2 - x1) == pytest.approx((y - y1) / (y2 - y1), abs=2e-3)


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf])
def test_what_is_no_number_breaks_no_picture(value):
    metric = Metric(value, value, value, "bootstrap")
    bar = interval_bar(metric, scale=scale_of("perplexity", [value]), title="<&>")
    points = points_plot([Point("<b>", metric, 1)], scale=(0.0, 1.0), title="x", axis="<i>")
    for picture in (bar, points):
        assert not re.search(r'"(nan|-?inf)"', picture)
        assert "<b>" not in picture and "<i>" not in picture
    assert "<title>&lt;&amp;&gt;</title>" in bar
