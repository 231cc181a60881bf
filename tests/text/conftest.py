import dataclasses
from pathlib import Path

import pytest

from llama_keras.text import Tokenizer, TokenizerSpec


@pytest.fixture(scope="session")
def smollm2_spec(smollm2: Path) -> TokenizerSpec:
    from llama_keras.weights.gguf import GGUFFile

    return TokenizerSpec.from_gguf(GGUFFile(smollm2).metadata)


@pytest.fixture(scope="session")
def tokenizers(smollm2_spec: TokenizerSpec) -> dict[str, Tokenizer]:
    """SmolLM2's vocabulary behind each pre-tokenizer."""
    names = ("gpt2", "smollm", "llama3")
    return {
        name: Tokenizer(dataclasses.replace(smollm2_spec, pre_tokenizer=name)) for name in names
    }


@pytest.fixture(scope="session")
def smollm2_tokenizer(tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers["smollm"]


@pytest.fixture(scope="session")
def tiny() -> Tokenizer:
    return Tokenizer.from_preset("llama-tiny")
