# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task is going to have, asked of its worktrees and its database and noted before anything is made.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from . import _records, _steps
from ._door import Params, Result, filled

ARGUMENT_SPEC: dict[str, t.Any] = {
    "registry": {"type": "path"},
    "workspace": {"type": "str", "required": True},
    "task": {"type": "str", "required": True},
    "pattern": _records.ARGUMENT_SPEC["pattern"],
    "worktrees": {"type": "dict", "required": True},
    "database": {"type": "dict", "required": True},
    "agent": {"type": "dict", "default": {}},
    "facts": {"type": "dict", "required": True},
    "holder": _records.ARGUMENT_SPEC["holder"],
}

PREFLIGHTS = {"worktrees": "git_worktree", "database": "task_database"}
"""Which module refuses what: the very calls that follow, in check mode."""


def operation(params: Params, *, check: bool) -> Result:
    """Refuse what cannot be made, and note in the task's record what will be."""
    worktrees, database = (_preflight(module, params[key]) for key, module in PREFLIGHTS.items())
    plan = {"worktrees": worktrees["plan"], "database": database["plan"], "agent": params["agent"]}
    named = {key: params[key] for key in ("registry", "workspace", "task", "pattern", "holder")}
    given = {**named, "state": "provisioning", "plan": plan}
    noted = _records.operation(filled(_records.ARGUMENT_SPEC, given), check=check)
    planned = {key: params[key] for key in PREFLIGHTS}
    return {**noted, "facts": _facts(params["facts"], worktrees["worktrees"], database), "planned": planned}


def _preflight(module: str, arguments: Params) -> Result:
    run, _spec = _steps.OPERATIONS[module]
    return run(_steps.parameters(module, arguments, None), check=True)


def _facts(known: dict[str, t.Any], worktrees: list[dict[str, t.Any]], database: Result) -> dict[str, t.Any]:
    paths = {one["name"]: one["path"] for one in worktrees if one["path"]}
    # The branches of worktrees are named once and for all, whatever git calls them by now.
    frozen = {name: branch for name, branch in (known.get("branches") or {}).items() if name in known["worktrees"]}
    return {
        **known,
        "worktrees": paths,
        "branches": {**{one["name"]: one["branch"] for one in worktrees}, **frozen},
        "database": database["database"],
        "databases": database["databases"],
    }
