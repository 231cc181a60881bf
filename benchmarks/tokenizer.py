"""Tokenizing batches of sentences: our graph and our `encode` beside Hugging Face `tokenizers`.

Both sides get the same sentences and the same vocabulary, and must give the same ids. Hugging
Face's time includes taking the ids out of its records, as ours does. The sentences are those of
`--texts`, else of Python's manual.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import smollm2
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow

BATCH_SIZES = (32, 512)
MOST_BATCHES = 100  # of a round
NAMES = {size: f"tokenize, {size} in a batch" for size in BATCH_SIZES}


def ours(options: dict[str, Any]) -> Runs:
    """Builds our runs."""
    limit_tensorflow()
    import tensorflow as tf

    from llama_keras.text import Tokenizer

    texts = sentences(options["texts"])
    tokenizer = Tokenizer.from_preset(smollm2.PRESET)
    graph = tf.function(
        tokenizer.graph.tokenize, input_signature=[tf.TensorSpec([None], tf.string)]
    )

    def make(batches):
        tensors = [tf.constant(batch) for batch in batches]
        return {
            "graph": lambda: [graph(batch) for batch in tensors],
            "encode": lambda: [tokenizer.encode(batch) for batch in batches],
        }

    return _runs(make, texts, ids=tokenizer.encode(texts, add_bos=False))


def hugging_face(options: dict[str, Any]) -> Runs:
    """Builds the run of Hugging Face `tokenizers`."""
    from llama_keras.text import Tokenizer

    texts = sentences(options["texts"])
    tokenizer = reference(Tokenizer.from_preset(smollm2.PRESET).spec)

    def encode(batch: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch(batch, add_special_tokens=False)]

    def make(batches):
        return {"encode_batch": lambda: [encode(batch) for batch in batches]}

    return _runs(make, texts, ids=encode(texts))


def sentences(path: str | None) -> list[str]:
    """Gives the "text" fields of a JSONL file, or the sentences of Python's manual."""
    if path is not None:
        return [json.loads(line)["text"] for line in Path(path).read_text("utf-8").splitlines()]
    from pydoc_data.topics import topics

    found = re.split(r"(?<=[.!?:])\s+", "\n".join(topics.values()))
    return [sentence for sentence in found if sentence]


def reference(spec: Any) -> Any:
    """Gives the Hugging Face tokenizer with the vocabulary, merges and words of `spec`."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    from llama_keras.text.pre_tokenizers import PRE_TOKENIZERS

    vocabulary = {token: index for index, token in enumerate(spec.tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, list(spec.merges), ignore_merges=spec.ignore_merges)
    )
    # As in the models' own files: ByteLevel has GPT-2's pattern built in.
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    pattern = Regex(PRE_TOKENIZERS[spec.pre_tokenizer].reference)
    tokenizer.pre_tokenizer = {
        "gpt2": lambda: words,
        "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(True), words]),
        "llama3": lambda: pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(pattern, "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }[spec.pre_tokenizer]()
    return tokenizer


def _runs(make: Callable, texts: list[str], *, ids: list[list[int]]) -> Runs:
    """Times what `make(batches)` gives, for each batch size."""
    runs, amounts = {}, {}
    for size, name in NAMES.items():
        batches = [texts[at : at + size] for at in range(0, len(texts), size)][:MOST_BATCHES]
        runs[name] = make(batches)
        amounts[name] = sum(len(text.encode()) for batch in batches for text in batch) / 1e6
    return Runs(
        runs=runs, amounts=amounts, results=hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    )


SUITE = Suite(
    claims=tuple(Claim(name, "MB", aim=0.3, peers=("tokenizers",)) for name in NAMES.values()),
    libraries={"llama_keras": Library(ours), "tokenizers": Library(hugging_face)},
)
