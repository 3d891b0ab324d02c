# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pg_dump has written, and filling a database with it.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing as t

from . import _commands, _pg_programs, _pull_source, _sql_errors
from ._errors import EnvironmentFailure, UserError
from ._sql_files import DUMP, PSQL, SqlFile

if t.TYPE_CHECKING:
    from ._postgres import Address

LEFT_OUT = (
    *("--no-owner", "--no-privileges", "--no-tablespaces"),
    *("--no-publications", "--no-subscriptions", "--no-security-labels"),
)
MOST_JOBS = 4

OBJECT = re.compile(r"^-- Name: (?P<name>.*); Type: (?P<kind>[A-Z ]+); Schema: ")
"""The comment above each object in a script of pg_restore's."""

NO_MORE_LOCKS = "53200"
"""The SQLSTATE of a transaction that makes more objects than the server has locks for."""

SILENT_NOTICES = {"client_min_messages": "warning"}


@dataclasses.dataclass(frozen=True)
class Dump:
    """A dump, and the program that reads it.

    :ivar contents: pg_restore's list of what to restore; None for SQL text.
    :ivar major: the version of the server that it is for.
    :ivar name: in messages.
    """

    path: str
    program: str
    contents: str | None
    major: int
    name: str

    @classmethod
    def of(cls, path: str, major: int, *, without: t.Collection[str] = (), name: str | None = None) -> Dump:
        """
        :arg major: the version of the server that it is for.
        :arg without: the kinds of objects that are not restored.
        :arg name: in messages, in place of the path.
        :raises UserError: there is no such dump.
        :raises EnvironmentFailure: there is no program here that can read it.
        """
        try:
            is_archive = os.path.isdir(path) or _is_archive(path)
        except OSError as error:
            raise UserError(f"cannot read the dump {path}: {error.strerror}") from error
        if not is_archive:
            return cls(path, _pg_programs.client("psql", major), None, major, name or path)
        program = _pg_programs.client("pg_restore", major)
        listing = _commands.must((program, "--list", "--", path), doing=f"cannot read the dump {path}")
        contents = makeable(_pull_source.without_kinds(listing, without))
        return cls(path, program, contents, major, name or path)

    def restore(
        self,
        target: Address,
        password: str,
        *,
        connections: int | None,
        keep: t.Sequence[int],
        settings: t.Mapping[str, str] | None = None,
        rows: bool = True,
    ) -> None:
        """Fill a database, as the user who is going to have it and who can do no harm elsewhere.

        :arg connections: how many may be used; None for as many as are good.
        :arg keep: descriptors of locks, for the program outlives us where we are killed.
        :arg settings: of the sessions.
        :arg rows: whether a failure may quote rows.
        :raises EnvironmentFailure: what failed and why.
        """
        if self.contents is None:
            text = SqlFile(self.path, DUMP, os.path.dirname(self.path), rows=rows)
            try:
                text.run(target, password, major=self.major, settings=settings, keep=keep)
            except EnvironmentFailure as failure:
                raise self._failure(target, failure.message, failure.hint) from None
            return
        with (
            _pg_programs.reached(target, password, settings) as (where, files),
            _pg_programs.in_memory(self.contents) as contents,
        ):
            jobs, use = f"--jobs={self._jobs(connections)}", f"--use-list={_pg_programs.path_of(contents)}"
            argv = (self.program, "--exit-on-error", *LEFT_OUT, jobs, use, f"--dbname={where}", "--", self.path)
            done = _commands.run(argv, keep=(*files, contents, *keep))
        if not done.ok:
            reported = _sql_errors.of_pg_restore(done.stderr)
            ending = done.ending(done.stderr) if rows else f"pg_restore ended with {done.code}"
            said = reported.shown(rows=rows) if reported else ending
            raise self._failure(target, said, reported.hint if reported else None)

    def _failure(self, target: Address, said: str, hint: str | None) -> EnvironmentFailure:
        return EnvironmentFailure(f"cannot restore {self.name} into database {target.database}: {said}", hint=hint)

    def _jobs(self, connections: int | None) -> int:
        if ";     Format: TAR" in (self.contents or ""):
            return 1
        # The first connection may not be quite gone when the jobs begin with theirs.
        return max(1, min(MOST_JOBS, os.cpu_count() or 1, MOST_JOBS if connections is None else connections - 1))


def makeable(listing: str) -> str:
    """A list of pg_restore's without what only a superuser can do and nobody needs."""
    # Some extensions only a superuser can make, and nobody else may comment on them then.
    kept = [line for line in listing.splitlines() if " COMMENT - EXTENSION " not in line]
    return "\n".join((*kept, ""))


def rehearse(script: str, target: Address, password: str, *, major: int) -> tuple[str, str, str] | None:
    """Make the objects of a script of pg_restore's in one transaction, and roll it back.

    :returns: the kind and the name of the object that cannot be made, and why; None where all can.
    """
    psql = _pg_programs.client("psql", major)
    with _pg_programs.reached(target, password, SILENT_NOTICES) as (where, files):
        argv = (psql, *PSQL, f"--dbname={where}", "--command=begin", "--file=-", "--command=rollback")
        # A pg_restore that is newer than the server sets what the server does not know.
        stdin = script.replace("SET transaction_timeout = 0;", "").encode("utf-8", "surrogateescape")
        done = _commands.run(argv, stdin=stdin, keep=files)
    reported = _sql_errors.of_psql(done.stderr, "/")
    if done.ok or reported is None or reported.code == NO_MORE_LOCKS:
        return None
    before = script.splitlines()[: reported.line]
    objects = [found for found in map(OBJECT.match, before) if found]
    if not objects:
        return None
    return objects[-1]["kind"].lower(), objects[-1]["name"], reported.message


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(262)
    return start.startswith(b"PGDMP") or start.endswith(b"ustar")
