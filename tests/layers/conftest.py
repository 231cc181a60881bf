import pytest

from tests.layers.longhand import STRICT


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/layers/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings(*STRICT))
