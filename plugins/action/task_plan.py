# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs task_plan as every module is run, tries the templates, and sets what the plan says on the host of the task.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from ..module_utils._errors import UserError
from ..plugin_utils._machines import TASKS
from ..plugin_utils._trial import refuse_faulty
from .in_process import ActionModule as InProcess


class ActionModule(InProcess):
    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """The host that stands for the task has what is known from its plan on."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        if "facts" not in result or TASKS not in task_vars["group_names"]:
            return result
        try:
            refuse_faulty(task_vars, result["facts"], self._templar)
        except UserError as error:
            return {**error.as_result(), "planned_now": not task_vars["task_record"]["plan"]}
        task = self._task.copy()
        task.args = {
            "name": task_vars["inventory_hostname"],
            "task_facts": result["facts"],
            "task_planned": result["planned"],
        }
        add_host = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.add_host",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return {**add_host.run(task_vars=task_vars), **result}
