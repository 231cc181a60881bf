"""lm-evaluation-harness with Hugging Face's model, one task for each line it reads.

    PYTHON benchmarks/lm_eval_peer.py GGUF FOLDER BATCH_SIZE THREADS

PYTHON has lm_eval, torch, transformers and gguf; FOLDER holds the tasks. Reads names of suites,
answers each with a JSON line; `lm_eval_parity.py` is the other end.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from lm_eval import __version__, simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import __version__ as transformers_version


class TimedLM(HFLM):
    """Keeps what it was asked, what it said, and how long that took."""

    def begin(self):
        self.asked, self.seconds, self.cpu_seconds = [], 0.0, 0.0

    def loglikelihood(self, requests, **kwargs):
        return self._timed(super().loglikelihood, requests, kwargs)

    def loglikelihood_rolling(self, requests, **kwargs):
        return self._timed(super().loglikelihood_rolling, requests, kwargs)

    def _timed(self, run, requests, kwargs):
        start, cpu = time.perf_counter(), time.process_time()
        answers = run(requests, **kwargs)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu
        for request, answer in zip(requests, answers, strict=True):
            logprob = answer[0] if isinstance(answer, tuple) else answer
            self.asked.append((request.doc_id, request.idx, list(request.args), float(logprob)))
        return answers


def main(gguf: str, folder: str, batch_size: str, threads: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    torch.set_num_threads(int(threads))
    file = Path(gguf)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    lm = TimedLM(model.eval(), tokenizer=tokenizer, batch_size=int(batch_size), device="cpu")
    tasks = TaskManager(include_path=folder, include_defaults=False)
    for line in sys.stdin:
        lm.begin()
        name = f"parity_{line.strip()}"
        found = simple_evaluate(
            lm, tasks=[name], task_manager=tasks, bootstrap_iters=0, log_samples=True
        )
        metrics = {
            key.removesuffix(",none"): value
            for key, value in found["results"][name].items()
            if key.endswith(",none") and "stderr" not in key
        }
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        answer = {
            "metrics": metrics,
            "seconds": lm.seconds,
            "cpu_seconds": lm.cpu_seconds,
            "asked": [(args, logprob) for _, _, args, logprob in sorted(lm.asked)],
            "examples": [
                {key: sample[key] for key in ("acc", "acc_norm") if key in sample}
                for sample in samples
            ],
            "versions": {
                "lm_eval": __version__,
                "torch": torch.__version__,
                "transformers": transformers_version,
            },
            "max_length": lm.max_length,
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
