# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that come with PostgreSQL: where they are, and how they reach a database.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import contextvars
import glob
import os
import re
import shutil
import typing as t

from . import _commands, _postgres
from ._errors import EnvironmentFailure

if t.TYPE_CHECKING:
    from ._postgres import Address


_folder: contextvars.ContextVar[str | None] = contextvars.ContextVar("folder", default=None)


@contextlib.contextmanager
def found_in(folder: str | None) -> t.Iterator[None]:
    """Look for programs in a folder as well, such as that of the server's own."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def client(name: str, major: int, server: str = "the server,") -> str:
    """The path of a client program that is not older than the server, and the nearest to it.

    :arg server: its name in the message of a failure.
    :raises EnvironmentFailure: there is none.
    """
    installed = [*glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), *glob.glob(f"/usr/pgsql-*/bin/{name}")]
    beside = _folder.get() and shutil.which(name, path=_folder.get())
    versions: dict[int, str] = {}
    for path in filter(None, (shutil.which(name), *installed, beside)):
        version = re.search(r"\) (\d+)", _commands.must((path, "--version"), doing=f"cannot use {name}"))
        versions[int(version[1]) if version else 0] = path
    fitting = [version for version in versions if version >= major]
    if not fitting:
        raise EnvironmentFailure(
            f"{name} {max(versions)} is older than {server} PostgreSQL {major}"
            if versions
            else f"{name} is not on this machine",
            hint=f"apt install postgresql-client-{major}",
        )
    return versions[min(fitting)]


@contextlib.contextmanager
def reached(
    target: Address, password: str, settings: t.Mapping[str, str] | None = None
) -> t.Iterator[tuple[str, tuple[int, ...]]]:
    """The connection string by which a program reaches a database, and the descriptors that it inherits for that.

    :arg settings: of its sessions, beside those that let it work as long as it takes.
    """
    from psycopg2.extensions import make_dsn

    escaped = re.sub(r"([\\:])", r"\\\1", password)
    with in_memory(f"*:*:*:*:{escaped}\n") as passwords:
        where = make_dsn(
            host=target.host,
            port=target.port,
            user=target.user,
            dbname=target.database,
            passfile=path_of(passwords),
            options=_postgres.options_of({**_postgres.LIMITS, **(settings or {})}),
        )
        yield where, (passwords,)


@contextlib.contextmanager
def in_memory(content: str) -> t.Iterator[int]:
    """A file of mode 0600 with no name, of which nothing is left where we are killed (memfd_create(2))."""
    handle = os.memfd_create("parallel-worktrees")
    try:
        os.fchmod(handle, 0o600)
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            file.write(content)
        yield handle
    finally:
        os.close(handle)


def path_of(handle: int) -> str:
    return f"/proc/self/fd/{handle}"
