# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry: one SQLite file per machine that knows every task, its lease, and what was made for it.

Private to this collection: may change without notice.

A record is written before the first resource of its task exists, and goes after the last one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import sqlite3
import time
import typing as t

from . import _registry_file
from ._errors import UserError
from ._holder import Holder
from ._identity import Identity, distinct_subdomain
from ._state import registry_path

STATUS = "ansible-playbook parallel.worktrees.status"


@dataclasses.dataclass(frozen=True)
class Kept:
    """The database that stayed when its task was torn down, and that the next task of this name uses again.

    :ivar owner: the mark that it carries.
    :ivar plan: that of the task, without anything but ``database``.
    :ivar slot: that of the task, whose ports the database may have; no other task leases it.
    """

    owner: str
    name: str
    plan: dict[str, t.Any]
    slot: int | None

    def is_database_of(self, plan: dict[str, t.Any]) -> bool:
        """Whether the plan of a task means this database."""
        database = plan.get("database") or {}
        return all(database.get(key) == self.plan["database"].get(key) for key in ("backend", "name"))


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of one task.

    :ivar registry: the id of the registry: two users may well give a workspace and a task the same names.
    :ivar state: ``provisioning``, ``ready`` or ``removing``.
    :ivar plan: the resources that are made for it, or are about to be.
    :ivar created: seconds since the epoch.
    """

    registry: str
    workspace: str
    root: str
    identity: Identity
    state: str
    holder: Holder | None
    plan: dict[str, t.Any]
    created: float
    updated: float

    @property
    def owner(self) -> str:
        """The mark that every resource of the task carries."""
        return owner_of(self.registry, self.workspace, self.identity.name)

    def has(self, worktree: str) -> bool:
        """Whether a folder is one of its worktrees."""
        places = (os.path.realpath(one["path"]) for one in self.plan.get("worktrees", []) if one["path"])
        return os.path.realpath(worktree) in places

    def facts(self) -> dict[str, t.Any]:
        return {
            "owner": self.owner,
            **dataclasses.asdict(self.identity),
            "workspace": self.workspace,
            "root": self.root,
            "state": self.state,
            "plan": self.plan,
            "created": self.created,
            "busy": self.busy_with(None),
        }

    def busy_with(self, me: Holder | None) -> str | None:
        """Who else is at work on this task right now, in words."""
        if self.holder is None or self.holder == me or not self.holder.is_at_work(since=self.updated):
            return None
        return str(self.holder)


def at(records: t.Iterable[Record], worktree: str) -> Record:
    """The record of the task that has a worktree.

    :raises UserError: none has.
    """
    for record in records:
        if record.has(worktree):
            return record
    raise UserError(
        f"no task has the worktree {worktree}",
        hint="see which worktrees they have: ansible-playbook parallel.worktrees.status -e format=json",
    )


def unknown(name: str, workspace: str | None, known: t.Collection[str]) -> UserError:
    """The refusal of a task that has no record.

    :arg workspace: None where all are looked at.
    :arg known: the names that it could have been.
    """
    where = f"workspace {workspace}" if workspace else "this registry"
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif known:
        hint = f"the tasks of {where} are {', '.join(known)}"
    else:
        hint = f"{where} has no task; see all: {STATUS}"
    return UserError(f"there is no task {name} in {where}", hint=hint)


def owner_of(registry: str, workspace: str, task: str) -> str:
    return f"{workspace}/{task}@{registry}"


def task_of(owner: str) -> tuple[str, str, str]:
    """The registry, workspace and task that a mark of ownership names; a mark may lack the registry."""
    rest, at, registry = owner.rpartition("@")
    workspace, _slash, task = (rest if at else owner).partition("/")
    return registry if at else "", workspace, task


class Registry:
    """One open transaction on the registry; made by :func:`opened`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.sql = connection
        self.id: str = connection.execute("select id from registry").fetchone()["id"]

    def record(self, workspace: str, name: str) -> Record | None:
        found = self.sql.execute("select * from task where workspace = ? and name = ?", (workspace, name)).fetchone()
        return None if found is None else self._record(found)

    def records(self, workspace: str | None = None) -> list[Record]:
        """All records, or those of a workspace, oldest first."""
        query = "select * from task where ?1 is null or workspace = ?1 order by workspace, created, name"
        return [self._record(row) for row in self.sql.execute(query, (workspace,))]

    def add(self, workspace: str, root: str, identity: Identity, holder: Holder | None) -> Record:
        """Write the record of a new task; a subdomain that another task has is made distinct."""
        taken = self.sql.execute(
            "select 1 from task where workspace = ? and subdomain = ?", (workspace, identity.subdomain)
        ).fetchone()
        if taken:
            identity = distinct_subdomain(identity)
        now = time.time()
        names = dataclasses.asdict(identity)
        row = {"workspace": workspace, "root": root, **names, "plan": "{}", "state": "provisioning"}
        row |= {"holder": _dump_holder(holder), "created": now, "updated": now}
        row["digest"] = _registry_file.digest(self.id, row)
        columns, values = ", ".join(row), ", ".join(f":{key}" for key in row)
        try:
            self.sql.execute(f"insert into task ({columns}) values ({values})", row)  # noqa: S608 - names of ours
        except sqlite3.IntegrityError as error:
            raise UserError(
                f"the branch {identity.branch!r} belongs to another task of workspace {workspace}",
                hint="ansible-playbook parallel.worktrees.status shows every task",
            ) from error
        return Record(self.id, workspace, root, identity, "provisioning", holder, {}, now, now)

    def update(self, record: Record, *, state: str, holder: Holder | None, plan: dict[str, t.Any]) -> Record:
        now = time.time()
        row = {"workspace": record.workspace, "root": record.root, **dataclasses.asdict(record.identity)}
        row |= {"state": state, "holder": _dump_holder(holder), "plan": json.dumps(plan), "updated": now}
        row["digest"] = _registry_file.digest(self.id, row)
        self.sql.execute(
            "update task set state = :state, holder = :holder, plan = :plan, updated = :updated, digest = :digest"
            " where workspace = :workspace and name = :name",
            row,
        )
        return dataclasses.replace(record, state=state, holder=holder, plan=plan, updated=now)

    def withdraw(self, record: Record) -> None:
        """Forget a task for which nothing was made, and its lease."""
        key = (record.workspace, record.identity.name)
        self.sql.execute("delete from lease where workspace = ? and owner = ?", key)
        self.sql.execute("delete from task where workspace = ? and name = ?", key)

    def remove(self, record: Record) -> None:
        """Forget a task, but for the time at which it ended: a second teardown is then told from a wrong name."""
        self.withdraw(record)
        key = (record.workspace, record.identity.name)
        self.sql.execute("insert or replace into past (workspace, name, ended) values (?, ?, ?)", (*key, time.time()))

    def keep(self, record: Record, slot: int | None) -> None:
        """Remember the database of a task that is about to be forgotten."""
        key = (record.workspace, record.identity.name)
        self.sql.execute(
            "insert or replace into kept (workspace, name, plan, slot, since) values (?, ?, ?, ?, ?)",
            (*key, json.dumps(record.plan["database"]), slot, time.time()),
        )

    def kept(self, workspace: str | None = None) -> dict[str, Kept]:
        """The databases that were kept, by the mark that they carry."""
        rows = self.sql.execute("select * from kept where ?1 is null or workspace = ?1", (workspace,))
        found = {}
        for row in rows:
            mark = owner_of(self.id, row["workspace"], row["name"])
            try:
                plan = {"database": dict(json.loads(row["plan"]))}
            except (TypeError, ValueError) as error:
                raise _registry_file.malformed(f"what it has of the kept database of {row['name']}") from error
            found[mark] = Kept(mark, row["name"], plan, row["slot"])
        return found

    def forget_kept(self, workspace: str, name: str) -> None:
        """A kept database is a task's again, or gone."""
        self.sql.execute("delete from kept where workspace = ? and name = ?", (workspace, name))

    def _record(self, row: sqlite3.Row) -> Record:
        try:
            return Record(
                registry=self.id,
                workspace=row["workspace"],
                root=row["root"],
                identity=Identity(row["name"], row["branch"], row["slug"], row["subdomain"]),
                state=row["state"],
                holder=None if row["holder"] is None else Holder(**json.loads(row["holder"])),
                plan=json.loads(row["plan"]),
                created=float(row["created"]),
                updated=float(row["updated"]),
            )
        except (TypeError, ValueError) as error:
            raise _registry_file.malformed(f"its record of task {row['name']}") from error

    def ended(self, workspace: str, name: str) -> float | None:
        """When a task of that name was last torn down, in seconds since the epoch."""
        found = self.sql.execute(
            "select ended from past where workspace = ? and name = ?", (workspace, name)
        ).fetchone()
        return None if found is None else t.cast(float, found["ended"])


def _dump_holder(holder: Holder | None) -> str | None:
    return None if holder is None else json.dumps(dataclasses.asdict(holder))


@contextlib.contextmanager
def opened(path: str | None, *, write: bool) -> t.Iterator[Registry]:
    """One transaction on the registry.

    :arg path: the file; the user's own where it is None.
    :arg write: without it the transaction is undone at its end, and no file is made or touched.
    :raises EnvironmentFailure: the file is damaged, lost, read-only, on a full disk, locked, or of a newer version.
    """
    with _registry_file.transaction(os.path.expanduser(path) if path else registry_path(), write=write) as connection:
        yield Registry(connection)
