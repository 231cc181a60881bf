"""Models without task heads, and how they generate."""

from llama_keras.models.backbone import LlamaBackbone
from llama_keras.models.config import LlamaConfig

__all__ = ["LlamaBackbone", "LlamaConfig"]
