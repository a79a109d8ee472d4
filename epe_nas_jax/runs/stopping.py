"""Stopping by a signal: SIGTERM and SIGINT end a search between two steps, not within one.

Anywhere else they end the command at once, which loses nothing: all finished steps are on disk.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(Exception):  # noqa: N818
    """A signal asked the run to stop, and it stopped after the step that was running.

    Attributes:
      signal_number: which signal.
    """

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


def end_when_asked() -> None:
    """Makes SIGTERM and SIGINT end the process at once, with one line on stderr.

    The exit status is 128 plus the signal's number. Call it in the main thread of a command before
    anything else, because importing JAX takes seconds.
    """
    _hear(lambda *_: None, num_kept=0)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], None]]:
    """Keeps the first signal for later; a second one ends the process at once.

    Only the main thread receives signals; in any other thread nothing is kept.

    Yields:
      A function that raises StopRequested if a signal has come; so does leaving the context.
    """
    received: list[int] = []

    def check() -> None:
        if received:
            raise StopRequested(received[0])

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    stop_hearing = _hear(lambda number, _: received.append(number), num_kept=1)
    try:
        yield check
    finally:
        stop_hearing()
    check()


def _hear(handle: Callable[[int, FrameType | None], None], num_kept: int) -> Callable[[], None]:
    """Handles `num_kept` signals in the main thread; the next one ends the process.

    Python calls a handler when the main thread next runs Python code, which it does not while it
    compiles or waits for a device. So a second thread waits for the signal that ends the process.

    Returns:
      A function that restores the handlers that were there before.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=_listen, args=(reading, num_kept), daemon=True)
    listener.start()
    earlier_pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    earlier = {number: signal.signal(number, handle) for number in _SIGNALS}

    def undo() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier_pipe)
        os.close(writing)
        listener.join()
        os.close(reading)

    return undo


def _listen(reading: int, num_kept: int) -> None:
    """Reads the numbers of signals as they come, until the other end is closed."""
    while number := os.read(reading, 1):
        if number[0] in _SIGNALS:
            if not num_kept:
                _end(number[0])
            num_kept -= 1


def _end(signal_number: int) -> NoReturn:
    # The other end of stderr may be closed.
    with contextlib.suppress(OSError):
        os.write(2, f"{StopRequested(signal_number)}\n".encode())
    # At once, even if the main thread is compiling.
    os._exit(128 + signal_number)
