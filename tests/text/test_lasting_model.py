import gc

import keras
import pytest

from llama_keras.text import Tokenizer

TEXTS = ["Lovely, moving film.", "今天天气很好 🙂", ""]


@pytest.mark.parametrize("fixture", ["tiny", "smollm2_tokenizer"])
def test_a_tokenizer_outlives_a_new_random_seed_and_its_equals(request, fixture):
    tokenizer = request.getfixturevalue(fixture)
    equal = Tokenizer(spec=tokenizer.spec)
    expected = tokenizer.encode(TEXTS)
    assert equal.encode(TEXTS) == expected
    keras.utils.set_random_seed(3)
    assert tokenizer.encode(TEXTS) == equal.encode(TEXTS) == expected
    del equal
    gc.collect()
    assert tokenizer.encode(TEXTS) == expected
    assert Tokenizer(spec=tokenizer.spec).encode(TEXTS) == expected
