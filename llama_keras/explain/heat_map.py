"""Heat maps as inline SVG that follow the page's colours, in light and dark."""

import math
import unicodedata
from collections import defaultdict
from html import escape

import numpy as np

_LEVELS = 24  # shades; cells of one shade are one path, which keeps pages small
_LABEL_EMS = 7.0  # longest label beside a map
# Largest number of tokens -> side of a cell in pixels.
_CELLS = ((12, 28), (24, 20), (40, 15))
_SMALLEST = 12


def heat_map(weights: np.ndarray, *, labels: list[str], title: str, tips: bool = False) -> str:
    """Gives an `<svg>` of weights between 0 and 1.

    Args:
        weights: `(T, T)`; row i says where token i looks.
        labels: T texts, of which long ones are cut.
        title: what screen readers and the mouse find.
        tips: whether each cell tells its tokens and weight; takes room, for small maps only.
    """
    cell = next((side for most, side in _CELLS if len(labels) <= most), _SMALLEST)
    size = min(13, cell - 2)
    short = [_cut(label) for label in labels]
    margin = math.ceil(size * max(map(_ems, short))) + 8
    side = margin + cell * len(labels) + 2
    parts = [
        f'<svg class="map" role="img" width="{side}" height="{side}" viewBox="0 0 {side} {side}">',
        f"<title>{escape(title)}</title>",
        f'<g class="label" font-size="{size}">',
        *(_label(text, at, cell, size, margin) for at, text in enumerate(short)),
        f'</g><g transform="translate({margin} {margin})">',
        f'<rect class="ground" width="{cell * len(labels)}" height="{cell * len(labels)}"/>',
        *(_cells(weights, labels, cell) if tips else _paths(weights, cell)),
        "</g></svg>",
    ]
    return "".join(parts)


def _label(text: str, at: int, cell: int, size: int, margin: int) -> str:
    """Gives the label of row and column `at`; columns stand upright where there is room."""
    middle = margin + at * cell + cell / 2
    shown = escape(text)
    row = f'<text x="{margin - 5}" y="{middle:g}" text-anchor="end" dy=".35em">{shown}</text>'
    if _ems(text) * size <= cell:
        return f'{row}<text x="{middle:g}" y="{margin - 6}" text-anchor="middle">{shown}</text>'
    turn = f'transform="translate({middle:g} {margin - 5}) rotate(-90)"'
    return f'{row}<text {turn} dy=".35em">{shown}</text>'


def _paths(weights: np.ndarray, cell: int) -> list[str]:
    squares = defaultdict(list)
    for (row, column), weight in np.ndenumerate(weights):
        level = round(float(weight) * _LEVELS)
        if level:
            squares[level].append(f"M{column * cell} {row * cell}h{cell}v{cell}h-{cell}z")
    return [
        f'<path class="cell" fill-opacity="{level / _LEVELS:.3f}" d="{"".join(found)}"/>'
        for level, found in sorted(squares.items())
    ]


def _cells(weights: np.ndarray, labels: list[str], cell: int) -> list[str]:
    return [
        f'<rect class="cell" x="{column * cell}" y="{row * cell}" width="{cell}" height="{cell}" '
        f'fill-opacity="{weight:.3f}"><title>{escape(labels[row])} → {escape(labels[column])}: '
        f"{weight:.3f}</title></rect>"
        for (row, column), weight in np.ndenumerate(weights)
    ]


def _cut(label: str) -> str:
    if _ems(label) <= _LABEL_EMS:
        return label
    while _ems(label) > _LABEL_EMS - 0.7:
        label = label[:-1]
    return f"{label}…"


def _ems(text: str) -> float:
    """Gives about how wide a text is drawn, in font sizes."""
    return sum(_width(char) for char in text)


def _width(char: str) -> float:
    if unicodedata.combining(char):
        return 0.0
    return 1.0 if unicodedata.east_asian_width(char) in "WF" else 0.65
