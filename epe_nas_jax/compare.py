"""Puts cells beside PyTorch: `python -m epe_nas_jax.compare --config=... --workdir=...`."""

from epe_nas_jax.stopping import end_when_asked

if __name__ == "__main__":
    end_when_asked()
    from epe_nas_jax.cli import run_command
    from epe_nas_jax.side_by_side import compare_and_report

    run_command(compare_and_report)
