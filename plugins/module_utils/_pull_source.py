# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pull takes of its source, and what could not be read there: looked at before the long work begins.

Private to this collection: may change without notice.

psql and pg_dump alone know what their patterns mean, so psql lists what each matches. A pattern that selects nothing is
refused, for the data that it was to leave out would come. A table with partitions, or with tables that inherit from it,
stands for all of them: by itself, pg_dump takes each of them for a table of its own.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
import typing as t

from ._errors import UserError

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from ._commands import Completed

OPTIONS = {"tables": "--table", "exclude_tables": "--exclude-table", "exclude_data": "--exclude-table-data"}
"""The lists of patterns of a pull, and pg_dump's names for them."""

LARGE_OBJECT, COMMENT, USER_MAPPING = "large object", "comment", "user mapping"
UNMASKED = (COMMENT, LARGE_OBJECT, USER_MAPPING)
"""Kinds of objects that hold what people wrote, and that a mask of tables does not reach."""

ENTRY = re.compile(r"^(?P<number>\d+); (?P<catalog>\d+) (?P<oid>\d+) (?P<rest>.*)$", re.MULTILINE)
"""A line of pg_restore's list."""

RELATIONS = "1259"
"""The number of pg_class."""

NAMED = """
select n.nspname, c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
where (n.nspname, c.relname) in (select * from unnest(%(schemas)s::text[], %(names)s::text[]))
"""
HEIRS = """
with recursive heirs (oid) as (
    select inhrelid from pg_inherits where inhparent = any(%(parents)s::oid[])
    union
    select inhrelid from heirs join pg_inherits on inhparent = oid
)
select c.oid, n.nspname, c.relname from heirs join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
order by 1
"""
ABOUT = """
select count(*) filter (where has_data), coalesce(sum(pg_table_size(c.oid)) filter (where has_data), 0)::bigint,
    coalesce(array_agg(distinct n.nspname::text), '{}')
from (select c.*, c.oid = any(%(tables)s::oid[]) as has_data from pg_class c) c
join pg_namespace n on n.oid = c.relnamespace where c.oid = any(%(relations)s::oid[])
"""
POLICIES = """
select format('%%I on %%s', polname, polrelid::regclass),
    array(select rolname::text from pg_roles where oid = any(polroles))
from pg_policy where polrelid = any(%(relations)s::oid[]) order by 1
"""
UNREADABLE = """
select 'has row security, and pg_dump reads all rows or none', oid::regclass::text from pg_class
where oid = any(%(tables)s::oid[]) and row_security_active(oid)
union all
select 'cannot be read by this user', oid::regclass::text from pg_class
where oid = any(%(relations)s::oid[]) and case when relkind = 'S' then not has_sequence_privilege(oid, 'select') end
union all
select 'cannot be read by this user', format('large object %%s', l.oid) from pg_largeobject_metadata l
where %(large_objects)s and not pg_has_role(lomowner, 'usage') and not exists (
    select from aclexplode(lomacl) where privilege_type = 'SELECT' and (grantee = 0 or pg_has_role(grantee, 'usage'))
)
order by 1, 2
"""
REFERENCES = """
select n.nspname, c.relname, f.confrelid::regclass::text, f.conname,
    array(select a.attname::text from pg_attribute a where a.attrelid = f.conrelid and a.attnum = any(f.conkey))
from pg_constraint f join pg_class c on c.oid = f.conrelid join pg_namespace n on n.oid = c.relnamespace
where f.contype = 'f' and f.convalidated and f.conparentid = 0 and f.conrelid = any(%(tables)s::oid[])
    and f.confrelid = any(%(relations)s::oid[]) and not f.confrelid = any(%(tables)s::oid[])
order by 1, 2, 4
"""
"""Foreign keys of tables whose data come, to tables whose data do not."""

MOST_NAMED = 5


class Reader(t.Protocol):
    """Who runs programs of PostgreSQL's that read a source."""

    @property
    def where(self) -> str: ...

    def psql(self, script: str, *variables: str) -> Completed: ...

    def definitions(self, filters: t.Sequence[str]) -> tuple[str, str]: ...


@dataclasses.dataclass(frozen=True)
class Contents:
    """What comes of a source.

    :ivar filters: pg_dump's, for the definitions and for the data.
    :ivar relations: those that come, by their numbers.
    :ivar tables: those of them whose data come.
    :ivar archive: the definitions, as pg_dump writes them; bytes that are no text are escaped.
    :ivar listing: pg_restore's list of it.
    """

    filters: tuple[str, ...] = ()
    relations: frozenset[int] = frozenset()
    tables: tuple[int, ...] = ()
    archive: str = dataclasses.field(default="", repr=False)
    listing: str = dataclasses.field(default="", repr=False)


def contents(reader: Reader, connection: Connection, patterns: t.Mapping[str, t.Sequence[str]]) -> Contents:
    """
    :arg patterns: by the names in ``OPTIONS``.
    :raises UserError: one of them selects nothing.
    """
    found = _matched(reader, connection, patterns)
    chosen = {option: {oid for one in found[option].values() for oid in one} for option in OPTIONS}
    filters = {option: [f"{flag}={pattern}" for pattern in patterns[option]] for option, flag in OPTIONS.items()}
    for option, flag in OPTIONS.items():
        for heir, schema, name in _rows(connection, HEIRS, parents=sorted(chosen[option])) if chosen[option] else ():
            if heir not in chosen[option]:
                chosen[option].add(heir)
                filters[option].append(f"{flag}={quoted(schema)}.{quoted(name)}")
    definitions = (*filters["tables"], *filters["exclude_tables"])
    archive, listing = reader.definitions(definitions)
    entries = [entry for entry in ENTRY.finditer(listing) if entry["catalog"] == RELATIONS]
    relations = frozenset(int(entry["oid"]) for entry in entries)
    comes: dict[str, t.Collection[int]] = {"exclude_tables": chosen["tables"], "exclude_data": relations}
    for option, within in comes.items():
        for pattern, oids in found[option].items():
            if within and not _with_heirs(connection, oids).intersection(within):
                raise _selects_nothing(reader, option, pattern, "no table that comes")
    tables = [int(entry["oid"]) for entry in entries if entry["rest"].startswith("TABLE ")]
    kept = tuple(oid for oid in tables if oid not in chosen["exclude_data"])
    return Contents((*definitions, *filters["exclude_data"]), relations, kept, archive, listing)


def _with_heirs(connection: Connection, oids: t.Collection[int]) -> set[int]:
    return {*oids, *(row[0] for row in _rows(connection, HEIRS, parents=[*oids]))}


def _rows(connection: Connection, query: str, **values: t.Any) -> list[tuple[t.Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


CATALOG_FIRST = """\
begin read only;
select pg_catalog.set_config('search_path',
    pg_catalog.concat('pg_catalog, ', pg_catalog.current_setting('search_path')), true);
"""
"""psql's own queries name operators without their schema, and whoever owns the database may have others of that name.
The rest of the path stays, for it says what a pattern without a schema means."""


def _matched(
    reader: Reader, connection: Connection, patterns: t.Mapping[str, t.Sequence[str]]
) -> dict[str, dict[str, set[int]]]:
    """The numbers of the relations that each pattern matches."""
    found: dict[str, dict[str, set[int]]] = {option: {} for option in OPTIONS}
    given = [(option, pattern) for option in OPTIONS for pattern in patterns[option]]
    if not given:
        return found
    mark = secrets.token_hex(16)
    lines = [f"\\echo {mark}\n\\dtvmsE :pattern{number}" for number, _pattern in enumerate(given)]
    variables = [f"pattern{number}={pattern}" for number, (_option, pattern) in enumerate(given)]
    done = reader.psql("\n".join((CATALOG_FIRST, *lines, "")), *variables)
    answers = done.stdout.split(f"{mark}\n")[1:]
    for (option, pattern), answer in zip(given, answers, strict=False):
        rows = [record.split("\x1f")[:2] for record in answer.split("\x1e") if "\x1f" in record]
        if not rows:
            raise _selects_nothing(reader, option, pattern, "no table")
        schemas, names = zip(*rows, strict=True)
        named = _rows(connection, NAMED, schemas=[*schemas], names=[*names])
        found[option][pattern] = {oid for _schema, _name, oid in named}
    if not done.ok:
        option, pattern = given[max(0, len(answers) - 1)]
        raise _selects_nothing(reader, option, pattern, "no table")
    return found


def _selects_nothing(reader: Reader, option: str, pattern: str, what: str) -> UserError:
    return UserError(
        f"pull: {option} has the pattern {pattern!r}, which matches {what} of {reader.where}",
        hint="a name alone is looked for in the search_path of the URL's user; a table of another schema is "
        "SCHEMA.TABLE, and *.TABLE in any. Correct the pattern, or leave it out",
    )


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def kinds(listing: str) -> dict[str, list[str]]:
    """The kinds of objects in a list of pg_restore's, in lower case, with the rest of each line."""
    found: dict[str, list[str]] = {}
    for entry in ENTRY.finditer(listing):
        words = entry["rest"].split(" ")
        count = next(at for at, word in enumerate(words) if not word.isupper())
        found.setdefault(" ".join(words[:count]).lower(), []).append(" ".join(words[count:]))
    return found


def without_kinds(listing: str, excluded: t.Collection[str]) -> str:
    """A list of pg_restore's without objects of some kinds, and without the comments on them."""
    if not excluded:
        return listing
    named = "|".join(re.escape(kind.upper()) for kind in sorted(excluded))
    leave = re.compile(rf"^\d+; \d+ \d+ (?:(?:{named}) (?!DATA )|COMMENT \S+ (?:{named}) )")
    return "\n".join(line for line in listing.split("\n") if not leave.match(line))


def check_readable(connection: Connection, where: str, found: Contents, *, large_objects: bool) -> None:
    """
    :raises UserError: a table, a sequence or a large object cannot be read, which pg_dump reports when it is there.
    """
    rows = _rows(
        connection,
        UNREADABLE,
        tables=[*found.tables],
        relations=[*found.relations],
        large_objects=large_objects,
    )
    for reason in sorted({reason for reason, _name in rows}):
        names = [name for why, name in rows if why == reason]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise UserError(
            f"pull: {', '.join(names[:MOST_NAMED])}{more} of {where} {reason}",
            hint="grant the user of the URL what it lacks (select, or bypassrls), or leave them out: "
            "exclude_data, exclude_tables, exclude_kinds",
        )


def check_references(connection: Connection, where: str, found: Contents) -> None:
    """
    :raises UserError: rows that come refer to rows that do not, which PostgreSQL reports when all is restored.
    """
    from psycopg2.sql import SQL, Identifier

    rows = _rows(connection, REFERENCES, tables=[*found.tables], relations=[*found.relations])
    for schema, name, other, constraint, columns in rows:
        refers = SQL(" and ").join(SQL("{} is not null").format(Identifier(column)) for column in columns)
        text = SQL("select from {} where {} limit 1").format(Identifier(schema, name), refers)
        with connection.cursor() as cursor:
            cursor.execute(text)
            if cursor.fetchone() is None:
                continue
        raise UserError(
            f"pull: rows of {schema}.{name} in {where} refer to rows of {other}, which do not come ({constraint})",
            hint=f"leave out the data of {schema}.{name}, too: exclude_data; or all foreign keys: "
            "exclude_kinds: [fk constraint]",
        )
