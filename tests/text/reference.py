"""Hugging Face tokenizers equal to ours by construction, to compare with."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from llama_keras.text import TokenizerSpec
from llama_keras.text.pre_tokenizers import LLAMA3_PATTERN

# Bytes of valid UTF-8 that no token of SmolLM2 spells. Hugging Face drops them before merging,
# which joins their neighbours; llama.cpp and our graph drop them afterwards.
SMOLLM2_MISSING = frozenset({0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2})

BYTES_AND_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
PRE_TOKENIZERS = {
    "gpt2": BYTES_AND_WORDS,
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), BYTES_AND_WORDS]
    ),
    "llama3": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


def hugging_face(spec: TokenizerSpec, *, parse_special: bool = False) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(spec.tokens)}
    model = models.BPE(vocabulary, list(spec.merges), ignore_merges=spec.ignore_merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[spec.pre_tokenizer]
    tokenizer.decoder = decoders.ByteLevel()
    if parse_special:
        tokenizer.add_special_tokens(
            [AddedToken(text, normalized=False, special=True) for text in spec.special_tokens]
        )
    return tokenizer


def holds_missing_byte(text: str) -> bool:
    return not SMOLLM2_MISSING.isdisjoint(text.encode())
