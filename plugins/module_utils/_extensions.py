# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The extensions of a task's database in a server that others use as well: who makes them, and when nobody may.

Private to this collection: may change without notice.

The script of an extension runs with the rights of whoever makes it, and may call functions and operators without their
schema, so that one finds those of the database's owner. Trusted extensions are vetted against that, and their owner
makes them. Others an administrator makes, in a database that has no functions but those of superusers.
"""

from __future__ import annotations

import contextlib
import typing as t

from . import _postgres
from ._errors import UserError
from ._pg_server import Server

TRUSTED_SINCE = 130000
"""The version since which the owner of a database can make some extensions."""

TRUSTED = "select distinct name from pg_available_extension_versions where trusted and name = any(%(names)s)"

OWNERS = "select distinct rolname from pg_proc join pg_roles r on r.oid = proowner where not rolsuper order by 1"
"""Of functions; what an extension's owner has added to it may be his own as well."""

NO_NEW_ONES = "set local lock_timeout = '30s'; lock table pg_proc in share row exclusive mode"


def divided(server: Server, names: t.Sequence[str]) -> tuple[list[str], list[str]]:
    """The extensions that the owner of a database makes, and those that an administrator has to."""
    if not names or server.version < TRUSTED_SINCE:
        return [], [*names]
    trusted = {name for (name,) in server.rows(TRUSTED, names=[*names])}
    return [name for name in names if name in trusted], [name for name in names if name not in trusted]


def create_as_admin(inside: Server, database: str, names: t.Sequence[str]) -> None:
    """Make extensions with an administrator's rights.

    :arg inside: in the database.
    :raises UserError: there are functions that their scripts might call.
    """
    if not names or inside.journal.check or not inside.is_superuser:
        inside.create_extensions(database, names)
        return
    with inside.transaction(NO_NEW_ONES):
        owners = ", ".join(name for (name,) in inside.rows(OWNERS))
        if owners:
            raise UserError(
                f"cannot create extension {', '.join(names)} in database {database}: {owners} has functions there, "
                "which its script, run by an administrator, might call",
                hint="tear the task down and provision it again: a new database gets its extensions first; "
                "one that is copied gets them in its template",
            )
        inside.create_extensions(database, names)


def create_as_owner(server: Server, address: _postgres.Address, password: str, names: t.Sequence[str]) -> None:
    """Make extensions as the role that owns a database.

    :arg address: of the database, with this role.
    """
    if not names or server.journal.check:
        server.create_extensions(address.database, names)
        return
    settings = _postgres.fixed(server.major, superuser=False)
    inside = Server(address, password, server.journal, settings)
    with contextlib.closing(inside.connection):
        inside.create_extensions(address.database, names)
