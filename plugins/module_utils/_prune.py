# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left over, and its removal: of tasks that nobody registered, and of tasks whose worktrees are gone.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from . import _databases, _leases, _records, _status, _worktrees
from ._door import Params, Result
from ._errors import PartialFailure, WorktreesError
from ._registry import task_of

ARGUMENT_SPEC: dict[str, t.Any] = {
    **{key: spec for key, spec in _status.ARGUMENT_SPEC.items() if key not in ("task", "format")},
    "apply": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
}


def operation(params: Params, *, check: bool) -> Result:
    """Report what is left over; remove it where ``apply`` says so."""
    seen = _status.operation({**params, "task": None, "format": None}, check=True)
    left = [
        _Leftover(orphan["kind"], orphan["name"], "no task is registered for it", orphan)
        for orphan in seen["orphans"]
        if orphan["ours"] or params["force"]
    ]
    left += [
        _Leftover("task", f"{task['workspace']}/{task['name']}", "its worktrees are gone", task)
        for task in seen["tasks"]
        if _is_gone(task)
    ]
    lines = [f"{one.kind} {one.name}: {one.why}" for one in left]
    removing = params["apply"] and not check
    failures = []
    if removing:
        for one in left:
            try:
                one.remove(params)
            except WorktreesError as error:
                failures.append(f"{one.kind} {one.name}: {error.message}")
    if failures:
        raise PartialFailure(
            f"{len(failures)} of {len(left)} leftovers stay:\n  " + "\n  ".join(failures),
            hint="look at them; -e force=true saves work first and then removes it",
            changed=len(failures) < len(left),
        )
    if removing or not left:
        report = "\n".join(f"removed {line}" for line in lines) or "nothing is left over"
    else:
        report = "\n".join([*lines, "remove them: add -e apply=true"])
    return {
        "changed": bool(left) and bool(params["apply"]),
        "leftovers": [{"kind": one.kind, "name": one.name, "why": one.why} for one in left],
        "actions": [f"remove {line}" for line in lines] if params["apply"] else [],
        "diff": [{"before": "".join(line + "\n" for line in lines), "after": ""}] if left and params["apply"] else [],
        "report": report,
    }


def _is_gone(task: dict[str, t.Any]) -> bool:
    states = [worktree["state"] for worktree in task["worktrees"]]
    return task["state"] == "ready" and bool(states) and set(states) == {"missing"}


class _Leftover:
    """Something that is ours and is needed by nobody."""

    def __init__(self, kind: str, name: str, why: str, about: dict[str, t.Any]) -> None:
        self.kind = kind
        self.name = name
        self.why = why
        self.about = about

    def remove(self, params: Params) -> None:
        if self.kind == "task":
            self._remove_task(params)
        elif self.kind == "worktree":
            self._remove_worktree(params)
        elif self.kind == "lease":
            _registry_id, workspace, task = task_of(self.about["owner"])
            self._give_back_lease(params, workspace, task)
        else:
            self._remove_database(self.kind, self.name, self.about["owner"], self.about)

    def _remove_worktree(self, params: Params) -> None:
        about = self.about
        worktree = {
            "name": self.name,
            "repo": about["repo"],
            "path": about["path"],
            "branch": about["branch"] or "HEAD",
            "submodules": [],
        }
        _worktrees.operation(
            {
                "worktrees": [worktree],
                "owner": about["owner"] or "",
                "state": "absent",
                "force": params["force"],
                "delete_branch": False,
                "push": False,
                "remote": "origin",
                "disposable": params["disposable"],
            },
            check=False,
        )

    def _remove_database(self, backend: str, name: str, owner: str, where: dict[str, t.Any]) -> None:
        own = {key: spec.get("default") for key, spec in _databases.ARGUMENT_SPEC[backend]["options"].items()}
        own.update({key: where[key] for key in ("docker_host", "directory") if key in own and key in where})
        common = {key: spec.get("default") for key, spec in _databases.COMMON.items()}
        _databases.operation(
            {**common, "backend": backend, "name": name, "owner": owner, "state": "absent", backend: own}, check=False
        )

    def _remove_task(self, params: Params) -> None:
        """A task without worktrees holds nothing that could be lost but its database."""
        workspace, name = self.about["workspace"], self.about["name"]
        database = self.about["database"]
        if database["backend"] != "none":
            self._remove_database(database["backend"], database["name"], self.about["owner"], database)
        self._give_back_lease(params, workspace, name)
        record = {key: spec.get("default") for key, spec in _records.ARGUMENT_SPEC.items()}
        _records.operation(
            {
                **record,
                "registry": params["registry"],
                "workspace": workspace,
                "task": name,
                "pattern": ".*",
                "state": "absent",
            },
            check=False,
        )

    @staticmethod
    def _give_back_lease(params: Params, workspace: str, owner: str) -> None:
        lease = {key: spec.get("default") for key, spec in _leases.ARGUMENT_SPEC.items()}
        _leases.operation(
            {**lease, "registry": params["registry"], "workspace": workspace, "owners": [owner], "state": "absent"},
            check=False,
        )
