import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from llama_keras.text import Tokenizer
from llama_keras.text.graph import ragged
from tests.text.sentence_piece_models import KINDS, spec_of, train
from tests.text.strings import generate

# Ops of TF-Text that may be in a graph; a stock TF Serving links them. All others are core ops.
TF_TEXT_OPS = {
    "SentencepieceOp",
    "SentencepieceTokenizeOp",
    "SentencepieceTokenizeWithOffsetsOp",
    "SentencepieceDetokenizeOp",
    "RegexSplitWithOffsets",
}
TEXTS = [
    "",
    "<|im_start|>née 😀<|im_end|>",
    "<s>x</s>",
    "a\x00b\x04c",
    *generate(50, seed=9),
]
READER = """
import json, sys
import tensorflow as tf
import tensorflow_text

texts = tf.constant(json.load(sys.stdin))
results = []
for directory in sys.argv[1:]:
    model = tf.saved_model.load(directory)
    found = model.encode(texts)
    result = {name: value.numpy().tolist() for name, value in found.items()}
    decoded = model.decode(found["ids"], found["row_splits"])
    result["texts"] = [text.decode() for text in decoded.numpy()]
    result["special"] = model.parse(texts).numpy().tolist()
    results.append(result)
assert "llama_keras" not in sys.modules
print(json.dumps(results))
"""


def exported(tokenizer: Tokenizer) -> tf.Module:
    module: Any = tf.Module()
    module.tokenizer = graph = tokenizer.graph

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(texts):
        ids, starts, ends = graph.tokenize_with_offsets(texts)
        splits = ids.row_splits
        return {
            "ids": ids.values,
            "row_splits": splits,
            "starts": starts.values,
            "ends": ends.values,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def parse(texts):
        return graph.tokenize(texts, parse_special=True).values

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64)])
    def decode(ids, row_splits):
        return graph.detokenize(ragged(ids, row_splits))

    module.encode, module.parse, module.decode = encode, parse, decode
    return module


def ops_of(directory: Path) -> set[str]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    inside = [node for function in graph.library.function for node in function.node_def]
    return {node.op for node in [*graph.node, *inside]} - functions


@pytest.fixture(scope="module")
def llama(repository) -> Tokenizer:
    return Tokenizer(spec_of(train(repository, **KINDS["llama"])))


@pytest.fixture(scope="module")
def cases(smollm2_tokenizer, llama, tmp_path_factory):
    """For each kind: the tokenizer, its export, and what a process without our code reads."""
    root = tmp_path_factory.mktemp("exported")
    tokenizers = {"byte_pair": smollm2_tokenizer, "sentence_piece": llama}
    for name, tokenizer in tokenizers.items():
        tf.saved_model.save(exported(tokenizer), str(root / name))
    done = subprocess.run(
        [sys.executable, "-c", READER, *(str(root / name) for name in tokenizers)],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        timeout=200,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    rows = zip(tokenizers.items(), results, strict=True)
    return {name: (tokenizer, root / name, result) for (name, tokenizer), result in rows}


@pytest.mark.parametrize("name", ["byte_pair", "sentence_piece"])
def test_graph_gives_the_same_without_our_code(cases, name):
    tokenizer, _, found = cases[name]
    ids = tokenizer.encode(TEXTS)
    special = tokenizer.encode(TEXTS, parse_special=True)
    parts = tokenizer.tokenize_with_offsets(tf.constant(TEXTS))._asdict()
    assert found["ids"] == [id_ for row in ids for id_ in row]
    assert all(found[key] == part.values.numpy().tolist() for key, part in parts.items())
    assert found["texts"] == tokenizer.decode(ids)
    assert found["special"] == [id_ for row in special for id_ in row]
    assert found["special"] != found["ids"]


@pytest.mark.parametrize("name", ["byte_pair", "sentence_piece"])
def test_graph_holds_only_ops_that_tensorflow_serving_has(cases, name):
    _, directory, _ = cases[name]
    foreign = ops_of(directory) - set(dir(tf.raw_ops))
    assert foreign and foreign <= TF_TEXT_OPS


def test_graph_is_small(cases):
    _, directory, _ = cases["byte_pair"]
    assert sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) < 5e6
