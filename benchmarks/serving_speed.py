"""Serving: what a server and an export cost beside the model in the same process.

A classifier's export is asked for one text over REST and gRPC on loopback, and called in its own
process: the ratio is the share of a request that is the model's own work. And a generator's export
decodes as many tokens as `CausalLM.generate` does, greedy, from string to string.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import smollm2
from benchmarks.decode import NEW, PROMPT
from benchmarks.suite import Claim, Library, Runs, Suite, limit_tensorflow

TEXT = "The film takes its time, and then it takes your breath away. " * 3
CLASSIFY, GENERATE = "classify 1 text", f"generate 1 × {NEW}"
AMOUNTS = {CLASSIFY: 1, GENERATE: NEW}
_GREEDY = {"max_new_tokens": NEW, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
_OPEN = ExitStack()  # servers, which end with the process


def served(options: dict[str, Any]) -> Runs:
    """Builds the runs over a server and of the exported generator; tells where the exports are."""
    limit_tensorflow()
    from llama_keras.serving.client import Client
    from llama_keras.serving.local import SavedModel
    from llama_keras.serving.server import running_server
    from llama_keras.tasks import CausalLM, TextClassifier

    folder = Path(_OPEN.enter_context(tempfile.TemporaryDirectory()))
    labels = ["negative", "positive"]
    classifier = TextClassifier.from_preset(smollm2.PRESET, labels=labels)
    place = classifier.export(folder / "classifier" / "1")
    writer = CausalLM.from_preset(smollm2.PRESET)
    generators = {
        "plain": SavedModel(writer.export(folder / "plain" / "1", jit_compile=False)),
        "XLA": SavedModel(writer.export(folder / "xla" / "1")),
    }
    del classifier, writer
    server = _OPEN.enter_context(running_server(place, port=0, grpc_port=0))
    clients = {"REST": Client(server.url), "gRPC": Client(str(server.grpc_url))}
    return Runs(
        runs={
            CLASSIFY: {
                name: lambda client=client: client.predict([TEXT], signature="classify")
                for name, client in clients.items()
            },
            GENERATE: {
                name: lambda saved=saved: _generate(saved) for name, saved in generators.items()
            },
        },
        amounts=AMOUNTS,
        handover={"classifier": str(place)},
    )


def in_process(options: dict[str, Any]) -> Runs:
    """Builds the calls without a server, and `CausalLM.generate`."""
    limit_tensorflow()
    from llama_keras.serving.local import SavedModel
    from llama_keras.tasks import CausalLM

    saved = SavedModel(options["classifier"])
    plain = CausalLM.from_preset(smollm2.PRESET, jit_generate=False)
    compiled = CausalLM.from_preset(smollm2.PRESET)

    def make(model: Any):
        return lambda: _checked(len(model.generate(PROMPT, max_new_tokens=NEW).token_ids))

    return Runs(
        runs={
            CLASSIFY: {"SavedModel": lambda: saved.run("classify", text=[TEXT])},
            GENERATE: {"plain": make(plain), "XLA": make(compiled)},
        },
        amounts=AMOUNTS,
    )


def _generate(saved: Any) -> None:
    columns = {name: [value] for name, value in _GREEDY.items()}
    answer = saved.run("generate", prompt=[PROMPT], stop=[[""]], **columns)
    _checked(answer["token_ids"].shape[1])


def _checked(count: int) -> None:
    if count != NEW:
        raise RuntimeError(f"the text ended after {count} tokens")


SUITE = Suite(
    claims=(
        Claim(CLASSIFY, "texts", aim=0.9, peers=("in_process",)),
        Claim(GENERATE, "tokens", aim=0.9, peers=("in_process",)),
    ),
    libraries={"served": Library(served), "in_process": Library(in_process)},
)
