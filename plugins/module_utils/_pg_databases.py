# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's databases in a PostgreSQL server that others use as well.

Private to this collection: may change without notice.

A task has one role, which owns its databases and alone may connect to them. Comments are the marks of ownership:

    on the role        {"owner": <mark>, "creating": [<names>]}    before a database is made
    on the database    {"owner": <mark>}                           when it is complete

What a killed run left half made thus belongs to the role, is named by it, and has no mark of its own: it is dropped
and made anew. A comment that somebody overwrote makes a database a stranger's, never a half-made one.

Runs for one role queue at an advisory lock. The server holds it until the last copy of our connection's socket is
closed, and keeps it through a statement whose asker was killed; pg_restore inherits the socket. So when the lock is
had, nobody is at work any more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
import shutil
import time
import typing as t
import zlib

from . import _commands, _postgres, _secrets
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError, WorktreesError

if t.TYPE_CHECKING:
    from psycopg2.sql import Composed

ARGUMENT_SPEC: dict[str, t.Any] = {
    "databases": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "template": {"type": "str"},
            "dump": {"type": "path"},
            "extensions": {"type": "list", "elements": "str", "default": []},
            "connection_limit": {"type": "int"},
            "strategy": {"type": "str", "choices": ["auto", "wal_log", "file_copy"], "default": "auto"},
        },
    },
    "owner": {"type": "str", "required": True},
    "role": {"type": "str", "required": True},
    "password_file": {"type": "path", "no_log": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 5432},
    "admin_user": {"type": "str", "default": "postgres"},
    "admin_password_file": {"type": "path", "no_log": False},
    "maintenance_database": {"type": "str", "default": "postgres"},
    "protected": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "float", "default": 60},
}

PROTECTED = {"postgres", "template0", "template1"}
LOCK = 0x7077
"""First key of our advisory locks; the second is the role's."""

FORCE_SINCE, STRATEGY_SINCE, CLONE_SINCE = 130000, 150000, 180000
"""The versions of the server that brought DROP .. WITH (FORCE), CREATE .. STRATEGY, and file_copy_method."""

LARGE, LARGE_TO_CLONE = 64 << 20, 32 << 20
"""From how many bytes on FILE_COPY, with its two checkpoints, beats WAL_LOG on a server that waits for its disk."""

NO_LIMIT, CLOSED, INVALID = -1, 0, -2
"""Connection limits; the last is PostgreSQL's mark of a database whose removal was interrupted."""

STARTING = r"the database system is (starting up|shutting down|in recovery|not yet)"

ROLE = "select oid, shobj_description(oid, 'pg_authid'), rolconnlimit from pg_roles where rolname = %(name)s"

DATABASES = """
select d.oid, d.datname, r.rolname, shobj_description(d.oid, 'pg_database'), shobj_description(r.oid, 'pg_authid'),
    d.datistemplate, d.datallowconn, d.datconnlimit, s.setconfig,
    exists (
        select from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba)))
        where grantee = 0 and privilege_type = 'CONNECT'
    )
from pg_database d
join pg_roles r on r.oid = d.datdba
left join pg_db_role_setting s on s.setdatabase = d.oid and s.setrole = 0
where %(names)s::text[] is null or d.datname = any(%(names)s)
order by d.datname
"""

CLIENTS = "coalesce(backend_type, 'client backend') = 'client backend' and datname is not null"

HOLDERS = f"""
select datname, usename, application_name, count(*) from pg_stat_activity
where {CLIENTS} and pid <> pg_backend_pid()
group by 1, 2, 3 order by 4 desc, 1, 2, 3
"""

SESSIONS = f"""
select pid, usename, application_name from pg_stat_activity where {CLIENTS} and datname = %(name)s order by pid
"""

PLACES = """
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true), '0')::int
"""

REPLICATION = """
select d.datname, format('subscription %%s', subname) from pg_subscription s join pg_database d on d.oid = s.subdbid
where d.datname = any(%(names)s)
union all
select database, format('replication slot %%s', slot_name) from pg_replication_slots
where database = any(%(names)s) and active
"""

BELONGINGS = """
select distinct coalesce('something in database ' || d.datname, pg_describe_object(s.classid, s.objid, 0))
from pg_shdepend s left join pg_database d on d.oid = s.dbid
where s.refclassid = 'pg_authid'::regclass and s.refobjid = %(role)s
    and s.dbid <> all(%(gone)s::oid[])
    and not (s.classid = 'pg_database'::regclass and s.objid = any(%(gone)s::oid[]))
order by 1
"""

HAND_OVER = """
with owned (class, object, owner) as (
    select 'pg_namespace'::regclass, oid, nspowner from pg_namespace where nspname !~ '^pg_'
    union all select 'pg_class'::regclass, oid, relowner from pg_class where relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    union all select 'pg_proc'::regclass, oid, proowner from pg_proc
    union all select 'pg_type'::regclass, oid, typowner from pg_type
    union all select 'pg_operator'::regclass, oid, oprowner from pg_operator
    union all select 'pg_opclass'::regclass, oid, opcowner from pg_opclass
    union all select 'pg_opfamily'::regclass, oid, opfowner from pg_opfamily
    union all select 'pg_collation'::regclass, oid, collowner from pg_collation
    union all select 'pg_conversion'::regclass, oid, conowner from pg_conversion
    union all select 'pg_ts_config'::regclass, oid, cfgowner from pg_ts_config
    union all select 'pg_ts_dict'::regclass, oid, dictowner from pg_ts_dict
    union all select 'pg_statistic_ext'::regclass, oid, stxowner from pg_statistic_ext
    union all select 'pg_largeobject_metadata'::regclass, oid, lomowner from pg_largeobject_metadata
)
select format(
    'alter %%s %%s owner to %%I',
    case when type in ('function', 'procedure', 'aggregate') then 'routine' else replace(type, ' object', '') end,
    identity, %(role)s::text
)
from owned, pg_identify_object(class, object, 0)
where (object >= 16384 or identity = 'public')
    and pg_get_userbyid(owner) not in (%(role)s, 'pg_database_owner')
    and not exists (
        select from pg_depend d
        where d.classid = class and d.objid = object
            and (d.deptype in ('e', 'i') or d.deptype = 'a' and type = 'sequence')
    )
"""
"""What was made in a database by others, but for members of extensions and what follows its table or type."""

AT_ONCE = 500
"""How many objects change hands in one transaction: each takes a lock, of which a server has a few thousand."""

RESTORE = (
    *("--exit-on-error", "--no-owner", "--no-privileges", "--no-tablespaces"),
    *("--no-publications", "--no-subscriptions", "--no-security-labels"),
)
PSQL = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", f"--output={os.devnull}")


# What is asked


@dataclasses.dataclass(frozen=True)
class Wish:
    """One database as it is asked for.

    :ivar asked: its name before it was made to fit.
    """

    asked: str
    name: str
    template: str | None
    dump: str | None
    extensions: tuple[str, ...]
    connection_limit: int
    strategy: str

    @classmethod
    def of(cls, given: dict[str, t.Any]) -> Wish:
        """
        :raises UserError: it is nothing that a database could be.
        """
        asked, limit = given["name"], given["connection_limit"]
        name = _name("database", asked)
        if limit is not None and limit < 1:
            raise UserError(f"database {name}: connection_limit is {limit}, and has to be 1 or more")
        return cls(
            asked=asked,
            name=name,
            template=given["template"],
            dump=given["dump"],
            extensions=tuple(given["extensions"]),
            connection_limit=NO_LIMIT if limit is None else limit,
            strategy=given["strategy"],
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """Whose databases are asked for, and where."""

    owner: str
    role: str
    wishes: tuple[Wish, ...]
    password_file: str | None
    host: str
    port: int
    timeout: float

    @classmethod
    def of(cls, params: Params) -> Task:
        """
        :raises UserError: two databases have one name, or one is not to be touched.
        """
        wishes = tuple(Wish.of(given) for given in params["databases"])
        names = [wish.name for wish in wishes]
        protected = {*PROTECTED, params["maintenance_database"], *map(_postgres.fit_name, params["protected"])}
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"database {name} is named twice")
            if name in protected:
                raise UserError(
                    f"database {name} is protected: no task's database can have that name",
                    hint="choose another name",
                )
        if params["state"] == "present":
            if not wishes:
                raise UserError("databases names none")
            if params["password_file"] is None:
                raise UserError(f"database {names[0]}: state=present needs password_file")
        return cls(
            owner=params["owner"],
            role=_name("role", params["role"]),
            wishes=wishes,
            password_file=params["password_file"],
            host=params["host"],
            port=params["port"],
            timeout=params["timeout"],
        )

    @property
    def names(self) -> list[str]:
        return [wish.name for wish in self.wishes]

    def reaches(self, wish: Wish) -> _postgres.Address:
        return _postgres.Address(self.host, self.port, self.role, wish.name)

    def password(self, *, check: bool) -> str:
        """The role's password; an empty one where check mode may not make it."""
        path = t.cast("str", self.password_file)
        if not check:
            return _secrets.ensure(path)
        try:
            return _secrets.read(path)
        except FileNotFoundError:
            return ""

    def mark(self, creating: t.Sequence[str] = ()) -> str:
        """The comment that makes a database or role ours; a role's tells too what is being made."""
        return json.dumps({"owner": self.owner, **({"creating": list(creating)} if creating else {})})


def _name(kind: str, asked: str) -> str:
    name = _postgres.fit_name(asked)
    _postgres.check_name(kind, name)
    return name


# The operation


def operation(params: Params, *, check: bool) -> Result:
    """Give a task its databases in a server, or take them back."""
    task, journal = Task.of(params), Journal(check=check)
    act = _present if params["state"] == "present" else _absent
    while True:
        try:
            with _administration(params, journal) as server:
                facts = act(server, task)
        except _connection_errors() as error:
            if journal.interrupted:
                raise EnvironmentFailure(
                    f"{_where(params)} ended the connection twice while it was asked to {journal.doing}: {_words(error)}",
                    hint="see its log; what was begun is finished by the next run",
                ) from error
            journal.interrupted = True
            continue
        return {**journal.result(f"role {task.role} at {task.host}:{task.port}"), **facts}


def marked(params: Params) -> list[dict[str, t.Any]]:
    """What tasks have in a server, by role: ``role``, its ``owner``, and the names of its ``databases``.

    :arg params: ``host``, ``port``, ``admin_user``, ``admin_password_file``, ``maintenance_database``, ``timeout``.
    """
    with _administration(params, Journal(check=True)) as server:
        found = server.databases()
        roles = server.rows("select rolname, shobj_description(oid, 'pg_authid') from pg_roles order by 1")
    return [
        {
            "role": role,
            "owner": owner,
            "databases": [one.name for one in found.values() if (one.role, one.owner) == (role, owner)],
        }
        for role, comment in roles
        if (owner := _read_mark(comment).get("owner"))
    ]


def _present(server: Server, task: Task) -> Result:
    check = server.journal.check
    role, found = server.role(task.role), server.databases(task.names)
    _check_is_ours(task, role, found)
    new = [wish for wish in task.wishes if wish.name not in found or not found[wish.name].ready]
    plans = {wish.name: _plan(server, wish) for wish in new}
    for wish in task.wishes:
        server.check_extensions(wish)
    if new:
        server.check_room(task, role, new)

    password = task.password(check=check)
    refused: dict[str, str | None] = {wish.name: "it is new" for wish in new}
    before: dict[str, t.Any] = {wish.name: found[wish.name].state() if wish.name in found else None for wish in new}
    for wish in task.wishes:
        if wish not in new:
            refused[wish.name] = _refusal(task.reaches(wish), password)
            before[wish.name] = {
                **found[wish.name].state(),
                "extensions": server.extensions(wish),
                "lets_in": refused[wish.name] is None,
            }
    after = {wish.name: server.wished(task, wish) for wish in task.wishes}
    server.journal.state({"role": role and task.role, **before}, {"role": task.role, **after})

    if role is None or any(refused[wish.name] for wish in task.wishes if wish not in new) or len(new) == len(after):
        server.give_password(task, password, new_role=role is None, creating=plans)
    elif new:
        server.act(None, compose("comment on role {} is {mark}", task.role, mark=task.mark(list(plans))))
    for wish in task.wishes:
        if wish in new:
            creating = list(plans)[new.index(wish) + 1 :]
            _make(server, task, wish, plans[wish.name], password, found.get(wish.name), creating)
        elif before[wish.name] != after[wish.name]:
            _converge(server, task, wish, before[wish.name])
    for wish in task.wishes:
        if refused[wish.name] and not check and (reason := _refusal(task.reaches(wish), password)):
            raise EnvironmentFailure(
                f"role {task.role} does not get into database {wish.name} at {task.host}:{task.port}: {reason}",
                hint="its pg_hba.conf has to let roles in with a password: "
                "host all all 127.0.0.1/32 scram-sha-256",
            )
    facts = {wish.asked: task.reaches(wish).facts("shared", task.password_file) for wish in task.wishes}
    return {"database": next(iter(facts.values())), "databases": facts}


def _absent(server: Server, task: Task) -> Result:
    role, found = server.role(task.role), server.databases(task.names)
    _check_is_ours(task, role, found)
    for one in found.values():
        if one.is_template:
            raise UserError(
                f"database {one.name} is a template, and is not dropped as long as it is one",
                hint=f'where nothing is copied from it any more: alter database "{one.name}" is_template false',
            )
    for name, what in server.rows(REPLICATION, names=task.names):
        raise UserError(
            f"database {name} is replicated: {what} is in use",
            hint=f"end it first, in database {name}: alter subscription .. disable, drop subscription .., "
            "or stop who reads the slot",
        )
    rest = server.belongings(role, found) if role else []
    before: dict[str, t.Any] = {"role": role and task.role, **{name: one.state() for name, one in found.items()}}
    after: dict[str, t.Any] = {"role": task.role if rest else None}
    password_file = None if rest or not task.password_file else task.password_file
    if password_file and os.path.lexists(password_file):
        before["password_file"] = password_file
    server.journal.state(before, after)
    for name in found:
        server.drop(name, f"drop database {name}", task.timeout)
    if role and not rest:
        server.act(f"drop role {task.role}", compose("drop role {}", task.role))
    if "password_file" in before:
        server.act(f"remove {password_file}")
        if not server.journal.check:
            os.unlink(t.cast("str", password_file))
    return {"left": [f"role {task.role} has {what}" for what in rest]}


def _check_is_ours(task: Task, role: Role | None, found: dict[str, Found]) -> None:
    """
    :raises UserError: the role, or a database, is somebody else's.
    """
    things = [(f"role {task.role}", role.owner, "")] if role else []
    things += [(f"database {one.name}", one.owner, f", but by role {one.role}") for one in found.values()]
    for thing, owner, maker in things:
        if owner != task.owner:
            raise UserError(
                f"{thing} at {task.host}:{task.port} belongs to {owner}, not to {task.owner}"
                if owner
                else f"{thing} at {task.host}:{task.port} is there, and was not made for a task{maker}",
                hint="choose another name, or let its owner remove it",
            )
    for one in found.values():
        if one.role != task.role:
            raise UserError(
                f"database {one.name} was made for role {one.role}, not for {task.role}, "
                "and to make it anew would lose its data",
                hint="tear the task down and provision it again, or ask for what is there",
            )


# Making a database


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a database is going to be made.

    :ivar strategy: of the copy, in the words of the server; empty where it has one only.
    """

    strategy: str
    dump: Dump | None


def _plan(server: Server, wish: Wish) -> Plan:
    """Look whether a database can be made, and how that is done best.

    :raises UserError: there is no such template or dump.
    :raises EnvironmentFailure: the template is in use, or the dump cannot be read here.
    """
    size = 0
    if wish.template is not None:
        template = server.databases([wish.template]).get(wish.template)
        if template is None:
            raise UserError(
                f"database {wish.name}: there is no template {wish.template!r} at {server.where}",
                hint="see what there is: psql --list",
            )
        if not template.ready:
            raise EnvironmentFailure(f"database {wish.name}: its template {wish.template} is not complete yet")
        if server.journal.check:  # the real run gives them the few seconds that the server waits
            server.check_nobody_is_in(wish.template)
        ((size,),) = server.rows("select pg_database_size(%(name)s)", name=wish.template)
    dump = None if wish.dump is None else Dump.of(wish.dump, server.version // 10000)
    return Plan(_strategy(wish, server.version, size, fsync=server.fsync), dump)


def _strategy(wish: Wish, version: int, size: int, *, fsync: bool) -> str:
    """How the server is to copy a template of this size: through its log, or file by file with two checkpoints."""
    if version < STRATEGY_SINCE:
        if wish.strategy == "wal_log":
            raise UserError(
                f"database {wish.name}: PostgreSQL {version // 10000} has no strategy wal_log",
                hint="use auto",
            )
        return ""
    if wish.strategy != "auto":
        return wish.strategy
    large = LARGE_TO_CLONE if version >= CLONE_SINCE else LARGE
    return "file_copy" if size >= large or not fsync else "wal_log"


def _make(
    server: Server, task: Task, wish: Wish, plan: Plan, password: str, left: Found | None, creating: list[str]
) -> None:
    """Make a database and fill it; its mark comes last.

    :arg left: what a killed run left of it.
    :arg creating: what is still to be made after it.
    """
    check = server.journal.check
    if left is not None:
        server.drop(wish.name, f"drop database {wish.name}, which is half made", task.timeout)
    server.create(task, wish, plan.strategy)
    try:
        server.settle(task, wish, None)
        if wish.template or wish.extensions or server.version < STRATEGY_SINCE:
            with contextlib.nullcontext(server) if check else server.within(wish.name) as inside:
                if not check:
                    inside.hand_over(task.role)
                inside.create_extensions(wish, wish.extensions)
        if plan.dump is not None:
            server.journal.begin(f"restore {wish.dump} into database {wish.name}")
            if not check:
                plan.dump.restore(task, wish, password, keep=server.connection.fileno())
    except Exception:
        if not check:  # what failed half-way, for example on a full disk, is in nobody's way
            with contextlib.suppress(_postgres.driver().Error, EnvironmentFailure):
                server.drop(wish.name, None, task.timeout)
        raise
    server.act(
        None,
        compose("comment on database {} is {mark}", wish.name, mark=task.mark()),
        compose("comment on role {} is {mark}", task.role, mark=task.mark(creating)),
    )


def _converge(server: Server, task: Task, wish: Wish, before: dict[str, t.Any]) -> None:
    """Give a complete database what it lacks of what is asked."""
    wished = server.wished(task, wish)
    if any(before[key] != wished[key] for key in wished if key not in ("extensions", "lets_in")):
        server.settle(task, wish, f"set limit, rights and identity of database {wish.name}")
    missing = [name for name in wish.extensions if name not in before["extensions"]]
    if missing:
        with server.within(wish.name) as inside:
            inside.create_extensions(wish, missing)


def _refusal(address: _postgres.Address, password: str) -> str | None:
    """Why a task does not get into its database at the address that it is told; None where it does."""
    try:
        with contextlib.closing(_postgres.connect(address, password)) as connection, connection.cursor() as cursor:
            cursor.execute("select current_setting(%s, true)", (_postgres.IDENTITY_SETTING,))
            ((identity,),) = cursor.fetchall()
    except _postgres.driver().OperationalError as error:
        # Its own sessions may well take all that it has.
        return None if "too many connections for" in str(error) else str(error).strip()
    if identity in (address.database, None):
        return None
    return f"another database answers there: expected {address.database!r}, got {identity!r}"


# Dumps


@dataclasses.dataclass(frozen=True)
class Dump:
    """What pg_dump has written, and the program that reads it.

    :ivar contents: pg_restore's list of what to restore; None for SQL text.
    """

    path: str
    program: str
    contents: str | None

    @classmethod
    def of(cls, path: str, major: int) -> Dump:
        """
        :arg major: the version of the server.
        :raises UserError: there is no such dump.
        :raises EnvironmentFailure: there is no program that can read it.
        """
        try:
            is_archive = os.path.isdir(path) or _is_archive(path)
        except OSError as error:
            raise UserError(f"cannot read the dump {path}: {error.strerror}") from error
        if not is_archive:
            return cls(path, _client("psql", major), None)
        program = _client("pg_restore", major)
        listing = _commands.must((program, "--list", path), doing=f"cannot read the dump {path}")
        # An extension that needs a superuser is made by one; nobody else may comment on it.
        kept = [line for line in listing.splitlines() if " COMMENT - EXTENSION " not in line]
        return cls(path, program, "\n".join((*kept, "")))

    def restore(self, task: Task, wish: Wish, password: str, keep: int) -> None:
        """Fill a database as the task's role, which can do no harm elsewhere.

        :arg keep: the descriptor that the program inherits: the lock is held until it ends.
        :raises EnvironmentFailure: with its last words.
        """
        from psycopg2.extensions import make_dsn

        target = make_dsn(host=task.host, port=task.port, user=task.role, dbname=wish.name)
        with _in_memory(f"*:*:*:*:{password}\n") as passwords, _in_memory(self.contents or "") as contents:
            if self.contents is None:
                options: tuple[str, ...] = (*PSQL, f"--file={self.path}", f"--dbname={target}")
            else:
                jobs = 1 if ";     Format: TAR" in self.contents else min(4, os.cpu_count() or 1)
                if wish.connection_limit != NO_LIMIT:
                    jobs = max(1, min(jobs, wish.connection_limit // 2))
                options = (*RESTORE, f"--jobs={jobs}", f"--use-list={_path(contents)}", f"--dbname={target}", self.path)
            _commands.must(
                (self.program, *options),
                doing=f"cannot restore {self.path} into database {wish.name}",
                hint="extensions that need a superuser: name them in extensions; "
                "a dump of SQL text: make it with pg_dump --no-owner --no-privileges",
                env={"PGPASSFILE": _path(passwords)},
                keep=(passwords, contents, keep),
            )


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(262)
    return start.startswith(b"PGDMP") or start[257:] == b"ustar"


def _client(name: str, major: int) -> str:
    """The path of a client program that is not older than the server, and the nearest to it."""
    installed = [*glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), *glob.glob(f"/usr/pgsql-*/bin/{name}")]
    versions: dict[int, str] = {}
    for path in filter(None, (shutil.which(name), *installed)):
        version = re.search(r"\) (\d+)", _commands.must((path, "--version"), doing=f"cannot use {name}"))
        versions[int(version[1]) if version else 0] = path
    fitting = [version for version in versions if version >= major]
    if not fitting:
        there = f"{name} {max(versions)} is older than the server" if versions else f"there is no {name} for the server"
        raise EnvironmentFailure(
            f"{there}, PostgreSQL {major}",
            hint=f"apt install postgresql-client-{major}",
        )
    return versions[min(fitting)]


@contextlib.contextmanager
def _in_memory(content: str) -> t.Iterator[int]:
    """A file of mode 0600 without a name, of which nothing is left where we are killed (memfd_create(2))."""
    handle = os.memfd_create("parallel-worktrees")
    try:
        os.fchmod(handle, 0o600)
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            file.write(content)
        yield handle
    finally:
        os.close(handle)


def _path(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


# The server


@dataclasses.dataclass
class Journal:
    """What was done, or in check mode would be, through one run with its second beginning.

    :ivar doing: the action that is under way.
    :ivar secret: what no statement is told with.
    """

    check: bool
    interrupted: bool = False
    doing: str = "look at the server"
    secret: str | None = None
    actions: list[str] = dataclasses.field(default_factory=list)
    statements: list[str] = dataclasses.field(default_factory=list)
    before: dict[str, t.Any] | None = None
    after: dict[str, t.Any] | None = None

    def begin(self, action: str) -> None:
        self.doing = action
        self.actions.append(action)

    def state(self, before: dict[str, t.Any], after: dict[str, t.Any]) -> None:
        """Keep how things were at the first look, and how they are going to be."""
        self.before = before if self.before is None else self.before
        self.after = after

    def result(self, header: str) -> Result:
        changed = self.before != self.after
        difference = {"before": self.before, "after": self.after, "before_header": header, "after_header": header}
        return {
            "changed": changed,
            "diff": [difference] if changed else [],
            "actions": self.actions,
            "statements": self.statements,
        }


@dataclasses.dataclass(frozen=True)
class Role:
    oid: int
    owner: str | None
    connection_limit: int


@dataclasses.dataclass(frozen=True)
class Found:
    """A database that is there.

    :ivar owner: the mark of the task that it is made for.
    :ivar ready: whether it is complete.
    :ivar private: whether nobody but its role may connect.
    :ivar identity: what it says of itself.
    """

    oid: int
    name: str
    role: str
    owner: str | None
    ready: bool
    is_template: bool
    connections: bool
    connection_limit: int
    private: bool
    identity: str | None

    @classmethod
    def of(cls, row: tuple[t.Any, ...]) -> Found:
        oid, name, role, comment, role_comment, is_template, connections, limit, settings, public = row
        maker = _read_mark(role_comment)
        half_made = comment is None and name in maker.get("creating", ())
        prefix = f"{_postgres.IDENTITY_SETTING}="
        return cls(
            oid=oid,
            name=name,
            role=role,
            owner=(maker if half_made else _read_mark(comment)).get("owner"),
            ready=not half_made and limit != INVALID,
            is_template=is_template,
            connections=connections,
            connection_limit=limit,
            private=not public,
            identity=next((one.removeprefix(prefix) for one in settings or () if one.startswith(prefix)), None),
        )

    def state(self) -> dict[str, t.Any]:
        keys = ("role", "ready", "connections", "connection_limit", "private", "identity")
        return {key: getattr(self, key) for key in keys}


def _read_mark(comment: str | None) -> dict[str, t.Any]:
    """The mark in a comment; an empty one where a person has written it."""
    try:
        mark = json.loads(comment or "{}")
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) else {}


def compose(text: str, *names: str, **values: t.Any) -> Composed:
    """A statement with its names and values quoted by the driver."""
    from psycopg2 import sql

    return sql.SQL(text).format(
        *map(sql.Identifier, names), **{key: sql.Literal(value) for key, value in values.items()}
    )


class Server:
    """An open connection, with the account of what is done on it."""

    def __init__(self, address: _postgres.Address, password: str | None, journal: Journal) -> None:
        self.address = address
        self.password = password
        self.journal = journal
        self.connection = _postgres.connect(address, password)
        self.connection.set_client_encoding("UTF8")
        self.version = self.connection.server_version

    @property
    def where(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    def rows(self, query: str, **values: t.Any) -> list[tuple[t.Any, ...]]:
        """The answer to a question."""
        with self._telling(), self.connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()

    def act(self, action: str | None, *statements: Composed) -> None:
        """Do something and tell of it: these statements as one transaction; in check mode only tell.

        :arg action: None where the statements belong to the action before.
        """
        journal = self.journal
        if action is not None:
            journal.begin(action)
        texts = [statement.as_string(self.connection) for statement in statements]
        hidden = {journal.secret: _secrets.MASK} if journal.secret else {}
        journal.statements += [_secrets.reveal(text, hidden) for text in texts]
        if texts and not journal.check:
            with self._telling(), self.connection.cursor() as cursor:
                cursor.execute("; ".join(texts))

    @contextlib.contextmanager
    def _telling(self) -> t.Iterator[None]:
        """Tell what the server refuses; a lost connection is left to who can begin again."""
        try:
            yield
        except _postgres.driver().Error as error:
            if _is_lost(error):
                raise
            raise _failure(self.journal.doing, error) from error

    @contextlib.contextmanager
    def within(self, database: str) -> t.Iterator[Server]:
        """The same in another database."""
        inside = Server(dataclasses.replace(self.address, database=database), self.password, self.journal)
        with contextlib.closing(inside.connection):
            yield inside

    # Looking

    @property
    def is_superuser(self) -> bool:
        return self.connection.get_parameter_status("is_superuser") == "on"

    @property
    def fsync(self) -> bool:
        return self.rows("show fsync") == [("on",)]

    def role(self, name: str) -> Role | None:
        for oid, comment, limit in self.rows(ROLE, name=name):
            return Role(oid, _read_mark(comment).get("owner"), limit)
        return None

    def databases(self, names: list[str] | None = None) -> dict[str, Found]:
        """Those of these names that are there, or all."""
        return {row[1]: Found.of(row) for row in self.rows(DATABASES, names=names)}

    def extensions(self, wish: Wish) -> list[str]:
        """Which of the extensions that are asked for a database has."""
        if not wish.extensions:
            return []
        with self.within(wish.name) as inside:
            found = inside.rows("select extname from pg_extension where extname = any(%(names)s)", names=list(wish.extensions))
        return sorted(name for (name,) in found)

    def wished(self, task: Task, wish: Wish) -> dict[str, t.Any]:
        """How a database is going to be."""
        return {
            "role": task.role,
            "ready": True,
            "connections": True,
            "connection_limit": wish.connection_limit,
            "private": True,
            "identity": wish.name if self.is_superuser else None,
            "extensions": sorted(set(wish.extensions)),
            "lets_in": True,
        }

    def belongings(self, role: Role, gone: dict[str, Found]) -> list[str]:
        """What a role has beside these databases."""
        oids = [one.oid for one in gone.values()]
        return [what for (what,) in self.rows(BELONGINGS, role=role.oid, gone=oids)]

    def check_rights(self) -> None:
        """
        :raises EnvironmentFailure: this user may not make databases and roles.
        """
        user = self.address.user
        (rights,) = self.rows("select rolsuper or rolcreatedb and rolcreaterole from pg_roles where rolname = current_user")
        if not rights[0]:
            raise EnvironmentFailure(
                f"user {user} at {self.where} may not make databases and roles",
                hint=f'name a superuser in admin_user, or give it the right: alter role "{user}" createdb createrole',
            )

    def check_extensions(self, wish: Wish) -> None:
        """
        :raises UserError: an extension is not installed on the server.
        """
        for name in wish.extensions:
            if not self.rows("select from pg_available_extensions where name = %(name)s", name=name):
                raise UserError(
                    f"database {wish.name}: the extension {name!r} is not installed on the server at {self.where}",
                    hint="see what is: select name from pg_available_extensions",
                )

    def check_nobody_is_in(self, template: str) -> None:
        """
        :raises EnvironmentFailure: somebody is connected to a database, so that it cannot be copied.
        """
        sessions = self.rows(SESSIONS, name=template)
        if sessions:
            people = "; ".join(f"pid {pid}, user {user}, {program or 'unnamed'}" for pid, user, program in sessions)
            raise EnvironmentFailure(
                f"the template {template} cannot be copied while somebody is connected to it: {people}",
                hint="close these sessions, or copy a database that nobody can connect to",
            )

    def check_room(self, task: Task, role: Role | None, new: list[Wish]) -> None:
        """
        :raises UserError: a database asks for more connections than the server has.
        :raises EnvironmentFailure: the server, or the role, has none left for a new database.
        """
        ((places,),) = self.rows(PLACES)
        for wish in new:
            if wish.connection_limit > places:
                raise UserError(
                    f"database {wish.name}: connection_limit is {wish.connection_limit}, and the server at {self.where} "
                    f"has {places} connections for all",
                    hint="ask for fewer, or raise max_connections of the server",
                )
        holders = self.rows(HOLDERS)
        left = places - sum(count for *_, count in holders)
        who, hint = f"the server at {self.where} has", "end some of them, or raise max_connections of the server"
        if role and role.connection_limit >= 0:
            own = role.connection_limit - sum(count for _, user, _, count in holders if user == task.role)
            if own < left:
                left, places = own, role.connection_limit
                who, hint = f"role {task.role} has", f'end some of them, or: alter role "{task.role}" connection limit -1'
        if left < len(new):
            held = "; ".join(
                f"{count} by {program or 'unnamed'} (user {user}, database {database})"
                for database, user, program, count in holders
            )
            raise EnvironmentFailure(
                f"{who} {max(left, 0)} of {places} connections left, and {len(new)} are needed; held are {held}",
                hint=hint,
            )

    # Doing

    def lock(self, role: str, timeout: float) -> None:
        """Keep other runs from a role until this connection ends.

        :raises EnvironmentFailure: one is at work all the time.
        """
        key = zlib.crc32(role.encode()) - (1 << 31)
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(
                    "set statement_timeout = 0; begin; set local lock_timeout = %s; select pg_advisory_lock(%s, %s); commit",
                    (max(1, int(timeout * 1000)), LOCK, key),
                )
        except _postgres.driver().errors.LockNotAvailable as error:
            raise EnvironmentFailure(
                f"another run has been at work on role {role} at {self.where} for {timeout:g} s",
                hint="try again when it has ended",
            ) from error

    def give_password(self, task: Task, password: str, *, new_role: bool, creating: t.Iterable[str]) -> None:
        """Make the role, or give it its password anew, and note what is being made for it."""
        verifier = self.journal.secret = _postgres.scram_verifier(password)
        verb = "create" if new_role else "alter"
        joining = [compose("grant {} to current_user", task.role)] if new_role and not self.is_superuser else []
        self.act(
            f"create role {task.role}" if new_role else f"set the password of role {task.role}",
            compose(f"{verb} role {{}} login password {{verifier}}", task.role, verifier=verifier),
            *joining,
            compose("comment on role {} is {mark}", task.role, mark=task.mark(list(creating))),
        )

    def create(self, task: Task, wish: Wish, strategy: str) -> None:
        """Make a database that nobody but a superuser can connect to yet."""
        if strategy == "file_copy" and self.version >= CLONE_SINCE:
            self._let_clone()
        source = f" as a copy of {wish.template}" if wish.template else ""
        try:
            self.act(
                f"create database {wish.name}{source}",
                compose(
                    f"create database {{}} owner {{}} template {{}} connection limit {{limit}}"
                    f"{' strategy ' + strategy if strategy else ''}",
                    wish.name,
                    task.role,
                    wish.template or "template1",
                    limit=CLOSED,
                ),
            )
        except EnvironmentFailure as failure:
            if isinstance(failure.__cause__, _postgres.driver().errors.ObjectInUse):
                self.check_nobody_is_in(wish.template or "template1")
            raise

    def _let_clone(self) -> None:
        """Share the template's blocks where the server and its file system can; where not, it is a copy."""
        if self.rows("select from pg_settings where name = 'file_copy_method' and 'clone' = any(enumvals)"):
            self.act(None, compose("set file_copy_method = clone"))

    def settle(self, task: Task, wish: Wish, action: str | None) -> None:
        """Give a database what no copy has: its rights, its limit, its identity."""
        identity = [compose(f"alter database {{}} set {_postgres.IDENTITY_SETTING} = {{name}}", wish.name, name=wish.name)]
        self.act(
            action,
            compose("revoke connect on database {} from public", wish.name),
            compose("grant connect on database {} to {}", wish.name, task.role),
            *(identity if self.is_superuser else ()),
            compose(
                "alter database {} allow_connections true connection limit {limit}",
                wish.name,
                limit=wish.connection_limit,
            ),
        )

    def hand_over(self, role: str) -> None:
        """Let a role own what others have made in this database; for ``pg_database_owner`` see PostgreSQL's manual."""
        from psycopg2 import sql

        changes = [sql.SQL(text.replace("{", "{{").replace("}", "}}")).format() for (text,) in self.rows(HAND_OVER, role=role)]
        for start in range(0, len(changes), AT_ONCE):
            self.act(None, *changes[start : start + AT_ONCE])

    def create_extensions(self, wish: Wish, names: t.Iterable[str]) -> None:
        for name in names:
            self.act(
                f"create extension {name} in database {wish.name}",
                compose("create extension if not exists {} cascade", name),
            )

    def drop(self, name: str, action: str | None, timeout: float) -> None:
        """Drop a database with the sessions and prepared transactions in it."""
        prepared = self.rows("select gid from pg_prepared_xacts where database = %(name)s", name=name)
        if prepared:
            with self.within(name) as inside:
                for (gid,) in prepared:
                    inside.act(
                        f"roll back the prepared transaction {gid} in database {name}",
                        compose("rollback prepared {gid}", gid=gid),
                    )
        if self.version >= FORCE_SINCE:
            self.act(action, compose("drop database {} with (force)", name))
            return
        self.act(action, compose("alter database {} allow_connections false", name))
        until = time.monotonic() + timeout
        while True:
            terminate = "select pg_terminate_backend(pid) from pg_stat_activity where datname = {name}"
            try:
                self.act(None, compose(terminate, name=name))
                self.act(None, compose("drop database {}", name))
                return
            except EnvironmentFailure as failure:
                in_use = isinstance(failure.__cause__, _postgres.driver().errors.ObjectInUse)
                if not in_use or time.monotonic() > until:
                    raise


@contextlib.contextmanager
def _administration(params: Params, journal: Journal) -> t.Iterator[Server]:
    """The server as its administrator sees it; nobody else is at work on the role, but in check mode."""
    path = params["admin_password_file"]
    try:
        password = None if path is None else _secrets.read(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no admin_password_file {path}") from error
    address = _postgres.Address(params["host"], params["port"], params["admin_user"], params["maintenance_database"])
    until = time.monotonic() + params["timeout"]
    while True:
        try:
            server = Server(address, password, journal)
            break
        except _postgres.driver().OperationalError as error:
            coming = journal.interrupted or re.search(STARTING, str(error))
            if not coming or time.monotonic() > until:
                raise _no_way_in(address, error) from error
        time.sleep(0.05)
    with contextlib.closing(server.connection):
        server.check_rights()
        if not journal.check:
            server.lock(_name("role", params["role"]), params["timeout"])
        yield server
