# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at work on a task: a run of Ansible, known well enough to see whether it still lives.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import os
import time

AWAY_SECONDS = 900
"""A run on another machine cannot be looked at; it counts as ended after this long without a word."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process of some machine.

    :ivar machine: its boot and its process namespace, within which a process id has one meaning.
    :ivar started: start of the process in clock ticks since boot: tells it from a later one with the same id.
    """

    pid: int
    started: int
    machine: str
    user: str

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user}"

    def is_at_work(self, *, since: float) -> bool:
        """Whether it may still be working.

        :arg since: when it last gave a sign, in seconds since the epoch.
        """
        if self.machine != this_machine():
            return time.time() - since < AWAY_SECONDS
        return _start_of(self.pid) == self.started

    def has_ended(self) -> bool:
        """Whether it is known to work no more: it was on this machine, and is not any longer."""
        return self.machine == this_machine() and _start_of(self.pid) != self.started


def holder_of(pid: int, user: str) -> Holder:
    """Describe a living process of this machine."""
    return Holder(pid, _start_of(pid) or 0, this_machine(), user)


def this_machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return os.uname().nodename


def _start_of(pid: int) -> int | None:
    """The start time of a living process, in clock ticks since boot (proc(5), field 22 of stat)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]
    return None if state in "ZX" else int(start)
