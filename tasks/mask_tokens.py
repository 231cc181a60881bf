"""Ids for `<mask>` and the like in vocabularies that were made without them."""

from collections.abc import Sequence
from dataclasses import dataclass

from llama_keras.errors import InputError
from llama_keras.tasks.text_data import clean_texts

MASK_TEXT = "<mask>"
SEPARATOR_TEXT = "<separator>"
# How vocabularies that have a mask spell it.
_KNOWN_MASKS = (MASK_TEXT, "[MASK]", "<|mask|>", "<MASK>")
_RESERVED = "<|reserved_special_token_"
_MOST_SENTINELS = 100  # T5's


@dataclass(frozen=True, kw_only=True)
class MaskTokens:
    """The ids that an objective needs besides those of texts.

    Attributes:
        mask_id: stands for a hidden token.
        separator_id: stands between corrupted and clean text.
        end_id: ends a text.
        sentinel_ids: stand for the first, second, … hidden span of a text; empty where no id is
            left for them.
    """

    mask_id: int
    separator_id: int
    end_id: int
    sentinel_ids: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        tokenizer,
        *,
        vocabulary_size: int,
        mask_id: int | None = None,
        separator_id: int | None = None,
        sentinel_ids: Sequence[int] | None = None,
    ) -> "MaskTokens":
        """Gives those of a tokenizer; Llama's vocabularies have no mask of their own.

        Unless given, mask and separator are the first of: the vocabulary's own mask; reserved
        tokens (Llama 3); rows of the embedding that no token of the tokenizer uses (llama-tiny);
        control tokens that neither begin or end a text nor stand in the chat template (SmolLM2:
        `<empty_output>`, then `<jupyter_script>`); the unknown token, which texts never become
        where bytes stand in for it (Llama 1 and 2). The separator is at last the token that begins
        a text. Sentinels are what is left of these, as many as T5 has at most.

        Args:
            tokenizer: a `text.Tokenizer`.
            vocabulary_size: rows of the embedding.
            mask_id, separator_id, sentinel_ids: chosen ids.

        Raises:
            InputError: an id is outside the vocabulary, two are the same, or none is free.
        """
        taken = {separator_id, *(sentinel_ids or ())}
        free = [id_ for id_ in free_ids(tokenizer, vocabulary_size) if id_ not in taken]
        if mask_id is None and not free:
            raise InputError(
                "The vocabulary has no token to spare for <mask>; give mask_id=…, an id that your "
                "texts never hold."
            )
        mask = free[0] if mask_id is None else mask_id
        own = {tokenizer.special_tokens.get(text) for text in _KNOWN_MASKS}
        rest = [id_ for id_ in free if id_ != mask and id_ not in own]
        if (known := tokenizer.special_tokens.get(SEPARATOR_TEXT)) is not None:
            rest.insert(0, known)
        rest += [id_ for id_ in (tokenizer.bos_id, tokenizer.pad_id) if id_ not in (None, mask)]
        separator = next(iter(rest), mask) if separator_id is None else separator_id
        if sentinel_ids is None:
            left = [id_ for id_ in free if id_ not in (mask, separator)]
            sentinel_ids = left[:_MOST_SENTINELS]
        named = [("mask_id", mask), ("separator_id", separator)]
        _check_ids([*named, *(("sentinel_ids", id_) for id_ in sentinel_ids)], vocabulary_size)
        ends = (tokenizer.eos_id, *tokenizer.end_ids, tokenizer.pad_id)
        return cls(
            mask_id=mask,
            separator_id=separator,
            end_id=next(id_ for id_ in ends if id_ is not None),
            sentinel_ids=tuple(sentinel_ids),
        )


def _check_ids(named: Sequence[tuple[str, int]], vocabulary_size: int) -> None:
    names: dict[int, str] = {}
    for name, id_ in named:
        if not 0 <= id_ < vocabulary_size:
            raise InputError(
                f"{name}={id_} is not among the {vocabulary_size} ids of the embedding."
            )
        if id_ in names:
            raise InputError(f"{names[id_]} and {name} are both {id_}; give another one.")
        names[id_] = name


def free_ids(tokenizer, vocabulary_size: int) -> list[int]:
    """Gives the ids that no text becomes, the best for a mask first; see `MaskTokens.of`."""
    special = tokenizer.special_tokens
    known = [special[text] for text in _KNOWN_MASKS if text in special]
    reserved = [id_ for text, id_ in special.items() if text.startswith(_RESERVED)]
    rows = list(range(tokenizer.vocabulary_size, vocabulary_size))
    template = tokenizer.chat_template or ""
    unknown = tokenizer.spec.unk_id
    used = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, unknown, *tokenizer.end_ids}
    other = [id_ for text, id_ in special.items() if id_ not in used and text not in template]
    spare = [unknown] if tokenizer.spec.kind == "sentence_piece" and unknown is not None else []
    found = [*known, *reserved, *rows, *sorted(other, reverse=True), *spare]
    return list(dict.fromkeys(found))


def encode_masked(
    tokenizer, texts, *, mask_id: int, cleaning=None, add_bos: bool | None = None
) -> list[list[int]]:
    """Gives the ids of texts in which `<mask>` stands for one token.

    The token takes one space before it along, as words do in byte-level vocabularies. Cleaning
    sees what stands between the masks, not the masks.

    Args:
        tokenizer: a `text.Tokenizer`.
        texts: strings.
        mask_id: what `<mask>` becomes.
        cleaning: a `text.cleaning.Cleaning` or None.
        add_bos: see `Tokenizer.encode`; texts get no end token.
    """
    pieces = [_Piece(text, at, part) for text, at, part in _pieces(texts)]
    cleaned = clean_texts([piece.part for piece in pieces], cleaning=cleaning)
    cleaned = [piece.spaced(part) for piece, part in zip(pieces, cleaned, strict=True)]
    starts = [part for piece, part in zip(pieces, cleaned, strict=True) if not piece.number]
    rest = [part for piece, part in zip(pieces, cleaned, strict=True) if piece.number]
    rows = tokenizer.encode(starts, add_bos=add_bos, add_eos=False) if starts else []
    encoded = iter(tokenizer.encode(rest, add_bos=False, add_eos=False) if rest else [])
    for piece in pieces:
        if piece.number:
            rows[piece.text] += [mask_id, *next(encoded)]
    return rows


@dataclass(frozen=True)
class _Piece:
    """What stands before the first mask of a text, or behind one."""

    text: int
    number: int
    part: str

    def spaced(self, cleaned: str) -> str:
        """Gives the cleaned piece with the space behind the mask that cleaning took."""
        lost = self.number and cleaned and self.part[:1].isspace() and not cleaned[0].isspace()
        return f" {cleaned}" if lost else cleaned


def _pieces(texts):
    for number, text in enumerate(texts):
        *before, last = text.split(MASK_TEXT)
        for at, part in enumerate([*(part.removesuffix(" ") for part in before), last]):
            yield number, at, part
