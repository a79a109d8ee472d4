"""Stopping when asked to: SIGTERM and SIGINT end a search between two steps, not within one."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(Exception):  # noqa: N818
    """A signal asked the run to stop, and it did after the step it was in.

    Attributes:
      signal_number: which signal.
    """

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], None]]:
    """Keeps the first signal for later; a second one ends the process at once.

    Only the main thread hears signals; in another one nothing is kept.

    Yields:
      A function that raises StopRequested if a signal has come.
    """
    received: list[int] = []

    def keep(signal_number: int, _: FrameType | None) -> None:
        received.append(signal_number)
        signal.signal(signal_number, signal.SIG_DFL)

    def check() -> None:
        if received:
            raise StopRequested(received[0])

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    earlier = {number: signal.signal(number, keep) for number in _SIGNALS}
    try:
        yield check
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
