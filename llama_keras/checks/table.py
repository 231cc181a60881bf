"""Which checks each task has, in the order in which they are told."""

from llama_keras.checks.answers import check_answer_lengths, check_places
from llama_keras.checks.documents import (
    check_document_lengths,
    check_documents,
    check_empty_documents,
)
from llama_keras.checks.entities import check_spans, check_tag_rows
from llama_keras.checks.labels import (
    check_balance,
    check_counts,
    check_labels,
    check_recipe_fits,
)
from llama_keras.checks.lengths import check_lengths
from llama_keras.checks.records import Check
from llama_keras.checks.texts import (
    check_characters,
    check_conflicts,
    check_duplicates,
    check_empty,
    check_overlap,
    check_pairs,
    check_rows,
    check_shared_texts,
)

# What can be asked of data of which nothing could be read, too.
FIRST = (
    Check("rows", check_rows),
    Check("recipe", check_recipe_fits),
    Check("counts", check_counts),
)
_TEXTS = (
    Check("empty", check_empty),
    Check("duplicates", check_duplicates),
    Check("overlap", check_overlap),
)
_LABELS = (
    Check("conflicts", check_conflicts),
    Check("labels", check_labels),
    Check("balance", check_balance),
)
_LAST = (
    Check("lengths", check_lengths),
    Check("characters", check_characters),
)
_SHARED = Check("shared texts", check_shared_texts)

CHECKS: dict[str, tuple[Check, ...]] = {
    "causal_lm": (*FIRST, *_TEXTS, *_LAST),
    "embedding": (*FIRST, *_TEXTS, _SHARED, Check("pairs", check_pairs), *_LAST),
    "question_answering": (
        *FIRST,
        *_TEXTS,
        _SHARED,
        Check("answers", check_places),
        Check("answer lengths", check_answer_lengths),
        *_LAST,
    ),
    "text_classification": (*FIRST, *_TEXTS, _SHARED, *_LABELS, *_LAST),
    "token_classification": (
        *FIRST,
        *_TEXTS,
        *_LABELS,
        Check("tags", check_tag_rows),
        Check("spans", check_spans),
        *_LAST,
    ),
}

# Of pretraining recipes; the first two of documents of which nothing could be read, too.
PRETRAINING = (
    Check("rows", check_rows),
    Check("counts", check_documents),
    Check("empty", check_empty_documents),
    *_TEXTS[1:],
    Check("lengths", check_document_lengths),
    *_LAST[1:],
)
