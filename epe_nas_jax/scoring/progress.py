"""How far a command is: a bar for a person, lines for a log file."""

import logging
import math
from typing import Any

from tqdm import tqdm

_LOG = logging.getLogger(__name__)


def progress_bar(total: int, initial: int = 0, *, unit: str, disable: bool = False) -> Any:
    """A bar on stderr or, where this package's log is on, a line in it for every update.

    Args:
      total: how many there are.
      initial: how many of them were done before; the rate and the time left are without them.
      unit: what they are, in the singular.
      disable: show nothing.

    Returns:
      A context manager with a method `update(n)`, to call with how many more are done.
    """
    if not _LOG.isEnabledFor(logging.INFO):
        return tqdm(total=total, initial=initial, unit=unit, disable=disable)
    return _Lines(
        total=total,
        initial=initial,
        unit=unit,
        disable=disable,
        # Nothing before the first update, nothing after the last, and no update without a line.
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
