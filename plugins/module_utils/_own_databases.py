# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in a server that is one task's alone, where it is all superuser's and needs no marks.

Private to this collection: may change without notice.

A database that is not complete takes no connections (its limit is 0) and has no comment; the next run makes it anew.
One that a person has closed has our comment, and stays. What is pulled is built aside, under another name, and gets its
own one when its data are masked.
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from . import _pg_pull, _postgres, _written
from ._door import Params, Result, together
from ._errors import WorktreesError
from ._golden import Golden
from ._pg_databases import Wish
from ._pg_dumps import Dump
from ._pg_pull import Source
from ._pg_server import CLOSED, Server, carry_out, compose

if t.TYPE_CHECKING:
    from psycopg2.sql import Composable

COMPLETE = "complete (parallel.worktrees)"
"""The comment on such a database."""

DATABASES = """
select datname, datallowconn from pg_database
where datname = any(%(names)s) and datconnlimit <> -2
    and (datconnlimit <> 0 or shobj_description(oid, 'pg_database') is not null) order by 1
"""
DROP_SECONDS = 30
HALF_MADE = """
select datname from pg_database
where datname = any(%(names)s)
    and (datconnlimit = -2 or datconnlimit = 0 and shobj_description(oid, 'pg_database') is null)
"""


def ensure(asked: Params, server: Result, *, check: bool) -> Result:
    """Give a server its databases.

    :arg asked: what the task asked for; ``databases`` as ``_pg_databases`` takes them.
    :arg server: what was done to have the server.
    :returns: that and what was done here, with the facts of each database.
    """
    wishes = [Wish.of(one) for one in asked["databases"]]
    goldens = [one["golden"] for one in asked["databases"]]
    address = _postgres.Address(*(server["database"][key] for key in ("host", "port", "user", "name")))
    of_server = {key: value for key, value in server["database"].items() if key not in _FACTS}
    facts = {
        wish.asked: {
            **dataclasses.replace(address, database=wish.name).facts(of_server["backend"], asked["password_file"]),
            **of_server,
        }
        for wish in wishes
    }
    result = {**server, "database": facts[wishes[0].asked], "databases": facts}
    if check and server["actions"]:  # it is not there to be asked
        return {**result, "actions": [*server["actions"], *_pg_pull.planned(asked["databases"])]}
    if not (asked["wait"] or check):
        return result
    as_admin = {
        "host": address.host,
        "port": address.port,
        "timeout": asked["timeout"],
        "admin_user": address.user,
        "admin_password_file": asked["password_file"],
        "maintenance_database": address.database,
    }
    header = f"databases at {address.host}:{address.port}"
    done = carry_out(
        as_admin,
        functools.partial(_ensure, wishes, goldens, asked),
        check=check,
        lock=f"server {asked['name']}",
        header=header,
    )
    return {**result, **together(server, done)}


_FACTS = ("host", "port", "user", "name", "url", "password", "password_file")
"""Those of one database."""


def _ensure(wishes: t.Sequence[Wish], goldens: t.Sequence[Golden | None], asked: Params, server: Server) -> Result:
    names = [wish.name for wish in wishes]
    there = dict(server.rows(DATABASES, names=names))
    half_made = [name for (name,) in server.rows(HALF_MADE, names=[*names, *(wish.aside for wish in wishes)])]
    replaced = {
        wish.name
        for wish in wishes
        if wish.pull and wish.name in there
        if asked["pull_again"] or (there[wish.name] and server.is_empty(wish.name) and wish.pull.look().count)
    }
    kept = {*there} - replaced
    closed = [name for name in sorted(kept) if not there[name]]
    sources = {wish: wish.pull.look() for wish in wishes if wish.pull and wish.name not in kept}
    for wish, source in sources.items():
        source.check_fits(server, wish.extensions, as_superuser=True)
    for name in closed:  # by a run that was killed when it was about to put another in its place
        server.act(f"open database {name}", compose("alter database {} allow_connections true", name))
    lacking = {wish: _lacking(server, wish, closed) if wish.name in kept else list(wish.extensions) for wish in wishes}
    after: dict[str, dict[str, t.Any]] = {wish.name: {"extensions": list(wish.extensions)} for wish in wishes}
    before: dict[str, dict[str, t.Any]] = {name: {"half_made": True} for name in half_made}
    before |= {
        wish.name: {"extensions": [one for one in wish.extensions if one not in lacking[wish]]}
        for wish in wishes
        if wish.name in there
    }
    for name in closed:
        before[name]["open"] = False
    for wish, source in sources.items():
        after[wish.name]["data"] = source.where
    server.journal.state(before, after)
    for name in half_made:
        server.drop(name, DROP_SECONDS, ", which is half made")
    if not server.journal.check:
        _pg_pull.forget(asked["password_file"])
    for wish, golden in zip(wishes, goldens, strict=True):
        server.check_extensions(lacking[wish])
        if wish in sources:
            _pull(server, wish, sources[wish], asked["password_file"], replace=wish.name in replaced)
        elif wish.name not in there:
            _make(server, wish, golden)
        elif lacking[wish]:
            with server.within(wish.name) as inside:
                inside.create_extensions(wish.name, lacking[wish])
    return {}


def _pull(server: Server, wish: Wish, source: Source, password_file: str, *, replace: bool) -> None:
    """Build a database aside from a source, and rename it when it is masked; then drop the one that it replaces."""
    server.create(wish.aside, server.address.user, None, server.strategy("auto", None))
    if wish.extensions:
        with server.at_work_in(wish.aside) as inside:
            inside.create_extensions(wish.aside, wish.extensions)
    server.journal.begin(source.action(wish.name, server))
    try:
        if not server.journal.check:
            source.fill(
                dataclasses.replace(server.address, database=wish.aside),
                server.password or "",
                server=server,
                folder=_pg_pull.folder_of(password_file),
                keep=(server.connection.fileno(),),
            )
    except WorktreesError:
        server.drop(wish.aside, DROP_SECONDS)
        raise
    _written.start(server, wish.aside)
    server.put_in_place(
        wish.aside,
        wish.name,
        *_marked(wish.name, wish.connection_limit, COMPLETE),
        old=_marked(wish.aside, CLOSED, None) if replace else None,
        timeout=DROP_SECONDS,
    )
    if replace:
        server.drop(wish.aside, DROP_SECONDS, ", which it was until now")


def _lacking(server: Server, wish: Wish, closed: t.Collection[str]) -> list[str]:
    if not wish.extensions or (server.journal.check and wish.name in closed):
        return []
    there = server.extensions(wish.name)
    return [name for name in wish.extensions if name not in there]


def _marked(name: str, limit: int, comment: str | None) -> list[Composable]:
    """What says whether a database is complete."""
    return [
        compose("alter database {} connection limit {limit}", name, limit=limit),
        compose("comment on database {} is {comment}", name, comment=comment),
    ]


def _make(server: Server, wish: Wish, golden: Golden | None) -> None:
    """Make a database, or name the golden one that came with the server; that it takes connections comes last."""
    check = server.journal.check
    marked = _marked(wish.name, wish.connection_limit, COMPLETE)
    if golden and server.rows("select from pg_database where datname = %(name)s", name=golden.name):
        rename = compose("alter database {} rename to {}", golden.name, wish.name)
        _written.start(server, golden.name)
        server.act(f"name the copy of {golden.name} {wish.name}", rename, *marked)
        return
    address, password = dataclasses.replace(server.address, database=wish.name), server.password or ""
    dump = None if wish.dump is None else Dump.of(wish.dump, server.major)
    server.create(wish.name, server.address.user, wish.template, server.strategy(wish.strategy, wish.template))
    if wish.extensions:
        with server.at_work_in(wish.name) as inside:
            inside.create_extensions(wish.name, wish.extensions)
    if dump is not None:
        server.journal.begin(f"restore {wish.dump} into database {wish.name}")
        if not check:
            dump.restore(address, password, connections=None, keep=(server.connection.fileno(),))
    if golden:
        server.journal.begin(f"build database {wish.name} as {golden.name} is built")
        if not check:
            golden.fill(address, password, server=server)
    _written.start(server, wish.name)
    server.act(None, *marked)
