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

from . import _files

STEP = 1.0
"""Less than this is how a clock that is right is kept right."""
STEP_BETWEEN_BOOTS = 300.0
"""Machines that share a file have clocks that differ, but not by this much."""
BETWEEN_LOOKS = 3600.0
"""No more than this counts as time that has passed from one look to the next: the machine may have slept."""
GAPS = 100
"""What lies before these is not known any longer."""


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


@dataclasses.dataclass(frozen=True)
class Elapsed:
    """The time that has certainly passed, which decides what is old enough to be removed.

    It is less than the wall clock says where that was set forwards, where the machine was off or slept, and where
    nothing is known. Times are by the wall clock, as it was when they were noted.

    :ivar moment: of the last look.
    :ivar start: of what is known: nothing is older than this.
    :ivar gaps: until when, and how many seconds are not counted.
    """

    moment: Moment
    start: float
    gaps: tuple[tuple[float, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Elapsed:
        """
        :raises ValueError: it is something else.
        """
        try:
            about = json.loads(text)
            moment = Moment.parse(about["moment"])
            gaps = tuple((float(end), float(seconds)) for end, seconds in about["gaps"])
            start = float(about["start"])
        except (KeyError, TypeError) as error:
            raise ValueError(text) from error
        if moment is None:
            raise ValueError(text)
        return cls(moment, start, gaps)

    def __str__(self) -> str:
        return json.dumps({"moment": str(self.moment), "start": self.start, "gaps": self.gaps})

    def since(self, noted: float) -> float:
        """Seconds that have certainly passed since a time that was noted; negative for one in the future."""
        start = max(noted, self.start)
        return self.moment.wall - start - sum(min(seconds, end - start) for end, seconds in self.gaps if start < end)

    def until(self, now: Moment) -> Elapsed:
        """The same at the next look. Where the clock was set far back, all begins anew, or nothing would get old."""
        certain = 0.0
        if self.moment.boot and self.moment.boot == now.boot:
            certain = min(now.uptime - self.moment.uptime, BETWEEN_LOOKS)
        gap = now.wall - self.moment.wall - certain
        if gap < -STEP_BETWEEN_BOOTS:
            return Elapsed(now, now.wall)
        if gap <= STEP:
            return dataclasses.replace(self, moment=now)
        gaps = (*self.gaps, (now.wall, gap))
        return Elapsed(now, max([self.start, *(end for end, _seconds in gaps[:-GAPS])]), gaps[-GAPS:])


def look(path: str, *, note: bool) -> Elapsed:
    """The time that has certainly passed by a file of looks; none where that cannot be read.

    :arg note: whether this look is noted there; the caller keeps others from the file.
    """
    moment = now()
    try:
        with open(path, encoding="ascii") as file:
            elapsed = Elapsed.parse(file.read()).until(moment)
    except (OSError, ValueError):
        elapsed = Elapsed(moment, moment.wall)
    if note:
        _files.write(path, str(elapsed).encode(), mode=0o600)
    return elapsed


def now() -> Moment:
    return Moment(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), _boot())


def _boot() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()}/{os.readlink('/proc/self/ns/time')}"
    return ""
