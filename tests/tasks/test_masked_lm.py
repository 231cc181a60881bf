import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.tasks import MaskedLM
from llama_keras.tasks.mask_tokens import MaskTokens, encode_masked, free_ids
from llama_keras.text import Tokenizer
from llama_keras.text.cleaning import get_cleaning


def make(**arguments):
    keras.utils.set_random_seed(0)
    arguments.setdefault("max_sequence_length", 64)
    return MaskedLM.from_preset("llama-tiny", **arguments)


@pytest.fixture(scope="module")
def trained():
    """Knows a text of bytes by heart."""
    model = make(corruption={"name": "random_masking", "rate": 0.3})
    model.compile(learning_rate=1e-2)
    model.fit(["abcdefgh"] * 32, epochs=40, batch_size=16, verbose=0)
    return model


def test_what_was_learned_is_filled_in(trained):
    answers = trained.predict(["abc<mask>efgh", "a<mask>cde<mask>gh"], top_k=3, verbose=0)
    assert [answer["text"] for answer in answers] == ["abcdefgh", "abcdefgh"]
    assert [len(answer["fills"]) for answer in answers] == [1, 2]
    best = answers[0]["fills"][0]
    assert len(best) == 3 and best[0]["token"] == "d" and best[0]["score"] > 0.5
    assert trained.tokenizer.decode([best[0]["token_id"]]) == "d"
    scores = [fill["score"] for fill in best]
    assert scores == sorted(scores, reverse=True) and sum(scores) <= 1.0 + 1e-6


@pytest.mark.parametrize("objective", ["masked", "masked_next_token"])
def test_fillings_are_those_of_plain_logits(objective):
    model = make(objective=objective)
    for variable in model.backbone.weights:
        variable.assign(variable * 4.0)
    text = "ab<mask>de"
    (row,) = encode_masked(model.tokenizer, [text], mask_id=model.mask_tokens.mask_id)
    place = row.index(model.mask_tokens.mask_id) - (objective == "masked_next_token")
    ids = np.array([row])
    logits = np.array(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))[0, place]
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    allowed = [
        id_
        for id_ in range(model.tokenizer.vocabulary_size)
        if id_ not in model.tokenizer.special_tokens.values()
    ]
    expected = sorted(allowed, key=lambda id_: -probabilities[id_])[:4]
    many = model.predict([text, "a longer text with <mask> and <mask>."], top_k=4, verbose=0)
    found = many[0]["fills"][0]
    assert [fill["token_id"] for fill in found] == expected
    np.testing.assert_allclose(
        [fill["score"] for fill in found], probabilities[expected], rtol=1e-4
    )


def test_save_and_load(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    again = MaskedLM.load(tmp_path / "model.keras")
    text = "ab<mask>d"
    first, second = (model.predict(text, verbose=0)[0] for model in (trained, again))
    assert first["text"] == second["text"]
    for one, other in zip(first["fills"][0], second["fills"][0], strict=True):
        assert one["token_id"] == other["token_id"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)


def test_nothing_and_token_features(trained):
    assert trained.predict([], verbose=0) == []
    ids = np.array([[5, 6, 7]])
    logits = trained.predict({"token_ids": ids, "padding_mask": ids * 0 + 1}, verbose=0)
    assert logits.shape == (1, 3, trained.backbone.config.vocabulary_size)


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (["no mask"], {}, "Text 0 has no <mask>"),
        (["a<mask>", ""], {}, "Text 1 has no <mask>"),
        (["a" * 80 + "<mask>"], {}, "Text 0 has 81 tokens, the model takes 64"),
        (["a<mask>"], {"top_k": 0}, "top_k must be a number from 1 to 256"),
        (["a<mask>"], {"top_k": 257}, "top_k must be a number from 1 to 256"),
        (["a<mask>"], {"steps": 3}, r"predict takes no \['steps'\]"),
    ],
)
def test_bad_input(trained, texts, settings, message):
    with pytest.raises(InputError, match=message):
        trained.predict(texts, verbose=0, **settings)


def test_a_mask_with_nothing_before_it_has_no_state_to_be_predicted_from():
    model = make(objective="masked_next_token")
    with pytest.raises(InputError, match="begins with <mask>"):
        model.predict("<mask>b", verbose=0)


def test_other_objectives_and_masks_are_refused():
    with pytest.raises(InputError, match="does not learn by the objective 'causal'"):
        make(objective="causal")
    with pytest.raises(InputError, match="needs a backbone with attention_mask='bidirectional'"):
        make(backbone_arguments={"attention_mask": "causal"})


def test_ids_to_spare(smollm2):
    tiny = Tokenizer.from_preset("llama-tiny")
    tokens = MaskTokens.of(tiny, vocabulary_size=512)
    assert (tokens.mask_id, tokens.separator_id, tokens.end_id) == (259, 260, 2)
    assert free_ids(tiny, tiny.vocabulary_size) == []  # the template uses or ends with all others
    with pytest.raises(InputError, match="no token to spare for <mask>; give mask_id"):
        MaskTokens.of(tiny, vocabulary_size=tiny.vocabulary_size)
    with pytest.raises(InputError, match="mask_id=600 is not among the 512 ids"):
        MaskTokens.of(tiny, vocabulary_size=512, mask_id=600)
    with pytest.raises(InputError, match="both 7"):
        MaskTokens.of(tiny, vocabulary_size=512, mask_id=7, separator_id=7)
    big = Tokenizer.from_preset(smollm2)
    tokens = MaskTokens.of(big, vocabulary_size=big.vocabulary_size)
    texts = [big.spec.tokens[id_] for id_ in (tokens.mask_id, tokens.separator_id)]
    assert texts == ["<empty_output>", "<jupyter_script>"]


def test_masks_take_the_space_before_them_along():
    tokenizer = Tokenizer.from_preset("llama-tiny")
    found = encode_masked(tokenizer, ["a <mask> b", "<mask>", "c"], mask_id=300)
    a, space, b, c = (tokenizer.encode(text)[0] for text in ("a", " ", "b", "c"))
    assert found == [[a, 300, space, b], [300], [c]]
    cleaning = get_cleaning(["lower", "collapse_whitespace"])
    cleaned = encode_masked(tokenizer, ["A  <mask>  B"], mask_id=300, cleaning=cleaning)
    assert cleaned == [[a, 300, space, b]]
