"""Requests to end: Ctrl-C, a scheduler's SIGTERM, a terminal that closes.

Each becomes an exception, so that a run removes its folder on the way out. An exception that is
raised while the garbage collector calls back, as it does into JAX, is printed and forgotten; there
a request is put off for a moment instead.
"""

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from types import FrameType

DELAY = 0.05  # seconds


class Stopped(BaseException):
    """A signal asked the process to end; not an `Exception`, as nothing should hold it up.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def obeyed() -> Iterator[None]:
    """Turn requests to end into exceptions, but for those that are ignored, as under nohup.

    After the block they end the process at once: what was to be done is done or undone.
    """
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    usual = (signal.SIG_DFL, signal.default_int_handler)
    taken = [number for number in numbers if number and signal.getsignal(number) in usual]
    for number in taken:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    if _is_deaf(frame):
        again = threading.Timer(DELAY, signal.raise_signal, [number])
        again.daemon = True
        again.start()
        return
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def _is_deaf(frame: FrameType | None) -> bool:
    """Whether an exception would be lost: in a callback of the collector, or in a `__del__`."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
