# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far each task has come: admission, the plan of its resources, readiness, and its end.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import textwrap
import time
import typing as t

from . import (
    _adoption,
    _foreign_ports,
    _leases,
    _registry,
    _summary,
    _task_branch,
    _task_variables,
    _top_level,
    _whereabouts,
)
from ._door import Params, Result, filled, together, warned
from ._errors import EnvironmentFailure, PartialFailure, UserError, WorktreesError
from ._holder import Holder
from ._identity import DEFAULT_PATTERN, check_branch, check_task, expand, identify
from ._registry import STATUS, Record, Registry
from ._secrets import DATABASE_PASSWORD, MASK

HOLDER: dict[str, t.Any] = {
    "pid": {"type": "int", "required": True},
    "started": {"type": "int", "required": True},
    "machine": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
}

ARGUMENT_SPEC: dict[str, t.Any] = {
    "registry": {"type": "path"},
    "workspace": {"type": "str", "required": True},
    "root": {"type": "path"},
    "task": {"type": "str"},
    "worktree": {"type": "path"},
    "repos": _adoption.ARGUMENT_SPEC["repos"] | {"required": False},
    "count": {"type": "int"},
    "all_tasks": {"type": "bool", "default": False},
    "state": {
        "type": "str",
        "choices": ["provisioning", "ready", "removing", "absent"],
        "required": True,
    },
    "branch": {"type": "str"},
    "pattern": {"type": "str", "default": DEFAULT_PATTERN},
    "lease": {"type": "dict", "options": {key: _leases.ARGUMENT_SPEC[key] for key in _leases.TERMS}},
    "existing": {"type": "str", "choices": ["converge", "refuse"], "default": "converge"},
    "plan": {"type": "dict"},
    "keep_planned": {"type": "bool", "default": False},
    "planned_now": {"type": "bool", "default": False},
    "keep_database": {"type": "bool", "default": False},
    "written": {"type": "list", "elements": "dict", "default": []},
    "refusal": {"type": "dict"},
    "facts": {"type": "dict"},
    "variables": {"type": "dict", "default": {}},
    "format": {"type": "str", "choices": ["text", "json"], "default": "text"},
    "holder": {"type": "dict", "options": HOLDER},
    "ended": {"type": "list", "elements": "dict", "default": [], "options": HOLDER},
}

TEARDOWN = "ansible-playbook parallel.worktrees.teardown -e task={}"


@dataclasses.dataclass
class Step:
    """One call: its registry, its parameters, and who makes it."""

    registry: Registry
    params: Params
    me: Holder | None
    check: bool

    @property
    def workspace(self) -> str:
        return t.cast(str, self.params["workspace"])

    def find(self, name: str) -> Record | None:
        """The record of a task that nobody else is at work on.

        :raises UserError: somebody is.
        """
        record = self.registry.record(self.workspace, name)
        busy = record and record.busy_with(self.me)
        if record and record.holder and busy and dataclasses.asdict(record.holder) not in self.params["ended"]:
            doing = "torn down" if record.state == "removing" else "provisioned"
            raise UserError(
                f"task {name} is being {doing} by {busy}",
                hint=f"wait until it has ended, or see how far it is: {STATUS}",
                holder=dataclasses.asdict(record.holder),
            )
        return record


def operation(params: Params, *, check: bool) -> Result:
    """Move the records of one or several tasks to a state, all or none."""
    me = Holder(**params["holder"]) if params["holder"] else None
    adopted = _adoption.look(params["worktree"], params["repos"]) if params["worktree"] and params["repos"] else None
    if adopted:
        params = {**params, "branch": adopted["branch"]}
    if params["state"] == "ready" and not check:
        _check_worktrees(params)
    elsewhere = _foreign_ports.within(params["repos"]) if params["lease"] and params["repos"] else {}
    with _registry.opened(params["registry"], write=not check) as registry:
        step = Step(registry, params, me, check)
        names = _names(step)
        before = {name: registry.record(step.workspace, name) for name in names}
        if params["state"] == "removing":
            names = _task_branch.children_first(names, lambda name: _branch_of(before[name]))
        after = {name: STATES[params["state"]](step, name) for name in names}
        missing = [name for name in names if after[name] is None and before[name] is None]
        summary = _summary_of(step, names, before, missing)
        leased = _leased(step, names, elsewhere) if params["lease"] and params["state"] == "provisioning" else None
    if params["refusal"]:
        raise _retold(params["refusal"])
    actions = [text for name in names if (text := _told(name, before[name], after[name]))]
    result = {
        "changed": bool(actions),
        "tasks": [
            {**record.facts(), "former_state": former.state if (former := before[name]) else None}
            for name, record in after.items()
            if record is not None
        ],
        "missing": missing,
        "adopted": adopted,
        "summary": summary,
        "actions": actions,
        "diff": [
            {
                "before_header": "records",
                "after_header": "records",
                "before": _lines(before.values()),
                "after": _lines(after.values()),
            }
        ]
        if actions
        else [],
        **warned(*_hidden(params)),
    }
    if leased is None:
        return result
    return {**result, **together(result, leased), "leases": leased["leases"], "summary": summary or leased["summary"]}


def _check_worktrees(params: Params) -> None:
    """See, before a task is called ready, that git works on each of its worktrees. The registry is not held meanwhile.

    :raises EnvironmentFailure: it does not.
    """
    with _registry.opened(params["registry"], write=False) as registry:
        names = expand(params["task"], params["count"]) if params["task"] else ()
        records = [registry.record(params["workspace"], name) for name in names]
    _top_level.check(tree for one in records if one for tree in _top_level.trees_of(one.plan.get("worktrees", ())))


def _hidden(params: Params) -> list[str]:
    """What the variables of a task that is ready hide in its worktrees."""
    worktrees = (params["facts"] or {}).get("worktrees", {}) if params["state"] == "ready" else {}
    return [line for path in worktrees.values() for line in _task_variables.hidden(params["variables"], path)]


def _branch_of(record: Record | None) -> tuple[str | None, str | None]:
    """The names of a task's branch of a database and of its parent, where it has one."""
    database = (record.plan.get("database") if record else None) or {}
    branch = database.get("branch") or {}
    return (database.get("name"), branch.get("parent")) if branch else (None, None)


def _leased(step: Step, names: list[str], elsewhere: t.Mapping[int, tuple[str, str]]) -> Result:
    """The leases of the tasks: together with their records, or none of both."""
    given = {**step.params["lease"], "workspace": step.workspace, "owners": names, "state": "present"}
    taken = _foreign_ports.of_others(elsewhere, step.registry.id)
    return _leases.moved(step.registry, filled(_leases.ARGUMENT_SPEC, given), taken=taken)


def _names(step: Step) -> list[str]:
    params = step.params
    if params["all_tasks"]:
        return [record.identity.name for record in step.registry.records(step.workspace)]
    if not params["task"] and params["worktree"]:
        return [_name_at(step)]
    if not params["task"]:
        raise UserError("no task is named", hint="name one, or several with commas: -e task=fix-login")
    names = expand(params["task"], params["count"])
    for name in names:
        check_task(name, params["pattern"])
    if params["branch"] is not None:
        check_branch(params["branch"])
        if len(names) > 1:
            raise UserError(
                f"branch={params['branch']} goes with one task, and {len(names)} are named",
                hint="leave branch out, or set it per repository in worktrees_repos",
            )
    return names


def _name_at(step: Step) -> str:
    """The task that has the worktree, or is going to have it: one is called like its branch then."""
    params = step.params
    records = step.registry.records(step.workspace)
    is_new = not any(record.has(params["worktree"]) for record in records)
    if not (is_new and params["state"] == "provisioning" and params["branch"]):
        return _registry.at(records, params["worktree"]).identity.name
    check_task(params["branch"], params["pattern"])
    return t.cast(str, params["branch"])


def _admit(step: Step, name: str) -> Record:
    """Give a task its record, or take up the one it has."""
    params = step.params
    record = step.find(name)
    root = os.path.realpath(params["root"] or ".")
    if record is None:
        if moved := _moved_here(step, name, root):
            raise _whereabouts.moved_workspace(name, moved.root, root)
        record = step.registry.add(step.workspace, root, identify(name, params["branch"]), step.me)
    elif params["plan"] is None:
        if params["existing"] == "refuse" and record.state == "ready":
            raise UserError(
                f"task {name} is already registered in workspace {step.workspace} ({record.state})",
                hint=f"list the tasks: {STATUS}\n      tear it down: {TEARDOWN.format(name)}",
            )
        _refuse_moved(step, record)
        if params["root"] and record.root != root:
            raise UserError(
                f"task {name} of workspace {step.workspace} belongs to {record.root}, and this call says {root}",
                hint="give the two workspaces different names: workspace_name",
            )
        # That of a worktree which is there may have been renamed since; the names of the task stay.
        is_asked = params["branch"] and not params["worktree"]
        if is_asked and params["branch"] != record.identity.branch:
            raise UserError(
                f"task {name} was provisioned for branch {record.identity.branch}, and this call says "
                f"{params['branch']}",
                hint=f"its names are frozen; tear it down first: {TEARDOWN.format(name)}",
            )
    state = "ready" if record.state == "ready" else "provisioning"
    plan = _merged(record, params["plan"] or {})
    return step.registry.update(record, state=state, holder=step.me, plan=plan)


def _refuse_moved(step: Step, record: Record) -> None:
    now = step.params["root"] and os.path.realpath(step.params["root"])
    if now and now != record.root and os.path.isdir(now) and not os.path.isdir(record.root):
        raise _whereabouts.moved_workspace(record.identity.name, record.root, now)


def _merged(record: Record, plan: dict[str, t.Any]) -> dict[str, t.Any]:
    """The plan of before with what is new now: what was once planned stays as it was, so that teardown finds it."""
    if record.state == "ready":  # what it was given when it became ready holds until it is so again
        plan = {key: value for key, value in plan.items() if key != "facts"}
    if not plan:
        return record.plan
    database = plan.get("database") or {}
    former = record.plan.get("database") or {}
    for key in ("backend", "name"):
        if former and database and former.get(key) != database.get(key):
            raise UserError(
                f"the database of task {record.identity.name} is {former.get('backend')} {former.get('name')}, and the "
                f"workspace now asks for {database.get('backend')} {database.get('name')}",
                hint=f"tear the task down first: {TEARDOWN.format(record.identity.name)}",
            )
    _refuse_other_place(record, plan)
    both = [*plan.get("worktrees", []), *record.plan.get("worktrees", [])]
    worktrees = {worktree["path"] or worktree["repo"]: worktree for worktree in both}
    agent = {**record.plan.get("agent", {}), **plan.get("agent", {})}
    resources = {"worktrees": list(worktrees.values()), "database": database or former}
    return {**record.plan, **plan, **resources, **({"agent": agent} if agent else {})}


def _refuse_other_place(record: Record, plan: dict[str, t.Any]) -> None:
    """Refuse a worktree that another tool made beside one that the task has, and the other way round."""
    pairs = itertools.product(record.plan.get("worktrees", []), plan.get("worktrees", []))
    for there, worktree in pairs:
        is_adopted = there.get("adopt") or worktree.get("adopt")
        if is_adopted and there["name"] == worktree["name"] and there["path"] != worktree["path"]:
            raise UserError(
                f"task {record.identity.name} has the worktree {there['path']} of {worktree['name']}, and this call "
                f"says {worktree['path']}",
                hint=f"choose another task name, or tear this one down first: {TEARDOWN.format(record.identity.name)}",
            )


def _finish(step: Step, name: str) -> Record:
    record = step.find(name)
    if record is None and step.check:
        record = _admit(step, name)
    if record is None:
        raise _not_found(step, name)
    # Another run may name the same workspace file by another path.
    facts = {key: value for key, value in (step.params["facts"] or {}).items() if key != "workspace_file"}
    plan = {**record.plan, "facts": facts} if facts else record.plan
    _use_kept(step, record)
    return step.registry.update(record, state="ready", holder=None, plan=plan)


def _begin_removal(step: Step, name: str) -> Record | None:
    record = step.find(name)
    if record is None:
        if step.registry.ended(step.workspace, name) is None:
            raise _not_found(step, name)
        return None
    _refuse_moved(step, record)
    return step.registry.update(record, state="removing", holder=step.me, plan=record.plan)


def _end(step: Step, name: str) -> Record | None:
    record = step.find(name)
    if record is None:
        return None
    if not step.params["keep_planned"]:
        _use_kept(step, record)
        if step.params["keep_database"] and record.plan.get("database"):
            step.registry.keep(record, (step.params["facts"] or {}).get("slot"))
        step.registry.remove(record)
    elif record.plan and not step.params["planned_now"]:
        return record
    else:
        step.registry.withdraw(record)
    return None


def _use_kept(step: Step, record: Record) -> None:
    """The database that was kept of an earlier task of this name is this one's by now, or went with it."""
    kept = step.registry.kept(step.workspace).get(record.owner)
    if kept and kept.is_database_of(record.plan):
        step.registry.forget_kept(step.workspace, record.identity.name)


STATES: dict[str, t.Callable[[Step, str], Record | None]] = {
    "provisioning": _admit,
    "ready": _finish,
    "removing": _begin_removal,
    "absent": _end,
}


def _summary_of(step: Step, names: list[str], before: dict[str, Record | None], missing: list[str]) -> str | None:
    """What a person is told at the end of a provision or a teardown."""
    facts, state, style = step.params["facts"], step.params["state"], step.params["format"]
    if facts and state == "ready":
        former = before[names[0]]
        return _summary.provisioned(
            facts, style=style, check=step.check, was_ready=bool(former and former.state == "ready")
        )
    if facts and state == "absent":
        record = before[names[0]]
        kept = record.plan.get("database") if record and step.params["keep_database"] else None
        facts = {**facts, "written": step.params["written"], "kept": kept or None}
        return _summary.torn_down(facts, style=style, check=step.check)
    if state == "removing" and step.params["all_tasks"] and not names:
        return "[]" if style == "json" else f"workspace {step.workspace} has no task\n"
    if state == "removing" and missing:
        ended = {name: age(step.registry.ended(step.workspace, name) or 0) for name in missing}
        return _summary.nothing_to_tear_down(ended, style=style)
    return None


def _retold(refusal: dict[str, t.Any]) -> WorktreesError:
    """The failed result of another step, as an error again."""
    kinds = {kind.failure: kind for kind in (UserError, EnvironmentFailure, PartialFailure)}
    kind = kinds.get(refusal.get("failure", ""), EnvironmentFailure)
    hint = refusal.get("hint")
    return kind(str(refusal.get("msg", "")).removesuffix(f"\nhint: {hint}"), hint=hint)


def _not_found(step: Step, name: str) -> UserError:
    known = [record.identity.name for record in step.registry.records(step.workspace)]
    root = step.params["root"] and os.path.realpath(step.params["root"])
    if root and (moved := _moved_here(step, name, root)):
        return _whereabouts.moved_workspace(name, moved.root, root)
    return _registry.unknown(name, step.workspace, known)


def _moved_here(step: Step, name: str, root: str) -> Record | None:
    """A task whose workspace folder was moved to this one; a workspace without a name is named like its folder."""
    return next(
        (
            record
            for record in step.registry.records()
            if record.identity.name == name
            and not os.path.isdir(record.root)
            and _whereabouts.has_marks(record.plan.get("worktrees", []), record.owner, record.root, root)
        ),
        None,
    )


def _told(name: str, before: Record | None, after: Record | None) -> str | None:
    if after is None:
        return f"forget task {name}" if before else None
    if before is None and not after.plan:
        return f"register task {name}"
    # In a dry run nothing has registered a task that is new.
    if after.state != (before.state if before else "provisioning"):
        return f"mark task {name} as {after.state}"
    if before is None or before.plan != after.plan:
        return f"note what is made for task {name}"
    return None


def _lines(records: t.Iterable[Record | None]) -> str:
    return "".join(
        f"{record.identity.name}: {record.state}, branch {record.identity.branch}\n"
        + (_plan_lines(record.plan) if record.plan else "")
        for record in records
        if record
    )


def _plan_lines(plan: dict[str, t.Any]) -> str:
    text = json.dumps(plan, sort_keys=True, indent=2).replace(DATABASE_PASSWORD, MASK)
    return textwrap.indent(text, "  ") + "\n"


def age(created: float, now: float | None = None) -> str:
    """How long ago, as people say it: 40 s, 5 min, 3 h, 2 d."""
    seconds = max(0, int((now or time.time()) - created))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
