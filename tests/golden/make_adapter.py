"""Makes the golden LoRA adapter with Hugging Face's PEFT, on torch in float32.

It imports nothing of llama_keras, so that what it gives is independent. It needs `peft` beside the
packages of the `bench` extra; run from the repository root (seconds):

    python tests/golden/make_adapter.py

Writes tests/golden/adapter/ (adapter_config.json, adapter_model.safetensors, logits.npz): an
adapter of the golden checkpoint BASE and the logits that it gives there.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import peft  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent
BASE = HERE / "checkpoints" / "tied_gqa"
FOLDER = HERE / "adapter"
# An alpha other than the rank, keys narrower than queries, a projection that is not square.
SETTINGS = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "k_proj", "o_proj", "down_proj"]}


def main() -> None:
    """Makes everything anew."""
    model = transformers.LlamaForCausalLM.from_pretrained(
        BASE, dtype=torch.float32, attn_implementation="eager"
    )
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="CAUSAL_LM", **SETTINGS)
    model = peft.get_peft_model(model, config).eval()
    for name, weight in model.named_parameters():
        if "lora_" in name:  # PEFT starts B at zero
            torch.nn.init.normal_(weight, std=0.3)
    shutil.rmtree(FOLDER, ignore_errors=True)
    model.save_pretrained(FOLDER)
    (FOLDER / "README.md").unlink(missing_ok=True)
    (FOLDER / "adapter_model.safetensors").chmod(0o644)
    settings = json.loads((FOLDER / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = None  # else a path of this machine
    settings["target_modules"].sort()  # a set to PEFT
    (FOLDER / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    ids = torch.randint(0, model.config.vocab_size, (1, 12))
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    np.savez_compressed(
        FOLDER / "logits.npz", token_ids=ids.numpy().astype("int32"), logits=logits.numpy()
    )


if __name__ == "__main__":
    main()
