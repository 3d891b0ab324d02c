# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By how much the clock of the machine was set, so that nothing ends early or never because of it.

Private to this collection: may change without notice.

The wall clock can be set, forwards and backwards. The time since the machine was booted cannot, but says nothing over
a reboot. Both together, noted from time to time, show by how much the wall clock was set in between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time

STEP = 1.0
"""Less than this is how a clock that is right is kept right."""
STEP_BETWEEN_BOOTS = 300.0
"""Machines that share a file have clocks that differ, but not by this much."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment by two clocks.

    :ivar wall: seconds since the epoch.
    :ivar uptime: seconds since the machine was booted, suspension included.
    :ivar boot: of which boot, and by which clock; empty where that is unknown.
    """

    wall: float
    uptime: float
    boot: str

    @classmethod
    def parse(cls, text: str | None) -> Moment | None:
        """
        :raises ValueError: it is no moment.
        """
        if text is None:
            return None
        try:
            about = json.loads(text)
            return cls(float(about["wall"]), float(about["uptime"]), str(about["boot"]))
        except (KeyError, TypeError) as error:
            raise ValueError(text) from error

    def __str__(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def set_since(self, now: Moment) -> float:
        """By how many seconds the wall clock was set forwards between this moment and now; negative for backwards.

        Over a reboot no more is known than that the time cannot run backwards.
        """
        if self.boot and self.boot == now.boot:
            step = (now.wall - self.wall) - (now.uptime - self.uptime)
            return step if abs(step) > STEP else 0.0
        step = now.wall - self.wall
        return step if step < -STEP_BETWEEN_BOOTS else 0.0


def now() -> Moment:
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), _boot())


def _boot() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()}/{os.readlink('/proc/self/ns/time')}"
    return ""
