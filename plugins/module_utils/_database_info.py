# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in the databases of a task, and how a person gets into them.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import typing as t

from . import _environment, _postgres, _secrets
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError

ARGUMENT_SPEC: dict[str, t.Any] = {
    "databases": {"type": "dict", "required": True},
    "database": {"type": "str"},
    "migration_query": {"type": "str"},
    "about": {"type": "dict", "default": {}},
    "format": {"type": "str", "choices": ["text", "json", "command"]},
}

TABLES = """
select count(*) from pg_catalog.pg_tables where schemaname not in ('pg_catalog', 'information_schema')
"""
SIZE = "select pg_catalog.pg_size_pretty(pg_catalog.pg_database_size(current_database()))"


def operation(params: Params, *, check: bool) -> Result:  # noqa: ARG001 - it touches nothing anyway
    """Look into the databases of a task, or into one of them."""
    databases = {key: facts for key, facts in params["databases"].items() if facts["url"]}
    wanted = params["database"]
    if not databases:
        raise UserError("the task has no database", hint="choose a back end: database_backend")
    if wanted is not None and wanted not in databases:
        raise UserError(
            f"the task has no database {wanted!r}",
            hint=f"choose from: {', '.join(databases)}",
        )
    found = [_look(key, facts, params["migration_query"]) for key, facts in databases.items() if wanted in (None, key)]
    return {
        "changed": False,
        "diff": [],
        "actions": [],
        "databases": found,
        "report": _report(found, params["about"], params["format"]),
    }


def _look(key: str, facts: dict[str, t.Any], migration_query: str | None) -> dict[str, t.Any]:
    address = _postgres.Address(facts["host"], int(facts["port"]), facts["user"], facts["name"])
    told: dict[str, t.Any] = {
        "key": key,
        "name": facts["name"],
        "url": facts["url"].replace(_secrets.DATABASE_PASSWORD, _secrets.MASK),
        "command": _command(address, facts["password_file"]),
        **dict.fromkeys(("tables", "size", "migration")),
    }
    try:
        password = _secrets.read(facts["password_file"])
        with contextlib.closing(_postgres.connect(address, password)) as connection:
            told["tables"] = int(_ask(connection, TABLES) or 0)
            told["size"] = _ask(connection, SIZE)
        if migration_query:
            with contextlib.closing(_postgres.connect_plainly(address, password)) as connection:
                connection.set_session(readonly=True)
                told["migration"] = _last_migration(connection, migration_query)
        told["state"] = "running"
    except (_postgres.driver().OperationalError, FileNotFoundError) as error:
        told["state"] = f"cannot be asked: {str(error).strip()}"
    return told


def _ask(connection: t.Any, query: str) -> str | None:
    """The first row of an answer, in one line."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    return None if row is None else " ".join(str(value) for value in row)


def _last_migration(connection: t.Any, query: str) -> str | None:
    psycopg2 = _postgres.driver()
    try:
        return _ask(connection, query)
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
        return None  # nothing was migrated yet
    except psycopg2.Error as error:
        raise EnvironmentFailure(
            f"the query for the last migration failed: {str(error).strip()}",
            hint="correct it in database_migration_query",
        ) from error


def _command(address: _postgres.Address, password_file: str) -> str:
    """A line for a shell that lets a person in; the password is in no argument of it.

    Variables of PostgreSQL would lead elsewhere, or fail, in spite of the options: two of them, and those of this run.
    """
    others = {"PGSERVICE", "PGHOSTADDR", *_environment.without_postgresql()} - {"PGPASSWORD"}
    options = (
        *("--host", address.host, "--port", str(address.port)),
        *("--username", address.user, "--dbname", address.database),
    )
    program = ("env", *(word for name in sorted(others) for word in ("-u", name)), "psql", *options)
    return f'PGPASSWORD="$(cat {shlex.quote(password_file)})" {shlex.join(program)}'


def _report(databases: t.Sequence[dict[str, t.Any]], about: t.Mapping[str, t.Any], style: str | None) -> str | None:
    if style == "json":
        return json.dumps({**about, "databases": databases}, indent=2, sort_keys=True)
    if style == "command":
        return str(databases[0]["command"])
    if style is None:
        return None
    rows = [(label, str(value)) for label, value in about.items()]
    for one in databases:
        state = one["state"]
        if one["tables"] is not None:
            state = f"{one['tables']} table{'s' * (one['tables'] != 1)}, {one['size']}"
        rows += [("database", f"{one['name']} ({state})"), ("", one["url"])]
        if one["migration"]:
            rows.append(("", f"last migration {one['migration']}"))
        rows.append(("", one["command"]))
    width = max(len(label) for label, _text in rows)
    return "\n".join(f"{label.ljust(width)}  {text}" for label, text in rows)
