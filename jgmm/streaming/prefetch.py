"""Read blocks in a background thread while the last ones are computed with."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

AHEAD = 2  # blocks that wait, read, for the engine
_PATIENCE = 0.1  # seconds between two looks at whether the reader is still wanted

Item = TypeVar("Item")


@dataclass
class Timings:
    """Seconds a pass spent: the thread that reads, and the engine computing and waiting for it."""

    reading: float = 0.0
    computing: float = 0.0
    waiting: float = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the time within the block as computing."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.computing += time.perf_counter() - begun

    @property
    def total(self) -> float:
        """Seconds the pass took: reading happens beside."""
        return self.computing + self.waiting


def prefetch(items: Iterable[Item], timings: Timings, depth: int = AHEAD) -> Iterator[Item]:
    """The same items, taken by a thread that runs ahead; what it trips over is raised here.

    Args:
      items: iterated in the thread.
      pace: gets the seconds the thread took, and those spent waiting for it.
      depth: items at most that wait to be taken.
    """
    channel: queue.Queue[Any] = queue.Queue(depth)
    unwanted = threading.Event()
    end = object()

    def hand_over(item: Any) -> bool:
        while not unwanted.is_set():
            try:
                channel.put(item, timeout=_PATIENCE)
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
                if item is end or not hand_over(item):
                    break
        except BaseException as error:  # whatever it is, the caller has to know
            last = error
        hand_over(last)

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
        unwanted.set()
        thread.join()
