"""How models are trained: fine-tuning strategies."""
