# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pg_dump has written, and filling a database with it.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
import shutil
import typing as t

from . import _commands
from ._errors import EnvironmentFailure, UserError
from ._postgres import LIMITS, Address, options_of

RESTORE = (
    *("--exit-on-error", "--no-owner", "--no-privileges", "--no-tablespaces"),
    *("--no-publications", "--no-subscriptions", "--no-security-labels"),
)
PSQL = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", f"--output={os.devnull}")
MOST_JOBS = 4


@dataclasses.dataclass(frozen=True)
class Dump:
    """A dump, and the program that reads it.

    :ivar contents: pg_restore's list of what to restore; None for SQL text.
    """

    path: str
    program: str
    contents: str | None

    @classmethod
    def of(cls, path: str, major: int) -> Dump:
        """
        :arg major: the version of the server that it is for.
        :raises UserError: there is no such dump.
        :raises EnvironmentFailure: there is no program here that can read it.
        """
        try:
            is_archive = os.path.isdir(path) or _is_archive(path)
        except OSError as error:
            raise UserError(f"cannot read the dump {path}: {error.strerror}") from error
        if not is_archive:
            return cls(path, client("psql", major), None)
        program = client("pg_restore", major)
        listing = _commands.must((program, "--list", "--", path), doing=f"cannot read the dump {path}")
        # Some extensions only a superuser can make, and nobody else may comment on them then.
        kept = [line for line in listing.splitlines() if " COMMENT - EXTENSION " not in line]
        return cls(path, program, "\n".join((*kept, "")))

    def restore(self, target: Address, password: str, *, connections: int | None, keep: t.Sequence[int]) -> None:
        """Fill a database, as the user who is going to have it and who can do no harm elsewhere.

        :arg connections: how many may be used; None for as many as are good.
        :arg keep: descriptors of locks, for the program outlives us where we are killed.
        :raises EnvironmentFailure: with its last words.
        """
        from psycopg2.extensions import make_dsn

        escaped = re.sub(r"([\\:])", r"\\\1", password)
        with _in_memory(f"*:*:*:*:{escaped}\n") as passwords, _in_memory(self.contents or "") as contents:
            where = make_dsn(
                host=target.host,
                port=target.port,
                user=target.user,
                dbname=target.database,
                passfile=_path(passwords),
                options=options_of(LIMITS),
            )
            if self.contents is None:
                options: tuple[str, ...] = (*PSQL, f"--dbname={where}", f"--file={self.path}")
            else:
                jobs = f"--jobs={self._jobs(connections)}"
                options = (*RESTORE, jobs, f"--use-list={_path(contents)}", f"--dbname={where}", "--", self.path)
            _commands.must(
                (self.program, *options),
                doing=f"cannot restore {self.path} into database {target.database}",
                hint="extensions that only a superuser can make have to be named in extensions; "
                "SQL text has to be of pg_dump --no-owner --no-privileges",
                keep=(passwords, contents, *keep),
            )

    def _jobs(self, connections: int | None) -> int:
        if ";     Format: TAR" in (self.contents or ""):
            return 1
        # The first connection may not be quite gone when the jobs begin with theirs.
        return max(1, min(MOST_JOBS, os.cpu_count() or 1, MOST_JOBS if connections is None else connections - 1))


def run_text(path: str, target: Address, password: str, *, major: int, keep: t.Sequence[int] = ()) -> None:
    """Run a file of SQL in a database, up to its first error.

    :raises EnvironmentFailure: with its last words.
    """
    Dump(path, client("psql", major), None).restore(target, password, connections=None, keep=keep)


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(262)
    return start.startswith(b"PGDMP") or start.endswith(b"ustar")


def client(name: str, major: int, server: str = "the server,") -> str:
    """The path of a client program that is not older than the server, and the nearest to it.

    :arg server: its name in the message of a failure.
    :raises EnvironmentFailure: there is none.
    """
    installed = [*glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), *glob.glob(f"/usr/pgsql-*/bin/{name}")]
    versions: dict[int, str] = {}
    for path in filter(None, (shutil.which(name), *installed)):
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
def _in_memory(content: str) -> t.Iterator[int]:
    """A file of mode 0600 with no name, of which nothing is left where we are killed (memfd_create(2))."""
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
