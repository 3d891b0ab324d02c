# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a task, noted in its record before anything of it is made, and the verdict before anything is removed.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import concurrent.futures
import typing as t

from . import _databases, _processes, _records, _worktrees
from ._arguments import validated
from ._door import Operation, Params, Result, filled
from ._errors import UserError

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "registry": {"type": "path"},
    "workspace": {"type": "str"},
    "task": {"type": "str"},
    "pattern": _records.ARGUMENT_SPEC["pattern"],
    "processes": {"type": "dict"},
    "worktrees": {"type": "dict", "required": True},
    "database": {"type": "dict", "required": True},
    "agent": {"type": "dict", "default": {}},
    "facts": {"type": "dict"},
    "holder": {"type": "dict", "options": _records.HOLDER},
}

NEEDED = ("workspace", "task", "facts")
"""What only a plan takes, and every plan."""

MAKERS: dict[str, tuple[str, Operation, dict[str, t.Any]]] = {
    "processes": ("worktree_processes", _processes.operation, _processes.ARGUMENT_SPEC),
    "worktrees": ("git_worktree", _worktrees.operation, _worktrees.ARGUMENT_SPEC),
    "database": ("pg_database", _databases.operation, _databases.ARGUMENT_SPEC),
}
"""Which module makes what, and removes it. Its own call in check mode returns what that will be, or refuses."""


def operation(params: Params, *, check: bool) -> Result:
    """Check what a task is going to have and note it, or check that nothing is lost when it goes."""
    if params["state"] == "absent":
        return _verdict(params)
    for key in NEEDED:
        if params[key] is None:
            raise UserError(f"a plan needs {key}", hint="see: ansible-doc parallel.worktrees.task_plan")
    looked = _looked(params, ("worktrees", "database"))
    known = facts(params["facts"], looked["worktrees"]["worktrees"], looked["database"])
    noted = _note(params, looked["worktrees"], looked["database"], facts=known, check=check)
    return {**noted, "facts": known, "planned": {key: params[key] for key in looked}}


def _verdict(params: Params) -> Result:
    """What would be lost raises an error: of processes, worktrees and databases that are to go."""
    keys = [key for key in MAKERS if params[key]]
    looked = _looked({key: {**params[key], **_absent(key)} for key in keys}, keys)
    written = looked.get("database", {}).get("written", [])
    # What these would do is reported by the calls that do it, and so are their warnings.
    return {"changed": False, "actions": [], "diff": [], "written": written}


def _absent(key: str) -> Params:
    return {} if key == "processes" else {"state": "absent"}


def _looked(params: Params, keys: t.Sequence[str]) -> dict[str, Result]:
    """What each maker would do, found side by side: git and the database have nothing to do with each other."""
    given = {key: _parameters(key, params[key]) for key in keys}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = pool.map(lambda key: MAKERS[key][1](given[key], check=True), given)
        return dict(zip(given, results, strict=True))


def _parameters(key: str, arguments: Params) -> Params:
    """The validated parameters of a maker.

    :raises UserError: its module does not take these arguments.
    """
    module, _run, spec = MAKERS[key]
    return t.cast("Params", validated(module, spec, arguments).validated_parameters)


def _note(params: Params, worktrees: Result, database: Result, *, facts: dict[str, t.Any], check: bool) -> Result:
    """Write into the record what the makers are going to make.

    :arg facts: what commands of the task are given, should it not become ready.
    """
    given = {key: params[key] for key in ("registry", "workspace", "task", "pattern", "holder")}
    resources = {"worktrees": worktrees["plan"], "database": database["plan"], "agent": params["agent"]}
    given |= {"state": "provisioning", "plan": {**resources, "facts": facts}}
    return _records.operation(filled(_records.ARGUMENT_SPEC, given), check=check)


def facts(known: dict[str, t.Any], worktrees: list[dict[str, t.Any]], database: Result) -> dict[str, t.Any]:
    """What is known of a task, with what was planned for it."""
    named = [one["name"] for one in worktrees]
    others = {name: path for name, path in known["worktrees"].items() if name not in named}  # not in this call
    paths = {**others, **{one["name"]: one["path"] for one in worktrees if one["path"]}}
    # The branches of worktrees are named once and for all, whatever git calls them by now.
    frozen = {name: branch for name, branch in (known.get("branches") or {}).items() if name in known["worktrees"]}
    taken = {name: commit for name, commit in (known.get("taken_up") or {}).items() if name in known["worktrees"]}
    return {
        **known,
        "worktrees": paths,
        "branches": {**{one["name"]: one["branch"] for one in worktrees}, **frozen},
        "existing_branches": [one["name"] for one in worktrees if one["existing_branch"] and not one["adopt"]],
        "taken_up": {**taken, **{one["name"]: one["taken_up"] for one in worktrees if one["taken_up"]}},
        "database": database["database"],
        "databases": database["databases"],
    }
