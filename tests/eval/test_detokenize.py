import pytest

from llama_keras.eval.detokenize import detokenize_wikitext
from llama_keras.eval.kinds import get_kind
from llama_keras.eval.suite import load_suite


@pytest.mark.parametrize(
    ("apart", "together"),
    [
        ("It cost 1 @,@ 200 and 2 @.@ 5 %", "It cost 1,200 and 2.5 %"),
        (
            "a starring @-@ role , he said . Why ? So : yes",
            "a starring-role, he said. Why? So: yes",
        ),
        ('the play " Herons " ( 2001 )', 'the play "Herons" (2001)'),
        ("the boys ' game", "the boys' game"),
        ("the boy 's", "the boy's"),
        (" = = Career = = \n \n text", " == Career ==\n\ntext"),
        ("20 ° C, N people", "20°C, 1 people"),
        ("好 ， 的", "好 ， 的"),
        ("", ""),
    ],
)
def test_marks_join_their_words(apart, together):
    assert detokenize_wikitext(apart) == together


def test_the_scored_text_is_detokenized_and_the_original_counted(make_perplexity):
    suite, kind = make_perplexity
    doc = {"text": "He said , that 1 @,@ 000 . \n"}
    assert kind.requests(doc, suite, []) == [{"text": "He said, that 1,000.\n"}]
    row = kind.row(doc, suite, [{"logprob": -7.0, "num_tokens": 5}])
    assert (row["words"], row["bytes"], row["tokens"]) == (9, 28, 5)


@pytest.fixture
def make_perplexity():
    suite = load_suite("wikitext2")
    return suite, get_kind(suite.task)


def test_all_articles_are_those_of_lm_evaluation_harness(make_perplexity, shared_dir):
    peer = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    suite, kind = make_perplexity
    for split in ("test", "valid"):
        docs = kind.load(suite, "shared:data/wikitext2", split)
        for doc in docs:
            assert kind.requests(doc, suite, []) == [
                {"text": peer.wikitext_detokenizer({"page": doc["text"]})}
            ]
