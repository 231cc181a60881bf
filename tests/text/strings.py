"""Strings that tokenizers trip over, from a seed."""

import random

PARTS = (
    [" ", "  ", "   ", "\n", "\r\n", "\n\n ", "\t", "\u00a0", "\u3000", "\u2028", "\x85", "\x0b"]
    + ["'s", "'S", "'\u017f", "'ll", "'LL", "'Re", "don't", "\u2019s", "''", "Hello", " world"]
    + ["12", "3", "1234567", "\u0663", "\u2167", "\u00bd", "v2.0", "3.14", "na\u00efve", "_", "--"]
    + ["...", "!?", "(", ")", "<|im_start|>", "<|im_end|>", "<|im_", "_end|>", "<file_sep>"]
    + ["你好", "日本語", "한국어", "ไทย", "हिन्दी", "שלום", "مرحبا", "\u200f", "Ελλάδα", "привет"]
    + ["😀", "👩\u200d👩\u200d👧", "🇩🇪", "👍🏽", "e\u0301", "\u0300", "\ufb01", "ß", "İ", "𝒳"]
    + ["\x00", "\x01", "\x1f", "\x7f", "\ufeff", "\u200b", "\ud7ff", "\ue000", "\uffff", "\ufffd"]
    + ["\U0010ffff", "\U000105c0", "\U00010d40", "\U00011de0", "\U0002ebf0", "\u1c89"]
)


def generate(count: int, *, seed: int, parts: int = 24) -> list[str]:
    """Gives `count` strings of up to `parts` parts."""
    chance = random.Random(seed)
    return [
        "".join(_part(chance) for _ in range(chance.randrange(parts + 1))) for _ in range(count)
    ]


def _part(chance: random.Random) -> str:
    draw = chance.random()
    if draw < 0.65:
        return chance.choice(PARTS)
    if draw < 0.85:
        return chr(chance.randrange(0x20, 0x7F))
    if draw < 0.95:
        return chr(chance.randrange(0x80, 0x3000))
    code = chance.randrange(0x110000)
    return " " if 0xD800 <= code < 0xE000 else chr(code)
