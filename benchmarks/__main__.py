"""Measures our speed beside other libraries' in one run, and prints the ratios.

Every library has a process of its own and two threads; they take turns, mode by mode, so that all
meet the same machine. A ratio is the median over the rounds. A library that is missing leaves its
figures empty, with the reason.
"""

import argparse
import json
import platform
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.harness import measure
from benchmarks.report import tables

SUITES = (
    "encode",
    "lengths",
    "train",
    "train_tags",
    "adamw",
    "first_step",
    "decode",
    "tokenizer",
    "kernel",
    "serving_speed",
)
PACKAGES = ("tensorflow", "keras", "keras-hub", "torch", "transformers", "tokenizers")


def main() -> int:
    """Runs the suites that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES) + "; or all")
    parser.add_argument("--rounds", type=int, default=5, help="after one that warms up")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter that has torch, transformers and llama_cpp; this one by default",
    )
    parser.add_argument("--sentences", type=int, default=256, help="for the suite lengths")
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="JSONL",
        help='sentences, in a field "text", for the suites lengths (SST-2\'s by default) and '
        "tokenizer",
    )
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if options.rounds < 1 or options.sentences < 1:
        parser.error("--rounds and --sentences must be at least 1")

    comparisons, failed = [], False
    for suite in options.suites or SUITES:
        try:
            comparisons += measure(
                suite,
                options={
                    "sentences": options.sentences,
                    "texts": options.texts and str(options.texts.resolve()),
                },
                rounds=options.rounds,
                peer_python=options.peer_python,
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
        except RuntimeError as error:
            print(f"{suite}: {error}", file=sys.stderr)
            failed = True
    print(tables(comparisons))
    if options.json:
        found = {
            "rounds": options.rounds,
            "machine": {"processor": platform.machine(), "python": platform.python_version()},
            "versions": versions(),
            "claims": [comparison.to_dict() for comparison in comparisons],
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(failed)


def versions() -> dict[str, str]:
    """Gives the versions of the packages that the figures depend on, in this interpreter."""
    installed = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


if __name__ == "__main__":
    sys.exit(main())
