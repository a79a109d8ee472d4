"""Searches for the best untrained cell: `python -m epe_nas_jax.main --config=... --workdir=...`."""

from epe_nas_jax.stopping import end_when_asked

if __name__ == "__main__":
    end_when_asked()
    from epe_nas_jax.cli import run_command
    from epe_nas_jax.run import search_and_report

    run_command(search_and_report, many_hosts=True)
