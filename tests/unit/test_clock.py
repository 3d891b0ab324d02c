# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens to the clock of a DB host, nothing there is older than the time that has passed."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile

import pytest
from clocks import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.parallel.worktrees.plugins.module_utils import _clock, _db_host, _refresh
from ansible_collections.parallel.worktrees.plugins.module_utils._db_host import Host

MINUTES, HOUR, DAY, YEAR = 600, 3600, 86400, 365 * 86400
START = 2e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, START)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return of(tmp_path)


def of(folder: pathlib.Path) -> Host:
    given = {"store": "xfs", "bin_directory": "/"}
    return dataclasses.replace(_db_host.parse(given, "x"), state=str(folder))


def note(host: Host) -> float:
    return host.elapsed(check=False).moment.wall


def age(host: Host, noted: float) -> float:
    return host.elapsed(check=False).since(noted)


def let_pass(host: Host, clock: Clock, seconds: float) -> None:
    """With a look every ten minutes, as the timer has it."""
    for _round in range(int(seconds / MINUTES)):
        clock.pass_by(MINUTES)
        note(host)


@pytest.mark.parametrize("step", [0, YEAR, HOUR])
def test_a_clock_that_is_set_forwards_makes_nothing_older(host: Host, clock: Clock, step: int) -> None:
    noted = note(host)
    let_pass(host, clock, HOUR)
    clock.set(step)
    assert age(host, noted) == pytest.approx(HOUR)
    let_pass(host, clock, HOUR)
    assert age(host, noted) == pytest.approx(2 * HOUR)


@pytest.mark.parametrize("step", [-YEAR, -HOUR, HOUR, YEAR])
def test_a_clock_that_is_set_back_has_ages_begin_anew(host: Host, clock: Clock, step: int) -> None:
    noted = note(host)
    let_pass(host, clock, HOUR)
    clock.set(step)
    assert age(host, noted) <= (HOUR if step > 0 else 0)
    clock.set(-step)
    assert age(host, noted) <= 0
    let_pass(host, clock, HOUR)
    assert age(host, noted) == pytest.approx(HOUR)


def test_a_clock_that_is_put_right_changes_next_to_nothing(host: Host, clock: Clock) -> None:
    noted = note(host)
    let_pass(host, clock, DAY)
    clock.set(-90)
    assert age(host, noted) == pytest.approx(DAY - 90)


@pytest.mark.parametrize("is_off", [True, False])
def test_days_in_which_a_machine_is_off_or_sleeps_make_nothing_older(host: Host, clock: Clock, is_off: bool) -> None:
    noted = note(host)
    let_pass(host, clock, DAY)
    for _round in range(7):
        clock.pass_by(DAY)
        if is_off:
            clock.reboot()
        assert DAY - 1 <= age(host, noted) <= DAY + 7 * _clock.BETWEEN_LOOKS
    before = age(host, noted)
    let_pass(host, clock, HOUR)
    assert age(host, noted) == pytest.approx(before + HOUR), "the time in which it works counts"


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"moment": null, "start": 0, "gaps": []}'])
def test_where_nothing_is_known_nothing_is_old(host: Host, clock: Clock, content: str | None) -> None:
    if content is not None:
        pathlib.Path(host.state, "clock.json").write_text(content)
    assert age(host, START - YEAR) == 0
    let_pass(host, clock, HOUR)
    assert age(host, START - YEAR) == pytest.approx(HOUR)


def test_check_mode_notes_nothing(host: Host, clock: Clock) -> None:
    assert host.elapsed(check=True).since(clock.wall - YEAR) == 0
    assert not [*pathlib.Path(host.state).iterdir()]


def test_the_gaps_that_are_noted_have_an_end(host: Host, clock: Clock) -> None:
    noted = note(host)
    for _round in range(2 * _clock.GAPS):
        let_pass(host, clock, HOUR)
        clock.set(HOUR)
        note(host)
    elapsed = host.elapsed(check=True)
    assert len(elapsed.gaps) == _clock.GAPS
    assert elapsed.since(noted) == pytest.approx(_clock.GAPS * HOUR)


EVENTS = st.tuples(st.sampled_from(["pass", "set", "off", "note", "look"]), st.integers(-YEAR, YEAR))


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_nothing_is_ever_older_than_it_is(events: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        clock, host, passed = Clock(patch, START), of(pathlib.Path(folder)), 0
        notes = [(note(host), 0)]
        for event, seconds in events:
            if event == "set":
                clock.set(seconds)
            elif event == "note":
                notes.append((note(host), passed))
            elif event != "look":
                passed += abs(seconds)
                clock.pass_by(abs(seconds))
                if event == "off":
                    clock.reboot()
            elapsed = host.elapsed(check=event != "look")
            for noted, then in notes:
                assert elapsed.since(noted) <= passed - then + len(events) * _clock.STEP


def test_a_golden_is_as_old_as_the_time_that_has_passed(host: Host, clock: Clock) -> None:
    made = note(host)
    goldens = [_refresh.Golden(f"goldens/app/{n}", made, True, (), {}) for n in (1, 2)]

    def gone() -> list[str]:
        return _refresh.superfluous(goldens, keep=3, keep_age=HOUR, age=host.elapsed(check=False).since)

    clock.set(YEAR)
    assert gone() == []
    let_pass(host, clock, HOUR + MINUTES)
    assert gone() == ["goldens/app/1"]
