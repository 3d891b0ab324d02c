# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of something long."""

from __future__ import annotations

import itertools
import threading

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _progress


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(_progress, "SECONDS", 0.001)
    monkeypatch.setattr(_progress, "_tell", found.append)
    return found


def test_each_change_is_told_once(lines: list[str]) -> None:
    is_over = threading.Event()
    states = itertools.chain(("one", "one", "two"), itertools.repeat("three"))

    def how_far() -> str:
        state = next(states)
        if state == "three":
            is_over.set()
            raise ConnectionError(state)
        return state

    with _progress.told(how_far):
        assert is_over.wait(20)
    assert lines == ["one", "two"]


def test_what_goes_wrong_is_raised(lines: list[str]) -> None:
    with pytest.raises(KeyError), _progress.told(lambda: "far"):
        raise KeyError
    before = list(lines)
    assert threading.active_count() == 1
    assert lines == before


def test_without_a_listener_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_progress, "SECONDS", 0.0)
    with _progress.told(lambda: pytest.fail("somebody has looked")):
        assert threading.active_count() == 1
