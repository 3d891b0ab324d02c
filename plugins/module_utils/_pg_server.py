# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server that several people use, as who administers it sees it, and the account of what is done there.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
import time
import typing as t
import zlib

from . import _postgres, _secrets
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError, WorktreesError

if t.TYPE_CHECKING:
    from psycopg2.sql import Composable, Composed

ARGUMENT_SPEC: dict[str, t.Any] = {
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 5432},
    "admin_user": {"type": "str", "default": "postgres"},
    "admin_password_file": {"type": "path", "no_log": False},
    "maintenance_database": {"type": "str", "default": "postgres"},
    "timeout": {"type": "float", "default": 60},
}
"""What every module that works on a server takes."""

STRATEGIES = ["auto", "wal_log", "file_copy"]
LARGE, LARGE_TO_CLONE = 64 << 20, 32 << 20
"""From how many bytes on FILE_COPY, with its two checkpoints, beats WAL_LOG on a server that waits for its disk."""

FORCE_SINCE, STRATEGY_SINCE, CLONE_SINCE = 130000, 150000, 180000
"""The versions that brought DROP .. WITH (FORCE), CREATE .. STRATEGY, and file_copy_method."""

NO_LIMIT, CLOSED = -1, 0
"""Connection limits; superusers are not held to them."""

LOCK = 0x7077
"""First key of our advisory locks."""

AT_ONCE = 500
"""How many objects change hands in one transaction: each takes a lock, of which a server has a few thousand."""

COMING = "the database system is (starting up|shutting down|in recovery|not yet)"

ADMIN_USER = "database_admin_user (option admin_user)"
NO_WAY_IN = {
    "authentication failed|no password supplied": "check database_admin_user and "
    "database_admin_password_file (options admin_user, admin_password_file)",
    "too many clients|slots are reserved": "end some connections, or raise max_connections of the server",
    "database .* does not exist": "name one that is there: database_maintenance (option maintenance_database)",
    "pg_hba.conf": "let the administrator in from here, in the server's pg_hba.conf",
    "unsupported startup parameter": "give the address and port of the server itself, not of a pooler; or let the "
    "pooler ignore options, as with ignore_startup_parameters of PgBouncer",
    "": "start it, or check host and port: pg_isready --host {0.host} --port {0.port}",
}

EXTENSIONS = "select extname from pg_extension"

SESSIONS = """
select pid, usename, application_name, datname from pg_stat_activity
where coalesce(backend_type, 'client backend') = 'client backend' and datname is not null and pid <> pg_backend_pid()
order by pid
"""
"""Of people and their programs; only a superuser is told of every session what it is."""

QUIETER = {"A": "enable", "R": "disable"}
"""What an event trigger is set to that fires always, or with ``session_replication_role = replica`` as we have it."""

TERMINATE = "select pg_terminate_backend(pid) from pg_stat_activity where datname = {name}"

PLACES = """
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true), '0')::int
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
    union all select 'pg_largeobject'::regclass, oid, lomowner from pg_largeobject_metadata
)
select format(
    'alter %%s %%s owner to %%I',
    case type
        when 'function' then 'routine' when 'procedure' then 'routine' when 'aggregate' then 'routine'
        when 'statistics object' then 'statistics' else type
    end,
    identity, %(role)s::text
)
from owned, pg_identify_object(class, object, 0)
where (
        object >= 16384
        or class = 'pg_largeobject'::regclass
        or class = 'pg_namespace'::regclass and object = 2200 and pg_has_role(owner, 'usage')
    )
    and pg_get_userbyid(owner) not in (%(role)s, 'pg_database_owner')
    and not (class = 'pg_proc'::regclass and object in (select evtfoid from pg_event_trigger))
    and not exists (
        select from pg_depend d
        where d.classid = class and d.objid = object and d.objsubid = 0
            and (d.deptype in ('e', 'i') or d.deptype = 'a' and type = 'sequence')
    )
order by class <> 'pg_namespace'::regclass
"""
"""What people have made, but for members of extensions and for what follows its table or its type.

What an event trigger calls stays whose it is, for it runs as whoever sets it off, such as a superuser.
Schemas come first, for an owner has to be let into them. The schema public (2200) of PostgreSQL 14 and older, in which
all may make things, is left as it is where the administrator is no superuser and may not give it away.
"""


POLICIES = """
select format(
    'alter policy %%I on %%s to %%s', p.polname, p.polrelid::regclass,
    (
        select string_agg(quote_ident(case rolname when %(old)s then %(new)s else rolname end), ', ')
        from pg_roles where oid = any(p.polroles)
    )
)
from pg_policy p join pg_roles r on r.rolname = %(old)s where r.oid = any(p.polroles)
"""
"""Names a role in the place of another in policies."""

MADE = """
select from (
    select 'pg_class'::regclass, oid from pg_class where relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
    union all select 'pg_proc'::regclass, oid from pg_proc
    union all select 'pg_type'::regclass, oid from pg_type where typtype in ('e', 'd', 'r')
    union all select 'pg_namespace'::regclass, oid from pg_namespace where nspname !~ '^(pg_|public$)'
    union all select 'pg_largeobject'::regclass, oid from pg_largeobject_metadata
) made (class, object)
where (object >= 16384 or class = 'pg_largeobject'::regclass) and not exists (
    select from pg_depend where classid = class and objid = object and deptype = 'e'
)
limit 1
"""
"""A row where people have made anything but extensions."""


def compose(text: str, *names: str, **values: t.Any) -> Composed:
    """A statement with its names and values quoted by the driver."""
    from psycopg2 import sql

    quoted = {key: sql.Literal(value) for key, value in values.items()}
    return sql.SQL(text).format(*map(sql.Identifier, names), **quoted)


@dataclasses.dataclass
class Journal:
    """What a run did, or in check mode would do.

    :ivar doing: the action that is under way.
    :ivar secret: what no statement is told with.
    :ivar before: how things were at the first look.
    :ivar after: how they are at the end.
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


def carry_out(params: Params, work: t.Callable[[Server], Result], *, check: bool, lock: str, header: str) -> Result:
    """Do some work that can be done twice; where the server restarts meanwhile, once more from its beginning.

    :arg lock: only one run at a time works under this name.
    """
    journal = Journal(check=check)
    while True:
        try:
            with administration(params, journal) as server:
                if not check:
                    server.lock(lock, params["timeout"])
                facts = work(server)
            return {**journal.result(header), **facts}
        except _postgres.driver().Error as error:  # the connection's: what a statement was refused is told where it is
            if journal.interrupted:
                raise EnvironmentFailure(
                    f"the server at {params['host']}:{params['port']} twice refused or ended the connection on which "
                    f"it was asked to {journal.doing}: {_words(error)}",
                    hint="see the server's log; the next run finishes what was begun",
                ) from error
            journal.interrupted = True


def _way_in(reason: str) -> str:
    """What helps, where the server lets nobody in for this reason."""
    return next(hint for words, hint in NO_WAY_IN.items() if re.search(words, reason))


@contextlib.contextmanager
def administration(params: Params, journal: Journal) -> t.Iterator[Server]:
    """The server as its administrator; one that is about to start is waited for.

    :raises UserError: there is no such password file.
    :raises EnvironmentFailure: the server is down, or does not let him in, or not do what he has to.
    """
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
            reason = str(error).strip()
            coming = journal.interrupted or re.search(COMING, reason)
            if not coming or time.monotonic() > until:
                hint = _way_in(reason)
                raise EnvironmentFailure(
                    f"user {address.user} does not get into the server at {address.host}:{address.port}: {reason}",
                    hint=hint.format(address),
                ) from error
        time.sleep(0.05)
    with contextlib.closing(server.connection):
        server.check_rights()
        yield server


class Server:
    """An open connection, on which each statement is a transaction of its own."""

    def __init__(
        self,
        address: _postgres.Address,
        password: str | None,
        journal: Journal,
        settings: t.Mapping[str, str] | None = None,
    ) -> None:
        """
        :arg settings: those of :func:`_postgres.fixed`, where the server and the user are known; a database that
            others have made something in is entered with them only.
        """
        self.address = address
        self.password = password
        self.journal = journal
        self.connection = _postgres.connect(address, password, settings=settings)
        self.version = self.connection.server_version
        self.settings = settings or _postgres.fixed(self.major, superuser=self.is_superuser)
        if settings is None:
            with self.connection.cursor() as cursor:
                cursor.execute("; ".join(f"set {name} = '{value}'" for name, value in self.settings.items()))

    @property
    def where(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    @property
    def major(self) -> int:
        return self.version // 10000

    @property
    def is_superuser(self) -> bool:
        return self.connection.get_parameter_status("is_superuser") == "on"

    def rows(self, query: str, **values: t.Any) -> list[tuple[t.Any, ...]]:
        """The answer to a question."""
        with self._telling(), self.connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall()

    def act(self, action: str | None, *statements: Composable) -> None:
        """Do something and tell of it: these statements, as one transaction; in check mode only tell.

        :arg action: None where the statements belong to the action before.
        """
        journal = self.journal
        if action is not None:
            journal.begin(action)
        texts = [statement.as_string(self.connection) for statement in statements]
        journal.statements += [
            text.replace(journal.secret, _secrets.MASK) if journal.secret else text for text in texts
        ]
        if texts and not journal.check:
            self._run("; ".join(texts))

    @contextlib.contextmanager
    def transaction(self, first: str) -> t.Iterator[None]:
        """Do it all, or nothing.

        :arg first: statements to begin with.
        """
        self._run(f"begin; {first}")
        try:
            yield
        except BaseException:
            with contextlib.suppress(_postgres.driver().Error):
                self.connection.cursor().execute("rollback")
            raise
        self._run("commit")

    def _run(self, text: str) -> None:
        with self._telling(), self.connection.cursor() as cursor:
            cursor.execute(text)

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
        address = dataclasses.replace(self.address, database=database)
        inside = Server(address, self.password, self.journal, self.settings)
        with contextlib.closing(inside.connection):
            yield inside

    @contextlib.contextmanager
    def at_work_in(self, database: str) -> t.Iterator[Server]:
        """The same in a database to do something there; in check mode, where it may be missing, this one stands in."""
        if self.journal.check:
            yield self
            return
        with self.within(database) as inside:
            inside.quieten()
            yield inside

    def quieten(self) -> None:
        """Keep event triggers of this database from our statements: what they work on may be a task's by now.

        Those that fire in every session become those that fire in others' only; ``event_triggers`` does so by itself.
        """
        if self.is_superuser and "event_triggers" not in self.settings:
            for name, enabled in self.rows("select evtname, evtenabled from pg_event_trigger"):
                if enabled in QUIETER:
                    self.act(None, compose("alter event trigger {} " + QUIETER[enabled], name))

    def lock(self, name: str, timeout: float) -> None:
        """Keep other runs from something until this connection ends.

        :raises EnvironmentFailure: one is at work all the time.
        """
        keys = LOCK, zlib.crc32(name.encode()) - (1 << 31)
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(
                    "begin; set local lock_timeout = %s; select pg_advisory_lock(%s, %s); commit",
                    (max(1, int(timeout * 1000)), *keys),
                )
        except _postgres.driver().errors.LockNotAvailable as error:
            raise EnvironmentFailure(
                f"another run has been at work on {name} at {self.where} for {timeout:g} s",
                hint="try again when it has ended",
            ) from error

    # Looking

    def check_rights(self) -> None:
        """
        :raises EnvironmentFailure: this user may not make databases and roles.
        """
        ((may,),) = self.rows("select rolcreatedb and rolcreaterole from pg_roles where rolname = current_user")
        if not (may or self.is_superuser):
            user = self.address.user
            raise EnvironmentFailure(
                f"user {user} at {self.where} may not make databases and roles",
                hint=f'give it the right: alter role "{user}" createdb createrole; or name a superuser: {ADMIN_USER}',
            )

    def check_extensions(self, names: t.Iterable[str]) -> None:
        """
        :raises UserError: one is not installed.
        """
        unknown = set(names)
        if unknown:
            unknown.difference_update(name for (name,) in self.rows("select name from pg_available_extensions"))
        if unknown:
            raise UserError(
                f"the server at {self.where} has no extension {', '.join(sorted(unknown))}",
                hint="see what is installed there: select name from pg_available_extensions",
            )

    def check_nobody_is_in(self, template: str) -> None:
        """
        :raises EnvironmentFailure: somebody is connected to a database, so that it cannot be copied.
        """
        people = "; ".join(
            f"pid {pid}, user {user}, {program or 'unnamed'}"
            for pid, user, program, database in self.rows(SESSIONS)
            if database == template
        )
        if people:
            raise EnvironmentFailure(
                f"database {template} at {self.where} cannot be copied while somebody is connected to it: {people}",
                hint="close these sessions, or copy a database that nobody can connect to",
            )

    def extensions(self, database: str) -> set[str]:
        """Which extensions a database has."""
        with self.within(database) as inside:
            return {name for (name,) in inside.rows(EXTENSIONS)}

    def is_empty(self, database: str) -> bool:
        """Whether nobody has made anything in a database, as far as one can look into it."""
        try:
            with self.within(database) as inside:
                return inside.rows(MADE) == []
        except _postgres.driver().OperationalError:
            return False

    def size(self, database: str) -> int:
        """In bytes."""
        ((size,),) = self.rows("select pg_database_size(%(name)s)", name=database)
        return t.cast("int", size)

    def places(self) -> int:
        """How many connections there are for all who are no superusers."""
        ((places,),) = self.rows(PLACES)
        return t.cast("int", places)

    def check_room(self, places: int, needed: int, role: str | None = None) -> None:
        """
        :arg places: how many connections the server has for all, or the role for itself.
        :raises EnvironmentFailure: too few of them are left; with those who hold them.
        """
        sessions = [session[1:] for session in self.rows(SESSIONS) if role in (None, session[1])]
        left = max(0, places - len(sessions))
        if left < needed:
            held = "; ".join(
                f"{count} by {program or 'unnamed'} (user {user}, database {database})"
                for (user, program, database), count in collections.Counter(sessions).most_common()
            )
            raise EnvironmentFailure(
                f"{f'role {role}' if role else 'the server'} at {self.where} has {left} of {places} connections left, "
                f"and {needed} are needed; held are {held}",
                hint="end some of them, or raise "
                + (f'the limit: alter role "{role}" connection limit -1' if role else "max_connections of the server"),
            )

    def strategy(self, asked: str, template: str | None) -> str:
        """How to copy a template best: through the log, or file by file between two checkpoints.

        :returns: in the server's words; nothing where it knows one way only.
        :raises UserError: the one that is asked for it does not know.
        """
        if self.version < STRATEGY_SINCE:
            if asked == "wal_log":
                raise UserError(
                    f"the server at {self.where} is older than the strategy wal_log", hint="leave strategy out"
                )
            return ""
        if asked != "auto":
            return asked
        if self.rows("show fsync") == [("off",)]:
            return "file_copy"
        large = LARGE if self.version < CLONE_SINCE else LARGE_TO_CLONE
        return "file_copy" if template and self.size(template) >= large else "wal_log"

    # Doing

    def create(self, name: str, owner: str, template: str | None, strategy: str) -> None:
        """Make a database that nobody but a superuser can connect to yet."""
        if strategy == "file_copy" and self.version >= CLONE_SINCE:
            # Shared blocks where server and file system can; a plain copy where not.
            clone = "select from pg_settings where name = 'file_copy_method' and 'clone' = any(enumvals)"
            if self.rows(clone):
                self.act(None, compose("set file_copy_method = clone"))
        text = "create database {} owner {} template {} connection limit {limit}"
        if strategy:
            text += f" strategy {strategy}"
        source = template or "template1"
        try:
            self.act(
                f"create database {name}" + (f" as a copy of {template}" if template else ""),
                compose(text, name, owner, source, limit=CLOSED),
            )
        except EnvironmentFailure as failure:
            if _is_in_use(failure):
                self.check_nobody_is_in(source)
            raise

    def hand_over(self, role: str) -> None:
        """Let a role own what others have made in this database.

        What ``pg_database_owner`` has stays his: it is the owner's of this database, and of each copy of it.
        """
        from psycopg2 import sql

        changes = [sql.SQL(text) for (text,) in self.rows(HAND_OVER, role=role)]
        for start in range(0, len(changes), AT_ONCE):
            self.act(None, *changes[start : start + AT_ONCE])

    def take_over(self, old: str, new: str) -> None:
        """Let a role own all that another has in this database, extensions included, and end what the other may do.

        The other must own no database: that would be the role's, too.
        """
        from psycopg2 import sql

        self.hand_over(new)
        self.act(None, *(sql.SQL(text) for (text,) in self.rows(POLICIES, old=old, new=new)))
        self.act(None, compose("reassign owned by {} to {}", old, new), compose("drop owned by {}", old))

    def create_extensions(self, database: str, names: t.Iterable[str]) -> None:
        """
        :arg database: the one that this connection is in, or in check mode would be.
        """
        for name in names:
            self.act(
                f"create extension {name} in database {database}",
                compose("create extension if not exists {} schema public cascade", name),
            )

    def end_sessions(self, database: str) -> None:
        """Send away whoever is connected to a database."""
        self.act(None, compose(TERMINATE, name=database))

    def put_in_place(
        self, built: str, name: str, *then: Composable, old: t.Sequence[Composable] | None, timeout: float
    ) -> None:
        """Give a database its final name.

        :arg built: its name so far.
        :arg then: what is done in the same transaction, under the final name.
        :arg old: None where there is none of that name. The old one gets the other name, with its sessions ended, and
            these statements mark it as one that goes.
        """
        rename = "alter database {} rename to {}"
        if old is None:
            self.act(None, compose(rename, built, name), *then)
            return
        self._roll_back_prepared(name)
        swap = _postgres.fit_name(f"{name} (swap)")
        statements = (
            compose(TERMINATE, name=name),
            *(compose(rename, *names) for names in ((name, swap), (built, name), (swap, built))),
            *then,
            *old,
        )
        allow = "alter database {} allow_connections {value}"
        # Who is sent away comes back at once. Should we be killed here, the next run lets them in again.
        self.act(f"put it in the place of database {name}", compose(allow, name, value=False))
        until = time.monotonic() + timeout
        while True:
            try:
                self.act(None, *statements)
                return
            except EnvironmentFailure as failure:  # somebody was just coming in
                if not _is_in_use(failure) or time.monotonic() > until:
                    self.act(None, compose(allow, name, value=True))
                    raise

    def _roll_back_prepared(self, name: str) -> None:
        prepared = self.rows("select gid from pg_prepared_xacts where database = %(name)s", name=name)
        if prepared:
            if self.rows("select from pg_database where datname = %(name)s and not datallowconn", name=name):
                self.act(None, compose("alter database {} allow_connections true", name))
            with self.at_work_in(name) as inside:
                for (gid,) in prepared:
                    text = f"roll back the prepared transaction {gid} in database {name}"
                    inside.act(text, compose("rollback prepared {gid}", gid=gid))

    def drop(self, name: str, timeout: float, why: str = "") -> None:
        """Drop a database with the sessions and prepared transactions in it, whatever its owner has set on it.

        The caller has checked that it is ours. Its owner can make it a template, which PostgreSQL never drops.
        """
        self._roll_back_prepared(name)
        if self.rows("select from pg_database where datname = %(name)s and datistemplate", name=name):
            self.act(None, compose("alter database {} is_template false", name))
        action = f"drop database {name}{why}"
        if self.version >= FORCE_SINCE:
            self.act(action, compose("drop database {} with (force)", name))
            return
        self.act(action, compose("alter database {} allow_connections false", name))
        until = time.monotonic() + timeout
        while True:
            self.end_sessions(name)
            try:
                self.act(None, compose("drop database {}", name))
                return
            except EnvironmentFailure as failure:
                if not _is_in_use(failure) or time.monotonic() > until:
                    raise


def analyze(address: _postgres.Address, password: str) -> None:
    """Let the planner know a database, and each copy of it, as whose it is: indexes call functions."""
    server = Server(address, password, Journal(check=False))
    with contextlib.closing(server.connection):
        server.act(None, compose("analyze"))


def _is_in_use(failure: EnvironmentFailure) -> bool:
    return isinstance(failure.__cause__, _postgres.driver().errors.ObjectInUse)


def _is_lost(error: t.Any) -> bool:
    """Whether the connection has ended, rather than a statement failed."""
    driver = _postgres.driver()
    of_connection = isinstance(error, (driver.OperationalError, driver.InterfaceError))
    return of_connection and (error.pgcode or "57P").startswith("57P")


def _words(error: t.Any) -> str:
    """What the server said."""
    said = (error.diag.message_primary, error.diag.message_detail)
    return ": ".join(filter(None, said)) or str(error).strip()


def _failure(doing: str, error: t.Any) -> WorktreesError:
    errors = _postgres.driver().errors
    text = f"cannot {doing}: {_words(error)}"
    taken = errors.DuplicateDatabase, errors.DuplicateObject, errors.UniqueViolation, errors.ReservedName
    if isinstance(error, taken):  # by somebody who was a moment faster
        return UserError(text, hint="choose another name")
    if isinstance(error, errors.InsufficientPrivilege):
        return EnvironmentFailure(text, hint=f"name a superuser: {ADMIN_USER}")
    if isinstance(error, errors.DiskFull):
        return EnvironmentFailure(text, hint="free some space on the server's disk: df -h")
    return EnvironmentFailure(text)
