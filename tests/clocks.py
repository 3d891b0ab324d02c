# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clocks of a machine, which tests move."""

from __future__ import annotations

import time

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _clock


class Clock:
    """What this process reads on the clocks of its machine from now on.

    :ivar wall: seconds since the epoch.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wall: float) -> None:
        self.wall = wall
        self.uptime = 1000.0
        self.boots = 0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(_clock, "now", lambda: _clock.Moment(self.wall, self.uptime, f"boot {self.boots}"))

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.uptime += seconds

    def set(self, seconds: float) -> None:
        """Set the wall clock forwards; backwards where it is negative."""
        self.wall += seconds

    def reboot(self) -> None:
        self.boots += 1
        self.uptime = 10.0
