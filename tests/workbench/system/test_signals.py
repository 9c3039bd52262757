import gc
import signal
import sys
import time
import weakref

import pytest

from jgmm.workbench.system.signals import Stopped, stop_on_signals, stop_requested


@pytest.fixture(autouse=True)
def _handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    with stop_on_signals():
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
    assert stop_requested() == number


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with stop_on_signals():
        signal.raise_signal(signal.SIGHUP)


def in_a_callback_of_the_collector(action):
    called = []

    def callback(phase, info):
        if not called:
            called.append(phase)
            action()

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert called


class Last:
    def __init__(self, action):
        self.action = action

    def __del__(self):
        self.action()


def in_a_destructor(action):
    last = Last(action)
    del last


class Thing:
    pass


def in_a_weak_reference(action):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: action())
    del thing
    assert reference() is None


PLACES = [in_a_callback_of_the_collector, in_a_destructor, in_a_weak_reference]


@pytest.mark.parametrize(("number", "expected"), EXPECTED)
@pytest.mark.parametrize("lost_in", PLACES)
def test_a_request_where_exceptions_are_lost_is_made_again(lost_in, number, expected, capfd):
    def wait():
        lost_in(lambda: signal.raise_signal(number))
        time.sleep(30)  # one long system call, which the repeated signal has to interrupt

    begun = time.monotonic()
    with pytest.raises(expected):
        wait()
    assert time.monotonic() - begun < 20
    assert capfd.readouterr().err == ""


def test_other_exceptions_that_are_lost_are_reported_as_ever():
    reported = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", reported.append)
        with stop_on_signals():
            in_a_destructor(lambda: [].pop())
    assert [type(lost.exc_value) for lost in reported] == [IndexError]


def test_what_a_library_prints_of_a_request_is_not_shown(capsys):
    """NumPy prints what interrupts its import, and raises an ImportError instead."""
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    sys.excepthook(Stopped, Stopped(15), None)
    assert capsys.readouterr().err == ""
    sys.excepthook(ValueError, ValueError("other"), None)
    assert "ValueError: other" in capsys.readouterr().err
