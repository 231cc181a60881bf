"""One export with several heads: each is asked by its name, wherever it is served."""

import pytest
import tensorflow as tf

from llama_keras.errors import InputError
from llama_keras.eval import evaluate
from llama_keras.eval.targets import open_target
from llama_keras.serving.server import running_server

TEXT = tf.TensorSpec([None], tf.string, "text")
MANIFEST = """{"task": "several", "heads": {
    "mood": {"labels": ["negative", "positive"]}, "names": {"labels": ["PER"]}, "writer": {}}}"""


class Heads(tf.Module):
    """What `export_many` gives a classifier, a tagger and a generator."""

    @tf.function(input_signature=[TEXT])
    def mood(self, text):
        good = tf.strings.regex_full_match(text, ".*good.*")
        positive = tf.where(good, 0.75, 0.25)
        scores = tf.stack([1 - positive, positive], axis=1)
        label = tf.where(good, "positive", "negative")
        return {"label": label, "score": tf.reduce_max(scores, axis=1), "scores": scores}

    @tf.function(input_signature=[TEXT])
    def names(self, text):
        zeros = tf.zeros_like(text, tf.int32)[:, None]
        return {
            "entity": text[:, None],
            "label": tf.fill(tf.shape(zeros), "PER"),
            "start": zeros,
            "end": tf.strings.length(text)[:, None],
            "score": tf.cast(zeros, tf.float32) + 0.5,
            "count": zeros[:, 0] + 1,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "prompt")])
    def writer(self, prompt):
        return {"text": prompt, "finish_reason": prompt}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, n) for n in ("context", "continuation")]
    )
    def writer_score(self, context, continuation):
        length = tf.cast(tf.strings.length(continuation), tf.float32)
        return {"log_probability": -length, "is_greedy": length < 3}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads") / "many"
    module = Heads()
    names = ("mood", "names", "writer", "writer_score")
    signatures = {name: getattr(module, name) for name in names}
    signatures["serving_default"] = module.mood
    tf.saved_model.save(module, str(folder / "1"), signatures=signatures)
    (folder / "1" / "signature.json").write_text(MANIFEST)
    return folder


@pytest.fixture(scope="module")
def places(many):
    """Where the same export is: its folder, REST, gRPC."""
    with running_server(many, port=0, grpc_port=0) as server:
        yield {"files": str(many), "rest": server.url, "grpc": server.grpc_url}


@pytest.mark.parametrize("place", ["files", "rest", "grpc"])
def test_each_head_answers_what_is_its_own(places, place):
    found = {}
    for head, kind, request in (
        ("mood", "classify", {"text": "good"}),
        ("names", "tag", {"text": "Anna"}),
        ("writer", "loglikelihood", {"context": "a", "continuation": "bc"}),
        ("writer_score", "loglikelihood", {"context": "a", "continuation": "bcde"}),
    ):
        target = open_target(f"{places[place]}#{head}")
        assert target.requests == {kind}
        assert target.location.endswith(f"#{head}")
        (found[head],) = target.ask(kind, [request])
        getattr(target, "close", lambda: None)()
    assert (found["mood"]["label"], found["mood"]["score"]) == ("positive", 0.75)
    (entity,) = found["names"]["entities"]
    assert (entity["text"], entity["label"], entity["end"]) == ("Anna", "PER", 4)
    assert found["writer"]["logprob"] == -2.0 and found["writer"]["is_greedy"]
    assert found["writer_score"]["logprob"] == -4.0


def test_an_evaluation_of_a_head_knows_its_labels(many, places, toy_suite, tmp_path):
    result = evaluate(toy_suite, model=f"{many}#mood", output=tmp_path / "record")
    assert result.metrics["accuracy"].value == 0.75
    assert result.model["location"] == f"{many / '1'}#mood"
    assert open_target(f"{many}#names").labels == ["PER"]
    assert open_target(many).labels == ["negative", "positive"]  # the first is the default
    by_name = open_target(many, signature="mood").fingerprint()
    assert by_name == result.model["sha256"] != open_target(f"{many}#names").fingerprint()
    for place in ("rest", "grpc"):
        found = evaluate(toy_suite, model=f"{places[place]}#mood")
        assert found.metrics["accuracy"].value == 0.75


def test_names_of_no_head_are_refused(many, places, tmp_path):
    with pytest.raises(InputError, match=r"no such signature; the signatures are \['mood'"):
        open_target(f"{many}#moods")
    with pytest.raises(InputError, match="many#moods: has no such signature"):
        open_target(f"{places['rest']}#moods").requests  # noqa: B018
    with pytest.raises(InputError, match="behind '#'"):
        open_target(f"{many}#")
    with pytest.raises(InputError, match="names 'mood'; leave 'names' out"):
        open_target(f"{many}#mood", signature="names")
    with pytest.raises(InputError, match="takes no setting 'signature'"):
        open_target("llama-tiny#mood")
    with pytest.raises(InputError, match="no model at .*x#y"):
        open_target(tmp_path / "x#y" / "z")
