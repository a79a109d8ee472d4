"""Compares cells with PyTorch: `python -m epe_nas_jax.compare --config=... --workdir=...`."""

from epe_nas_jax.commands.table import start

if __name__ == "__main__":
    start("compare")
