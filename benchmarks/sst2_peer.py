"""Fine-tunes Hugging Face's `LlamaForSequenceClassification` on SST-2, for comparison.

Run it with an interpreter that has torch, transformers, peft and gguf:

    PYTHON benchmarks/sst2_peer.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf \
        --data ../shared/data/sst2 --strategy full

Same data, batch size, epochs, learning-rate schedule, weight decay, clipping and precision
(bfloat16 products on float32 weights) as the recipe `sst2`. Prints one JSON line.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForSequenceClassification

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read(path):
    """Gives the texts and label numbers of a JSONL file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], [int(row["label"] == "positive") for row in rows]


def batches(texts, labels, tokenizer, size, generator=None):
    """Yields padded batches, sorted by length within windows when training."""
    order = torch.arange(len(texts))
    lengths = torch.tensor([len(ids) for ids in tokenizer(texts)["input_ids"]])
    if generator is not None:
        order = torch.randperm(len(texts), generator=generator)
        window = size * 64
        order = torch.cat([w[torch.argsort(lengths[w])] for w in order.split(window)])
    else:
        order = torch.argsort(lengths)
    groups = list(order.split(size))
    if generator is not None:
        groups = [groups[i] for i in torch.randperm(len(groups), generator=generator)]
    for group in groups:
        features = tokenizer([texts[i] for i in group], padding=True, return_tensors="pt")
        yield features, torch.tensor([labels[i] for i in group])


def accuracy(model, texts, labels, tokenizer):
    """Gives the share of right answers."""
    model.eval()
    right = 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for features, targets in batches(texts, labels, tokenizer, 32):
            right += int((model(**features).logits.argmax(-1) == targets).sum())
    model.train()
    return right / len(texts)


def main():
    """Trains, evaluates and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--strategy", choices=["full", "lora"], default="full")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(2)
    rate = options.learning_rate or {"full": 3e-5, "lora": 5e-4}[options.strategy]

    folder, name = options.gguf.parent, options.gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.padding_side = "right"
    model = LlamaForSequenceClassification.from_pretrained(folder, gguf_file=name, num_labels=2)
    model.config.pad_token_id = tokenizer.pad_token_id
    if options.strategy == "lora":
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=options.rank,
            lora_alpha=options.rank,
            target_modules=PROJECTIONS,
            modules_to_save=["score"],
        )
        model = get_peft_model(model, config)
    texts, labels = read(options.data / "train.jsonl")
    texts, labels = texts[: options.limit], labels[: options.limit]
    steps = math.ceil(len(texts) / options.batch_size) * options.epochs
    warmup = math.ceil(steps / 10)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in weights if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=rate,
        eps=1e-7,
    )

    def factor(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    generator = torch.Generator().manual_seed(options.seed)
    started = time.time()
    model.train()
    step = 0
    for _ in range(options.epochs):
        for features, targets in batches(texts, labels, tokenizer, options.batch_size, generator):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**features).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 20 == 0:
                print(f"step {step}/{steps} loss {loss.item():.4f}", flush=True)
    seconds = time.time() - started
    scores = {
        split: accuracy(model, *read(options.data / f"{split}.jsonl"), tokenizer)
        for split in ("dev", "test")
    }
    line = {"strategy": options.strategy, "epochs": options.epochs, "train_seconds": seconds}
    print(json.dumps({**line, **scores}))


if __name__ == "__main__":
    main()
