import pytest

from llama_keras.checks import lengths
from llama_keras.tasks import CausalLM, TextClassifier
from llama_keras.tasks.response_data import weigh_conversations
from llama_keras.text import Tokenizer


def test_texts_that_are_cut(check, labelled):
    rows = [*labelled("x", a=10, b=10), {"text": "long " * 40, "label": "a"}]
    longest = len(Tokenizer.from_preset("llama-tiny").encode("long " * 40))
    settings = [f"model.max_sequence_length={longest}"]
    finding = check("text_classification", *settings, train=rows)["lengths"]
    assert (finding.level, finding.details["cut"], finding.details["max"]) == ("good", 0, longest)
    settings = [f"model.max_sequence_length={longest - 1}"]
    finding = check("text_classification", *settings, train=rows)["lengths"]
    assert (finding.level, finding.count) == ("warn", 1)
    ((place, text),) = finding.examples
    assert place == "train, line 21" and text.endswith(f"({longest} tokens)")
    settings = ["model.max_sequence_length=2"]
    assert check("text_classification", *settings, train=rows)["lengths"].level == "fail"


def test_cleaned_texts_are_measured(check):
    rows = [{"text": "a" + " " * 50 + "b", "label": "x"}]
    plain = check("text_classification", train=rows)["lengths"].details["max"]
    cleaned = check("text_classification", "clean=[collapse_whitespace]", train=rows)["lengths"]
    assert cleaned.details["max"] < plain


def test_pairs_and_prompts_have_the_lengths_that_training_sees(check):
    pair = {"q": "Is it so?", "p": "It is so.", "label": "yes"}
    settings = ["model.pairs=true", "data.text_column=[q, p]"]
    found = check("text_classification", *settings, train=[pair])["lengths"].details["max"]
    model = TextClassifier.from_preset("llama-tiny", labels=["no", "yes"], pairs=True)
    assert found == len(model.token_rows([(pair["q"], pair["p"])]).token_ids[0])
    rows = [{"text": "one", "label": "eins"}]
    settings = ['data.prompt="English: {text}\\nGerman: "']
    found = check("causal_lm", *settings, train=rows)["lengths"].details["max"]
    rows = CausalLM.from_preset("llama-tiny").example_rows(["English: one\nGerman: "], ["eins"])
    assert found == len(rows.token_ids[0])


def test_conversations_have_the_lengths_that_training_sees(check, smollm2):
    turns = ["Hello!", "Hi.", "How are you?", "Fine."]
    settings = ["preset=smollm2-135m-instruct", "data.turns_column=turns"]
    finding = check("causal_lm", *settings, train=[{"turns": turns}])["lengths"]
    tokenizer = Tokenizer.from_preset("smollm2-135m-instruct")
    roles = ("user", "assistant") * 2
    messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)]
    assert finding.details["max"] == len(weigh_conversations(tokenizer, [messages])[0][0])


def test_conversations_need_a_chat_template(check, monkeypatch):
    monkeypatch.setattr(Tokenizer, "chat_template", None)
    rows = [{"turns": ["Hello!", "Hi."]}]
    finding = check("causal_lm", "data.turns_column=turns", train=rows)["lengths"]
    assert finding.level == "warn" and "no chat template" in finding.message


def test_a_prompt_that_leaves_no_room(check):
    rows = [{"text": "a long prompt " * 9, "label": "yes"}]
    finding = check("causal_lm", "model.max_sequence_length=16", train=rows)["lengths"]
    assert "1 of them before the response begins" in finding.message


def test_windows_cut_nothing(check):
    finding = check(
        "token_classification",
        "model.max_sequence_length=4",
        train=[{"text": "one two three four five", "spans": []}],
    )["lengths"]
    assert finding.level == "good"
    assert "1 of 1 (100 %) are read in windows of 4" in finding.message


def test_long_questions_are_cut(check):
    rows = [{"question": "why " * 30, "context": "because", "answers": []}]
    settings = ["answers.max_question_tokens=8", "answers.null_answers=true"]
    finding = check("question_answering", *settings, train=rows)["lengths"]
    assert (finding.count, finding.examples[0][0]) == (1, "train, line 1")


def test_many_texts_are_sampled_evenly(check, labelled, monkeypatch):
    monkeypatch.setattr(lengths, "AT_MOST", 10)
    finding = check("text_classification", train=labelled("x", a=30, b=15))["lengths"]
    assert finding.message.endswith("; measured on 10 of 45, evenly taken")
    assert finding.details["measured"] == 10
    assert lengths.evenly(range(37)) == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]


@pytest.mark.parametrize("task", ["text_classification", "question_answering"])
def test_without_the_preset_nothing_is_measured(check, labelled, task):
    answers = [{"text": "x", "answer_start": 0}]
    rows = [
        {**row, "question": "?", "context": "x", "answers": answers} for row in labelled("x", a=1)
    ]
    found = check(task, "preset=/nowhere/at-all", train=rows)
    assert found["lengths"].level == "warn"
    assert found["lengths"].message.startswith("not measured: ")
