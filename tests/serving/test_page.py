import json
import time
from typing import Any

import httpx
import numpy as np
import pytest

from llama_keras.serving import SavedModel, openai_routes, page
from llama_keras.serving.http_app import make_app
from llama_keras.serving.limits import Access, Limits
from llama_keras.serving.served import ServedModels
from llama_keras.serving.signature_def import Signature, TensorSpec
from llama_keras.serving.versions import find_source
from tests.browser import find_chromium, open_browser
from tests.serving.writer import serving_app, writer_folder, writer_model, writer_saved

EVIL = "<img src=x onerror=alert(1)>"
TEXT = f"🙂 Ada went to {EVIL} Rome"


def columns(rows, **values):
    return {name: np.array([value] * rows) for name, value in values.items()}


def tag(inputs):
    text = inputs["text"][0].decode()
    spans = [(text.index("Ada"), 3, b"PER"), (text.index("Rome"), 4, b"LOC")]
    starts, ends = [s for s, _, _ in spans], [s + n for s, n, _ in spans]
    names = np.array([label for *_, label in spans], object)
    return columns(1, count=2, start=starts, end=ends, score=[0.9, 0.8]) | {
        "label": names[None],
        "entity": names[None],
    }


def answer(inputs):
    at = inputs["context"][0].decode().find("Lima")
    found = np.array([b"Lima" if at >= 0 else b""], object)
    ends = {"start": at, "end": at + 4 if at >= 0 else -1}
    return columns(1, **ends, score=0.75, null_score=0.1) | {"answer": found}


def embed(inputs):
    return {"embedding": np.array([[len(text), 1.0] for text in inputs["text"]])}


# name of the model -> (task, labels, signature, what it computes, inputs, outputs, example)
FAKES = {
    "entities": ("token_classification", ["PER", "LOC"], "tag", tag, ["text"],
                 ["count", "start", "end", "score", "label", "entity"], {"text": TEXT}),
    "questions": ("question_answering", [], "answer", answer, ["question", "context"],
                  ["answer", "start", "end", "score", "null_score"],
                  {"question": "Where?", "context": "née: Ana lives in Lima."}),
    "vectors": ("embedding", [], "embed", embed, ["text"], ["embedding"], {"text": "abc"}),
}  # fmt: skip


class Fake:
    """What the server sees of an export."""

    def __init__(self, name):
        _, _, signature, self.compute, inputs, outputs, _ = FAKES[name]
        takes = {name: TensorSpec("", "string", (-1,)) for name in inputs}
        gives = {name: TensorSpec("", "float", (-1,)) for name in outputs}
        self.signatures = {signature: Signature(takes, gives)}

    def run_arrays(self, signature, inputs):
        return self.compute(inputs)


@pytest.fixture(scope="module")
def served(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for name, (task, labels, *_, example) in FAKES.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "saved_model.pb").write_bytes(b"")
        manifest = {
            "task": task,
            "labels": labels,
            "example": {"request": {"instances": [example]}},
        }
        (folder / name / "1" / "signature.json").write_text(json.dumps(manifest))

    def load(path) -> Any:
        if path == writer_folder():
            return writer_saved()
        return Fake(path.parent.name) if path.parent.name in FAKES else SavedModel(path)

    paths = [writer_folder().parent, tiny_model, *(folder / name for name in FAKES)]
    with ServedModels([find_source(p) for p in paths], load=load, poll_seconds=0) as served:
        yield served


@pytest.fixture(scope="module")
def url(served):
    with serving_app(app_of(served)) as url:
        yield url


def app_of(served, **access):
    routes = (openai_routes.routes, page.routes)
    return make_app(served, limits=Limits(), access=Access(**access), extra_routes=routes)


def test_the_page_stands_alone_and_says_what_may_run(url):
    with httpx.Client(trust_env=False) as http:
        answer = http.get(url)
        found = http.get(url + page.MODELS_PATH).json()["models"]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["content-type"].startswith("text/html")
    assert "{{" not in answer.text
    assert not {part for part in ("src=", "@import", "url(", "//cdn", "innerHTML", "eval(")} & {
        part for part in ("src=", "@import", "url(", "//cdn", "innerHTML", "eval(")
        if part in answer.text
    }  # fmt: skip
    models = {model["name"]: model for model in found}
    assert sorted(models) == sorted(["writer", "tiny", *FAKES])
    assert models["writer"]["chat"] and models["writer"]["task"] == "causal_lm"
    assert not models["tiny"]["generates"] and models["tiny"]["labels"] == ["negative", "positive"]
    assert models["questions"]["example"]["question"] == "Where?"
    assert models["tiny"]["signatures"]["classify"]["inputs"]["text"]["dtype"] == "string"


def test_models_that_were_loaded_are_told_when_their_files_are_gone(url, monkeypatch):
    def gone(path, **options):
        raise FileNotFoundError(path)

    monkeypatch.setattr("pathlib.Path.read_text", gone)
    with httpx.Client(trust_env=False) as http:
        found = http.get(url + page.MODELS_PATH).json()["models"]
    assert {model["name"]: model["chat"] for model in found}["writer"]
    assert len(found) == 2 + len(FAKES)


@pytest.fixture(scope="module")
def browser():
    binary = find_chromium()
    if binary is None:
        pytest.skip("Chromium is not installed")
    with open_browser(binary) as browser:
        yield browser


def until(browser, condition):
    end = time.monotonic() + 60
    while not browser.evaluate(condition):
        assert time.monotonic() < end, (condition, browser.evaluate("document.body.innerText"))
        time.sleep(0.02)


def visit(browser, url, name, *, dark=False, width=1200):
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.send("Emulation.setEmulatedMedia", features=features)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.send("Emulation.setDeviceMetricsOverride", **size)
    browser.logged.clear()
    browser.requested.clear()
    browser.send("Page.navigate", url="about:blank")
    browser.send("Page.navigate", url=f"{url}/#{name}")
    until(browser, f"document.getElementById('name')?.textContent === {json.dumps(name)}")


def text_of(browser, selector):
    return browser.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")


def put(browser, place, text):
    browser.evaluate(f"document.getElementById('field-{place}').value = {json.dumps(text)}")


def press(browser, key, code, *, ctrl=False):
    for kind in ("keyDown", "keyUp"):
        browser.send(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            code=key,
            windowsVirtualKeyCode=code,
            modifiers=2 if ctrl else 0,
            text="\r" if key == "Enter" and kind == "keyDown" else "",
        )


def run(browser, *, wait):
    browser.evaluate("document.getElementById('run').click()")
    until(browser, f"!!document.querySelector({json.dumps(wait)})")


def check_quiet(browser, url):
    assert browser.logged == []
    assert all(asked.startswith((url, "about:", "data:")) for asked in browser.requested)


def test_labels_have_bars(browser, url):
    visit(browser, url, "tiny")
    put(browser, 0, "a good film")
    browser.evaluate("document.getElementById('field-0').focus()")
    press(browser, "Enter", 13, ctrl=True)
    until(browser, "!!document.querySelector('#label')")
    assert text_of(browser, "#label") == "positive"
    assert text_of(browser, ".bars").split() == "positive 75.0 % negative 25.0 %".split()
    until(browser, "document.querySelector('.bar i').style.width === '75%'")
    curl = browser.evaluate("document.getElementById('curl').textContent")
    assert f"{url}/v1/models/tiny:predict" in curl and "a good film" in curl
    check_quiet(browser, url)


def test_any_other_signature_shows_what_it_gives(browser, url):
    visit(browser, url, "tiny")
    browser.evaluate(
        "{const s = document.getElementById('signature'); s.value = 'words';"
        " s.dispatchEvent(new Event('change'))}"
    )
    put(browser, 0, "three words here")
    run(browser, wait="#result table")
    assert text_of(browser, "#result table").split() == ["words", "3"]
    browser.evaluate(
        "{const s = document.getElementById('signature'); s.value = 'numbers';"
        " s.dispatchEvent(new Event('change'))}"
    )
    assert "takes" in text_of(browser, "#panel") and "REST" in text_of(browser, "#panel")
    check_quiet(browser, url)


def test_entities_are_marked_by_code_points_and_markup_stays_text(browser, url):
    visit(browser, url, "entities")
    put(browser, 0, TEXT)
    run(browser, wait="#prose")
    marks = browser.evaluate("[...document.querySelectorAll('mark')].map(m => m.innerText)")
    assert [mark.split() for mark in marks] == [["Ada", "PER"], ["Rome", "LOC"]]
    assert EVIL in text_of(browser, "#prose")
    assert browser.evaluate("document.querySelectorAll('#prose img').length") == 0
    check_quiet(browser, url)


def test_answers_are_marked_in_their_text(browser, url):
    visit(browser, url, "questions")
    run(browser, wait="#prose")
    assert text_of(browser, "mark.answer") == "Lima" == text_of(browser, "#label")
    put(browser, 1, "Nothing here")
    run(browser, wait="#label")
    until(browser, "document.querySelector('#label').innerText.startsWith('No answer')")
    assert browser.evaluate("document.querySelector('#prose')") is None


def test_vectors_are_compared(browser, url):
    visit(browser, url, "vectors")
    put(browser, 0, "abc")
    put(browser, 1, "xyz")
    run(browser, wait="#label")
    assert text_of(browser, "#label") == "1.000"


def test_an_error_is_told(browser, url, served):
    visit(browser, url, "entities")
    put(browser, 0, "neither is here")
    run(browser, wait="[role=alert]")
    assert text_of(browser, "[role=alert]").startswith("500")


def test_a_text_and_a_chat_grow(browser, url):
    visit(browser, url, "writer")
    browser.evaluate("document.getElementById('seed').value = 4")
    browser.evaluate("document.getElementById('max_tokens').value = 12")
    put(browser, 0, "Hello")
    browser.evaluate("document.getElementById('field-0').focus()")
    press(browser, "Enter", 13)
    until(browser, "document.querySelector('.turn small')?.textContent.includes('tokens')")
    settings = {"max_new_tokens": 12, "temperature": 0.7, "top_p": 0.95, "seed": 4}
    expected = writer_model().chat([{"role": "user", "content": "Hello"}], **settings)
    shown = browser.evaluate("document.querySelector('.turn.assistant span').textContent")
    assert shown == expected.text
    assert f"{len(expected.token_ids)} tokens" in text_of(browser, ".turn small")
    browser.evaluate("document.querySelector('[data-mode=complete]').click()")
    browser.evaluate("document.getElementById('seed').value = 4")
    browser.evaluate("document.getElementById('max_tokens').value = 12")
    put(browser, 0, "Once upon")
    run(browser, wait="#written")
    until(browser, "document.getElementById('time').textContent.includes('tokens')")
    shown = browser.evaluate("document.getElementById('written').textContent")
    assert shown == writer_model().generate("Once upon", **settings).text
    check_quiet(browser, url)


def test_a_token_is_asked_for_once(browser, served):
    with serving_app(app_of(served, token="a-secret")) as url:
        browser.send("Page.navigate", url=url)
        until(browser, "document.getElementById('key-form')?.hidden === false")
        browser.evaluate("document.getElementById('key').value = 'a-secret'")
        browser.evaluate("document.querySelector('#key-form button').click()")
        until(browser, "document.getElementById('key-form').hidden")
        visit(browser, url, "tiny")
        run(browser, wait="#label")


def test_a_growing_text_can_be_stopped(browser, url, served, monkeypatch):
    submit = served.submit

    def slow(*arguments, **options):
        time.sleep(0.05)
        return submit(*arguments, **options)

    monkeypatch.setattr(served, "submit", slow)
    visit(browser, url, "writer")
    browser.evaluate("document.querySelector('[data-mode=complete]').click()")
    browser.evaluate("document.getElementById('max_tokens').value = 600")
    run(browser, wait="#written")
    until(browser, "document.getElementById('written').textContent.length > 0")
    browser.evaluate("document.getElementById('stop').click()")
    until(browser, "document.getElementById('time').textContent === 'stopped'")
    end = time.monotonic() + 10
    while served._users and time.monotonic() < end:
        time.sleep(0.02)
    assert not served._users  # the model does not go on for nobody


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_and_narrow(browser, url, dark):
    visit(browser, url, "tiny", dark=dark, width=360)
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (max(levels) < 60) if dark else (min(levels) > 200)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360


def test_all_is_reached_by_the_tab_key(browser, url):
    visit(browser, url, "tiny")
    reached = []
    for _ in range(12):
        press(browser, "Tab", 9)
        reached.append(
            browser.evaluate("document.activeElement.id || document.activeElement.dataset.name")
        )
    assert {*FAKES, "tiny", "writer", "signature", "field-0", "run"} <= set(reached)
    places = [reached.index(name) for name in ("signature", "field-0", "run")]
    assert places == sorted(places)
