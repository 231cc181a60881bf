import json
import math

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from llama_keras.errors import InputError
from llama_keras.explain import Settings, explain, explain_preset, stages
from llama_keras.explain.forward import run_forward
from llama_keras.explain.terminal import print_explanation
from llama_keras.models.presets import save_to_preset
from llama_keras.tasks import Pretraining
from llama_keras.text import Cleaning, NoiseVocabulary, RandomDeletion, RandomMasking
from tests.explain.conftest import ARTICLE

IDS = [5, 17, 88, 130, 17, 201]
BOTH = {"attention_mask": "bidirectional"}
VARIANTS = {
    "llama": {},
    "article": ARTICLE,
    "prefix": {"attention_mask": "prefix"},
    "bare": {"positions": "none", "attention_kernel": "gaussian", "learned_temperature": True},
}


def inputs_of(backbone):
    ids = ops.convert_to_tensor([IDS], dtype="int32")
    inputs = {"token_ids": ids, "padding_mask": ops.ones_like(ids)}
    if backbone.config.attention_mask == "prefix":
        inputs["prefix_mask"] = ops.ones_like(ids)
    return inputs


def own_kernel(layer):
    (own,) = [kernel for kernel in layer.attention if kernel.in_use]
    return own


def scores_of(backbone, tokens):
    """Gives (T, V): what a backbone takes each place of a row for."""
    ids = ops.convert_to_tensor([[token.id for token in tokens]])
    hidden = backbone({"token_ids": ids, "padding_mask": ops.ones_like(ids)})
    return np.asarray(ops.softmax(backbone.token_embedding(hidden, reverse=True)[0]))


def close(one, other):
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_agrees_with_the_backbone(make_backbone, name):
    backbone = make_backbone(**VARIANTS[name])
    found = run_forward(backbone, IDS, numbers=[1, 2, 3])
    inputs = inputs_of(backbone)
    close(found.contextual.values, backbone(inputs)[0])
    close(found.embeddings.values, ops.take(backbone.token_embedding.embeddings, IDS, axis=0))
    for layer, weights in zip(found.layers, backbone.attention_weights(inputs), strict=True):
        own = own_kernel(layer)
        assert own.kernel == backbone.config.attention_kernel
        close(own.weights, weights[0])


def test_each_part_of_a_layer_is_what_its_layers_give(llama):
    found = run_forward(llama, IDS, numbers=[1, 2]).layers
    positions = ops.arange(len(IDS))[None]
    bias = np.where(np.tri(len(IDS)), 0.0, -1e9).astype("float32")[None, None]
    cos, sin = llama.rotary(positions)
    hidden = ops.convert_to_tensor(found[0].hidden.values[None])
    block = llama.transformer_layers[1]
    close(found[1].hidden.values, block(hidden, bias=bias, cos=cos, sin=sin)[0])
    attended = block.attention(block.attention_norm(hidden), bias=bias, cos=cos, sin=sin)
    # What the block adds beside attention is the feed-forward network's.
    close(found[1].feed_forward.values, found[1].hidden.values - (hidden + attended)[0])


def test_the_other_kernel_is_that_of_a_backbone_with_the_same_weights(make_backbone, llama):
    arguments = {"attention_kernel": "gaussian", "attention_temperature": 0.25}
    twin = make_backbone(**arguments)
    twin.set_weights(llama.get_weights())
    shown = run_forward(llama, IDS, numbers=[1], temperature=0.25).layers[0].attention[1]
    assert (shown.kernel, shown.temperature, shown.in_use) == ("gaussian", 0.25, False)
    close(shown.weights, twin.attention_weights(inputs_of(twin))[0][0])


def test_rows_of_attention_add_up_to_one_and_see_nothing_to_come(found):
    for layer in found.layers:
        for kernel in layer.attention:
            assert kernel.weights.shape == (4, len(found.tokens), len(found.tokens))
            if kernel.normalized:
                close(kernel.weights.sum(axis=-1), np.ones(kernel.weights.shape[:2]))
            assert not np.triu(kernel.weights, 1).any()


def test_unnormalized_rows_of_the_article_need_not(article, tokenizer):
    found = explain("好天气", backbone=article, tokenizer=tokenizer)
    own = own_kernel(found.layers[0])
    assert own.temperature == 0.5 and not own.normalized
    assert (own.weights.sum(axis=-1) < 0.99).any() and (own.weights <= 1).all()
    assert np.triu(own.weights, 1).any()  # both ways


@pytest.mark.parametrize("name", ["llama", "article"])
def test_both_forms_of_the_gaussian_kernel_are_shown(make_backbone, name):
    layer = run_forward(make_backbone(**VARIANTS[name]), IDS, numbers=[2]).layers[0]
    shown = [(kernel.kernel, kernel.normalized) for kernel in layer.attention]
    assert shown == [("dot_product", True), ("gaussian", True), ("gaussian", False)]
    _, normalized, plain = (kernel.weights for kernel in layer.attention)
    close(normalized, plain / plain.sum(axis=-1, keepdims=True))
    assert (plain.sum(axis=-1) < 0.99).any()


def test_formulas_are_those_of_the_weights(article, tokenizer, capsys):
    found = explain("好天气", backbone=article, tokenizer=tokenizer)
    near = "exp(−‖q_i − k_j‖² / (d'α))"
    plain = found.to_dict()["layers"][0]["attention"]
    assert [(kernel["normalized"], kernel["formula"]) for kernel in plain] == [
        (True, "softmax_j(q_i·k_j / √d')"),
        (True, f"{near} / Σ_j {near}"),
        (False, near),
    ]
    print_explanation(found)
    printed = capsys.readouterr().out
    assert f"  gaussian, unnormalized, α = 0.5: {near} (the model's own)" in printed.splitlines()
    words = " ".join(printed.split())
    assert f"gaussian, normalized, α = 0.5: {near} / Σ_j {near}" in words
    assert "the model goes on with gaussian, unnormalized, α = 0.5." in words


def test_a_model_at_hand_keeps_its_temperature_whatever_is_shown(article, tokenizer):
    settings = Settings(temperature=0.25, layers=(1,))
    found = explain("好天气", backbone=article, tokenizer=tokenizer, settings=settings)
    (layer,) = found.layers
    shown = [(k.kernel, k.temperature, k.normalized, k.in_use) for k in layer.attention]
    assert shown == [
        ("dot_product", None, True, False),
        ("gaussian", 0.25, True, False),
        ("gaussian", 0.25, False, False),
        ("gaussian", 0.5, False, True),
    ]
    plain = explain("好天气", backbone=article, tokenizer=tokenizer)
    close(found.contextual.values, plain.contextual.values)
    close(layer.attention[3].weights, own_kernel(plain.layers[0]).weights)


def test_temperature_sharpens(llama):
    def sharpest(temperature):
        layer = run_forward(llama, IDS, numbers=[1], temperature=temperature).layers[0]
        return layer.attention[1].weights.max(axis=-1).mean()

    assert sharpest(0.05) > sharpest(1.0) > sharpest(20.0)


def test_text_becomes_the_tokens_of_its_cleaning(found, tokenizer):
    (clean,) = Cleaning(["remove_punctuation"]).clean([found.text])
    assert found.cleaned == [("remove_punctuation", clean)] and found.clean_text == clean
    encoding = tokenizer.encode(clean, offsets=True)
    assert [token.id for token in found.tokens] == encoding.ids
    assert [(token.start, token.end) for token in found.tokens] == encoding.offsets
    labels = [token.label for token in found.tokens]
    assert labels[:4] == ["今·1", "今·2", "今·3", "天·1"]
    assert labels[-2:] == ["s", "o"] and "␣" in labels


def test_steps_are_done_in_their_order(llama, tokenizer):
    settings = Settings(clean=("strip_html", "remove_punctuation", "collapse_whitespace"))
    found = explain("<b>Hi</b>,  you", backbone=llama, tokenizer=tokenizer, settings=settings)
    (whole,) = Cleaning(settings.clean or ()).clean([found.text])
    assert [step for step, _ in found.cleaned] == list(settings.clean or ())
    assert found.clean_text == whole


def test_steps_have_settings(llama, tokenizer):
    step = {"name": "remove_stop_words", "language": "zh", "add": ["很"]}
    settings = Settings(clean=(step,))
    found = explain("我的天气很好", backbone=llama, tokenizer=tokenizer, settings=settings)
    label = 'remove_stop_words:language="zh",add=["很"]'
    assert found.cleaned == [(label, Cleaning([step]).clean(["我的天气很好"])[0])]
    assert found.clean_text == "天气好"


def test_a_preset_cleans_as_it_learned_to(llama, tokenizer, tmp_path, capsys):
    cleaning = Cleaning(["lower", {"name": "remove_punctuation", "replacement": ""}])
    preset = str(tmp_path / "cleaned")
    save_to_preset(preset, backbone=llama, tokenizer=tokenizer, cleaning=cleaning.get_config())
    found = explain_preset("A, B!", preset=preset)
    assert found.cleaned == [("lower", "a, b!"), ('remove_punctuation:replacement=""', "a b")]
    for clean, text in (((), "A, B!"), (("collapse_whitespace",), "A, B!")):
        other = explain_preset("A, B!", preset=preset, settings=Settings(clean=clean))
        assert other.clean_text == text and len(other.cleaned) == len(clean)
    print_explanation(explain_preset("A, B!", preset="llama-tiny"))
    assert "There are none here" in " ".join(capsys.readouterr().out.split())


def test_noise_is_that_of_the_corruptions(found, tokenizer):
    vocabulary = NoiseVocabulary.of(tokenizer, mask_id=tokenizer.vocabulary_size)
    ids = tf.constant([[token.id for token in found.tokens]])
    for shown, corruption in zip(
        found.corruptions,
        (RandomMasking(mask_rate=1.0, random_rate=0.0, seed=3), RandomDeletion(seed=3)),
        strict=True,
    ):
        rows = corruption(ids, index=[0], vocabulary=vocabulary)
        assert shown.name == corruption.name
        assert shown.hit == np.flatnonzero(rows.prediction_mask[0]).tolist() != []
        left = rows.token_ids.numpy()[0][rows.padding_mask.numpy()[0]]
        assert [token.id for token in shown.tokens] == left.tolist()
    masked, deleted = found.corruptions
    assert [masked.tokens[place].label for place in masked.hit] == ["<mask>"] * len(masked.hit)
    assert len(deleted.tokens) == len(found.tokens) - len(deleted.hit)


def test_another_seed_hits_others(llama, tokenizer):
    def hits(seed):
        settings = Settings(seed=seed, rate=0.4)
        found = explain("今天天气很好", backbone=llama, tokenizer=tokenizer, settings=settings)
        return [corruption.hit for corruption in found.corruptions]

    assert hits(1) == hits(1) != hits(2)


def test_a_causal_model_tells_what_comes_next(found, llama):
    (prediction,) = found.output
    scores = scores_of(llama, found.tokens)[-1]
    assert (prediction.place, prediction.true) == (len(found.tokens), None)
    assert [guess.id for guess in prediction.guesses] == np.argsort(-scores)[:5].tolist()
    close([guess.score for guess in prediction.guesses], np.sort(-scores)[:5] * -1)


def test_a_bidirectional_model_tells_what_was_hidden(make_backbone, tokenizer):
    backbone = make_backbone(**BOTH)
    settings = Settings(rate=0.3)
    found = explain("a good day", backbone=backbone, tokenizer=tokenizer, settings=settings)
    masked = found.corruptions[0]
    assert found.model_input == "masked" and found.input_tokens == masked.tokens
    assert [prediction.place for prediction in found.output] == masked.hit
    scores = scores_of(backbone, masked.tokens)
    for prediction in found.output:
        row, id_ = scores[prediction.place], found.tokens[prediction.place].id
        assert prediction.true is not None
        close(prediction.true.score, row[id_])
        assert prediction.rank == np.argsort(-row).tolist().index(id_) + 1


def test_a_preset_that_tells_the_next_token_tells_it_one_place_before(
    make_backbone, tokenizer, tmp_path
):
    backbone = make_backbone(**BOTH)
    task = Pretraining(backbone=backbone, tokenizer=tokenizer, objective="masked_next_token")
    task.save_to_preset(tmp_path / "preset")
    settings = Settings(rate=0.5)
    found = explain_preset("a good day", preset=str(tmp_path / "preset"), settings=settings)
    hit = found.corruptions[0].hit
    assert [prediction.place for prediction in found.output] == [place for place in hit if place]
    assert len(found.output) > 1
    in_place = explain("a good day", backbone=backbone, tokenizer=tokenizer, settings=settings)
    for prediction in found.output:
        before = scores_of(backbone, found.input_tokens)[prediction.place - 1]
        assert prediction.true is not None
        close(prediction.true.score, before[found.tokens[prediction.place].id])
    assert in_place.output != found.output


ODD = {
    "one character": "好",
    "one letter": "a",
    "longer than the context": "天气 " * 500,
    "right to left": "שלום עולם، مرحبا",
    "zero width": "a\u200bb\u202e\ufeffc",
    "emoji": "👩‍👩‍👧 👍🏽",
    "half a pair": "a\ud83db",
    "control": "a\x00\n\tb",
    "markup": "<script>[bold]{{ 1 }}</script>",
    "white": "   ",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["llama", "article"])
def test_odd_texts_go_all_the_way(request, tokenizer, capsys, name, kind):
    backbone = request.getfixturevalue(kind)
    found = explain(ODD[name], backbone=backbone, tokenizer=tokenizer)
    assert len(found.input_tokens) == len(found.contextual.values) <= 40
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["token_count"] == found.token_count
    assert len(plain["layers"][0]["attention"][0]["weights"]) == 4
    assert all(token.label.isprintable() for token in found.tokens)
    print_explanation(found)
    assert "9. Output" in capsys.readouterr().out


def test_a_long_text_is_cut_and_says_so(llama, tokenizer, capsys):
    found = explain("天气 " * 500, backbone=llama, tokenizer=tokenizer)
    assert (len(found.tokens), found.token_count) == (40, 3500)
    print_explanation(found)
    printed = " ".join(capsys.readouterr().out.split())
    assert "3500 tokens. The text has 3500 tokens; explained are the first 40." in printed


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "nothing to explain"),
        ("。，！", {"clean": ("remove_punctuation", "collapse_whitespace")}, "Nothing is left of"),
        ("a", {"clean": ("polish",)}, "polish"),
        ("a", {"clean": ({"name": "lower", "case": 1},)}, "no setting 'case'"),
        ("a", {"layers": (4,)}, "no layer 4; the model has layers 1 to 3"),
        ("a", {"layers": (0,)}, "no layer 0"),
        ("a", {"temperature": 0.0}, "temperature must be a positive number"),
        ("a", {"rate": 1.5}, "from 0 to 1"),
        ("a", {"max_tokens": 0}, "max_tokens must be 1 or more"),
    ],
)
def test_what_cannot_be_explained_is_told(llama, tokenizer, text, settings, message):
    with pytest.raises(InputError, match=message):
        explain(text, backbone=llama, tokenizer=tokenizer, settings=Settings(**settings))


def test_presets_by_kernel_and_mask():
    settings = Settings(temperature=0.5, layers=(2,))
    arguments = {"kernel": "gaussian", "attention_mask": "bidirectional", "settings": settings}
    found = explain_preset("好", preset="llama-tiny", **arguments)
    assert found.model["attention_kernel"] == "gaussian"
    assert found.model_input == "masked"
    (layer,) = found.layers
    assert layer.number == 2
    assert [(k.kernel, k.in_use) for k in layer.attention] == [
        ("dot_product", False),
        ("gaussian", True),
        ("gaussian", False),
    ]
    assert layer.attention[1].temperature == 0.5


def test_a_preset_runs_with_the_articles_kernel():
    found = explain_preset("好", preset="llama-tiny", kernel="gaussian", normalize=False)
    own = own_kernel(found.layers[0])
    assert (own.kernel, own.normalized) == ("gaussian", False)
    found = explain_preset("好", preset="llama-tiny", kernel="gaussian")
    assert own_kernel(found.layers[0]).normalized
    with pytest.raises(InputError, match="acts only with attention_kernel='gaussian'"):
        explain_preset("好", preset="llama-tiny", normalize=False)


@pytest.fixture(scope="module")
def learned(make_backbone, tokenizer, tmp_path_factory):
    """A saved preset whose layers learned the temperatures 0.5, 0.7 and 0.9; and its backbone."""
    backbone = make_backbone(attention_kernel="gaussian", learned_temperature=True)
    for block, alpha in zip(backbone.transformer_layers, (0.5, 0.7, 0.9), strict=True):
        block.attention.attention_kernel.log_temperature.assign(math.log(alpha))
    folder = tmp_path_factory.mktemp("learned") / "preset"
    backbone.save_to_preset(folder, tokenizer=tokenizer)
    return str(folder), backbone


def test_learned_temperatures_are_those_of_each_layer(learned, capsys):
    found = explain_preset("好天", preset=learned[0])
    temperatures = [own_kernel(layer).temperature for layer in found.layers]
    assert temperatures == pytest.approx([0.5, 0.7, 0.9])
    assert all(len(layer.attention) == 3 for layer in found.layers)
    print_explanation(found)
    words = " ".join(capsys.readouterr().out.split())
    assert "goes on with gaussian, normalized, α = 0.9 in layer 3." in words


@pytest.mark.parametrize("alpha", [0.25, 3.0])
def test_a_temperature_takes_the_place_of_learned_ones(learned, tokenizer, alpha):
    preset, backbone = learned
    settings = Settings(temperature=alpha)
    found = explain_preset("好天", preset=preset, settings=settings)
    assert [own_kernel(layer).temperature for layer in found.layers] == [alpha] * 3
    twin = backbone.from_config(backbone.get_config())
    twin.set_weights(backbone.get_weights())
    for block in twin.transformer_layers:
        block.attention.attention_kernel.log_temperature.assign(math.log(alpha))
    close(found.contextual.values, explain_values(twin, tokenizer))
    at_hand = explain("好天", backbone=backbone, tokenizer=tokenizer, settings=settings)
    own = [own_kernel(layer).temperature for layer in at_hand.layers]
    assert own == pytest.approx([0.5, 0.7, 0.9])
    close(at_hand.contextual.values, explain_values(backbone, tokenizer))


def explain_values(backbone, tokenizer):
    return explain("好天", backbone=backbone, tokenizer=tokenizer).contextual.values


def test_a_learned_preset_runs_with_dot_products(learned):
    found = explain_preset("好天", preset=learned[0], kernel="dot_product")
    assert own_kernel(found.layers[0]).kernel == "dot_product"
    close(found.embeddings.values, explain_preset("好天", preset=learned[0]).embeddings.values)


def test_a_saved_gaussian_preset_runs_with_dot_products(article, tokenizer, tmp_path):
    article.save_to_preset(tmp_path / "saved", tokenizer=tokenizer)
    preset = str(tmp_path / "saved")
    own = explain_preset("好", preset=preset)
    assert own_kernel(own.layers[0]).temperature == 0.5
    other = explain_preset("好", preset=preset, kernel="dot_product")
    assert other.layers[0].attention[0].in_use
    close(own.embeddings.values, other.embeddings.values)


def test_no_checkpoint_no_harm(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert stages.default_preset() == "llama-tiny"


def test_the_default_is_the_real_checkpoint(smollm2):
    assert stages.default_preset() == "smollm2-135m-instruct"


@pytest.mark.parametrize("wrong", [{"kernel": "cosine"}, {"attention_mask": "sideways"}])
def test_unknown_names_list_the_known(wrong):
    with pytest.raises(InputError, match="expected one of"):
        explain_preset("a", preset="llama-tiny", **wrong)
