"""Marks of test cases."""

import pytest


def slow(*cases) -> list:
    """Gives cases of `parametrize` that are slow."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]
