# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every task as it is: what the registry says, what is really there, and where the two disagree.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import typing as t

from . import (
    _clusters,
    _containers,
    _databases,
    _elsewhere,
    _git,
    _leases,
    _postgres,
    _registry,
    _reservations,
    _shared,
    _task_branch,
    _trash,
    _work,
    _worktree_status,
)
from ._door import Params, Result, filled
from ._errors import EnvironmentFailure, WorktreesError
from ._git import MAKING, Repository
from ._identity import expand
from ._leases import Lease
from ._manifest import Manifest
from ._records import age
from ._registry import Kept, Record, owner_of, task_of

ARGUMENT_SPEC: dict[str, t.Any] = {
    "registry": {"type": "path"},
    "workspace": {"type": "str"},
    "task": {"type": "str"},
    "worktree": {"type": "path"},
    "count": {"type": "int"},
    "repos": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "repo": {"type": "path", "required": True},
        },
    },
    "backend": {"type": "str"},
    "docker_host": {"type": "str"},
    "directory": {"type": "path"},
    "branches": {"type": "list", "elements": "dict"},
    "shared": {
        "type": "dict",
        "options": {
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "required": True},
            "container": {"type": "str"},
            **_shared.ADMINISTRATION,
        },
    },
    "disposable": {"type": "list", "elements": "str", "default": list(_work.DISPOSABLE)},
    "format": {"type": "str", "choices": ["table", "json"]},
}

COLUMNS = ("TASK", "STATE", "SLOT", "PORTS", "DATABASE", "AGE", "GIT", "DRIFT")


def operation(params: Params, *, check: bool) -> Result:  # noqa: ARG001 - it touches nothing anyway
    """Look at all tasks, or those of one workspace; touches nothing."""
    with _registry.opened(params["registry"], write=False) as registry:
        every = registry.records(params["workspace"])
        known = {record.owner for record in registry.records()}
        ours = registry.id
        kept = registry.kept(params["workspace"])
        leases = _leases.all_leases(registry)
        workspaces = {record.workspace for record in every}
        reserved = {workspace: _reservations.reservations(registry, workspace) for workspace in workspaces}
    wanted = None if params["task"] is None else expand(params["task"], params["count"])
    if wanted is None and params["worktree"]:
        wanted = [_registry.at(every, params["worktree"]).identity.name]
    records = [record for record in every if wanted is None or record.identity.name in wanted]
    if wanted is not None:
        records.sort(key=lambda record: wanted.index(record.identity.name))  # as they were named
    names = list(dict.fromkeys(record.identity.name for record in every))
    for name in wanted or []:
        if name not in names:
            raise _registry.unknown(name, params["workspace"], names)
    silent: dict[str, str] = {}
    databases = _all_databases([*every, *kept.values()], params, ours, silent)
    repositories = _worktree_status.Repositories()

    def look(record: Record) -> dict[str, t.Any]:
        worktrees = _worktree_status.look_at(record, repositories, params["disposable"])
        return _task(record, worktrees, leases, databases, silent)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tasks = list(pool.map(look, records))
    for task in tasks:
        task["reservations"] = [
            {**dataclasses.asdict(one), "told": str(one)}
            for one in reserved[task["workspace"]]
            if one.task == task["name"]
        ]
    orphans = [] if wanted else _orphans(params, every, repositories, leases, known, databases, kept, ours)
    if params["format"] == "json":
        told = [{key: value for key, value in task.items() if key != "plan"} for task in tasks]
        report = json.dumps({"tasks": told, "orphans": orphans}, indent=2, sort_keys=True)
    elif params["format"] == "table":
        report = _table(tasks, orphans, one_workspace=params["workspace"] is not None)
        report += "".join(f"\nnot looked into: {why}" for why in sorted(silent.values()))
    else:
        report = None
    return {
        "changed": False,
        "diff": [],
        "actions": [],
        "tasks": tasks,
        "orphans": orphans,
        "silent": sorted(silent.values()),
        "report": report,
    }


def _task(
    record: Record,
    worktrees: list[dict[str, t.Any]],
    leases: t.Mapping[tuple[str, str], Lease],
    databases: t.Mapping[str, dict[str, t.Any]],
    silent: t.Mapping[str, str],
) -> dict[str, t.Any]:
    name = record.identity.name
    lease = leases.get((record.workspace, name))
    drift = [line for about in worktrees for line in about.pop("drift")]
    database = dict(record.plan.get("database") or {})
    if database:
        state, fault = _database_state(
            database, databases.get(_database_key(database)), silent.get(_place(database) or "")
        )
        if record.state == "ready" and fault:
            drift.append(fault)
        database = {"backend": database["backend"], "name": database["name"], "state": state}
    if lease is None:
        drift.append("no lease")
    busy = record.busy_with(None)
    if record.state != "ready" and not busy:
        drift.append("interrupted: run provision or teardown")
    return {
        "name": name,
        "owner": record.owner,
        "workspace": record.workspace,
        "root": record.root,
        "branch": record.identity.branch,
        "slug": record.identity.slug,
        "subdomain": record.identity.subdomain,
        "state": record.state,
        "busy": busy,
        "slot": lease["slot"] if lease else None,
        "ports": lease["ports"] if lease else {},
        "passed_over": lease["passed_over"] if lease else [],
        "expires": lease["expires"] if lease else None,
        "agent": record.plan.get("agent", {}),
        "database": database or {"backend": "none", "name": None, "state": "none"},
        "created": record.created,
        "age": age(record.created),
        "worktrees": worktrees,
        "drift": drift,
        "plan": record.plan,
    }


def _all_databases(
    records: t.Sequence[Record | Kept], params: Params, ours: str, silent: dict[str, str]
) -> dict[str, dict[str, t.Any]]:
    """All databases of ours that the back ends in use know, by back end and name.

    :arg silent: takes the places that do not answer, and why.
    """
    found: dict[str, dict[str, t.Any]] = {}
    plans = [
        {**plan, "owner": record.owner, "password_file": _databases.password_file(record.owner)}
        for record in records
        if (plan := record.plan.get("database"))
    ]
    if params["branches"] is None:
        found |= _task_branch.found([plan for plan in plans if plan["backend"] == "branch"])
    for one in params["branches"] or ():
        if task_of(one["owner"])[0] == ours:  # a DB host serves other machines, too
            works = one["phase"] == "ready" and one["running"] and one["routed"]
            found[f"branch {one['name']}"] = {**one, "running": works}
    places = _databases.Places.of([*plans, said(params)])
    for host in places.docker_hosts:
        try:
            with _containers.connected(host) as client:
                for one in _containers.containers(client):
                    found[f"container {one['name']}"] = {**one, "docker_host": host}
        except EnvironmentFailure as failure:
            silent[f"container {host}"] = failure.message
    for folder in places.directories:
        for one in _clusters.clusters(folder):
            found[f"embedded {one['name']}"] = {**one, "directory": folder}
    return found | _shared.found(places.servers, silent)


def _place(plan: dict[str, t.Any]) -> str | None:
    """Where the database of a plan is; None where that always answers, or is asked for each."""
    if plan["backend"] == "shared":
        return _shared.place_of(plan)
    return f"container {plan['container']['docker_host']}" if plan["backend"] == "container" else None


def _database_key(plan: dict[str, t.Any]) -> str:
    if plan["backend"] == "shared":
        return _shared.key_of(plan)
    return f"{plan['backend']} {_postgres.fit_name(plan['name'])}"


def said(params: Params) -> dict[str, t.Any]:
    """Where the workspace has its databases by now, as the plan of a task has it."""
    plan = {key: params[key] for key in ("backend", "docker_host", "directory")}
    shared = params["shared"]
    if params["backend"] != "shared" or shared is None:
        return plan
    container = {"name": shared["container"], "docker_host": params["docker_host"]} if shared["container"] else None
    server = filled(_shared.ARGUMENT_SPEC, {**shared, "container": container})
    return {**plan, "address": shared["address"], "port": shared["port"], "shared": server}


def _database_state(
    plan: dict[str, t.Any], found: dict[str, t.Any] | None, silence: str | None
) -> tuple[str, str | None]:
    """How the database of a task is, and what is wrong with that.

    :arg silence: why the place of it does not answer.
    """
    name = plan["name"]
    if found is None and silence:
        return "unknown", f"database {name} is unknown: {silence}"
    if found is None:
        return "missing", f"database {name} is missing"
    if not found["running"]:
        return "stopped", f"database {name} is stopped"
    if plan["backend"] == "shared" and (gone := sorted(_shared.names(plan) - _shared.names(found))):
        return "incomplete", f"database {', '.join(gone)} is missing"
    return "running", None


def _orphans(
    params: Params,
    records: t.Sequence[Record],
    repositories: _worktree_status.Repositories,
    leases: t.Mapping[tuple[str, str], Lease],
    known: set[str],
    databases: t.Mapping[str, dict[str, t.Any]],
    kept: t.Mapping[str, Kept],
    ours: str,
) -> list[dict[str, t.Any]]:
    """What carries a mark of ownership and belongs to no registered task.

    Each says whether its mark is of this registry, for another's tasks may well be alive, and whether it is a database
    that was kept when its task was torn down.
    """
    workspace = params["workspace"]

    def is_orphan(owner: str | None) -> bool:
        return owner not in known and (owner is None or workspace in (None, task_of(owner)[1]))

    orphans: list[dict[str, t.Any]] = []
    everything = [one for record in records for one in record.plan.get("worktrees", [])]
    planned = {os.path.realpath(one["path"]) for one in everything if one["path"]}
    for repo in params["repos"]:
        with contextlib.suppress(WorktreesError):
            repository = repositories.at(repo["repo"], repo["name"])
            orphans += _trash_of(repository)
            for listed in repositories.worktrees(repository)[1:]:
                if os.path.realpath(listed.path) in planned:
                    continue
                admin = repository.admin_of(listed.path)
                owner = Manifest.in_admin(listed.path, admin).owner if admin else None
                if (owner or listed.lock == MAKING) and is_orphan(owner):
                    orphans.append(
                        {
                            "kind": "worktree",
                            "name": listed.path,
                            "owner": owner,
                            "repo": repo["repo"],
                            "path": listed.path,
                            "branch": listed.branch,
                            "submodules": _submodules(repository, listed.path),
                        }
                    )
    for key, one in databases.items():
        owner = str(one.get("owner"))
        if is_orphan(owner):
            is_kept = owner in kept and _database_key(kept[owner].plan["database"]) == key
            orphans.append({**one, "kind": key.partition(" ")[0], "owner": owner, "kept": is_kept})
    for (space, owner), lease in leases.items():
        mark = owner_of(ours, space, owner)
        if is_orphan(mark):
            orphans.append({"kind": "lease", "name": f"slot {lease['slot']}", "owner": mark})
    return [
        {"kept": False, **orphan, "ours": orphan["owner"] is None or task_of(orphan["owner"])[0] == ours}
        for orphan in orphans
    ]


def _trash_of(repository: Repository) -> list[dict[str, t.Any]]:
    """What removals have left in the trash of a repository and its submodules."""
    commons = (repository.common, *_elsewhere.submodules(repository.common))
    with repository.locked():
        return [
            {"kind": "trash", "name": place, "owner": None, "common": common}
            for common in commons
            for place in _trash.left(common)
        ]


def _submodules(repository: Repository, worktree: str) -> list[str]:
    """The submodules that have worktrees of their own within a worktree."""
    options = ("--file", ".gitmodules", "-z", "--get-regexp", r"^submodule\..*\.path$")
    pairs = (
        entry.split("\n", 1) for entry in _git.git(repository.path, "config", *options).stdout.split("\0") if entry
    )
    modules = {path: key.removeprefix("submodule.").removesuffix(".path") for key, path in pairs}
    return [
        path
        for path, name in modules.items()
        if Repository(path, os.path.join(repository.common, "modules", name)).admin_of(os.path.join(worktree, path))
    ]


def _table(tasks: t.Sequence[dict[str, t.Any]], orphans: t.Sequence[dict[str, t.Any]], *, one_workspace: bool) -> str:
    if not tasks and not orphans:
        return "no tasks"
    rows: list[tuple[str, ...]] = [COLUMNS, *(_row(task, one_workspace=one_workspace) for task in tasks)]
    if any(task["agent"] for task in tasks):
        rows = [(*row, who) for row, who in zip(rows, ("AGENT", *map(_who, tasks)), strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not tasks:
        lines = ["no tasks"]
    lines += [f"reserved by {task['name']}: {one['told']}" for task in tasks for one in task["reservations"]]
    ours = [orphan for orphan in orphans if orphan["ours"]]
    lines += [
        f"{'kept' if orphan['kept'] else 'orphan'} {orphan['kind']} {orphan['name']} of {orphan['owner'] or 'nobody'}"
        for orphan in ours
    ]
    if any(not orphan["kept"] for orphan in ours):
        lines.append("see what would be cleaned: ansible-playbook parallel.worktrees.prune")
    if len(ours) < len(orphans):
        lines.append(f"not looked at: {len(orphans) - len(ours)} of another registry of this machine")
    return "\n".join(lines)


def _who(task: dict[str, t.Any]) -> str:
    """Who works on a task: the program and its model, and what it is to do."""
    agent = task["agent"]
    name = " ".join(str(agent[key]) for key in ("program", "model") if key in agent)
    return ": ".join(part for part in (name, " ".join(str(agent.get("description", "")).split())) if part) or "-"


def _row(task: dict[str, t.Any], *, one_workspace: bool) -> tuple[str, ...]:
    database = task["database"]
    states = [worktree["state"] for worktree in task["worktrees"]]
    git = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "-"
    ahead = sum(worktree.get("ahead", 0) for worktree in task["worktrees"])
    return (
        task["name"] if one_workspace else f"{task['workspace']}/{task['name']}",
        task["state"] + (" (at work)" if task["busy"] else ""),
        "-" if task["slot"] is None else str(task["slot"]),
        " ".join(f"{name}:{number}" for name, number in task["ports"].items()) or "-",
        "-" if database["backend"] == "none" else f"{database['name']} ({database['backend']}, {database['state']})",
        task["age"],
        git + (f", {ahead} unpushed" if ahead else ""),
        "; ".join(task["drift"]) or "-",
    )
