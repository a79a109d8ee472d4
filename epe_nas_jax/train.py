"""Trains a cell's network: `python -m epe_nas_jax.train --config=... --workdir=...`."""

from epe_nas_jax.stopping import end_when_asked

if __name__ == "__main__":
    end_when_asked()
    from epe_nas_jax.cli import run_command
    from epe_nas_jax.training_run import train_and_report

    run_command(train_and_report)
