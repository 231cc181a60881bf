import hashlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_keras.errors import InputError
from llama_keras.text.cleaning import Cleaning
from llama_keras.text.stop_words import LANGUAGES, word_list

QUICK = settings(max_examples=100, deadline=None)


def clean(*texts, **options):
    found = Cleaning([{"name": "remove_stop_words", **options}]).clean(texts)
    return found[0] if len(texts) == 1 else found


def english_by_hand(text, words):
    """Reads word by word; a word that is taken out takes one space with it."""

    def is_letter(char):
        return unicodedata.category(char)[0] in "LMN" or char == "_"

    at, found = 0, []
    while at < len(text):
        end = at
        while end < len(text) and is_letter(text[end]):
            end += 1
            is_joint = end + 1 < len(text) and text[end] in "'’-" and is_letter(text[end + 1])
            end += is_joint
        if end == at:
            found.append(text[at])
            at += 1
            continue
        word = text[at:end].replace("’", "'").casefold()
        if word in words:
            end += text[end : end + 1] == " "
        else:
            found.append(text[at:end])
        at = end
    return "".join(found)


def chinese_by_hand(text, words, guards):
    """Takes the longest known word at each place, from left to right."""
    at, found = 0, []
    while at < len(text):
        lengths = (n for n in range(8, 0, -1) if text[at : at + n] in words | guards)
        end = at + next(lengths, 1)
        if text[at:end] in words:
            end += text[end : end + 1] == " "
        else:
            found.append(text[at:end])
        at = end
    return "".join(found)


@QUICK
@given(
    parts=st.lists(
        st.sampled_from(
            ["the", "The", "it", "'", "’", "-", " ", "  ", ",", "s", "é", "e\u0301", "a", "7", "_"]
            + ["film", "it's", "It’S", "的", "the\n", "\u200b", "don't", "I'm", "ſ", "\0"]
        ),
        max_size=12,
    )
)
def test_english_words_stand_alone(parts):
    text = "".join(parts)
    assert clean(text) == english_by_hand(text, set(word_list("en").words))


@QUICK
@given(
    parts=st.lists(
        st.sampled_from(
            ["的", "目", "目的", "了", "解", "我", "我们", "国", "因为", "因", "为", "和", "平"]
            + ["共和国", "不", "是", "不是", "是不是", " ", "，", "A", "成", "为了", "题"]
        ),
        max_size=16,
    )
)
def test_chinese_takes_the_longest_word(parts):
    found, text = word_list("zh"), "".join(parts)
    expected = chinese_by_hand(text, set(found.words), set(found.guards))
    assert clean(text, language="zh") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("This is not the end of it.", "not end ."),
        ("State-of-the-art, isn't it?", "State-of-the-art, isn't ?"),
        ("It’s IT'S its THE", ""),
        ("naïve éa thé", "naïve éa thé"),
        ("", ""),
    ],
)
def test_english_sentences(text, expected):
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天天气很好", "今天天气很好"),
        ("我的目的是学习", "目的学习"),
        ("这电影的故事不是很好", "电影故事不是很好"),
        ("他和她都了解和平的意义", "了解和平意义"),
        ("題目的答案", "題目的答案"),  # traditional: the guard 目的 keeps it, 题目 is not known
        ("ordinary English", "ordinary English"),
    ],
)
def test_chinese_sentences(text, expected):
    assert clean(text, language="zh") == expected


def test_own_words_and_exceptions():
    assert clean("Not this Film again", add=["film"], keep=["This"]) == "Not this "
    assert clean("我们和他们", language="zh", keep=["我们"]) == "我们"
    assert clean("电影很好看", language="zh", add=["电影"]) == "很好看"
    assert clean("c++ a.b", add=["a.b", "c++"]) == "c++ .b"  # only words can stand alone
    everything = word_list("en").words
    assert clean("the end", keep=everything) == "the end"


def test_the_mark_of_the_search_is_never_left():
    assert clean("the \ufdd0end\ufdd0", "\ufdd0the\ufdd0") == ["end", ""]


@pytest.mark.parametrize(
    ("language", "denials"),
    [
        ("en", "no not nor never neither none without don't isn't"),
        ("zh", "不 没 无 别 未 不是 没有"),
    ],
)
def test_words_that_deny_stay(language, denials):
    assert clean(denials, language=language) == denials


@pytest.mark.parametrize(
    ("language", "digest"),
    [
        ("en", "332c79daf303d4a3"),
        ("zh", "6e44b38a08f3b5dc"),
    ],
)
def test_lists_that_saved_models_name_do_not_change(language, digest):
    found = word_list(language)
    assert len(set(found.words)) == len(found.words)
    assert len(set(found.guards)) == len(found.guards)
    assert not set(found.words) & set(found.guards)
    content = "\n".join([*sorted(found.words), "", *sorted(found.guards)])
    # A better list is a new name in LANGUAGES: a loaded model must clean as it was trained.
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == digest


def test_every_language_has_a_list():
    assert all(len(word_list(language).words) > 100 for language in LANGUAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "de"}, r"language must be one of \['en', 'zh'\]; received 'de'"),
        ({"add": "film"}, "add must be a list of words; received 'film'"),
        ({"keep": [1]}, "keep must be text; received 1"),
        ({"add": ["two words"]}, "single words; received 'two words'"),
        ({"add": [""]}, "single words"),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        clean("", **options)
