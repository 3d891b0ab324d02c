# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one JSON document in which a run answers, from what its tasks and its machines answered each.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t


def names_several(variables: t.Mapping[str, t.Any]) -> bool:
    """Whether a call names several tasks, however many there are."""
    is_all = str(variables.get("all_tasks", "")).lower() in ("true", "yes", "on", "1")
    return is_all or variables.get("count") is not None or "," in str(variables.get("task") or "")


@dataclasses.dataclass
class Answer:
    """What is known so far.

    :ivar tasks: objects of tasks, each with the host that stands for it.
    :ivar reports: objects of machines.
    :ivar refusal: why the whole call did not do what it was asked.
    """

    tasks: list[tuple[str, dict[str, t.Any]]] = dataclasses.field(default_factory=list)
    reports: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    refusal: dict[str, t.Any] = dataclasses.field(default_factory=dict)

    def take(self, host: str, text: str, *, is_task: bool) -> bool:
        """Add what a host answered, if it is JSON: an object, or a list of those of several tasks."""
        if not text.startswith(("{", "[")):
            return False
        told = json.loads(text)
        if isinstance(told, list):
            self.tasks += [(host, one) for one in told]
        elif is_task:
            self.tasks.append((host, told))
        else:
            self.reports.append(told)
        return True

    def fail(self, host: str, task: str | None, data: t.Mapping[str, t.Any]) -> None:
        """Add why a task failed, or the machine where no task is known."""
        hint = data.get("hint")
        message = str(data.get("msg") or data.get("reason") or "").removesuffix(f"\nhint: {hint}")
        failure = {"failed": True, "failure": data.get("failure"), "msg": message, "hint": hint}
        if task is None:
            self.refusal = self.refusal or failure
        else:
            self.tasks.append((host, {"name": task, **failure}))

    def text(self, hosts: list[str], *, is_several: bool) -> str | None:
        """The document; None where nobody answered in JSON.

        :arg hosts: in the order in which they are to be told.
        """
        tasks = [one for _host, one in sorted(self.tasks, key=lambda one: hosts.index(one[0]))]
        document: t.Any
        if len(tasks) > 1 or (is_several and not self.reports):
            document = {"tasks": tasks, **self.refusal}
        else:
            found = [*tasks, *self.reports, *([self.refusal] if self.refusal else [])]
            document = found if len(found) > 1 else next(iter(found), None)
        return None if document is None else json.dumps(document, indent=2, sort_keys=True)
