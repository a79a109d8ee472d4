"""Puts cells beside PyTorch: `python -m epe_nas_jax.compare --config=... --workdir=...`."""

from epe_nas_jax.cli import run_command
from epe_nas_jax.side_by_side import compare_and_report

if __name__ == "__main__":
    run_command(compare_and_report)
