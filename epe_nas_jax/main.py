"""Searches for the best untrained cell: `python -m epe_nas_jax.main --config=... --workdir=...`."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from epe_nas_jax.errors import InputError
from epe_nas_jax.planning import use_every_core
from epe_nas_jax.run import search_and_report

_CONFIG = config_flags.DEFINE_config_file("config", None, "Path of the config file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)
flags.mark_flag_as_required("config")  # type: ignore[no-untyped-call]


def main(argv: Sequence[str]) -> None:
    """Runs the search; whatever the user can mend is told in one line and exits with 2."""
    if len(argv) > 1:
        _fail(f"argument {argv[1]!r}: expected flags only")
    logging.set_verbosity(logging.WARNING)
    use_every_core()
    try:
        print(search_and_report(_CONFIG.value, _WORKDIR.value))
    except (InputError, OSError) as error:
        _fail(str(error))


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except KeyError as error:
        _fail(f"config key {error}: unknown, expected one of configs/base.py")
    except (flags.Error, OSError, AttributeError, TypeError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
