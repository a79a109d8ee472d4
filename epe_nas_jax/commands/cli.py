"""The command line that all commands share: flags, and errors in one line."""

import importlib.resources
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from epe_nas_jax.commands.config import check_config
from epe_nas_jax.data.files import check_no_special_file, user_path
from epe_nas_jax.errors import InputError, printable
from epe_nas_jax.runs import hosts, runtime
from epe_nas_jax.runs.stopping import StopRequested

_HELP = {"-help", "-helpshort", "-helpfull", "-helpxml", "-?"}


def run_command(work: Callable[[ConfigDict, str], str], *, many_hosts: bool = False) -> None:
    """Runs a command given by `--config=NAME --workdir=DIR [--config.key=value ...]`.

    The config is a file (`--config=configs/best.py`) or the name of an installed one
    (`--config=best`).

    An error that the user can correct is printed in one line, and the exit status is 2. A run that
    a signal stops exits with 128 plus the signal's number (143 for SIGTERM, 130 for SIGINT).

    Args:
      work: from the config and the work directory to the text to print.
      many_hosts: whether to define the flags by which several processes share the work.

    Examples:
      >>> from epe_nas_jax.commands.cli import run_command
      >>> def work(config, workdir):
      ...     return f"seed {config.seed}, results in {workdir}"
      >>> def main():
      ...     run_command(work)
    """
    try:
        config = config_flags.DEFINE_config_file(
            "config", None, "Path of a config file, or the name of an installed one."
        )
    # This definition already reads the files of `--flagfile`.
    except flags.Error as error:
        _fail(str(error))
    workdir = flags.DEFINE_string("workdir", None, "Directory for the results.", required=True)
    flags.mark_flag_as_required("config")  # type: ignore[no-untyped-call]
    join = _define_many_hosts() if many_hosts else None

    def prepare_and_work() -> str:
        runtime.prepare()
        if join:
            join()
        runtime.check_devices()
        if not workdir.value:
            raise InputError("workdir: found nothing, expected a directory")
        with hosts.one_outcome():
            return work(check_config(config.value), workdir.value)

    run_with_flags(prepare_and_work)


def run_with_trained(work: Callable[[str, int | None], str]) -> None:
    """Runs a command that uses a trained network: `--from_run=DIR [--seed=N]` and flags of its own.

    Args:
      work: from the work directory of a training and the seed, or None, to the text to print.
    """
    from_run = flags.DEFINE_string(
        "from_run", None, "Work directory of a finished training.", required=True
    )
    seed = flags.DEFINE_integer("seed", None, "Which of the trained seeds; by default the first.")

    def prepare_and_work() -> str:
        runtime.prepare()
        runtime.check_devices()
        return work(from_run.value, seed.value)

    run_with_flags(prepare_and_work)


def _define_many_hosts() -> Callable[[], None]:
    """Defines the flags for several processes; the result connects them if a flag is given."""
    distributed = flags.DEFINE_bool(
        "distributed",
        False,
        "Share the work with the other processes of this SLURM, Open MPI, Kubernetes or TPU job; "
        "elsewhere give the flags coordinator_address, num_processes and process_id instead.",
    )
    address = flags.DEFINE_string("coordinator_address", None, "Host and free port of process 0.")
    num_processes = flags.DEFINE_integer("num_processes", None, "Number of processes.")
    process_id = flags.DEFINE_integer("process_id", None, "Index of this process, from 0.")

    def join() -> None:
        given = (address.value, num_processes.value, process_id.value)
        if distributed.value or any(value is not None for value in given):
            hosts.join(address.value, num_processes.value, process_id.value)

    return join


def run_with_flags(work: Callable[[], str]) -> None:
    """Runs a command whose flags are defined.

    An error that the user can correct is printed in one line, and the exit status is 2.

    Args:
      work: reads the flags and returns the text to print.

    Examples:
      >>> from absl import flags
      >>> from epe_nas_jax.commands.cli import run_with_flags
      >>> def main():
      ...     name = flags.DEFINE_string("name", "reader", "Who is greeted.")
      ...     run_with_flags(lambda: f"Hello, {name.value}")
    """

    def main(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _fail(f"argument {argv[1]!r}: expected flags only")
        absl_logging.set_verbosity(absl_logging.WARNING)
        # This package logs its progress, except on a terminal, where a bar shows it.
        logging.getLogger("epe_nas_jax").setLevel(
            logging.WARNING if sys.stderr and sys.stderr.isatty() else logging.INFO
        )
        try:
            text = work()
            if text:
                print(printable(text))
        except (InputError, OSError) as error:
            _fail(str(error))
        except StopRequested as stop:
            print(f"{stop}: run the same command again to continue", file=sys.stderr)
            sys.exit(128 + stop.signal_number)
        except hosts.ProcessLost as lost:
            print(f"{lost}: run the same command again to continue", file=sys.stderr, flush=True)
            # On a normal exit JAX would wait for the lost process.
            os._exit(1)

    _list_in_help()
    app.run(main, flags_parser=_parse_flags)


def _list_in_help() -> None:
    """Makes `--help` list the flags of this package: absl lists those of the main module only."""
    for module, of_module in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("epe_nas_jax."):
            for flag in of_module:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(_with_config_path(argv))
    except (InputError, flags.Error, OSError, TypeError) as error:
        # The message of a config file's ValueError contains its traceback.
        head, traceback, _ = str(error).partition("Traceback (most recent")
        _fail(head + str(error).splitlines()[-1] if traceback else str(error))
    except (KeyError, AttributeError) as error:
        name = str(error).strip("'\"")
        unknown = f"config key {name!r}: unknown, expected one of configs/base.py"
        _fail(unknown if name.isidentifier() else str(error))
    # A config file is code, which can raise any exception.
    except Exception as error:
        _fail(f"config: {type(error).__name__}: {error}")
    # After --help absl exits with 1.
    except SystemExit as end:
        asks_for_help = {f"-{argument.lstrip('-')}" for argument in argv[1:] if argument[:1] == "-"}
        sys.exit(0 if asks_for_help & _HELP else end.code or 1)


def _with_config_path(argv: Sequence[str]) -> list[str]:
    """The arguments, with the path of an installed config in place of its bare name."""
    found = list(argv)
    for index, argument in enumerate(found):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            found[index] = f"{flag}={_config_path(value)}"
        elif index + 1 < len(found):
            found[index + 1] = _config_path(found[index + 1])
    return found


def _config_path(value: str) -> str:
    """The path of a config file, which is given by its path or as the name of an installed one.

    Raises:
      InputError: no installed config has this name, or the path is that of a pipe or device.
    """
    if not value.isidentifier():
        path = user_path(value)
        check_no_special_file(path, "a config file")
        return str(path)
    installed = {
        Path(file.name).stem: file
        for file in importlib.resources.files("epe_nas_jax.configs").iterdir()
        if file.name.endswith(".py") and file.name != "__init__.py"
    }
    if value not in installed:
        known = ", ".join(sorted(installed))
        raise InputError(f"config {value!r}: found no such file, nor an installed one of {known}")
    return str(installed[value])


def _fail(message: str) -> NoReturn:
    print("error:", printable(" ".join(message.split())), file=sys.stderr)
    sys.exit(2)
