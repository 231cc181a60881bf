"""The article's code example: a pretrained model learns from SQuAD in three epochs.

Input: SQuAD 1.1: `tfds:NAME`, a SQuAD `.json` or a `.jsonl` file; by default the set in the folder
`LLAMA_KERAS_SHARED`. A row is a context, a question and its answer, and the model learns to say
every next token; padding counts for nothing. Questions without an answer and rows of more than
LENGTH tokens are left out and counted.
Output: loss and accuracy after each epoch, on the rows learnt from and on others.

    python examples/article.py [--data FILE] [--preset NAME] [--examples 64] [--length 128]

The preset is `smollm2-135m-instruct` unless another is named; `llama-tiny` takes seconds and,
being random, learns next to nothing.
"""

import argparse

import keras
import numpy as np

import llama_keras as lk
from llama_keras.errors import InputError

EPOCHS, BATCH, RATE = 3, 32, 1e-5  # the article's numbers


def load_rows(tokenizer, data: str, *, length: int) -> list[list[int]]:
    """Gives the ids of each example that has an answer and fits."""
    found = lk.data.load_question_answering(data)
    texts = [
        f"{row['context']}\nQuestion: {row['question']}\nAnswer: {row['answers'][0]['text']}"
        for row in found.examples
        if row["answers"]
    ]
    rows = [row for row in tokenizer.encode(texts, add_eos=True) if len(row) <= length]
    print(
        f"{len(rows)} of {len(found)} examples have an answer and at most {length} tokens "
        f"({found.unanswerable} have no answer, {len(texts) - len(rows)} are longer)"
    )
    return rows


def batch_of(rows: list[list[int]], *, length: int, pad_id: int):
    """Gives inputs, the tokens that follow them, and weights that are 0 at padding: (N, T)."""
    ids = np.full((len(rows), length), pad_id, dtype="int32")
    real = np.zeros(ids.shape, dtype="int32")
    for at, row in enumerate(rows):
        ids[at, : len(row)], real[at, : len(row)] = row, 1
    inputs = {"token_ids": ids[:, :-1], "padding_mask": real[:, :-1]}
    return inputs, ids[:, 1:], real[:, 1:]


def main(
    *,
    data: str = "shared:data/squad_v1.1/train.json.gz",
    preset: str = "smollm2-135m-instruct",
    examples: int = 64,
    length: int = 128,
) -> dict[str, list[float]]:
    """Gives what `fit` measured, epoch by epoch."""
    keras.utils.set_random_seed(0)
    tokenizer = lk.text.Tokenizer.from_preset(preset)
    rows = load_rows(tokenizer, data, length=length)
    if len(rows) < 2 or examples < 1:
        raise InputError(
            f"Of {data}, {len(rows)} examples fit and {examples} are wanted; it takes 2 that fit, "
            "one to learn from and one to measure on, and 1 wanted. Give more data, a larger "
            "length or more examples."
        )
    held_out = max(1, min(len(rows), examples) // 5)  # the last ones: other articles
    inputs, targets, weights = batch_of(
        rows[:-held_out][:examples], length=length, pad_id=tokenizer.pad_id
    )
    validation = batch_of(rows[-held_out:], length=length, pad_id=tokenizer.pad_id)

    backbone = lk.models.LlamaBackbone.from_preset(preset)
    logits = backbone.token_embedding(backbone.output, reverse=True)  # (B, T, V)
    model = keras.Model(backbone.input, logits)
    model.compile(
        optimizer=keras.optimizers.AdamW(RATE),
        # The mean over real tokens; Keras's default would divide by the padding, too.
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=["accuracy"],
    )
    history = model.fit(
        inputs,
        targets,
        sample_weight=weights,
        batch_size=BATCH,
        epochs=EPOCHS,
        validation_data=validation,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=print_epoch)],
    )
    return history.history


def print_epoch(epoch: int, logs: dict[str, float]) -> None:
    print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {v:.4f}" for name, v in logs.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The article's code example.")
    parser.add_argument("--data", default="shared:data/squad_v1.1/train.json.gz")
    parser.add_argument("--preset", default="smollm2-135m-instruct")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    main(**vars(parser.parse_args()))
