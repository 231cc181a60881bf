import keras
import pytest

from llama_keras.models import LlamaBackbone
from llama_keras.text import Tokenizer

SIZES = {
    "vocabulary_size": 300,
    "num_layers": 3,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 48,
    "max_sequence_length": 40,
}
# The article's encoder; heads in groups all the same, for that is where slips hide.
ARTICLE = {
    "attention_mask": "bidirectional",
    "attention_kernel": "gaussian",
    "attention_temperature": 0.5,
    "normalize_attention": False,
    "feed_forward": "mlp",
    "positions": "learned",
}


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer.from_preset("llama-tiny")


@pytest.fixture(scope="session")
def make_backbone():
    def make(**arguments):
        keras.utils.set_random_seed(1)
        backbone = LlamaBackbone(**{**SIZES, **arguments})
        random = keras.random.SeedGenerator(1)
        for weight in backbone.weights:  # larger than at the start, so that weights differ
            weight.assign(weight + 0.3 * keras.random.normal(weight.shape, seed=random))
        return backbone

    return make


@pytest.fixture(scope="session")
def llama(make_backbone):
    return make_backbone()


@pytest.fixture(scope="session")
def article(make_backbone):
    return make_backbone(**ARTICLE)


@pytest.fixture(scope="session")
def found(llama, tokenizer):
    from llama_keras.explain import Settings, explain

    settings = Settings(clean=("remove_punctuation",), seed=3)
    return explain(
        "今天<天气>很好 & so", backbone=llama, tokenizer=tokenizer, name="tiny", settings=settings
    )
