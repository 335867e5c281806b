"""Signals that ask a command to end."""

import os
import signal
import threading

import pytest

from nuat.runtime.signals import SIGNALS, Stopped, handle_signals, stop_at_once


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_first_and_ends_at_once_when_it_is_repeated(number):
    before, noted = signal.getsignal(number), []
    with handle_signals(noted.append):
        os.kill(os.getpid(), number)
        assert noted == [number]
        with pytest.raises(Stopped, match="run the same command again") as stopped:
            os.kill(os.getpid(), number)
    assert stopped.value.status == 128 + number
    assert not isinstance(stopped.value, Exception)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", SIGNALS)
def test_stop_at_once(number):
    with pytest.raises(Stopped) as stopped, stop_at_once():
        os.kill(os.getpid(), number)
        pytest.fail("went on")
    assert stopped.value.status == 128 + number


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_at_once():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_nothing_changes():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with stop_at_once():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
