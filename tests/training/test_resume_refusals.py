import keras
import numpy as np
import pytest

from llama_keras.errors import InputError
from llama_keras.tasks import TextClassifier
from tests.training.killed_fit import (
    LABELS,
    SMALL,
    Kill,
    Killed,
    classifier,
    early,
    fit,
    kept,
    plain_rate,
)


def test_frozen_weights_are_not_written_but_checked(tmp_path):
    with pytest.raises(Killed):
        fit(classifier("lora"), kept(tmp_path), Kill(5), callbacks=early())
    sizes = [file.stat().st_size for file in (tmp_path / "checkpoints").glob("*.safetensors")]
    model = classifier("lora")
    model.strategy.prepare(model)
    all_bytes = sum(v.value.numpy().nbytes for v in model.variables)
    assert 0 < max(sizes) < all_bytes
    embedding = model.backbone.token_embedding.embeddings
    embedding.assign(embedding + 1.0)
    with pytest.raises(InputError, match=r"weights of '.*embedding.*' do not learn and are not"):
        fit(model, kept(tmp_path), callbacks=early())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 9}, r"batch_size was 4, now 9; steps in an epoch was 5, now 2"),
        ({"epochs": 4}, r"epochs was 3, now 4"),
        ({"seed": 1}, r"seed was 0, now 1"),
        ({"class_weight": {0: 2.0}}, r"difference in: data\."),
    ],
)
def test_another_run_is_refused(tmp_path, arguments, message):
    with pytest.raises(Killed):
        fit(plain_rate(), kept(tmp_path), Kill(4))
    with pytest.raises(InputError, match=message):
        fit(plain_rate(), kept(tmp_path), **arguments)


def test_another_model_optimizer_or_callback_is_refused(tmp_path):
    with pytest.raises(Killed):
        fit(plain_rate(), kept(tmp_path), Kill(4), callbacks=early())
    with pytest.raises(InputError, match="had a callback EarlyStopping that this one lacks"):
        fit(plain_rate(), kept(tmp_path))
    model = plain_rate()
    model.compile(keras.optimizers.SGD(0.03))
    with pytest.raises(InputError, match="difference in: optimizer"):
        fit(model, kept(tmp_path), callbacks=early())
    model = TextClassifier.from_preset("llama-tiny", labels=LABELS, dropout=0.2)
    model.compile(keras.optimizers.Adam(0.03))
    with pytest.raises(InputError, match="difference in: model"):
        fit(model, kept(tmp_path), callbacks=early())
    other = TextClassifier.from_preset(
        "llama-tiny", labels=["bad", "good", "so"], dropout=0.2, backbone_arguments=SMALL
    )
    other.compile(keras.optimizers.Adam(0.03))
    with pytest.raises(InputError, match="difference in: model"):
        fit(other, kept(tmp_path), callbacks=early())


def test_settings_that_do_not_go_with_checkpoints(tmp_path):
    backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(InputError, match="leave BackupAndRestore out"):
        fit(classifier(), kept(tmp_path), callbacks=[backup])
    with pytest.raises(InputError, match=r"best='val_f1' of the checkpoints is none of"):
        fit(classifier(), kept(tmp_path, best="val_f1"))
    with pytest.raises(InputError, match="needs raw examples"):
        classifier().fit({"token_ids": np.ones((2, 2))}, checkpoints=kept(tmp_path))
