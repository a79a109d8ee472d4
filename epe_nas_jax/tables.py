"""Makes the paper's tables: `python -m epe_nas_jax.tables --scores=... --benchmark=...`."""

from epe_nas_jax.commands.table import start

if __name__ == "__main__":
    start("tables")
