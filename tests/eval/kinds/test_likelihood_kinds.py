import math

import pytest

from llama_keras.errors import InputError
from llama_keras.eval.kinds import get_kind


def test_cloze_asks_for_the_target_alone(make_suite, score):
    suite = make_suite("cloze")
    docs = [{"context": "To be or not to", "target": "be"}, {"context": "Hello", "target": "World"}]
    (asked,) = get_kind("cloze").requests(docs[0], suite, [docs[1]])
    assert asked == {"context": "Hello World\n\nTo be or not to", "continuation": " be"}
    answers = [
        [{"logprob": -1.0, "is_greedy": True, "num_tokens": 1}],
        [{"logprob": -3.0, "is_greedy": False, "num_tokens": 2}],
    ]
    _, found = score(suite, docs, answers, "acc", "perplexity")
    assert found["acc"].value == 0.5
    assert found["perplexity"].value == pytest.approx(math.exp(2.0))
    assert found["perplexity"].low <= found["perplexity"].value <= found["perplexity"].high


def test_perplexities_divide_by_words_bytes_and_tokens(make_suite, score):
    docs = [{"text": "eins zwei drei"}, {"text": "vier fünf"}]  # 5 words, 14 + 10 bytes
    answers = [[{"logprob": -6.0, "num_tokens": 4}], [{"logprob": -4.0, "num_tokens": 6}]]
    suite = make_suite("perplexity")
    names = ("word_perplexity", "byte_perplexity", "bits_per_byte", "token_perplexity")
    _, found = score(suite, docs, answers, *names)
    assert found["word_perplexity"].value == pytest.approx(math.exp(10 / 5))
    assert found["byte_perplexity"].value == pytest.approx(math.exp(10 / 24))
    assert found["bits_per_byte"].value == pytest.approx(10 / 24 / math.log(2))
    assert found["token_perplexity"].value == pytest.approx(math.e)


def test_documents_begin_at_the_lines_that_match(make_suite, tmp_path):
    file = tmp_path / "wiki.txt"
    file.write_text(" \n = One = \n\n = = Part = = \n text\n = Two = \n more")
    fields = {"source": str(file), "documents": "^ = [^=].* = $"}
    suite = make_suite("perplexity", data=fields)
    docs = get_kind("perplexity").load(suite, str(file), None)
    assert [doc["text"] for doc in docs] == [
        " = One = \n\n = = Part = = \n text",
        " = Two = \n more",
    ]
    whole = make_suite("perplexity", data={"source": str(file)})
    assert len(get_kind("perplexity").load(whole, str(file), None)) == 1


def test_a_conversation_is_a_document_with_a_turn_a_line(make_suite, tmp_path):
    file = tmp_path / "talks.jsonl"
    file.write_text('{"turns": [{"text": "Hi"}, "Ho"], "text": "x"}\n{"turns": [{"act": "?"}]}\n')
    suite = make_suite("perplexity", data={"source": str(file), "text_column": "turns"})
    with pytest.raises(InputError, match="line 2: 'turns' is neither a text nor a list of turns"):
        get_kind("perplexity").load(suite, str(file), None)
    file.write_text(file.read_text().splitlines()[0])
    assert get_kind("perplexity").load(suite, str(file), None) == [{"text": "Hi\nHo"}]


def test_generation_compares_texts_and_counts_by_sacrebleu(make_suite, score):
    from sacrebleu.metrics.bleu import BLEU

    suite = make_suite("generation", prompt={"context": "{source} =", "until": ["\n", "END"]})
    docs = [{"source": "a", "target": "ein kleines Haus am See"}, {"source": "b", "target": "gut"}]
    (asked,) = get_kind("generation").requests(docs[0], suite, [docs[1]])
    assert asked == {"prompt": "b = gut\n\na =", "until": ["\n", "END"], "max_new_tokens": 64}
    texts = [" ein kleines Haus am Meer", "gut "]
    rows, found = score(suite, docs, [[{"text": t}] for t in texts], "exact_match", "bleu", "chrf")
    assert [row["exact_match"] for row in rows] == [0.0, 1.0]
    stripped, right = [text.strip() for text in texts], [doc["target"] for doc in docs]
    assert "tok:13a" in get_kind("generation").signatures()["sacrebleu bleu"]
    assert found["bleu"].value == pytest.approx(BLEU().corpus_score(stripped, [right]).score)


def test_a_template_that_does_not_fit_names_the_keys(make_suite):
    suite = make_suite("cloze", prompt={"context": "{passage}"})
    with pytest.raises(InputError, match=r"\{passage\}.*\['context', 'target'\].*passage"):
        get_kind("cloze").requests({"context": "a", "target": "b"}, suite, [])
