# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left over, and its removal: of tasks that nobody registered or whose worktrees are gone, and old golden
databases.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import typing as t

from . import _databases, _integration, _leases, _records, _registry, _status, _trash, _worktrees, _written
from ._door import Params, Result, filled
from ._errors import EnvironmentFailure, PartialFailure, WorktreesError
from ._git import Repository
from ._registry import task_of
from ._task_branch import children_first

WHY = {"trash": "a removal has left it"}
ONE_TASK = ("task", "worktree", "count", "format")
ARGUMENT_SPEC: dict[str, t.Any] = {
    **{key: spec for key, spec in _status.ARGUMENT_SPEC.items() if key not in ONE_TASK},
    "apply": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
}


def operation(params: Params, *, check: bool) -> Result:
    """Report what is left over; remove it where ``apply`` says so."""
    seen = _status.operation({**params, **dict.fromkeys(ONE_TASK)}, check=True)
    orphans = [orphan for orphan in seen["orphans"] if orphan["ours"] or params["force"]]
    left = [
        _Leftover(orphan["kind"], orphan["name"], WHY.get(orphan["kind"], "no task is registered for it"), orphan)
        for orphan in orphans
        if params["force"] or not orphan["kept"]
    ]
    left += [
        _Leftover("task", f"{task['workspace']}/{task['name']}", "its worktrees are gone", task)
        for task in seen["tasks"]
        if _is_gone(task)
    ]
    left += _lost(params, seen["orphans"]) if params["force"] and not seen["silent"] else []
    left += _goldens(params, seen["tasks"])
    left += [] if seen["tasks"] else _integration_trees(params)
    if params["apply"]:
        _remove_all(left, params, check=check)
    else:
        for one in left:
            one.look()
    lines = [f"{one.kind} {one.name}: {one.why}" for one in left]
    kept = [orphan for orphan in orphans if orphan["kept"] and not params["force"]]
    return {
        "changed": bool(left) and params["apply"],
        "branches": [{"name": one.name, "owner": one.about["owner"]} for one in _branches(left)],
        "leftovers": [{"kind": one.kind, "name": one.name, "why": one.why} for one in left],
        "actions": [f"remove {line}" for line in lines] if params["apply"] else [],
        "diff": [{"before": "".join(line + "\n" for line in lines), "after": ""}] if left and params["apply"] else [],
        "kept": [{"kind": one["kind"], "name": one["name"], "owner": one["owner"]} for one in kept],
        "report": _report(lines, kept, apply=params["apply"], check=check),
    }


def _branches(left: t.Sequence[_Leftover]) -> list[_Leftover]:
    """The branches on a DB host that go, in the order in which they can."""
    found = [one for one in left if one.kind == "branch"]
    return children_first(found, lambda one: (one.name, one.about.get("parent")))


def _report(lines: t.Sequence[str], kept: t.Sequence[dict[str, t.Any]], *, apply: bool, check: bool) -> str:
    verb = "" if not apply else "would remove " if check else "removed "
    told = [f"{verb}{line}" for line in lines] or ["nothing is left over"]
    if lines and not apply:
        told.append("remove them: add -e apply=true")
    for one in kept:
        task = task_of(one["owner"])[2]
        told.append(f"{one['kind']} {one['name']} stays: it was kept when task {task} was torn down")
        told.append(f"use it again: provision task={task}; remove it: add -e apply=true -e force=true")
    return "\n".join(told)


def _lost(params: Params, orphans: t.Sequence[dict[str, t.Any]]) -> list[_Leftover]:
    """What the registry has of databases that were kept and are not found; their servers may be down, or gone."""
    found = {orphan["owner"] for orphan in orphans if orphan["kept"]}
    with _registry.opened(params["registry"], write=False) as registry:
        used = {record.owner for record in registry.records()}
        kept = registry.kept(params["workspace"]).values()
    why = "the database that was kept with it is not found"
    return [
        _Leftover("slot", f"{one.slot} of {one.name}", why, {"owner": one.owner})
        for one in kept
        if one.owner not in found | used
    ]


def _goldens(params: Params, tasks: t.Sequence[dict[str, t.Any]]) -> list[_Leftover]:
    """Golden databases that newer ones have taken the place of, in the back ends of these tasks and the workspace's."""
    plans = [plan for task in tasks if (plan := task["plan"].get("database"))]
    plans.append(_status.said(params))
    with _registry.opened(params["registry"], write=False) as registry:
        ours = registry.id
    found = []
    for one in _databases.superseded(plans):
        registry_id, workspace, key = task_of(one["owner"])
        if (registry_id == ours or params["force"]) and params["workspace"] in (None, workspace):
            found.append(_Leftover("golden", f"{workspace}/{one['name']}", f"{key} is built from something newer", one))
    return found


def _integration_trees(params: Params) -> list[_Leftover]:
    """What integration has used in the repositories of a workspace that has no task."""
    found = []
    for repo in params["repos"]:
        with contextlib.suppress(WorktreesError):
            repository = Repository.at(repo["repo"], repo["name"])
            if path := _integration.left_behind(repository):
                found.append(
                    _Leftover("integration", path, "no task is there to integrate", {"repository": repository})
                )
    return found


def _remove_all(left: t.Sequence[_Leftover], params: Params, *, check: bool) -> None:
    failures, hints = [], ["look at them; -e force=true saves work first and then removes it"]
    for one in left:
        try:
            one.remove(params, check=check)
        except WorktreesError as error:
            failures.append(f"{one.kind} {one.name}: {error.message}")
            hints += [error.hint] if error.hint and one.kind == "trash" else []
    if failures:
        raise PartialFailure(
            f"{len(failures)} of {len(left)} leftovers stay:\n  " + "\n  ".join(failures),
            hint="\n      ".join(hints),
            changed=len(failures) < len(left) and not check,
        )


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

    def look(self) -> None:
        """Find out what would be lost with it, as far as that is known before its removal is tried."""
        database = self.about["plan"].get("database") if self.kind == "task" else None
        if database:
            with contextlib.suppress(WorktreesError):
                self._note(_remove_database(database, self.about["owner"], check=True))

    def _note(self, removed: Result) -> None:
        self.why += "".join(f"; database {one['database']}: {_written.told(one)}" for one in removed["written"])

    def remove(self, params: Params, *, check: bool) -> None:
        about = self.about
        if self.kind == "task":
            self._remove_task(params, check=check)
        elif self.kind == "golden":
            if not check:
                _databases.remove_golden(about)
        elif self.kind == "integration":
            if not check:
                _integration.remove_tree(about["repository"])
        elif self.kind == "trash":
            if not check:
                _trash.empty(about["common"])
        elif self.kind == "worktree":
            worktree = {**about, "name": self.name, "branch": about["branch"] or "HEAD"}
            _remove_worktrees([worktree], about["owner"] or "", params, check=check)
        elif self.kind == "slot":
            _forget_kept(about["owner"], params, check=check)
        elif self.kind == "lease":
            _registry_id, workspace, task = task_of(about["owner"])
            _release_lease(workspace, task, params, check=check)
        else:
            _remove_database({"backend": self.kind, self.kind: about, **about}, about["owner"], check=check)
            if about["kept"]:
                _forget_kept(about["owner"], params, check=check)

    def _remove_task(self, params: Params, *, check: bool) -> None:
        """What a teardown does: of worktrees that are gone, git may still know, and so may work be lost."""
        about, plan = self.about, self.about["plan"]
        _remove_worktrees(plan["worktrees"], about["owner"], params, check=check)
        database = plan.get("database")
        if database:
            self._note(_remove_database(database, about["owner"], check=check))
        _release_lease(about["workspace"], about["name"], params, check=check)
        record = {"workspace": about["workspace"], "task": about["name"], "pattern": ".*", "state": "absent"}
        _records.operation(_with_ours(_records.ARGUMENT_SPEC, record, params), check=check)


def _remove_worktrees(worktrees: t.Sequence[dict[str, t.Any]], owner: str, params: Params, *, check: bool) -> None:
    options = _worktrees.ARGUMENT_SPEC["worktrees"]["options"]
    given = {"worktrees": [filled(options, one) for one in worktrees], "owner": owner, "state": "absent"}
    _worktrees.operation(_with_ours(_worktrees.ARGUMENT_SPEC, given, params), check=check)


def _remove_database(plan: dict[str, t.Any], owner: str, *, check: bool) -> Result:
    """
    :arg plan: what finds it, as the record of a task has it.
    """
    backend = plan["backend"]
    own = filled(_databases.ARGUMENT_SPEC[backend]["options"], plan[backend])
    given = {key: value for key, value in plan.items() if key in _databases.FINDING}
    given |= {"backend": backend, "owner": owner, "state": "absent", backend: own}
    if "databases" in given:
        options = _databases.COMMON["databases"]["options"]
        given["databases"] = [filled(options, one) for one in given["databases"]]
    removed = _databases.operation(filled(_databases.ARGUMENT_SPEC, given), check=check)
    if left := removed.get("left"):
        raise EnvironmentFailure("; ".join(left))
    return removed


def _forget_kept(owner: str, params: Params, *, check: bool) -> None:
    _registry_id, workspace, task = task_of(owner)
    with _registry.opened(params["registry"], write=not check) as registry:
        registry.forget_kept(workspace, task)


def _release_lease(workspace: str, task: str, params: Params, *, check: bool) -> None:
    given = {"workspace": workspace, "owners": [task], "state": "absent"}
    _leases.operation(_with_ours(_leases.ARGUMENT_SPEC, given, params), check=check)


def _with_ours(spec: dict[str, t.Any], given: t.Mapping[str, t.Any], ours: t.Mapping[str, t.Any]) -> Params:
    """The parameters of another operation: what is given, what means the same here and there, or the default."""
    return filled(spec, {**{key: ours[key] for key in ("registry", "force", "disposable")}, **given})
