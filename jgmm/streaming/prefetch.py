"""Read blocks in a background thread while the previous ones are processed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from jgmm._core import budget

_POLL_SECONDS = 0.1  # between two checks whether the consumer still wants items

Item = TypeVar("Item")


@dataclass
class Timings:
    """Seconds of a pass: of the reading thread, of computing, and of waiting for that thread."""

    reading: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the time within the ``with`` statement as computing."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.computing += time.perf_counter() - begun

    @property
    def total(self) -> float:
        """Seconds that the pass took. Reading is not added: it runs at the same time."""
        return self.computing + self.waiting


def prefetch(items: Iterable[Item], timings: Timings, depth: int | None = None) -> Iterator[Item]:
    """Iterate in a background thread; its exceptions are raised again here.

    Args:
      items: iterated in the thread.
      timings: receives the seconds the thread took, and those the caller waited for it.
      depth: largest number of items that are read and not yet taken; by default
        ``budget.PREFETCH_BLOCKS``.

    >>> list(prefetch(range(3), Timings()))
    [0, 1, 2]
    """
    channel: queue.Queue[Any] = queue.Queue(budget.PREFETCH_BLOCKS if depth is None else depth)
    stopped = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        """Queue an item as soon as there is room; False if the consumer has stopped."""
        while not stopped.is_set():
            try:
                channel.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        last: Any = end
        try:
            iterator = iter(items)
            while True:
                begun = time.perf_counter()
                item = next(iterator, end)
                timings.reading += time.perf_counter() - begun
                if item is end or not put(item):
                    break
        except BaseException as error:  # of any kind: the consumer raises it
            last = error
        put(last)

    thread = threading.Thread(target=work, name="jgmm-reader", daemon=True)
    thread.start()
    try:
        while True:
            begun = time.perf_counter()
            item = channel.get()
            timings.waiting += time.perf_counter() - begun
            if item is end:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
