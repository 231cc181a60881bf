"""Writes byte_pair.json: ids by Hugging Face `tokenizers` for SmolLM2's vocabulary.

    python tests/text/golden/make_golden.py SmolLM2-135M-Instruct.Q4_1.gguf

The vocabulary is read with the `gguf` package, so nothing of the code under test takes part but
the name of a record and the published pattern of Llama 3.
"""

import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path

from gguf import GGUFReader

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from llama_keras.text import TokenizerSpec
from tests.text.reference import PRE_TOKENIZERS, hugging_face

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "I'll say it's what they've DON'T: we'd, you're, I'm.",
    "Room 101, 3.14159 and 1,234,567 (٣٤ and Ⅷ and ½)",
    "  two  spaces,   three   ",
    "tabs\tand\n\nlines\r\n  indented\n\treturn x",
    "def f(x):\n    return x ** 2  # squared\n",
    "今天天气很好。我们去公园吧！",
    "日本語のテキスト、한국어 텍스트",
    "Ünïcödé naïve café e\u0301 Ångström",
    "👩\u200d👩\u200d👧 🇩🇪 👍🏽 😀😀",
    "שלום עולם مرحبا بالعالم",
    "हिन्दी ไทย ελληνικά русский",
    "a\u00a0b\u3000c\u2028d\x85e\ufefff\u200bg",
    "nul\x00 bell\x07 delete\x7f",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_start|><|endoftext|> <file_sep>x<empty_output>",
    "https://example.org/a?b=c&d=%20#e",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "''''s ''ll '\u017f 'S 'LL",
]


def spec(path: str) -> TokenizerSpec:
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    return TokenizerSpec(
        kind="byte_pair",
        tokens=tuple(tokens),
        merges=tuple(tuple(merge.split(" ")) for merge in merges),
        special_tokens={tokens[id_]: id_ for id_, kind in enumerate(kinds) if kind == 3},
    )


def main() -> None:
    whole = spec(sys.argv[1])
    rows = []
    for name in PRE_TOKENIZERS:
        for parse_special in (False, True):
            reference = hugging_face(
                dataclasses.replace(whole, pre_tokenizer=name), parse_special=parse_special
            )
            for text in TEXTS:
                ids = reference.encode(text, add_special_tokens=False).ids
                row = {"pre_tokenizer": name, "parse_special": parse_special}
                rows.append({**row, "text": text, "ids": ids})
    path = Path(__file__).with_name("byte_pair.json")
    made_by = f"make_golden.py, tokenizers {version('tokenizers')}"
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{{"made_by": "{made_by}", "rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
