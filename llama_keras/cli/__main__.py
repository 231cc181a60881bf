"""Runs the command line as `python -m llama_keras.cli`."""

from llama_keras.cli import main

main()
