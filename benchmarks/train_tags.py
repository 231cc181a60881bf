"""Training on sentences of CoNLL-2003, a tag for each token; see `train`."""

from benchmarks.train import suite

SUITE = suite("CoNLL-2003")
