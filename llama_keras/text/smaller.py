"""A smaller vocabulary out of a larger one: the most urgent merges of a byte-pair tokenizer.

Merges are learned most frequent first, so the first N of them are what training for a vocabulary
of that size on the same texts would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llama_keras.errors import InputError
from llama_keras.text.spec import TokenizerSpec


def smaller_spec(
    spec: TokenizerSpec, *, vocabulary_size: int, special_tokens: Sequence[str] = ()
) -> TokenizerSpec:
    """Gives the tokenizer with fewer merges, and new control tokens.

    Args:
        spec: byte pairs.
        vocabulary_size: tokens, bytes and control tokens counted; merges are dropped until it is
            met.
        special_tokens: control tokens to add at the end, such as `<mask>`.

    Raises:
        InputError: another kind of tokenizer, a size outside what is possible, or a token that
            exists.
    """
    if spec.kind != "byte_pair":
        raise InputError(
            f"Only byte-pair vocabularies can be made smaller; this one is {spec.kind}."
        )
    if known := [text for text in special_tokens if text in spec.tokens]:
        raise InputError(f"The vocabulary has {known[0]!r} already; leave it out.")
    made = {left + right for left, right in spec.merges}
    kept = {token for token in spec.tokens if token not in made}
    least, most = len(kept) + len(special_tokens), len(spec.tokens) + len(special_tokens)
    if not least <= vocabulary_size <= most:
        raise InputError(
            f"vocabulary_size must lie in {least} … {most} for this tokenizer; received "
            f"{vocabulary_size}."
        )
    merges = []
    for left, right in spec.merges:
        is_new = left + right not in kept
        if is_new and len(kept) + len(special_tokens) == vocabulary_size:
            break
        if left in kept and right in kept:
            kept.add(left + right)
            merges.append((left, right))
    tokens = [*(token for token in spec.tokens if token in kept), *special_tokens]
    ids = {token: id_ for id_, token in enumerate(tokens)}
    moved = {old: ids[token] for old, token in enumerate(spec.tokens) if token in ids}
    single = ("bos_id", "eos_id", "pad_id", "unk_id", "missing_byte_id")
    return replace(
        spec,
        tokens=tuple(tokens),
        merges=tuple(merges),
        special_tokens={
            **{text: moved[id_] for text, id_ in spec.special_tokens.items()},
            **{text: ids[text] for text in special_tokens},
        },
        user_tokens={t: moved[id_] for t, id_ in spec.user_tokens.items() if id_ in moved},
        end_ids=tuple(moved[id_] for id_ in spec.end_ids),
        **{name: _moved(moved, getattr(spec, name)) for name in single},
    )


def _moved(moved: dict[int, int], id_: int | None) -> int | None:
    return None if id_ is None else moved.get(id_)
