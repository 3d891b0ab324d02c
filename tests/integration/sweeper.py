# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads all that a role can read in a database, and looks for values that it must not find."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import psycopg2
from integration.servers import read
from psycopg2 import errors, sql

RELATIONS = """
select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_(toast|temp)' order by 1, 2
"""
LARGE_OBJECTS = "select oid from pg_largeobject_metadata"


def found(facts: dict[str, t.Any], sentinels: t.Sequence[str]) -> list[str]:
    """Where a task's role finds one of these values: relations, with the row; large objects; other databases."""
    url = facts["url"].replace(facts["password"], read(facts["password_file"]))
    place, _slash, _name = url.rpartition("/")
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select datname from pg_database")
            databases = [name for (name,) in cursor.fetchall()]
    places = []
    for name in databases:
        with contextlib.suppress(psycopg2.OperationalError):
            quoted = name.replace("%", "%25").replace(" ", "%20").replace("(", "%28").replace(")", "%29")
            with contextlib.closing(psycopg2.connect(f"{place}/{quoted}")) as connection:
                connection.autocommit = True
                places += [f"{name}: {text}" for text in _within(connection, sentinels)]
    return places


def _within(connection: t.Any, sentinels: t.Sequence[str]) -> t.Iterator[str]:
    with connection.cursor() as cursor:
        cursor.execute(RELATIONS)
        for relation in cursor.fetchall():
            with contextlib.suppress(errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState):
                cursor.execute(sql.SQL("select * from {}").format(sql.Identifier(*relation)))
                for row in cursor.fetchall():
                    if any(one in str(row) for one in sentinels):
                        yield f"{'.'.join(relation)}: {row}"
        cursor.execute(LARGE_OBJECTS)
        for (oid,) in cursor.fetchall():
            with contextlib.suppress(errors.InsufficientPrivilege):
                cursor.execute("select lo_get(%s)", (oid,))
                ((content,),) = cursor.fetchall()
                if any(one.encode() in bytes(content) for one in sentinels):
                    yield f"large object {oid}"


def found_in_files(folder: pathlib.Path, sentinels: t.Sequence[str]) -> list[str]:
    """The files below a folder that have one of these values in them."""
    there = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in there if any(one.encode() in path.read_bytes() for one in sentinels)]
