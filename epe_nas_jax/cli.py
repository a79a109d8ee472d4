"""The command line that every command shares: flags, and errors in one line."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from epe_nas_jax import runtime
from epe_nas_jax.errors import InputError
from epe_nas_jax.stopping import StopRequested


def run_command(work: Callable[[ConfigDict, str], str]) -> None:
    """Runs a command given by `--config=configs/<name>.py --workdir=DIR [--config.key=value ...]`.

    Whatever the user can mend is told in one line and exits with 2; a run stopped by a signal exits
    as shells expect it, with 128 and the signal's number (143 for SIGTERM, 130 for SIGINT).

    Args:
      work: from the config and the work directory to the text to print.
    """
    config = config_flags.DEFINE_config_file("config", None, "Path of the config file.")
    workdir = flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)
    flags.mark_flag_as_required("config")  # type: ignore[no-untyped-call]

    def prepare_and_work() -> str:
        runtime.prepare()
        return work(config.value, workdir.value)

    run_with_flags(prepare_and_work)


def run_with_flags(work: Callable[[], str]) -> None:
    """Runs a command whose flags are defined.

    Whatever the user can mend is told in one line and exits with 2.

    Args:
      work: reads the flags and returns the text to print.
    """

    def main(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _fail(f"argument {argv[1]!r}: expected flags only")
        absl_logging.set_verbosity(absl_logging.WARNING)
        # Of this package's own, how far it is: on a terminal a bar shows that.
        logging.getLogger("epe_nas_jax").setLevel(
            logging.WARNING if sys.stderr.isatty() else logging.INFO
        )
        try:
            print(_printable(work()))
        except (InputError, OSError) as error:
            _fail(str(error))
        except StopRequested as stop:
            print(f"{stop}: the same command goes on from here", file=sys.stderr)
            sys.exit(128 + stop.signal_number)

    app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except KeyError as error:
        _fail(f"config key {error}: unknown, expected one of configs/base.py")
    except (flags.Error, OSError, AttributeError, TypeError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    print("error:", _printable(" ".join(message.split())), file=sys.stderr)
    sys.exit(2)


def _printable(text: str) -> str:
    """Text that a terminal shows and does not obey: names in files may be anybody's."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
