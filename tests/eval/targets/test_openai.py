import json
import math
import re
from typing import Any

import pytest

from llama_keras.errors import InputError, UnavailableError
from llama_keras.eval.targets import open_target
from llama_keras.eval.targets.openai import OpenAiTarget


def tokens_of(text):
    return re.findall(r"\s*\S{1,3}|\s+", text)


class Completions:
    """What a server with echo answers: each token's log-probability is minus its length."""

    def __init__(self, *, begin="", greedy=True):
        self.begin, self.greedy = begin, greedy

    def __call__(self, method, path, body):
        if method == "GET":
            return {"data": [{"id": "tiny"}]}
        if path.endswith("/embeddings"):
            rows = [{"index": n, "embedding": [len(t), 1]} for n, t in enumerate(body["input"])]
            return {"data": rows[::-1]}
        if path.endswith("/chat/completions"):
            said = body["messages"][0]["content"].upper()
            return {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
        prompts = body["prompt"]
        prompts = [prompts] if isinstance(prompts, str) else prompts
        choices = [self.choice(n, prompt, body) for n, prompt in enumerate(prompts)]
        return {"choices": choices[::-1]}

    def choice(self, number, prompt, body):
        if not body.get("echo"):
            text = f" {prompt[-3:]} END more"
            return {"index": number, "text": text, "finish_reason": "length"}
        tokens = [*([self.begin] if self.begin else []), *tokens_of(prompt), " new"]
        offsets = [sum(map(len, tokens[:at])) for at in range(len(tokens))]
        values = [None, *(-float(len(token)) for token in tokens[1:])]
        best = 0.0 if self.greedy else 0.5
        top = [None, *({token: -len(token), "?": -len(token) + best} for token in tokens[1:])]
        if self.greedy:
            top = [entry and {token: -len(token)} for token, entry in zip(tokens, top, strict=True)]
        logprobs = {
            "tokens": tokens,
            "token_logprobs": values,
            "text_offset": offsets,
            "top_logprobs": top,
        }
        return {"index": number, "text": prompt + " new", "logprobs": logprobs}


@pytest.fixture
def target(fake_server, pauses):
    fake_server.answer = Completions()
    made = OpenAiTarget(f"openai:{fake_server.url}/v1?model=tiny", sleep=pauses.append)
    yield made
    made.close()


PAIRS = [("The sky", " is blue"), ("The sky ", "is blue"), ("今天 x", " 天气"), ("a", " b")]
ASKED = [{"context": context, "continuation": rest} for context, rest in PAIRS]


@pytest.mark.parametrize("begin", ["", "<s>"])
def test_continuations_are_scored_from_the_echo(fake_server, target, begin):
    fake_server.answer = Completions(begin=begin)
    found = target.ask("loglikelihood", ASKED, batch_size=3)
    whole = [" is blue", " is blue", " 天气", " b"]
    assert [answer["logprob"] for answer in found] == [-float(len(text)) for text in whole]
    assert [answer["num_tokens"] for answer in found] == [len(tokens_of(text)) for text in whole]
    assert all(answer["is_greedy"] for answer in found)
    bodies = [body for _, _, body, _ in fake_server.asked]
    assert [body["prompt"] for body in bodies] == [["".join(p) for p in PAIRS[:3]], "a b"]
    assert {body["model"] for body in bodies} == {"tiny"}
    fake_server.answer = Completions(begin=begin, greedy=False)
    assert not any(answer["is_greedy"] for answer in target.ask("loglikelihood", ASKED))


def test_empty_context_needs_a_token_that_begins_texts(fake_server, target):
    asked = [{"context": "", "continuation": "abc def"}]
    with pytest.raises(InputError, match="first token of a text is, and a context"):
        target.ask("loglikelihood", asked)
    fake_server.answer = Completions(begin="<s>")
    assert target.ask("loglikelihood", asked)[0]["logprob"] == -7.0


def without(*names, **changes):
    """A server that leaves fields of its answer out, or gives others."""

    def answer(method, path, body):
        content: Any = Completions()(method, path, body)
        for choice in content["choices"]:
            place = choice["logprobs"] if names and names[0] in choice["logprobs"] else choice
            for name in names:
                place.pop(name)
            for name, change in changes.items():
                place = choice if name in choice else choice["logprobs"]
                place[name] = change(place[name])
        return content

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (without(text=lambda text: " new"), "did not echo the prompt"),
        (without("logprobs"), "gave no log-probabilities with tokens.*None"),
        (without(logprobs=lambda _: {"content": []}), r"but \['content'\]"),
        (without("text_offset"), "text_offset"),
        (without(token_logprobs=lambda v: [0.0] * len(v)), "all 0. Without"),
        (without(token_logprobs=lambda v: [None] * len(v)), "no log-probabilities of the prompt"),
        (without(token_logprobs=lambda v: v[1:]), "of one length"),
        (without(text_offset=lambda v: v[::-1]), "go back"),
        (without(tokens=lambda v: [5] * len(v)), "of one length"),
    ],
)
def test_servers_without_log_probabilities_are_refused_with_the_reason(
    fake_server, target, answer, reason
):
    fake_server.answer = answer
    with pytest.raises(InputError, match=reason):
        target.ask("loglikelihood", ASKED[:2])


def test_texts_end_at_the_first_stop(fake_server, target):
    asked = [
        {"prompt": "one two", "until": ["END"], "max_new_tokens": 5},
        {"prompt": "three", "until": [], "max_new_tokens": 5},
        {"prompt": "four", "until": ["END"], "max_new_tokens": 5},
        {"prompt": "hi", "until": [], "max_new_tokens": 5, "chat": True},
    ]
    found = target.ask("generate_until", asked)
    assert [answer["text"] for answer in found] == [" two ", " ree END more", " our ", "HI"]
    bodies = [
        (path, body.get("stop"), body["max_tokens"]) for _, path, body, _ in fake_server.asked
    ]
    assert ("/v1/completions", ["END"], 5) in bodies
    assert ("/v1/chat/completions", None, 5) in bodies
    assert len(bodies) == 3


def test_embeddings_keep_their_order(target):
    found = target.ask("embed", [{"text": "ab"}, {"text": "abc"}])
    assert found == [{"embedding": [2.0, 1.0]}, {"embedding": [3.0, 1.0]}]


@pytest.mark.parametrize("vector", [None, [], ["x"], [math.nan], "AAAA"])
def test_vectors_that_are_none_are_refused(fake_server, target, vector):
    fake_server.answer = lambda *_: json.dumps({"data": [{"embedding": vector}]}).encode()
    with pytest.raises(InputError, match="in place of a vector"):
        target.ask("embed", [{"text": "ab"}])


@pytest.mark.parametrize(
    "content",
    [{}, {"choices": []}, {"choices": [1, 2]}, {"choices": [{"index": 7}] * 2}, b"<html>"],
)
def test_rubbish_is_refused(fake_server, target, content):
    fake_server.answer = lambda *_: content
    with pytest.raises(InputError):
        target.ask("loglikelihood", ASKED[:2])


def test_server_that_dies_is_asked_again_and_then_given_up(fake_server, target, pauses):
    answers = [(503, {"error": {"message": "loading"}}), (200, None)]
    good = Completions()
    fake_server.answer = lambda *request: answers.pop(0) if len(answers) > 1 else good(*request)
    assert len(target.ask("loglikelihood", ASKED)) == 4
    assert pauses == [1.0]
    fake_server.answer = lambda *_: (502, b"")
    with pytest.raises(UnavailableError, match="answered 502"):
        target.ask("loglikelihood", ASKED)
    assert pauses[1:] == [1.0, 2.0, 4.0, 8.0, 16.0]
    fake_server.answer = lambda *_: (400, {"error": {"message": "too long"}})
    with pytest.raises(InputError, match="answered 400: too long"):
        target.ask("generate_until", [{"prompt": "a", "until": [], "max_new_tokens": 5}])


def test_the_only_model_and_the_key(fake_server, monkeypatch):
    fake_server.answer = Completions()
    monkeypatch.setenv("TOY_KEY", "secret")
    target = open_target(f"openai:{fake_server.url}?key_env=TOY_KEY")
    assert target.location == f"openai:{fake_server.url}/v1?model=tiny"
    assert fake_server.asked[-1][3]["authorization"] == "Bearer secret"
    assert target.fingerprint() is None and target.labels is None
    assert isinstance(target, OpenAiTarget)
    target.close()
    fake_server.answer = lambda *_: {"data": [{"id": "a"}, {"id": "b"}]}
    with pytest.raises(InputError, match=r"\['a', 'b'\]; name one"):
        open_target(f"openai:{fake_server.url}/v1")
    fake_server.answer = lambda *_: (401, {"error": "who?"})
    with pytest.raises(InputError, match="answered 401: who.*key_env"):
        open_target(f"openai:{fake_server.url}/v1")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("openai:", "write openai:http://HOST:PORT"),
        ("openai:ftp://host/v1", "write openai:http://HOST:PORT"),
        ("openai:http://[::1/v1", "write openai:http://HOST:PORT"),
        ("openai:http://host/v1?model=a&key_env=NOT_THERE_AT_ALL", "NOT_THERE_AT_ALL is not set"),
        ("openai:http://host/v1?api_key=hush", "the name of the environment variable"),
        ("openai:http://me:hush@host/v1", "the name of the environment variable"),
    ],
)
def test_wrong_addresses_are_refused_and_keys_not_shown(address, reason):
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        open_target(address)
    assert "hush" not in str(caught.value)
