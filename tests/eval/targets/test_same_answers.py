"""Every kind of request gives the same in process, from an export's files and over REST."""

import functools
from contextlib import ExitStack, contextmanager

import keras
import pytest

from llama_keras.errors import InputError
from llama_keras.eval.differences import Differences
from llama_keras.eval.requests import ANSWERS
from llama_keras.eval.targets.rest import RestTarget
from llama_keras.eval.targets.saved_model import SavedModelTarget
from llama_keras.eval.targets.task import KerasTarget
from llama_keras.serving.server import serve_in_background

TEXTS = [
    "A good film.",
    "",
    "🙂👩‍👩‍👧 née",
    "今天天气很好，我们去公园。",
    "null \x00 byte",
    "half a pair \ud83d here",
    "\u2028 \u3000",
    "word " * 300,
]
PAIRS = [[text, other] for text, other in zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True)]
CONTEXTS = [
    ("The sky is", " blue"),
    ("The sky is ", "blue"),
    ("", "from nothing"),
    ("今天", "天气🙂"),
    ("a \x00 b", " \x00"),
    ("half \ud83d", " pair"),
]
PROMPTS = [("Once upon", ["\n", "e"], 9), ("", [], 5), ("今天 \x00 🙂", ["."], 12), ("x", [], 1)]


def _model(name, **options):
    import llama_keras.tasks as tasks

    keras.utils.set_random_seed(3)
    model = getattr(tasks, name).from_preset("llama-tiny", **options)
    for variable in model.weights:  # sharper, so that answers differ from text to text
        if len(variable.shape) > 1:
            variable.assign(variable * 3.0)
    return model


# Name -> the model and what it is asked.
CASES = {
    "classify": (
        lambda: _model("TextClassifier", labels=["bad", "good", "坏"]),
        [{"text": text} for text in TEXTS],
    ),
    "classify pairs": (
        lambda: _model("TextClassifier", labels=["no", "yes"], pairs=True),
        [{"text": pair} for pair in PAIRS],
    ),
    "classify sets": (
        lambda: _model("TextClassifier", labels=["a", "b", "c"], multi_label=True, threshold=0.4),
        [{"text": text} for text in TEXTS],
    ),
    "tag": (
        lambda: _model("TokenClassifier", labels=["PER", "LOC"]),
        [{"text": text} for text in TEXTS],
    ),
    "answer": (
        lambda: _model("QuestionAnswerer"),
        [{"question": q[:60], "context": c[:3000]} for q, c in PAIRS],
    ),
    "embed": (lambda: _model("Embedder"), [{"text": text} for text in TEXTS]),
    "loglikelihood": (
        functools.cache(lambda: _model("CausalLM", jit_generate=False)),
        [{"context": context, "continuation": rest} for context, rest in CONTEXTS],
    ),
    "generate_until": (
        lambda: CASES["loglikelihood"][0](),
        [{"prompt": p, "until": until, "max_new_tokens": n} for p, until, n in PROMPTS],
    ),
}


@contextmanager
def _targets(model, folder):
    """A model in process, its export and the same behind a server."""
    model.export(folder / "1")
    keras_target, export = KerasTarget(model), SavedModelTarget(folder)
    with serve_in_background(folder) as url:
        server = RestTarget(url, labels=keras_target.labels, retries=0)
        yield [keras_target, export, server]
        server.close()


@pytest.fixture(scope="module")
def causal_targets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal") / "lm"
    with _targets(CASES["loglikelihood"][0](), folder) as targets:
        yield targets


@pytest.mark.parametrize("case", CASES)
def test_model_export_and_server_answer_alike(tmp_path, request, case):
    make, requests = CASES[case]
    kind = case.split()[0]
    with ExitStack() as stack:
        if kind in ("loglikelihood", "generate_until"):
            targets = request.getfixturevalue("causal_targets")
        else:
            targets = stack.enter_context(_targets(make(), tmp_path / "model"))
        assert all(kind in target.requests for target in targets)
        answers = [target.ask(kind, requests, batch_size=3) for target in targets]
        if case == "classify sets":
            silent = RestTarget(targets[2].location, retries=0)
            with pytest.raises(InputError, match="does not tell their names"):
                silent.ask(kind, requests[:1])
            silent.close()
    assert targets[1].labels == targets[0].labels
    assert targets[1].first_tokens(kind, requests[0]) is None
    assert [len(given) for given in answers] == [len(requests)] * 3
    for answer in answers[0]:
        assert case == "classify sets" or set(ANSWERS[kind]) <= set(answer)
    for given in answers[1:]:
        comparison = Differences(2e-4)
        for question, a, b in zip(requests, answers[0], given, strict=True):
            assert comparison.between(a, b) == [], (question, a, b)
        assert max(comparison.largest.values(), default=0.0) < 5e-3
    # Nothing is compared that is not there, and nothing is constant.
    assert comparison.largest or kind == "generate_until"
    assert len({str(answer) for answer in answers[0]}) > 2
    if kind == "loglikelihood":
        assert {answer["num_tokens"] for answer in answers[1] + answers[2]} == {None}
        assert all(answer["num_tokens"] > 0 for answer in answers[0])


def test_no_requests_have_no_answers():
    target = KerasTarget(CASES["loglikelihood"][0]())
    assert [target.ask(kind, []) for kind in target.requests] == [[]] * 3


@pytest.fixture(scope="module")
def causal():
    return KerasTarget(CASES["loglikelihood"][0]())


def test_context_too_long_is_cut_at_its_beginning(causal):
    limit = causal.model.backbone.config.max_sequence_length
    tokenizer = causal.model.tokenizer
    context, rest = "0123456789" * 60, " end"
    count = len(tokenizer.encode([context + rest])[0]) - len(tokenizer.encode([context])[0])
    request = {"context": context, "continuation": rest}
    (answer,) = causal.ask("loglikelihood", [request])
    ids = tokenizer.encode([context + rest])[0]
    # lm-evaluation-harness: (context + continuation)[-(limit + 1):][:-1] is read.
    assert answer["truncated"] == len(ids) - (limit + 1) > 0
    assert answer["num_tokens"] == count
    from llama_keras.tasks.likelihood import ScoredPair

    kept = ids[-(limit + 1) :]
    pair = ScoredPair(kept[: limit + 1 - count], kept[limit + 1 - count :])
    ((logprob, greedy),) = causal.model.score_pairs([pair])
    assert (answer["logprob"], answer["is_greedy"]) == (pytest.approx(logprob, abs=1e-5), greedy)
    (short,) = causal.ask("loglikelihood", [{"context": "a", "continuation": rest}])
    assert "truncated" not in short


def test_continuation_that_fills_the_context_is_the_last_that_is_scored(causal):
    limit = causal.model.backbone.config.max_sequence_length
    words = ["x" * size for size in range(limit - 4, limit + 8)]
    sizes = [len(causal.model.tokenizer.encode(["q" + word])[0]) - 1 for word in words]
    fits = words[max(n for n, size in enumerate(sizes) if size <= limit)]
    long = next(word for word, size in zip(words, sizes, strict=True) if size > limit)
    (answer,) = causal.ask("loglikelihood", [{"context": "q", "continuation": fits}])
    assert answer["num_tokens"] <= limit
    with pytest.raises(InputError, match=f"continuation 'xxx.*context is {limit} tokens"):
        causal.ask("loglikelihood", [{"context": "q", "continuation": long}])


def test_prompt_without_room_for_its_answer_is_cut_at_its_beginning(causal):
    limit = causal.model.backbone.config.max_sequence_length
    request = {"prompt": "0123456789" * 60, "until": [], "max_new_tokens": 16}
    (answer,) = causal.ask("generate_until", [request])
    ids = causal.model.tokenizer.encode([request["prompt"]])[0]
    assert answer["truncated"] == len(ids) - (limit - 16) > 0
    same = causal.model.generate(causal.model.tokenizer.decode(ids[-(limit - 16) :]))
    assert same.text.startswith(answer["text"][:8])
    (whole,) = causal.ask("generate_until", [{**request, "max_new_tokens": 9999}])
    assert whole["truncated"] == len(ids) - (limit - 1)


def test_rolling_scores_every_token_of_odd_texts(causal):
    answers = causal.ask("loglikelihood_rolling", [{"text": text} for text in TEXTS])
    sizes = [len(causal.model.tokenizer.encode([text])[0]) for text in TEXTS]
    assert [answer["num_tokens"] for answer in answers] == sizes
    assert answers[1] == {"logprob": 0.0, "num_tokens": 0}
    assert all(answer["logprob"] < 0 for answer in answers[2:])


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("loglikelihood", {"context": "0123456789" * 60, "continuation": " end"}),
        ("generate_until", {"prompt": "0123456789" * 60, "until": [], "max_new_tokens": 3}),
    ],
)
def test_exports_refuse_what_is_too_long_and_say_what_to_do(causal_targets, kind, request_):
    for target in causal_targets[1:]:
        with pytest.raises(InputError, match=r"256.*An export cuts nothing") as caught:
            target.ask(kind, [request_])
        assert "\n" not in str(caught.value) and "[[" not in str(caught.value)
        assert target.location in str(caught.value)


def test_conversations_are_refused_by_exports(causal_targets):
    asked = {"prompt": "Hi", "until": [], "max_new_tokens": 3, "chat": True}
    with pytest.raises(InputError, match="leave prompt.chat out"):
        causal_targets[1].ask("generate_until", [asked])


def test_pairs_and_single_texts_are_not_confused(toy_export):
    pair = [{"text": ["good", "bad"]}]
    with serve_in_background(toy_export) as url:
        server = RestTarget(url)
        for target in (SavedModelTarget(toy_export), server):
            with pytest.raises(InputError, match=r"takes \['text'\] .*'text_pair'.*pairs"):
                target.ask("classify", pair)
        server.close()
