# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masking a database: the script, and what PostgreSQL keeps of the values that the script replaced.

Private to this collection: may change without notice.

The script changes tables. Values from before it are also in materialized views, in the positions of sequences and in
the planner's statistics, where whoever owns the tables reads them; a superuser finds them in dead rows and in the log
(WAL), too. ANALYZE alone does not help: it keeps the statistics of a table that has become empty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
import typing as t

from . import _postgres, _sql_errors
from ._errors import EnvironmentFailure, UserError
from ._pg_server import Journal, Server, compose
from ._sql_files import MASK, SqlFile

if t.TYPE_CHECKING:
    from psycopg2.sql import Composable

SILENT = {
    "log_min_messages": "panic",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_duration": "off",
    "log_min_duration_statement": "-1",
}
"""Settings of a superuser's sessions that work on rows which are not masked: the server's log must not quote them."""

VIEWS = """
with recursive uses (view, used) as (
    select distinct r.ev_class, d.refobjid from pg_rewrite r
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
    where d.refclassid = 'pg_class'::regclass and d.refobjid <> r.ev_class
),
deep (view, depth) as (
    select oid, 0 from pg_class where relkind = 'm'
    union
    select u.view, depth + 1 from deep join uses u on u.used = deep.view where depth < 100
)
select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'm' and c.relispopulated
order by (select max(depth) from deep where view = c.oid), c.oid
"""
"""Materialized views with rows, each after those that it reads."""

SEQUENCES = """
select format('%%I.%%I', n.nspname, c.relname), s.seqstart, s.seqmin, s.seqmax, s.seqincrement > 0,
    array_agg(distinct array[tn.nspname, tc.relname, a.attname]::text[])
from pg_sequence s
join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
join (
    select objid as seq, refobjid as tab, refobjsubid as col from pg_depend
    where classid = 'pg_class'::regclass and refclassid = 'pg_class'::regclass and deptype in ('a', 'i')
    union
    select d.refobjid, f.adrelid, f.adnum from pg_depend d join pg_attrdef f on f.oid = d.objid
    where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype = 'n'
) used on used.seq = s.seqrelid
join pg_class tc on tc.oid = used.tab join pg_namespace tn on tn.oid = tc.relnamespace
join pg_attribute a on a.attrelid = used.tab and a.attnum = used.col and a.atttypid in (20, 21, 23)
where tc.relkind in ('r', 'p')
group by 1, 2, 3, 4, 5
order by 1
"""
"""Sequences, and the integer columns that they number."""

STALE = """
select format('%%I.%%I', s.schemaname, s.tablename) from pg_stats s
join pg_class c on c.oid = format('%%I.%%I', s.schemaname, s.tablename)::regclass
join pg_attribute a on a.attrelid = c.oid and a.attname = s.attname
where c.oid >= 16384 and (c.reltuples <= 0 or a.attstattarget = 0)
union
select format('%%I.%%I', s.schemaname, s.tablename) from pg_stats_ext s
join pg_class c on c.oid = format('%%I.%%I', s.schemaname, s.tablename)::regclass
where c.reltuples <= 0 and (s.n_distinct is not null or s.dependencies is not null or s.most_common_vals is not null)
order by 1
"""
"""Tables of which ANALYZE has left the statistics as they were."""

TABLES = """
select format('%%I.%%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and c.relpersistence <> 't' and (
    c.oid >= 16384
    or n.nspname = 'pg_catalog'
    and c.relname in ('pg_largeobject', 'pg_description', 'pg_statistic', 'pg_statistic_ext_data')
)
order by c.oid
"""
"""Tables with values in them that people wrote."""

QUERY = re.compile(r"\s*(--[^\n]*\n\s*)*\(*\s*(select|with|values|table)\b", re.IGNORECASE)
OLD_LOG = "select from pg_ls_waldir() where name <= %(last)s and name ~ '^[0-9A-F]+$'"
LAST_LOG = "select max(name) from pg_ls_waldir() where name ~ '^[0-9A-F]+$'"
LOG_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Masking:
    """What masks a database.

    :ivar path: of a file of SQL text; None where nothing is masked.
    :ivar verify: a query that must return no row afterwards.
    """

    path: str | None
    verify: str | None

    @property
    def file(self) -> SqlFile | None:
        return None if self.path is None else SqlFile(self.path, MASK, os.path.dirname(self.path) or ".", rows=False)

    def check(self) -> None:
        """
        :raises UserError: there is no such file, it brings one with it that is not there, or ``verify`` is no query.
        """
        if self.file is not None:
            self.file.parts()
        if self.verify is not None and not QUERY.match(self.verify):
            raise UserError(
                f"mask_verify is no query: {self.verify.strip()[:40]!r}",
                hint="one SQL query that must return no row, such as: select 1 from person where email !~ '@example'",
            )

    def digest(self) -> list[str | None]:
        """Tells what masks from anything else."""
        return [None if self.file is None else self.file.digest(), self.verify]

    def apply(
        self,
        target: _postgres.Address,
        password: str,
        *,
        administration: Server,
        own: bool,
        keep: t.Sequence[int],
    ) -> None:
        """Mask a database, and leave nothing of what was replaced where its owner can read it.

        :arg target: the database, and who owns all that is in it.
        :arg administration: of its server.
        :arg own: whether the task is a superuser of that server.
        :arg keep: descriptors of locks, for a program outlives us where we are killed.
        :raises UserError: ``verify`` returned a row.
        :raises EnvironmentFailure: the script, or what follows it, failed; without a row.
        """
        superuser = target.user == administration.address.user and administration.is_superuser
        if self.file is not None:
            settings = SILENT if superuser else None
            self.file.run(target, password, major=administration.major, settings=settings, keep=keep)
            with without_rows("replace what was derived from unmasked rows"):
                server = Server(target, password, Journal(check=False))
                with contextlib.closing(server.connection):
                    _settle(server, administration, own=own)
        if self.verify is not None:
            _verify(self.verify, target, password)


def _settle(server: Server, administration: Server, *, own: bool) -> None:
    """Replace what was derived from rows that are masked now.

    :arg server: in the database, as the owner of all that is in it.
    """
    from psycopg2.sql import SQL

    if server.is_superuser:
        server.act(None, *(compose(f"set {name} = {{value}}", value=value) for name, value in SILENT.items()))
    for schema, view in server.rows(VIEWS):
        server.act(None, compose("refresh materialized view {}.{}", schema, view))
    for row in server.rows(SEQUENCES):
        server.act(None, _positioned(*row))
    if administration.is_superuser:
        with administration.within(server.address.database) as inside:
            inside.act(None, compose("delete from pg_statistic"), compose("delete from pg_statistic_ext_data"))
    if own:
        for (table,) in server.rows(TABLES):
            server.act(None, SQL("vacuum full {}").format(SQL(table)))
    server.act(None, compose("analyze"))
    if stale := [table for (table,) in server.rows(STALE)]:
        raise EnvironmentFailure(
            f"the planner's statistics of {', '.join(stale)} keep values from before the mask",
            hint="name a superuser in database_admin_user, or leave the data of these tables out: exclude_data",
        )
    if own:
        _new_log(server)


def _positioned(
    sequence: str, start: int, least: int, most: int, ascending: bool, columns: t.Sequence[t.Sequence[str]]
) -> Composable:
    """Give a sequence the position that the rows have which it numbers."""
    from psycopg2.sql import SQL, Identifier, Literal

    pick = SQL("max" if ascending else "min")
    each = [
        SQL("select {}({})::bigint as value from {}").format(pick, Identifier(column), Identifier(*table))
        for *table, column in columns
    ]
    text = (
        "select setval({sequence}, coalesce(value, {start}), value is not null) "
        "from (select {pick}(value) as value from ({each}) as columns) as reached "
        "where coalesce(value, {start}) between {least} and {most}"
    )
    numbers = {"start": Literal(start), "least": Literal(least), "most": Literal(most)}
    return SQL(text).format(sequence=Literal(sequence), pick=pick, each=SQL(" union all ").join(each), **numbers)


def _new_log(server: Server) -> None:
    """Have the server remove the segments of its log (WAL) up to now, in place of using them again."""
    server.act(None, compose("alter system set wal_recycle = off"))
    server.act(None, compose("select pg_reload_conf()"))
    try:
        server.act(None, compose("checkpoint"))
        until = time.monotonic() + LOG_SECONDS
        # Segments ahead of the current position are old ones under a new name, with old rows in them.
        ((last,),) = server.rows(LAST_LOG)
        while True:
            server.act(None, compose("select pg_switch_wal()"))
            server.act(None, compose("checkpoint"))
            # Two of them: the server keeps the log from the last checkpoint but one.
            if not server.rows(OLD_LOG, last=last):
                return
            if time.monotonic() > until:
                raise EnvironmentFailure(
                    "the server keeps its log (WAL) from before the mask",
                    hint="drop its replication slots, or set wal_keep_size = 0 in database_settings",
                )
    finally:
        server.act(None, compose("alter system reset wal_recycle"))
        server.act(None, compose("select pg_reload_conf()"))


def _verify(query: str, target: _postgres.Address, password: str) -> None:
    """
    :raises UserError: the query returned a row.
    """
    text = f"select count(*) from (\n{query.strip().rstrip(';')}\n) as unmasked"  # noqa: S608 - the workspace's own SQL
    driver = _postgres.driver()
    with contextlib.closing(_postgres.connect_plainly(target, password)) as connection:
        connection.set_session(readonly=True)
        with connection.cursor() as cursor:
            try:
                cursor.execute("set statement_timeout = 0")
                cursor.execute(text)
                ((count,),) = cursor.fetchall()
            except driver.Error as error:
                said = _sql_errors.of_driver(error, "mask_verify").shown(rows=False)
                raise EnvironmentFailure(f"cannot run {said}", hint=f"correct the query: {query.strip()}") from None
    if count:
        raise UserError(
            f"the result is not masked: mask_verify returned {count} row{'' if count == 1 else 's'}",
            hint=f"correct the mask, or the query: {query.strip()}",
        )


@contextlib.contextmanager
def without_rows(doing: str) -> t.Iterator[None]:
    """Report what the server refuses without the rows that it quotes."""
    driver = _postgres.driver()
    try:
        yield
    except EnvironmentFailure as failure:
        cause = failure.__cause__
        if not isinstance(cause, driver.Error):
            raise
        said = _sql_errors.of_driver(cause, "").shown(rows=False)
        raise EnvironmentFailure(f"cannot {doing}: {said}", hint=failure.hint) from None
