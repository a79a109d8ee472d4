"""A command's run in its work directory: new or resumed, locked, with a record of its origin."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.stopping import stop_requests
from epe_nas_jax.runs.storage import Location, location_of, write
from epe_nas_jax.runs.workdir import (
    CONFIG_FILE,
    check_same_run,
    check_workdir,
    difference_in_scores,
    locked,
    provenance,
    to_json,
)


class Run:
    """A command's run in its work directory, as `open_run` yields it.

    Attributes:
      directory: its work directory.
      config: the resolved config in types of JSON.
      is_first: whether this is process 0 of the run, which writes the results.
      origin: the content of `config.json`; empty before `begin`.
    """

    def __init__(self, directory: Location, config: Mapping[str, Any], stack: contextlib.ExitStack):
        """Takes what `open_run` checked; what `begin` starts ends with the stack."""
        self.directory = directory
        self.config = config
        self.is_first = hosts.index() == 0
        self.origin: dict[str, Any] = {}
        self._stack = stack
        self._check_stop: Callable[[], None] = lambda: None

    def begin(
        self, inputs: Sequence[np.ndarray | jax.Array] = (), packages: Sequence[str] = ()
    ) -> None:
        """Takes the work directory for this run; call it when all input has been checked.

        The directory is created if it does not exist, locked until the run ends, compared with the
        files of an earlier part of the run, and gets `config.json`. From then on a signal stops the
        run only at the next `check_stop`.

        Args:
          inputs: the images and labels that the results depend on, as for `workdir.provenance`.
          packages: packages that the run uses, as for `workdir.provenance`.

        Raises:
          InputError: another run is at work in the directory, or it holds results of another
            config, data, code, version or kind of device; or this process differs from process 0.
          OSError: the directory cannot be written.
        """
        self.origin = provenance(self.config, inputs, packages)
        self._stack.enter_context(locked(self.directory, hosts.index()))
        self._check_stop = self._stack.enter_context(stop_requests())
        check_same_run(self.directory, self.origin)
        _check_same_as_first(self.origin)
        if self.is_first:
            self.write(CONFIG_FILE, to_json(self.origin))

    def check_stop(self) -> None:
        """Stops the run if a signal asked for it; call it when all results so far are on disk.

        Raises:
          StopRequested: SIGTERM or SIGINT came since `begin`.
        """
        self._check_stop()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the work directory, which appears complete or not at all.

        Raises:
          OSError: the file cannot be written.
        """
        write(self.directory / name, content)


@contextlib.contextmanager
def open_run(config: Mapping[str, Any], workdir: str | os.PathLike[str]) -> Iterator[Run]:
    """Opens a work directory for a command; nothing is written before `Run.begin`.

    Args:
      config: the resolved config in types of JSON.
      workdir: the work directory, which may hold an earlier part of the same run.

    Yields:
      The run. Read and check all input first, then call `Run.begin`.

    Raises:
      InputError: it holds another run, or is no directory.
      StopRequested: on leaving the context, if a signal came since `Run.begin`.

    Examples:
      >>> from pathlib import Path
      >>> from epe_nas_jax.runs.run import open_run
      >>> with open_run({"seed": 0}, "runs/mine") as run:
      ...     run.begin((images, labels))
      ...     run.write("summary.json", b"{}")
      >>> sorted(path.name for path in Path("runs/mine").glob("*.json"))
      ['config.json', 'summary.json']
    """
    directory = location_of(workdir)
    check_workdir(directory, config)
    with contextlib.ExitStack() as stack:
        yield Run(directory, config, stack)


def _check_same_as_first(origin: Mapping[str, Any]) -> None:
    """Checks that the processes of a run have the same config, data, code and kind of device.

    Raises:
      InputError: this process differs from process 0.
    """
    first = json.loads(hosts.exchange(to_json(origin))[0])
    difference = difference_in_scores(first, origin)
    if difference:
        raise InputError(f"this process is unlike process 0, {difference}")
