import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.models import LlamaBackbone
from llama_keras.text import Tokenizer
from tests.models.backbone_suite import SIZES as SUITE_SIZES
from tests.models.backbone_suite import VARIANTS, perturbed, toy_batch

FEATURES = {"token_ids": np.array([[5, 6, 7]]), "padding_mask": np.ones((1, 3), "int32")}
SIZES = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "head_dim": 8,
}


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_preset_gives_the_same_model(tmp_path, tied):
    backbone = LlamaBackbone(**SIZES, tie_word_embeddings=tied, attention_bias=True)
    backbone.save_to_preset(tmp_path / "mine", tokenizer=Tokenizer.from_preset("llama-tiny"))
    loaded = LlamaBackbone.from_preset(tmp_path / "mine")
    assert loaded.config == backbone.config
    hidden = backbone(FEATURES)
    assert (np.array(loaded(FEATURES)) == np.array(hidden)).all()
    logits = [np.array(b.token_embedding(hidden, reverse=True)) for b in (backbone, loaded)]
    assert (logits[0] == logits[1]).all()
    tokenizer = Tokenizer.from_preset(tmp_path / "mine")
    assert tokenizer.decode(tokenizer.encode("née 🙂")) == "née 🙂"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_comes_back_from_a_preset(tmp_path, variant):
    backbone = perturbed(LlamaBackbone(**{**SUITE_SIZES, **VARIANTS[variant]}))
    backbone.save_to_preset(tmp_path / "mine")
    loaded = LlamaBackbone.from_preset(tmp_path / "mine")
    assert loaded.config == backbone.config
    batch = toy_batch((6, 4), mode=backbone.config.attention_mask)
    assert (np.array(loaded(batch)) == np.array(backbone(batch))).all()


def test_an_existing_directory_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    with pytest.raises(InputError, match="exists"):
        LlamaBackbone(**SIZES).save_to_preset(tmp_path / "mine")
    assert (tmp_path / "mine" / "file").read_text() == "keep"


def test_arguments_replace_those_of_the_checkpoint():
    backbone = LlamaBackbone.from_preset(
        "llama-tiny", dtype="mixed_bfloat16", attention_mask="bidirectional"
    )
    assert backbone.config.attention_mask == "bidirectional"
    assert backbone.compute_dtype == "bfloat16"


def test_a_shorter_copy_stops_after_the_same_blocks():
    backbone = LlamaBackbone(**SIZES)
    shorter = backbone.truncated(1)
    expected = backbone.layer_norm(
        backbone.transformer_layers[0](
            backbone.token_embedding(FEATURES["token_ids"]),
            bias=np.triu(np.full((3, 3), -1e9, "float32"), 1)[None, None],
            **dict(zip(("cos", "sin"), backbone.rotary(np.arange(3)[None]), strict=True)),
        )
    )
    assert np.abs(np.array(shorter(FEATURES)) - np.array(expected)).max() < 1e-6
    with pytest.raises(InputError, match="1 … 2"):
        backbone.truncated(3)
