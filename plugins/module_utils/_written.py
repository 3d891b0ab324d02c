# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written into a database since it was made.

Private to this collection: may change without notice.

PostgreSQL counts the rows that are inserted, updated and deleted in each table, catalogs included. The counters start
anew when a database is complete, so what they say afterwards is what its task wrote, beyond what the database began
with. A crash of the server loses them, and with them the time at which they started: then nobody knows.

The task's own role looks, for it may see its own counters, and no more is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import typing as t

from . import _postgres, _secrets
from ._errors import EnvironmentFailure

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from ._pg_server import Server

START = """
select pg_catalog.pg_stat_reset() where %(anew)s or (
    select stats_reset is null from pg_catalog.pg_stat_database where datname = pg_catalog.current_database()
)
"""

OTHER_SESSIONS = """
select from pg_catalog.pg_stat_activity
where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()
    and backend_type = 'client backend'
"""
"""Those that filled a database add to its counters when they end."""

TABLES = """
select case schemaname when 'public' then relname else schemaname || '.' || relname end,
    n_tup_ins + n_tup_upd + n_tup_del
from pg_catalog.pg_stat_user_tables where n_tup_ins + n_tup_upd + n_tup_del > 0
order by 2 desc, 1
"""

DEFINITIONS = """
select exists (
    select from pg_catalog.pg_stat_sys_tables
    where schemaname = 'pg_catalog'
        and relname in
            ('pg_class', 'pg_attribute', 'pg_proc', 'pg_type', 'pg_trigger', 'pg_rewrite', 'pg_largeobject_metadata')
        and (n_tup_ins <> n_tup_del or relname in ('pg_proc', 'pg_rewrite') and n_tup_upd > 0)
)
"""
"""Whether anything was created, altered or dropped. Temporary tables come and go, and leave nothing but schemas."""

IS_LOST = """
select stats_reset is null and pg_catalog.current_setting(%(setting)s, true) is not null
from pg_catalog.pg_stat_database where datname = pg_catalog.current_database()
"""
"""Only servers that have been given an identity have a superuser of ours, who starts the counters."""

OTHERS = """
select datname from pg_catalog.pg_database
where not datistemplate and datallowconn and datname <> all(%(names)s) order by 1
"""

LOST = "the server has lost its counters, as in a crash"
LOOK_SECONDS = 3
FLUSH_SECONDS = 2
SHOWN_TABLES = 5


def start(server: Server, database: str) -> None:
    """Start the counters of a database of a server that others use; only a superuser may."""
    if server.is_superuser and not server.journal.check:
        with server.within(database) as inside:
            start_in(inside.connection)


def start_in(connection: Connection, *, anew: bool = True) -> None:
    """Start the counters of a database that is complete.

    :arg connection: a superuser's, into that database.
    :arg anew: False for one that may have been in use, and whose counters are left as they are where they run.
    """
    until = time.monotonic() + FLUSH_SECONDS
    while _rows(connection, OTHER_SESSIONS) and time.monotonic() < until:
        time.sleep(0.005)
    _rows(connection, START, anew=anew)


@dataclasses.dataclass(frozen=True)
class Written:
    """What a task wrote into one database.

    :ivar rows: inserted, updated or deleted, in transactions that were rolled back as well.
    :ivar tables: where, those with most of them first; in ``public`` without their schema.
    :ivar definitions: whether tables, functions and the like were created, altered or dropped.
    :ivar unknown: why it cannot be determined.
    """

    database: str
    rows: int = 0
    tables: tuple[str, ...] = ()
    definitions: bool = False
    unknown: str | None = None

    def as_dict(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "tables": list(self.tables)}

    @property
    def is_nothing(self) -> bool:
        return not (self.rows or self.definitions or self.unknown)


def look(
    address: _postgres.Address, names: t.Sequence[str], password_file: str, *, others: bool
) -> list[dict[str, t.Any]]:
    """Those of some databases of a task that were written to, or of which nobody knows.

    :arg address: of the server; its ``database`` does not matter.
    :arg names: of the databases.
    :arg others: whether all databases of the server are the task's, such as those that its tests made.
    """
    try:
        driver = _postgres.driver()
    except EnvironmentFailure as failure:
        return [Written(names[0], unknown=failure.message).as_dict()]
    found: list[Written] = []
    to_see = list(names)
    try:
        password = _secrets.read(password_file)
        while to_see:
            with contextlib.closing(_connected(address, to_see[0], password)) as connection:
                found.append(_in(connection, to_see[0], is_planned=to_see[0] in names))
                if others and to_see == [names[-1]]:
                    to_see += [other for (other,) in _rows(connection, OTHERS, names=list(names))]
            del to_see[0]
    except FileNotFoundError:
        found.append(Written(to_see[0], unknown="its password is lost"))
    except driver.Error as error:
        if not is_absent(str(error)):
            found.append(Written(to_see[0], unknown=str(error).strip().splitlines()[-1]))
    return [one.as_dict() for one in found if not one.is_nothing]


def is_absent(reason: str) -> bool:
    """Whether PostgreSQL or PgBouncer says by this that there is no such database."""
    return "does not exist" in reason or "no such database" in reason


def told(one: t.Mapping[str, t.Any]) -> str:
    """The same in words, without the name of the database."""
    if one["unknown"]:
        return f"nobody knows what was written since it was made: {one['unknown']}"
    parts = []
    if one["rows"]:
        shown = ", ".join(one["tables"][:SHOWN_TABLES]) + (", …" if len(one["tables"]) > SHOWN_TABLES else "")
        parts.append(f"{one['rows']} row{'s' * (one['rows'] != 1)} written in {shown}")
    if one["definitions"]:
        parts.append("tables or functions changed")
    return " and ".join(parts) + " since it was made"


def _connected(address: _postgres.Address, name: str, password: str) -> t.Any:
    return _postgres.connect(dataclasses.replace(address, database=name), password, timeout=LOOK_SECONDS)


def _in(connection: t.Any, name: str, *, is_planned: bool) -> Written:
    """
    :arg is_planned: False for one that the task made itself, whose counters run since then.
    """
    tables = _rows(connection, TABLES)
    ((definitions,),) = _rows(connection, DEFINITIONS)
    ((is_lost,),) = _rows(connection, IS_LOST, setting=_postgres.IDENTITY_SETTING)
    return Written(
        name,
        rows=sum(rows for _table, rows in tables),
        tables=tuple(table for table, _rows_of_it in tables),
        definitions=is_planned and definitions,
        unknown=LOST if is_planned and is_lost else None,
    )


def _rows(connection: t.Any, query: str, **values: t.Any) -> list[tuple[t.Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return t.cast("list[tuple[t.Any, ...]]", cursor.fetchall())
