"""Searches for the best untrained cell: `python -m epe_nas_jax.main --config=... --workdir=...`."""

from epe_nas_jax.commands.table import start

if __name__ == "__main__":
    start("search")
