"""Progress where there is no terminal: a plain line every half minute."""

import pytest

from nuat.runtime import progress
from nuat.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, as a list of one number."""
    seconds = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: seconds[0])
    return seconds


def lines_of(clock, capsys, seconds, steps=10, **options):
    with Progress("attacking", 100, **options) as shown:
        for _ in range(steps):
            clock[0] += seconds
            shown.advance(5, attack="pgd-20")
    return capsys.readouterr().out.splitlines()


def test_there_is_a_line_every_half_minute(clock, capsys):
    lines = lines_of(clock, capsys, 10)
    assert lines == [
        "attacking: 15/100 (15%), 2:50 left  attack pgd-20",
        "attacking: 30/100 (30%), 2:20 left  attack pgd-20",
        "attacking: 45/100 (45%), 1:50 left  attack pgd-20",
    ]


def test_what_was_done_before_is_not_taken_for_speed(clock, capsys):
    assert lines_of(clock, capsys, 30, 1, done=50)[0].startswith("attacking: 55/100 (55%), 4:30 ")


def test_a_return_to_an_earlier_state_is_shown(clock, capsys):
    with Progress("training", 100) as shown:
        clock[0] += 10
        shown.advance(90)
        shown.go_back_to(50)
        clock[0] += 30
        shown.advance(10)
    assert capsys.readouterr().out == "training: 60/100 (60%), 2:00 left\n"


def test_a_short_computation_prints_nothing(clock, capsys):
    assert lines_of(clock, capsys, 2) == []


def test_a_hidden_one_prints_nothing(clock, capsys):
    assert lines_of(clock, capsys, 60, hidden=True) == []
