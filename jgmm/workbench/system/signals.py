"""Signals that ask the process to end: Ctrl-C, a scheduler's SIGTERM, a terminal that closes.

Each becomes an exception, so that a run can remove its folder. Some exceptions are lost: those
raised in a callback of the garbage collector, for instance one of JAX, or in a destructor. Python
reports them to ``sys.unraisablehook``, which here sends the signal once more, to the main thread:
sent to any other thread, it would not interrupt a system call in which the main thread waits.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

DELAY = 0.05
"""Seconds after which a lost signal is sent again."""

_requests: list[int] = []  # the signals received so far


class Stopped(BaseException):
    """A signal asked the process to end; no ``Exception``, so that handlers do not catch it."""


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn signals that ask the process to end into exceptions within the block.

    Signals that are ignored, as under nohup, stay ignored. After the block the signals end the
    process at once: by then the work is either finished or undone. The exceptions are not printed.
    A library may turn one of them into an exception of its own; ``stop_requested`` tells.
    """
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    handled = [number for number in numbers if number and signal.getsignal(number) in defaults]
    hook, print_error = sys.unraisablehook, sys.excepthook

    def repeat(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt | Stopped):
            hook(lost)
            return
        number = stop_requested() or signal.SIGINT
        again = threading.Timer(DELAY, _send_to_main_thread, [number])
        again.daemon = True
        again.start()

    def be_silent(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt | Stopped):
            print_error(kind, error, trace)

    sys.unraisablehook, sys.excepthook = repeat, be_silent
    for number in handled:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        sys.unraisablehook, sys.excepthook = hook, print_error
        _requests.clear()


def _send_to_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)
    else:  # Windows, where a signal cannot be sent to one thread
        signal.raise_signal(number)


def stop_requested() -> int | None:
    """Return the number of the last signal that asked the process to end, or None."""
    return _requests[-1] if _requests else None


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    _requests.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
