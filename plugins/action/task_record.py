# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs task_record as every module is run, and again where the controller sees that a run has ended that held a task.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from ..module_utils._holder import Holder
from .in_process import ActionModule as InProcess


class ActionModule(InProcess):
    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Where the task lives on another machine than a run that held it, only here can be seen that it has ended."""
        given = dict(self._task.args)
        ended: list[dict[str, t.Any]] = []
        result = super().run(tmp, task_vars)
        while (holder := result.get("holder")) and holder not in ended and Holder(**holder).has_ended():
            ended.append(holder)
            self._task.args = {**given, "ended": ended}
            result = super().run(tmp, task_vars)
        return result
