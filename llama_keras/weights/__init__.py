"""Checkpoints in and out: GGUF and Hugging Face safetensors, in numpy only."""
