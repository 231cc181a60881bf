"""One library's process: builds the runs of a suite, then times one for each line it reads.

    python -m benchmarks.worker SUITE LIBRARY

Reads JSON lines: first the options, then `[claim, mode]` for each run; answers each with a JSON
line. `harness.Worker` is the other end.
"""

import importlib
import json
import os
import sys
import time


def main(suite: str, library: str) -> None:
    """Serves until the input ends."""
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    build = importlib.import_module(f"benchmarks.{suite}").SUITE.libraries[library].build
    try:
        built = build(json.loads(sys.stdin.readline()))
    except Exception as error:
        answer(error=brief(error))
        return
    answer(
        modes={claim: list(modes) for claim, modes in built.runs.items()},
        amounts=built.amounts,
        results=built.results,
        handover=built.handover,
    )
    for line in sys.stdin:
        claim, mode = json.loads(line)
        start = time.perf_counter()
        try:
            built.runs[claim][mode]()
        except Exception as error:
            answer(error=brief(error))
        else:
            answer(seconds=time.perf_counter() - start)


def brief(error: Exception) -> str:
    """Gives the kind and first line of an error."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]


if __name__ == "__main__":
    main(*sys.argv[1:])
