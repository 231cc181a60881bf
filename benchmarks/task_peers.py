"""Fine-tunes Hugging Face's Llama heads by our recipes, for comparison.

Run it with an interpreter that has torch, transformers, peft, gguf, and for the recipes and the
metrics pydantic, pyyaml, scikit-learn:

    PYTHON benchmarks/task_peers.py sst2 --set strategy=lora --gguf SmolLM2-135M-Instruct.Q4_1.gguf

Data, batch size, epochs, learning rate and its schedule, weight decay, clipping and precision
(bfloat16 products on float32 weights) are the recipe's, and the metrics are ours. Models,
tokenizer, head, losses and what is read off the logits are as Hugging Face has them: causal; the
last token is classified; the first sub-token of a word has its tag, and an I- without a beginning
begins an entity (seqeval's default); answers are the best sum of a start and an end logit among
the 20 best of each (run_qa.py). Pairs and questions are parted by the end-of-text token and
contexts are cut as ours are, for Llama has no rule of its own. Prints what learns, and one JSON
line.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoTokenizer,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llama_keras.eval.entity_metrics import entity_metrics
from llama_keras.eval.metrics import compute_metrics
from llama_keras.eval.qa_metrics import compute_answer_metrics
from llama_keras.kinds import get_kind
from llama_keras.tasks.answer_labels import row_labels, token_span
from llama_keras.tasks.entity_data import join_words
from llama_keras.tasks.question_data import as_questions
from llama_keras.tasks.recipe import load_recipe
from llama_keras.tasks.tagging import spans_of_tags, split_tag, tag_names

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NO_LABEL = -100
BEST = 20  # starts and ends that are combined, run_qa.py's n_best_size


@dataclass(frozen=True)
class Row:
    """Token ids, what is to be learnt of them, and where they come from."""

    ids: list[int]
    label: Any
    place: Any = None


class TextHead:
    """`LlamaForSequenceClassification`: the last token's logits."""

    model, layer = LlamaForSequenceClassification, "score"

    def __init__(self, recipe, labels, tokenizer):
        self.labels, self.tokenizer, self.limit = labels, tokenizer, limit_of(recipe)
        self.outputs = len(labels)

    def rows(self, part):
        limit, numbers = self.limit, {name: n for n, name in enumerate(self.labels)}
        for text, label in zip(part.texts, part.labels, strict=True):
            ids = self._pair(*text) if isinstance(text, tuple) else encode(self.tokenizer, text)
            yield Row(ids[:limit] or [self.tokenizer.pad_token_id], numbers[label])

    def _pair(self, first: str, second: str) -> list[int]:
        ids, room = [encode(self.tokenizer, text) for text in (first, second)], self.limit - 1
        kept = min(len(ids[0]), max(room - len(ids[1]), (room + 1) // 2))
        return [*ids[0][:kept], self.tokenizer.eos_token_id, *ids[1][: room - kept]]

    def loss(self, output, rows):
        return cross_entropy(output.logits.float(), torch.tensor([row.label for row in rows]))

    def read(self, output, rows):
        return output.logits.argmax(-1).tolist()

    def measure(self, part, rows, found):
        named = [self.labels[number] for number in found]
        return compute_metrics(part.labels, named, labels=self.labels)


class TokenHead:
    """`LlamaForTokenClassification`: the logits of each word's first (or last) sub-token."""

    model, layer = LlamaForTokenClassification, "score"

    def __init__(self, recipe, labels, tokenizer):
        self.tags, self.tokenizer = tag_names(labels, scheme="IOB2"), tokenizer
        self.separator, self.limit = recipe.data.word_separator, limit_of(recipe)
        self.outputs, self.tagged = len(self.tags), 0

    def rows(self, part):
        numbers = {name: n for n, name in enumerate(self.tags)}
        for words, tags in zip(part.inputs, part.targets, strict=True):
            text, places = join_words(words, separator=self.separator)
            ends = [0, *(end for _, end in places)]
            pieces = [encode(self.tokenizer, text[a:b]) for a, b in zip(ends, ends[1:])]  # noqa: B905
            starts = np.cumsum([0, *map(len, pieces)])
            columns = (starts[:-1] if self.tagged == 0 else starts[1:] - 1).tolist()
            ids = [token for piece in pieces for token in piece][: self.limit]
            label = [NO_LABEL] * len(ids)
            for column, tag in zip(columns, tags, strict=True):
                if column < len(ids):
                    label[column] = numbers[tag]
            yield Row(ids, label, columns)

    def loss(self, output, rows):
        width = output.logits.shape[1]
        labels = [row.label + [NO_LABEL] * (width - len(row.ids)) for row in rows]
        logits = output.logits.float().flatten(0, 1)
        return cross_entropy(logits, torch.tensor(labels).flatten(), ignore_index=NO_LABEL)

    def read(self, output, rows):
        best = output.logits.argmax(-1).tolist()
        return [
            [tags[n] if n < len(row.ids) else 0 for n in row.place]
            for tags, row in zip(best, rows, strict=True)
        ]

    def measure(self, part, rows, found):
        expected = [spans_of_tags(tags, scheme="IOB2") for tags in part.targets]
        return entity_metrics(expected, [self._spans(numbers) for numbers in found])

    def _spans(self, numbers):
        tags, before = [], ""
        for number in numbers:
            prefix, name = split_tag(self.tags[number])
            tags.append(f"B-{name}" if prefix == "I" and name != before else self.tags[number])
            before = name
        return spans_of_tags(tags, scheme="IOB2")


class AnswerHead:
    """`LlamaForQuestionAnswering`: start and end logits of the windows of a context."""

    model, layer = LlamaForQuestionAnswering, "qa_outputs"
    outputs = 2

    def __init__(self, recipe, labels, tokenizer):
        self.tokenizer, self.limit, self.settings = tokenizer, limit_of(recipe), recipe.answers

    def rows(self, part):
        asked = as_questions(part.examples)
        for number, question in enumerate(asked.questions):
            context, answers = asked.contexts[number], (asked.answers or [])[number]
            yield from self._windows(number, question, context, answers)

    def _windows(self, number, question, context, answers):
        eos = self.tokenizer.eos_token_id
        prefix = [*encode(self.tokenizer, question)[: self.settings.max_question_tokens], eos]
        coded = self.tokenizer(context, return_offsets_mapping=True, add_special_tokens=False)
        ids, offsets = coded["input_ids"], np.array(coded["offset_mapping"]).reshape(-1, 2)
        room = self.limit - len(prefix) - 1
        step = room - self.settings.window_overlap
        firsts = np.arange(1 + -(-max(len(ids) - room, 0) // step)) * step
        rows = [[*prefix, *ids[first : first + room], eos] for first in firsts]
        labels = row_labels(
            token_span(answers, context, offsets),
            prefix=np.full(len(rows), len(prefix)),
            first=firsts,
            lengths=np.array([len(row) for row in rows]),
        )
        for row, first, label in zip(rows, firsts, labels, strict=True):
            size = len(row) - len(prefix) - 1
            place = (number, len(prefix), offsets[first : first + size])
            yield Row(row, label.tolist(), place)

    def learnt(self, rows):
        """Gives the windows of questions whose answer is whole in one, as ours are learnt."""
        whole = {row.place[0] for row in rows if row.label[0] != len(row.ids) - 1}
        return [row for row in rows if row.place[0] in whole]

    def loss(self, output, rows):
        labels = torch.tensor([row.label for row in rows])
        sides = (output.start_logits, output.end_logits)
        return sum(cross_entropy(side.float(), labels[:, n]) for n, side in enumerate(sides)) / 2

    def read(self, output, rows):
        starts, ends = output.start_logits.float().numpy(), output.end_logits.float().numpy()
        return [self._best(*parts) for parts in zip(starts, ends, rows, strict=True)]

    def _best(self, starts, ends, row):
        _, prefix, offsets = row.place
        inside = slice(prefix, prefix + len(offsets))
        starts, ends = starts[inside], ends[inside]
        best = (-np.inf, 0, 0)
        for a in np.argsort(-starts)[:BEST]:
            for b in np.argsort(-ends)[:BEST]:
                if a <= b < a + self.settings.max_answer_tokens:
                    best = max(best, (starts[a] + ends[b], offsets[a, 0], offsets[b, 1]))
        return best

    def measure(self, part, rows, found):
        best = [(-np.inf, 0, 0)] * len(part)
        for row, answer in zip(rows, found, strict=True):
            best[row.place[0]] = max(best[row.place[0]], answer)
        contexts = as_questions(part.examples).contexts
        texts = [text[a:b].strip() for text, (_, a, b) in zip(contexts, best, strict=True)]
        expected = [[answer["text"] for answer in row["answers"]] for row in part.examples]
        return compute_answer_metrics(expected, texts, rule=self.settings.rule)


HEADS = {
    "text_classification": TextHead,
    "token_classification": TokenHead,
    "question_answering": AnswerHead,
}


def limit_of(recipe) -> int:
    """Gives the tokens of the longest row."""
    return recipe.model.max_sequence_length


def encode(tokenizer, text: str) -> list[int]:
    """Gives a text's ids."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def batches(rows, size: int, generator=None):
    """Gives lists of row numbers, of like length, in random order where there is a generator."""
    order, lengths = torch.arange(len(rows)), torch.tensor([len(row.ids) for row in rows])
    if generator is None:
        return [group.tolist() for group in torch.argsort(lengths, stable=True).split(size)]
    order = torch.randperm(len(rows), generator=generator)
    # As ours: sorted within windows of 64 batches.
    order = torch.cat([w[torch.argsort(lengths[w])] for w in order.split(size * 64)])
    groups = [group.tolist() for group in order.split(size)]
    return [groups[n] for n in torch.randperm(len(groups), generator=generator)]


def run_model(model, rows, pad: int):
    """Gives the model's output for padded rows."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows])
    with torch.autocast("cpu", torch.bfloat16):
        return model(input_ids=ids, attention_mask=mask)


def load_model(head, gguf: Path, pad: int, strategy):
    """Gives the pretrained model with its new head, and LoRA where the strategy says so."""
    model, report = head.model.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        num_labels=head.outputs,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := [name for name in report["missing_keys"] if head.layer not in name]:
        raise SystemExit(f"{gguf} lacks {missing[:3]} … of {head.model.__name__}.")
    model.config.pad_token_id = pad
    if hasattr(model, "dropout"):
        model.dropout.p = 0.0  # the token head's default is 0.1, the recipes' 0
    if strategy["name"] == "lora":
        from peft import LoraConfig, get_peft_model

        rank = strategy["rank"]
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=PROJECTIONS,
            modules_to_save=[head.layer],
        )
        model = get_peft_model(model, config)
    return model


def train(model, head, rows, *, recipe, pad: int):
    """Fine-tunes as our tasks do: AdamW, a tenth of warm-up, a cosine to zero, clipped at 1."""
    size, epochs = recipe.train.batch_size, recipe.train.epochs
    steps = math.ceil(len(rows) / size) * epochs
    warmup = math.ceil(steps / 10)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in weights if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=recipe.train.learning_rate or recipe.strategy["learning_rate"],
        eps=1e-7,
    )

    def factor(step):
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    generator = torch.Generator().manual_seed(recipe.train.seed)
    model.train()
    step = 0
    for _ in range(epochs):
        for numbers in batches(rows, size, generator):
            batch = [rows[n] for n in numbers]
            loss = head.loss(run_model(model, batch, pad), batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 20 == 0 or step == steps:
                print(f"step {step}/{steps} loss {loss.item():.4f}", file=sys.stderr, flush=True)


def predict(model, head, rows, pad: int) -> list:
    """Gives what the head reads off the logits of each row, in the order of the rows."""
    model.eval()
    found: list[Any] = [None] * len(rows)
    with torch.no_grad():
        for numbers in batches(rows, 32):
            batch = [rows[n] for n in numbers]
            read = head.read(run_model(model, batch, pad), batch)
            for number, answer in zip(numbers, read, strict=True):
                found[number] = answer
    return found


def load_parts(recipe, kind) -> dict[str, Any]:
    """Gives the parts of the recipe's files."""
    named = {name: getattr(recipe.data, name) for name in ("train", "validation", "test")}
    parts = {name: kind.load(recipe, source, None) for name, source in named.items() if source}
    limit = recipe.data.limit
    return {name: part.head(limit) if limit else part for name, part in parts.items()}


def plain(metrics, count: int) -> dict[str, Any]:
    """Gives metrics as our runs write them."""
    values = {name: metric.value for name, metric in metrics.items()}
    intervals = {name: [metric.low, metric.high] for name, metric in metrics.items()}
    return {**values, "n": count, "intervals": intervals}


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--tagged-token", choices=["first", "last"], default="first")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, overrides=options.set)
    if recipe.strategy["name"] not in ("full", "lora"):
        raise SystemExit(f"The peers know full and lora, not {recipe.strategy['name']}.")
    torch.manual_seed(recipe.train.seed)
    torch.set_num_threads(options.threads)
    kind = get_kind(recipe.task)
    parts = load_parts(recipe, kind)
    tokenizer = AutoTokenizer.from_pretrained(options.gguf.parent, gguf_file=options.gguf.name)
    head = HEADS[recipe.task](recipe, kind.labels(recipe, parts), tokenizer)
    if options.tagged_token == "last":
        head.tagged = 1
    rows = {name: list(head.rows(part)) for name, part in parts.items()}
    model = load_model(head, options.gguf, tokenizer.pad_token_id, recipe.strategy)
    counts = [
        sum(p.numel() for p in model.parameters() if p.requires_grad or every)
        for every in (False, True)
    ]
    sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    share = f"{counts[0]:,} of {counts[1]:,} weights learn ({100 * counts[0] / counts[1]:.2f} %)"
    print(f"{recipe.strategy['name']} on {sizes} {kind.noun}; {share}", flush=True)
    started = time.time()
    learnt = head.learnt(rows["train"]) if hasattr(head, "learnt") else rows["train"]
    train(model, head, learnt, recipe=recipe, pad=tokenizer.pad_token_id)
    line: dict[str, Any] = {"recipe": recipe.name, "strategy": recipe.strategy["name"]}
    line["train_seconds"] = time.time() - started
    line["versions"] = {name: version(name) for name in ("torch", "transformers", "peft")}
    for name in ("validation", "test"):
        if name in parts:
            found = predict(model, head, rows[name], tokenizer.pad_token_id)
            metrics = head.measure(parts[name], rows[name], found)
            line[name] = plain(metrics, len(parts[name]))
    print(json.dumps(line))


if __name__ == "__main__":
    main()
