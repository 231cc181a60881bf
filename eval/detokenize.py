"""From texts whose words and marks stand apart, texts as people write them."""

import re

# In this order, the substitutions that lm-evaluation-harness's `wikitext` task makes (its
# preprocess_wikitext.py, from Megatron-LM), but for one whose pattern can match nothing that is
# written. Each is a regular expression and what takes its place.
_WIKITEXT = [
    (r"s '", "s'"),
    # What WikiText parts numbers and compounds with.
    (r" @-@ ", "-"),
    (r" @,@ ", ","),
    (r" @\.@ ", "."),
    # Marks: one after the other, for each sees what the last one made.
    *((rf" {re.escape(mark)} ", f"{mark} ") for mark in ":;.!?,"),
    # Brackets and quotation marks.
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    # Headings, degrees, line ends, and what the Penn Treebank writes for numbers.
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (r" ° ", "°"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _WIKITEXT]


def detokenize_wikitext(text: str) -> str:
    """Gives a document of WikiText without the blanks that its makers put between words and marks.

    Args:
        text: the document, with its line breaks.

    Example:
    ```python
    from llama_keras.eval.detokenize import detokenize_wikitext

    assert detokenize_wikitext("It cost 1 @,@ 200 , he said .\\n") == "It cost 1,200, he said .\\n"
    ```
    """
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    return text
