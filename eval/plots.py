"""Plots of the report as inline SVG, drawn here; colours come from the page's style sheet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from llama_keras.eval.metrics import Metric, wilson_interval

# What a metric can be, where that is not 0 … 1; perplexities and the like have no upper end.
_SCALES = {"bleu": (0.0, 100.0), "chrf": (0.0, 100.0), "mcc": (-1.0, 1.0)}
_ENDLESS = ("perplexity", "bits_per_byte")
_BAR, _BAR_HEIGHT = 160, 14
_PLOT, _HEIGHT, _LEFT, _BOTTOM, _TOP = 560, 260, 52, 46, 12
_SQUARE = 320
_TICKS = 5


@dataclass(frozen=True)
class Point:
    """What a plot by bins shows of one bin.

    Attributes:
        label: what the bin is.
        metric: its value and interval.
        n: how many examples it has.
    """

    label: str
    metric: Metric
    n: int


def scale_of(name: str, values: Sequence[float]) -> tuple[float, float]:
    """Gives the ends of a metric's axis, from its name or else from what is to be shown."""
    if name in _SCALES:
        return _SCALES[name]
    if name.endswith(_ENDLESS):
        return 0.0, max([*filter(math.isfinite, values), 1e-9]) * 1.15
    return 0.0, 1.0


def interval_bar(metric: Metric, *, scale: tuple[float, float], title: str) -> Markup:
    """Gives a thin bar of the whole scale with the interval and the value on it."""

    def at(value: float) -> float:
        return _BAR * _share(value, scale)

    low, high, middle = at(metric.low), at(metric.high), _BAR_HEIGHT / 2
    return _svg(
        _BAR,
        _BAR_HEIGHT,
        title,
        f'<rect class="ground" y="{middle - 2:g}" width="{_BAR}" height="4" rx="2"/>',
        f'<rect class="interval" x="{low:.1f}" y="{middle - 4:g}" '
        f'width="{max(high - low, 1):.1f}" height="8" rx="2"/>',
        f'<rect class="value" x="{min(max(at(metric.value) - 1, 0), _BAR - 2):.1f}" '
        f'width="2" height="{_BAR_HEIGHT}"/>',
    )


def points_plot(
    points: Sequence[Point], *, scale: tuple[float, float], title: str, axis: str
) -> Markup:
    """Gives values with their intervals, one point a bin.

    Args:
        points: from left to right.
        scale: ends of the vertical axis.
        title: what screen readers and the mouse find.
        axis: what the bins are.
    """
    step, parts = (_PLOT - _LEFT) / len(points), _grid(scale, _PLOT)
    for number, point in enumerate(points):
        x = _LEFT + step * (number + 0.5)
        tip = f"{point.label}: {point.metric.value:.4g} "
        tip += f"({point.metric.low:.4g} – {point.metric.high:.4g}), n = {point.n}"
        parts += [
            _mark(x, point.metric, scale, 4, tip),
            _text(x, _HEIGHT - _BOTTOM + 16, point.label, "middle"),
        ]
    parts.append(_text((_PLOT + _LEFT) / 2, _HEIGHT - 6, axis, "middle"))
    return _svg(_PLOT, _HEIGHT, title, *parts)


def reliability_plot(bins: Sequence[Mapping[str, float]], *, title: str) -> Markup:
    """Gives the share of right answers against the confidence; on the diagonal they are equal.

    Args:
        bins: `confidence`, `accuracy` and `n` of each, as `text_classification.calibration` gives.
        title: what screen readers and the mouse find.
    """
    scale, most = (0.0, 1.0), max(int(bin_["n"]) for bin_ in bins)
    width, bottom = _SQUARE, _HEIGHT - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (width - _LEFT - 8) * value

    parts = _grid(scale, width)
    parts.append(
        f'<line class="ideal" x1="{across(0):g}" y1="{bottom}" x2="{across(1):g}" y2="{_TOP}"/>'
    )
    for bin_ in bins:
        n = int(bin_["n"])
        low, high = wilson_interval(round(bin_["accuracy"] * n), n)
        metric = Metric(bin_["accuracy"], low, high, "wilson")
        tip = f"confidence {bin_['confidence']:.3f}: {bin_['accuracy']:.3f} right, n = {n}"
        # The area tells how many there are.
        parts.append(
            _mark(across(bin_["confidence"]), metric, scale, 2 + 6 * (n / most) ** 0.5, tip)
        )
    ticks = [0, 0.25, 0.5, 0.75, 1]
    parts += [_text(across(tick), bottom + 16, f"{tick:g}", "middle") for tick in ticks]
    parts.append(_text((width + _LEFT) / 2, _HEIGHT - 6, "confidence", "middle"))
    return _svg(width, _HEIGHT, title, *parts)


def _share(value: float, scale: tuple[float, float]) -> float:
    low, high = scale
    # Not min(max()): what is no number stands at the lower end.
    share = (value - low) / (high - low)
    return 1.0 if share > 1 else share if share > 0 else 0.0


def _down(value: float, scale: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * _share(value, scale)


def _grid(scale: tuple[float, float], width: int) -> list[str]:
    low, high = scale
    parts = []
    for tick in range(_TICKS):
        value = low + (high - low) * tick / (_TICKS - 1)
        y = _down(value, scale)
        parts += [
            f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{width - 8}" y2="{y:.1f}"/>',
            _text(_LEFT - 8, y + 4, f"{value:.3g}", "end"),
        ]
    return parts


def _mark(x: float, metric: Metric, scale: tuple[float, float], radius: float, tip: str) -> str:
    value, low, high = (_down(y, scale) for y in (metric.value, metric.low, metric.high))
    return (
        f"<g><title>{escape(tip)}</title>"
        f'<line class="whisker" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>'
        f'<circle class="dot" cx="{x:.1f}" cy="{value:.1f}" r="{radius:.1f}"/></g>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, title: str, *parts: str) -> Markup:
    return Markup(
        f'<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
