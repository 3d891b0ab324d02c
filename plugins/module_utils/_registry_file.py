# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of the registry: its tables, one transaction on it, its copy, and what people read when it cannot be used.

Private to this collection: may change without notice.

What is damaged is never used: with a record that is lost, the worktrees and databases of a task would count as those of
no task. SQLite finds damage of its own structures, the names of tables and columns are compared, and a digest finds
changed letters within a record.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sqlite3
import stat
import time
import typing as t
import urllib.parse

from . import _clock, _files, _progress
from ._errors import EnvironmentFailure

SCHEMA = """
create table registry (
    id text not null
);
insert into registry (id) values (lower(hex(randomblob(4))));
create table task (
    workspace text not null,
    name text not null,
    root text not null,
    branch text not null,
    slug text not null,
    subdomain text not null,
    state text not null,
    holder text,
    plan text not null default '{}',
    created real not null,
    updated real not null,
    primary key (workspace, name),
    unique (workspace, slug)
) without rowid;
create table lease (
    workspace text not null,
    owner text not null,
    slot integer not null,
    created real not null,
    primary key (workspace, owner),
    unique (workspace, slot)
) without rowid;
create table port (
    number integer primary key,
    name text not null,
    workspace text not null,
    owner text not null,
    foreign key (workspace, owner) references lease (workspace, owner) on delete cascade
);
create table past (
    workspace text not null,
    name text not null,
    ended real not null,
    primary key (workspace, name)
) without rowid;
"""
RESERVATIONS = """
create table reservation (
    workspace text not null,
    repo text not null,
    glob text not null,
    task text not null,
    reason text not null,
    expires real not null,
    primary key (workspace, repo, glob, task),
    foreign key (workspace, task) references task (workspace, name) on delete cascade
) without rowid;
"""
LEASES_THAT_END = """
alter table lease add column seconds real;
alter table lease add column expires real;
alter table lease add column passed_over text not null default '[]';
"""
DIGESTS = """
alter table task add column digest text;
"""
MOMENTS = """
alter table registry add column moment text;
"""
KEPT_DATABASES = """
create table kept (
    workspace text not null,
    name text not null,
    plan text not null,
    slot integer,
    since real not null,
    primary key (workspace, name)
) without rowid;
"""
VERSIONS = (SCHEMA, RESERVATIONS, LEASES_THAT_END, DIGESTS, MOMENTS, KEPT_DATABASES)
"""What brings a registry from each version to the next."""
COPY = ".copy"
"""Beside the file: what it was after the last commit."""
BUSY_SECONDS = 60
TIMES = {
    "task": ("created", "updated"),
    "lease": ("created", "expires"),
    "past": ("ended",),
    "reservation": ("expires",),
}
"""The columns with times by the wall clock."""
DIGESTED = ("workspace", "name", "root", "branch", "slug", "subdomain", "plan")


@contextlib.contextmanager
def transaction(path: str, *, write: bool) -> t.Iterator[sqlite3.Connection]:
    """One transaction on the tables of the newest version.

    :arg write: without it the transaction is undone at its end, and no file is made or touched.
    :raises EnvironmentFailure: the file cannot be used.
    """
    _refuse_lost(path)
    try:
        with contextlib.closing(_checked(path, write=write)) as connection:
            before = connection.total_changes
            yield connection
            if connection.total_changes > before:
                connection.execute("update registry set moment = ?", (str(_clock.now()),))
            connection.execute("commit" if write else "rollback")
            if write and not _has_copy(path):
                _keep_copy(connection, path)
    except sqlite3.DatabaseError as error:
        raise _failure(path, error) from error


def _checked(path: str, *, write: bool) -> sqlite3.Connection:
    """A connection with a transaction begun, on tables of the newest version that are not damaged."""
    connection = None
    try:
        connection = _connected(path, write=write)
        _ensure_schema(connection, path)
        _check(connection)
        _follow_clock(connection)
    except BaseException as error:
        if connection:
            connection.close()
        if isinstance(error, UnicodeDecodeError):  # SQLite's message quotes the damaged definition of a table
            raise malformed("the definition of a table") from None
        raise
    return connection


def digest(registry: str, record: t.Mapping[str, t.Any]) -> str:
    """What shows that a record is still as it was written.

    :arg registry: its id; one that is changed fits no record any more.
    :arg record: a row of the table ``task``.
    """
    content = json.dumps([registry, *(record[key] for key in DIGESTED)])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def malformed(what: str) -> sqlite3.DatabaseError:
    """As SQLite itself tells of damage."""
    return sqlite3.DatabaseError(f"{what} is malformed")


def _refuse_lost(path: str) -> None:
    """Refuse to begin anew where the copy tells that there was a registry."""
    if not _size(path) and _size(path + COPY):
        what = "is gone" if _size(path) is None else "is empty"
        raise EnvironmentFailure(
            f"cannot use the registry {path}: it {what}, and its copy of {_time_of(path + COPY)} is there",
            hint=f"restore it: cp {path}{COPY} {path}\n"
            f"      or, where all its tasks are to be forgotten: rm {path}{COPY}",
        )


def _size(path: str) -> int | None:
    """The size of a file; None where there is none.

    :raises EnvironmentFailure: that cannot be determined.
    """
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot use the registry {path}: {error.strerror}", hint=f"look at its folders: namei -l {path}"
        ) from error


def _time_of(path: str) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(os.stat(path).st_mtime))


def _connected(path: str, *, write: bool) -> sqlite3.Connection:
    """A connection with a transaction begun."""
    is_new = _size(path) is None
    if write:
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot make the folder of the registry {path}: {error.strerror}",
                hint=f"make it, or name another file: workspace_registry; its folders: namei -l {path}",
            ) from error
        connection = _begun(path, "begin immediate", file=path)
        if is_new:
            _close_to_others(path)
    elif is_new:
        connection = _begun(":memory:", "begin", file=path)
    else:
        # Only one who may write can undo what a killed run left half written; the journal tells of it.
        mode = "rw" if os.path.exists(f"{path}-journal") else "ro"
        target = f"file:{urllib.parse.quote(path)}?mode={mode}"
        with contextlib.closing(_begun(target, "begin; select 1 from sqlite_master", file=path)) as source:
            # What check mode would write must go somewhere: a copy in memory.
            connection = _opened(":memory:")
            source.backup(connection)
        connection.execute("begin")
    return connection


def _begun(target: str, statements: str, *, file: str) -> sqlite3.Connection:
    """A connection in a transaction; where another process has the file, it waits, and tells so."""
    connection = _opened(target)
    patience = f"pragma busy_timeout = {BUSY_SECONDS * 1000:d}"
    try:
        try:
            _execute(connection, f"{statements}; {patience}")  # a commit waits for those who read
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            if connection.in_transaction:
                connection.execute("rollback")
            with _progress.told(lambda: f"waiting for the registry {file}, which {_users(file)} uses"):
                _execute(connection, f"{patience}; {statements}")
    except BaseException:
        connection.close()
        raise
    return connection


def _opened(target: str) -> sqlite3.Connection:
    connection = sqlite3.connect(target, uri=target.startswith("file:"), timeout=0, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma foreign_keys = on")
    return connection


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split("; "):
        connection.execute(statement).fetchall()


def _close_to_others(path: str) -> None:
    """Other users of a shared registry get the access that its folder gives them; a private one stays private."""
    with contextlib.suppress(OSError):
        if os.stat(os.path.dirname(path) or ".").st_mode & 0o077 == 0:
            os.chmod(path, 0o600)


def _ensure_schema(connection: sqlite3.Connection, path: str) -> None:
    version = connection.execute("pragma user_version").fetchone()[0]
    if version > len(VERSIONS):
        raise EnvironmentFailure(
            f"the registry {path} has version {version}, and this collection knows {len(VERSIONS)}",
            hint="update the collection: ansible-galaxy collection install parallel.worktrees --upgrade",
        )
    statements = [one for script in VERSIONS[version:] for one in script.split(";\n") if one.strip()]
    for statement in statements:
        connection.execute(statement)
    if statements:
        connection.execute(f"pragma user_version = {len(VERSIONS):d}")


def _check(connection: sqlite3.Connection) -> None:
    """See that nothing is damaged; it takes a millisecond.

    :raises sqlite3.DatabaseError: something is.
    """
    found = [row[0] for row in connection.execute("pragma integrity_check(1)")]
    if found != ["ok"]:
        raise sqlite3.DatabaseError(f"malformed: {found[0]}")
    if not _columns(connection) >= _columns_of_the_newest():
        raise malformed("the definition of a table")
    ids = connection.execute("select id from registry").fetchall()
    if len(ids) != 1:
        raise malformed("its id")
    for record in connection.execute("select * from task"):
        if record["digest"] not in (None, digest(ids[0]["id"], record)):
            raise malformed(f"its record of task {record['name']}")


def _columns(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """The names of each table and its columns. SQLite takes a damaged name for another name."""
    rows = connection.execute(
        "select m.name, c.name from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table'"
    )
    return {tuple(row) for row in rows}


@functools.cache
def _columns_of_the_newest() -> set[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("".join(VERSIONS))
        return _columns(connection)


def _follow_clock(connection: sqlite3.Connection) -> None:
    """Move all times along where the clock was set since they were written: leases last as long as they were to."""
    try:
        moment = _clock.Moment.parse(connection.execute("select moment from registry").fetchone()["moment"])
    except ValueError as error:
        raise malformed("its time") from error
    if moment and (step := moment.set_since(now := _clock.now())):
        for table, columns in TIMES.items():
            moved = ", ".join(f"{column} = {column} + :step" for column in columns)
            connection.execute(f"update {table} set {moved}", {"step": step})  # noqa: S608 - names of ours
        connection.execute("update registry set moment = ?", (str(now),))


def _has_copy(path: str) -> bool:
    """Whether the copy is that of the last commit: a run may have been killed before it made its own."""
    try:
        return os.stat(path + COPY).st_mtime_ns >= os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return False


def _keep_copy(connection: sqlite3.Connection, path: str) -> None:
    """Keep the file as it is now beside it: the way back where it is damaged or lost.

    Where that cannot be written there is none: from one that is older, tasks would be missing.
    """
    with contextlib.suppress(EnvironmentFailure), _files.locked(os.path.dirname(path) or "."):
        temporary = _files.temporary_name(*os.path.split(path + COPY))
        try:
            connection.execute("pragma busy_timeout = 0")
            _execute(connection, "begin; select 1 from sqlite_master")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
                os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
                _execute(copy, "pragma synchronous = off; pragma journal_mode = memory")
                connection.backup(copy)
            os.replace(temporary, path + COPY)
        except (OSError, sqlite3.DatabaseError) as error:
            if "locked" in str(error):
                return  # who writes just now makes the copy after that
            for one in (temporary, path + COPY):
                with contextlib.suppress(OSError):
                    os.unlink(one)


def _failure(path: str, error: sqlite3.DatabaseError) -> EnvironmentFailure:
    reason = str(error)
    folder = os.path.dirname(path) or "."
    if "locked" in reason:
        return EnvironmentFailure(
            f"cannot use the registry {path}: {_users(path)} has held it for {BUSY_SECONDS} s",
            hint=f"try again when that has ended; what it is: fuser -v {path}",
        )
    hints = {
        "readonly": f"give this user write access to it and its folder: ls -ld {folder} {path}",
        "full": f"free some space: df -h {folder}",
        "unable to open": f"look at the folder and its owner: ls -ld {folder}",
        "disk I/O error": f"look at the disk: df -h {folder}; dmesg | tail",
    }
    hint = next((text for words, text in hints.items() if words in reason), None)
    return EnvironmentFailure(f"cannot use the registry {path}: {reason}", hint=hint or _way_back(path))


def _way_back(path: str) -> str:
    """What a person does about a damaged registry; its tasks' worktrees and databases are all still there."""
    if os.path.exists(path + COPY):
        return f"restore its copy of {_time_of(path + COPY)}: mv {path} {path}.damaged && cp {path}{COPY} {path}"
    return f"put it aside and see what is left: mv {path} {path}.damaged, then run status"


def _users(path: str) -> str:
    """Who holds a lock on the file, in words (proc_locks(5))."""
    found = set()
    with contextlib.suppress(OSError):
        inode = os.stat(path).st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks if "->" not in line]
        for pid in {fields[4] for fields in lines if fields[5].endswith(f":{inode}")}:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                found.add(f"process {pid} ({comm.read().strip()})")
    return " and ".join(sorted(found)) or "another process"
