"""Trains a cell's network: `python -m epe_nas_jax.train --config=... --workdir=...`."""

from epe_nas_jax.commands.table import start

if __name__ == "__main__":
    start("train")
