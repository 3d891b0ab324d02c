# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks of a registry, as an inventory has them.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import collections
import typing as t

from . import _leases, _registry
from ._errors import UserError
from ._registry import Record

NO_DATABASE = "none"


def tasks(registry: str | None, workspaces: t.Sequence[str] | None) -> list[dict[str, t.Any]]:
    """Each task with ``host``, ``facts``, ``folder``, ``workspace``, ``backend`` and ``state``.

    :arg workspaces: those whose tasks are wanted; None for all.
    :raises UserError: no task is of such a workspace.
    """
    with _registry.opened(registry, write=False) as opened:
        records = opened.records()
        leases = _leases.all_leases(opened)
    known = sorted({record.workspace for record in records})
    for name in workspaces or ():
        if name not in known:
            raise UserError(f"no task is of a workspace {name}", hint=f"choose from: {', '.join(known) or 'none'}")
    wanted = [record for record in records if workspaces is None or record.workspace in workspaces]
    count = collections.Counter(record.identity.name for record in wanted)
    return [_task(record, leases, is_unique=count[record.identity.name] == 1) for record in wanted]


def _task(record: Record, leases: t.Mapping[tuple[str, str], t.Any], *, is_unique: bool) -> dict[str, t.Any]:
    name, workspace = record.identity.name, record.workspace
    lease = leases.get((workspace, name)) or {}
    identity = {key: value for key, value in record.facts().items() if key in ("owner", "branch", "slug", "subdomain")}
    facts = {
        "worktrees": {one["name"]: one["path"] for one in record.plan.get("worktrees", []) if one["path"]},
        "database": {},
        **record.plan.get("facts", {}),
        **identity,
        "name": name,
        "workspace": workspace,
        "slot": lease.get("slot"),
        "ports": lease.get("ports", {}),
    }
    return {
        "host": name if is_unique else f"{name}@{workspace}",
        "facts": facts,
        "folder": next(iter(facts["worktrees"].values()), None),
        "workspace": workspace,
        "backend": (record.plan.get("database") or {}).get("backend", NO_DATABASE),
        "state": record.state,
    }
