import gc
import signal
import sys
import time

import pytest

from jgmm.workbench import signals
from jgmm.workbench.signals import Stopped, obeyed


@pytest.fixture(autouse=True)
def _handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    with obeyed():
        yield
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in numbers[:2])
    for number, handler in before.items():
        signal.signal(number, handler)


EXPECTED = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped), (signal.SIGHUP, Stopped)]


@pytest.mark.parametrize(("number", "expected"), EXPECTED)
def test_a_request_to_end_is_an_exception(number, expected):
    with pytest.raises(expected) as caught:
        signal.raise_signal(number)
    assert not isinstance(caught.value, Exception)
    if expected is Stopped:
        assert caught.value.number == number


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with obeyed():
        signal.raise_signal(signal.SIGHUP)


def wait(times=100):
    for _ in range(times):
        time.sleep(0.05)


@pytest.mark.parametrize(("number", "expected"), EXPECTED)
def test_a_request_during_a_callback_of_the_collector_is_not_lost(number, expected):
    """JAX has such a callback; what is raised in it is printed and forgotten."""
    called = []

    def callback(phase, info):
        if not called:
            called.append(phase)
            signal.raise_signal(number)

    gc.callbacks.append(callback)
    try:
        gc.collect()
        assert called
        with pytest.raises(expected):
            wait()
    finally:
        gc.callbacks.remove(callback)


def test_a_request_during_a_destructor_is_not_lost():
    class Last:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    last = Last()
    del last
    with pytest.raises(Stopped):
        wait()


def test_elsewhere_nothing_is_put_off():
    assert not signals._is_deaf(sys._getframe())
    assert not signals._is_deaf(None)
