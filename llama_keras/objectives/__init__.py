"""Training objectives; the first ones come with the pretraining recipes."""
