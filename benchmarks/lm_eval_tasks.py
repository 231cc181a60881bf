"""Tasks of lm-evaluation-harness that ask what our suites of the same names ask.

The templates are those of the tasks that come with it, over the columns of our files. Documents are
a JSONL file of the examples that ours read, so that nothing is fetched.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

_QUESTION = "Question: {{question}}\nAnswer:"
_CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{context}}",
    "doc_to_target": "answer",
    "doc_to_choice": "choices",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
# Suite -> its task, but for the name and the data.
TASKS: dict[str, dict[str, Any]] = {
    "hellaswag": _CHOICES,
    "arc_easy": {**_CHOICES, "doc_to_text": _QUESTION},
    "arc_challenge": {**_CHOICES, "doc_to_text": _QUESTION},
    "piqa": {**_CHOICES, "doc_to_text": "Question: {{goal}}\nAnswer:"},
    "winogrande": {
        **_CHOICES,
        # A number says that the choices are contexts and the target is what is scored.
        "doc_to_text": "answer",
        "doc_to_choice": "{{[context + ' ' + options[0], context + ' ' + options[1]]}}",
        "doc_to_target": "{{continuation}}",
        "metric_list": [{"metric": "acc"}],
    },
    "openbookqa": _CHOICES,
    "boolq": {
        **_CHOICES,
        "doc_to_text": "{{passage}}\nQuestion: {{question}}\nAnswer:",
        "metric_list": [{"metric": "acc"}],
    },
    "copa": {
        **_CHOICES,
        # Its functions take the columns of the set itself; this is what they make of them.
        "doc_to_text": "{{context|replace(', because', ' because')"
        "|replace(', therefore', ' therefore')}}",
        "target_delimiter": "  ",
        "metric_list": [{"metric": "acc"}],
    },
    "lambada_openai": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{' ' + target}}",
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity"}],
    },
    "wikitext2": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "FUNCTION wikitext_functions.wikitext_detokenizer",
        "process_results": "FUNCTION wikitext_functions.process_results",
        "metric_list": [
            {"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")
        ],
    },
}
# Loaded from beside the task's file; the functions are the harness's own.
_FUNCTIONS = """\
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer
"""


def write_tasks(folder: Path, docs: dict[str, Sequence[dict[str, Any]]]) -> None:
    """Writes for each suite a task `parity_SUITE` and the examples that it reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wikitext_functions.py").write_text(_FUNCTIONS, encoding="utf-8")
    for suite, rows in docs.items():
        data = folder / f"{suite}.jsonl"
        # What its functions call the text.
        named = [{"page": row["text"]} if suite == "wikitext2" else row for row in rows]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in named]
        data.write_text("".join(lines), encoding="utf-8")
        task = {
            "task": f"parity_{suite}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
            "test_split": "test",
            **TASKS[suite],
        }
        text = yaml.safe_dump(task, sort_keys=False, allow_unicode=True, width=1000)
        # A tag of theirs, which safe_dump cannot write.
        text = text.replace("FUNCTION ", "!function ")
        (folder / f"parity_{suite}.yaml").write_text(text, encoding="utf-8")
