# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task is going to have, noted in its record before anything of it is made.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from . import _records
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
}

MAKERS = {"worktrees": "git_worktree", "database": "task_database"}
"""Which module makes what. Its own call in check mode says what that will be, or refuses."""


def note(
    plan: Params,
    worktrees: Result,
    database: Result,
    *,
    facts: dict[str, t.Any],
    holder: Params | None,
    check: bool,
) -> Result:
    """Write down what the makers have said that they are going to make.

    :arg facts: what commands of the task are given, should it not become ready.
    """
    given = {key: plan[key] for key in ("registry", "workspace", "task", "pattern")}
    given |= {"holder": holder, "state": "provisioning"}
    resources = {"worktrees": worktrees["plan"], "database": database["plan"], "agent": plan["agent"]}
    given["plan"] = {**resources, "facts": facts}
    return _records.operation(filled(_records.ARGUMENT_SPEC, given), check=check)


def facts(known: dict[str, t.Any], worktrees: list[dict[str, t.Any]], database: Result) -> dict[str, t.Any]:
    """What is known of a task, with what was planned for it."""
    named = [one["name"] for one in worktrees]
    others = {name: path for name, path in known["worktrees"].items() if name not in named}  # not in this call
    paths = {**others, **{one["name"]: one["path"] for one in worktrees if one["path"]}}
    # The branches of worktrees are named once and for all, whatever git calls them by now.
    frozen = {name: branch for name, branch in (known.get("branches") or {}).items() if name in known["worktrees"]}
    return {
        **known,
        "worktrees": paths,
        "branches": {**{one["name"]: one["branch"] for one in worktrees}, **frozen},
        "existing_branches": [one["name"] for one in worktrees if one["existing_branch"] and not one["adopt"]],
        "database": database["database"],
        "databases": database["databases"],
    }
