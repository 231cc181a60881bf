import re
import time
import unicodedata

import pytest

from llama_keras.errors import InputError
from llama_keras.text.cleaning import STEPS, Cleaning
from llama_keras.text.cleaning_steps import FORMS
from tests.text.strings import generate

MILLION = 1_000_000
# All that Unicode has assigned; TensorFlow's own tables may be newer than Python's.
ASSIGNED = [
    char for code in range(0x110000) if unicodedata.category(char := chr(code)) not in ("Cn", "Cs")
]
WHITE_SPACE = {c for c in ASSIGNED if unicodedata.category(c)[0] == "Z"} | set("\t\n\v\f\r\x85")
# What people send to see a server hang, and what happens by accident.
UGLY = {
    "mixed": "aB é中😀, " * (MILLION // 8),
    "one word": "a" * MILLION,
    "marks out of order": "\u0301\u0316" * (MILLION // 2),
    "NUL": "\0" * MILLION,
    "spaces": "\u3000 " * (MILLION // 2),
    "comments never closed": "<!--<b>" * (MILLION // 7),
    "scripts never closed": "<script><b " * (MILLION // 11),
    "tags never closed": "<a" * (MILLION // 2),
    "ampersands": "&amp;" * (MILLION // 5),
    "addresses": "http://" * (MILLION // 7),
    "an address and no end": "www.a" + "!" * MILLION,
    "apostrophes": "a'" * (MILLION // 2),
    "stop words": "the " * (MILLION // 4),
    "的": "的" * MILLION,
    "目的": "目的" * (MILLION // 2),
    "longest under NFKC": "\ufdfa" * (MILLION // 10),
}


def clean(step, *texts, **settings):
    found = Cleaning([{"name": step, **settings}]).clean(texts)
    return found[0] if len(texts) == 1 else found


@pytest.mark.parametrize("form", FORMS)
def test_normalize_equals_pythons(form):
    # Python's tables may be older or newer than ICU's; both know what is in the strings.
    texts = [re.sub("[\U0001c000-\U0010ffff\u1c89]", "", text) for text in generate(300, seed=4)]
    expected = [unicodedata.normalize(form, text) for text in texts]
    assert clean("normalize", *texts, form=form) == expected
    assert clean("normalize", "\uff21\u0301 \ufb01", form="NFKC") == "Á fi"


def test_normalize_breaks_long_runs_of_marks_and_no_others():
    assert clean("normalize", "a" + "\u0301" * 29) == "á" + "\u0301" * 28
    assert clean("normalize", "a" + "\u0301" * 65, form="NFD") == (
        "a" + ("\u0301" * 30 + "\u034f") * 2 + "\u0301" * 5
    )


def test_lower_is_pythons_character_by_character():
    simple = {"İ": "i"}
    expected = [simple.get(char, char.lower()) for char in ASSIGNED]
    assert {len(char) for char in expected} == {1}
    assert clean("lower", "".join(ASSIGNED)) == "".join(expected)
    assert clean("lower", "A\0BÉ ΑΣ") == "a\0bé ας".replace("ς", "σ")
    assert clean("lower", "A\0B") == "a\0b"


def test_lower_does_not_depend_on_the_other_texts_of_a_batch():
    assert clean("lower", "ABC", "ÉÀ", "") == ["abc", "éà", ""]


def test_punctuation_is_unicodes_and_asciis():
    kept = [c for c in ASSIGNED if unicodedata.category(c)[0] != "P" and c not in "$+<=>^`|~"]
    assert clean("remove_punctuation", "".join(ASSIGNED), replacement="") == "".join(kept)
    assert clean("remove_punctuation", "Wait—what?! 今天，天气。") == "Wait what   今天 天气 "
    assert clean("remove_punctuation", r"a\b[c]^-'d$.", keep=r"\^]-'$") == r"a\b c]^-'d$ "
    assert clean("remove_punctuation", "a.b", replacement=r"\0\\") == r"a\0\\b"


def test_special_characters_are_all_but_letters_marks_digits_punctuation_and_space():
    of_emoji = {0x20E3, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}

    def is_plain(char):
        known = unicodedata.category(char)[0] in "LMNPZ" or char in WHITE_SPACE
        return (known or char in "$+<=>^`|~") and ord(char) not in of_emoji

    kept = "".join(filter(is_plain, ASSIGNED))
    assert clean("remove_special_characters", "".join(ASSIGNED)) == kept
    assert not set("\0\x07\u200b\u200d\u202e\ufeff\ufffd😀€\ue000") & set(kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\0b\u200bc\ufeff", "abc"),
        ("👩\u200d👩\u200d👧👍🏽🇩🇪 1\ufe0f\u20e3", " 1"),
        ("\u202eשלום\u200f مرحبا", "שלום مرحبا"),
        ("tab\tline\n", "tab\tline\n"),
        ("5 € ± 2 $", "5   2 $"),
        ("e\u0301 ½ x²", "e\u0301 ½ x²"),
    ],
)
def test_special_characters_of_real_texts(text, expected):
    assert clean("remove_special_characters", text) == expected


def test_special_characters_to_keep():
    text = "می\u200cخواهم 5 €, 1\ufe0f\u20e3 ✓"
    assert clean("remove_special_characters", text, keep="\u200c€\u20e3") == (
        "می\u200cخواهم 5 €, 1\u20e3 "
    )
    assert clean("remove_special_characters", "a😀b", replacement=" ") == "a b"


def test_white_space_is_unicodes():
    texts = generate(200, seed=5)
    spaces = f"[{''.join(WHITE_SPACE)}]+"
    assert clean("collapse_whitespace", *texts) == [
        re.sub(spaces, " ", text).strip(" ") for text in texts
    ]
    assert clean("collapse_whitespace", " \u3000a\r\n\u2028b\u00a0", " ", "") == ["a b", "", ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<p class="x">a<br/>b</p>', " a b "),
        ("a<!-- <b>c</b>\n -->d<!DOCTYPE html>", "a d "),
        ("x<script>if (a<b) c();</script>y<STYLE>z{}</STYLE >", "x y "),
        ("1 < 2 and 3 > 2, <3, a<b", "1 < 2 and 3 > 2, <3, a<b"),
        ("&lt;b&gt; &amp;lt; Q&amp;A &#39;&quot;&nbsp;", "<b> &lt; Q&A '\"\u00a0"),
        ("<!-- not closed <i>a</i>", "<!-- not closed  a "),
    ],
)
def test_html(text, expected):
    assert clean("strip_html", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://a.org/b?c=d#e. Or www.f.org!", "see  . Or  !"),
        ("(HTTP://A.B/c), ftp://x/", "( ),  "),
        ("看https://a.cn/x，很好", "看 ，很好"),
        ("awww.no http:// www. a.org", "awww.no http:// www. a.org"),
    ],
)
def test_urls(text, expected):
    assert clean("remove_urls", text) == expected


SETTINGS = [*STEPS, {"name": "normalize", "form": "NFKD"}]
SETTINGS += [{"name": "remove_stop_words", "language": "zh"}]


@pytest.mark.parametrize("step", SETTINGS, ids=str)
def test_a_million_characters_take_no_time(step):
    cleaning = Cleaning([step])
    cleaning.clean(["once"])
    for name, text in UGLY.items():
        start = time.monotonic()
        (found,) = cleaning.clean([text])
        # A quadratic search takes minutes to hours here; the slowest takes 0.2 s.
        assert time.monotonic() - start < 5, name
        if step == "lower":
            assert len(found) == len(text)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "normalize", "form": "NFX"}, r"form must be one of \['NFC', .*received 'NFX'"),
        ({"name": "normalize", "form": ["NFC"]}, "form must be one of"),
        ({"name": "remove_punctuation", "replacement": None}, "replacement must be text"),
        ({"name": "remove_punctuation", "keep": "\ud800"}, "keep must be text"),
        ({"name": "strip_html", "replacement": 1}, "strip_html: replacement must be text"),
        ({"name": "remove_urls", "replacement": 1}, "remove_urls: replacement must be text"),
        ({"name": "lower", "form": "NFC"}, r"lower has no setting 'form'; it has \[\]"),
        ({"name": "lowr"}, "no cleaning step 'lowr'; expected one of .*'lower'"),
        ({"lower": {}}, "a name or {name: NAME"),
        (3, "received 3"),
        ({"name": ["lower"]}, "no cleaning step"),
    ],
)
def test_wrong_settings_are_named(step, message):
    with pytest.raises(InputError, match=message):
        Cleaning([step])
