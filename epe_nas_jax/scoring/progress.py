"""The progress of a command: a bar on a terminal, or lines in a log file."""

import logging
import math
from typing import Any

from tqdm import tqdm

_LOG = logging.getLogger(__name__)


def progress_bar(total: int, initial: int = 0, *, unit: str, disable: bool = False) -> Any:
    """A progress bar on stderr or, where this package logs, a log line for every update.

    Args:
      total: number of items.
      initial: number of items done before; rate and time left do not count them.
      unit: what the items are, in the singular.
      disable: show nothing.

    Returns:
      A context manager with a method `update(n)`, which adds n items to those done.
    """
    if not _LOG.isEnabledFor(logging.INFO):
        return tqdm(total=total, initial=initial, unit=unit, disable=disable)
    return _Lines(
        total=total,
        initial=initial,
        unit=unit,
        disable=disable,
        # A line for every update, but none before the first and after the last.
        delay=1e-9,
        leave=False,
        mininterval=0,
        miniters=1,
    )


class _Lines(tqdm):  # type: ignore[type-arg]
    """A progress bar that writes a line to the log for every update."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:  # noqa: ARG002
        if msg is not None:
            return
        facts = self.format_dict
        rate = facts["rate"] or math.nan
        _LOG.info(
            "%d of %d %ss, %.3g a second, %.0f s left",
            *(facts["n"], facts["total"], facts["unit"]),
            rate,
            (facts["total"] - facts["n"]) / rate,
        )
