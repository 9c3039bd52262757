"""Requests to end: Ctrl-C, a scheduler's SIGTERM, a terminal that closes.

Each becomes an exception, so that a run removes its folder on the way out. Some exceptions get
nowhere: those raised while the garbage collector calls back, into JAX for instance, or in a
destructor. Python reports them to `sys.unraisablehook`, which makes the request once more.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

DELAY = 0.05  # seconds

_asked: list[int] = []  # the last request


class Stopped(BaseException):
    """A signal asked the process to end; not an `Exception`, as nothing should hold it up."""


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn requests to end into exceptions, but for those that are ignored, as under nohup.

    After the block they end the process at once: what was to be done is done or undone. A library
    may turn the exception into one of its own, and print it; it is not printed, and `asked` tells.
    """
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    usual = (signal.SIG_DFL, signal.default_int_handler)
    taken = [number for number in numbers if number and signal.getsignal(number) in usual]
    hook, print_error = sys.unraisablehook, sys.excepthook

    def repeat(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt | Stopped):
            hook(lost)
            return
        number = stop_requested() or signal.SIGINT
        again = threading.Timer(DELAY, signal.raise_signal, [number])
        again.daemon = True
        again.start()

    def be_silent(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt | Stopped):
            print_error(kind, error, trace)

    sys.unraisablehook, sys.excepthook = repeat, be_silent
    for number in taken:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        sys.unraisablehook, sys.excepthook = hook, print_error
        _asked.clear()


def stop_requested() -> int | None:
    """The signal that asked the process to end, if one did."""
    return _asked[-1] if _asked else None


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    _asked.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
