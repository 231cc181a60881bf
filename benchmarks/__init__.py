"""Speed beside other libraries: `python -m benchmarks --help`.

A suite is a file with a `SUITE`: its claims, and for each library a function that builds what is
timed. Each library runs in a process of its own (`worker.py`); `harness.py` lets them take turns.
"""
