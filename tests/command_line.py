"""Commands as a user starts them: in a process of their own."""

import os
import subprocess
import sys

_MAIN = "from epe_nas_jax.commands.table import main; main()"


def epe_nas(*arguments, cwd=None, **environment):
    """What `epe-nas` with these arguments ends with, its output as text."""
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )
