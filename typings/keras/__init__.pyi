# Keras ships no types: what a checker infers for `keras.ops` is mostly None. Any is the truth.
from typing import Any

def __getattr__(name: str) -> Any: ...
