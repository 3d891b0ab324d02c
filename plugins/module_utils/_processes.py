# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes at work inside a task's worktrees, and how they are ended.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import time
import typing as t

from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError

ARGUMENT_SPEC: dict[str, t.Any] = {
    "paths": {"type": "list", "elements": "path", "required": True},
    "state": {"type": "str", "choices": ["absent"], "default": "absent"},
    "caller": {"type": "str", "choices": ["refuse", "spare"], "default": "refuse"},
    "grace": {"type": "float", "default": 2.0},
}

ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Process:
    """A process whose working directory is inside one of the folders.

    :ivar started: in clock ticks since boot; with the id it names one process for good.
    """

    pid: int
    started: str
    command: str
    folder: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.command})"


def operation(params: Params, *, check: bool) -> Result:
    """End the processes inside the folders, but never the caller's own."""
    paths = [os.path.realpath(path) for path in params["paths"]]
    everybody = _at_work(paths, spare=params["caller"] == "spare")
    spared = ancestors(os.getpid())
    callers = [process for process in everybody if process.pid in spared]
    if callers:
        raise UserError(
            f"this was called from inside {callers[-1].folder}, which is about to be removed",
            hint=f"change to another folder first, such as: cd {shlex.quote(_outside(callers[-1].folder, paths))}",
        )
    stopped = dict.fromkeys(everybody)
    if not check:
        # A parent may start another child while it is being ended.
        for _round in range(ROUNDS):
            _end(everybody, params["grace"])
            everybody = _at_work(paths, spare=params["caller"] == "spare")
            stopped.update(dict.fromkeys(everybody))
            if not everybody:
                break
        else:
            raise EnvironmentFailure(f"these processes cannot be ended: {', '.join(map(str, everybody))}")
    return {
        "changed": bool(stopped),
        "processes": [dataclasses.asdict(process) for process in stopped],
        "actions": [f"end process {process}" for process in stopped],
        "diff": [{"before": "".join(f"{process}\n" for process in stopped), "after": ""}] if stopped else [],
    }


def _outside(folder: str, paths: t.Sequence[str]) -> str:
    """The nearest folder above one that lies in none of these."""
    above = pathlib.PurePath(folder)
    while any(above.is_relative_to(path) for path in paths):
        above = above.parent
    return str(above)


def inside(paths: t.Sequence[str]) -> list[Process]:
    """Living processes whose working directory is one of these folders or below."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            folder = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
            if any(folder == path or folder.startswith(path + "/") for path in paths):
                process = _process(int(entry), folder)
                if process:
                    found.append(process)
    return found


def _process(pid: int, folder: str) -> Process | None:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        head, _parenthesis, tail = file.read().rpartition(")")
    fields = tail.split()
    if fields[0] in "ZX":
        return None
    return Process(pid, fields[19], head.partition("(")[2], folder)


def ancestors(pid: int) -> list[int]:
    """A process and all that it descends from."""
    found: list[int] = []
    while pid > 0 and pid not in found:
        found.append(pid)
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def _at_work(paths: t.Sequence[str], *, spare: bool) -> list[Process]:
    """Who is inside.

    :arg spare: leave out the caller's own run: what is above it, what works beside it for the same parent, and what
        that one prints to.
    """
    found = inside(paths)
    if not spare:
        return found
    above, parent = ancestors(os.getpid()), os.getppid()
    pipes = {end for end in (_opened(parent, 1), _opened(parent, 2)) if end.startswith("pipe:")}
    return [
        one
        for one in found
        if one.pid not in above and parent not in ancestors(one.pid) and _opened(one.pid, 0) not in pipes
    ]


def _opened(pid: int, descriptor: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    return ""


def _end(processes: t.Sequence[Process], grace: float) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if _lives(process):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, sign)
        deadline = time.monotonic() + grace
        while any(map(_lives, processes)) and time.monotonic() < deadline:
            time.sleep(0.02)


def _lives(process: Process) -> bool:
    with contextlib.suppress(OSError):
        now = _process(process.pid, process.folder)
        return now is not None and now.started == process.started
    return False
