# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of SQL text: what they are made of, what psql could not do with them, and running them.

Private to this collection: may change without notice.

A file can bring others with it (``\\i``, ``\\ir``, ``\\copy ... from``). They are looked up before anything is done,
and are part of the content.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shlex
import typing as t

from . import _commands, _pg_programs, _sql_errors
from ._errors import EnvironmentFailure, UserError

if t.TYPE_CHECKING:
    from ._postgres import Address

PSQL = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose", f"--output={os.devnull}")

PATH = r"(?P<path>'(?:[^']|'')*'|\S+)"
INCLUDE = re.compile(rf"[ \t]*\\(?P<how>ir?|include(?:_relative)?)[ \t]+{PATH}")
COPY = re.compile(rf"[ \t]*\\(?P<how>copy)[ \t]+[^(].*?\bfrom[ \t]+(?!(?:program|p?stdin)\b){PATH}", re.IGNORECASE)
BY_FILE = ("ir", "include_relative")
"""Paths in these begin at the folder of the file that has them; those in others, where psql runs."""

APART = re.compile(
    r"[ \t]*(?P<statement>(?:create(?:[ \t]+unique)?|drop)[ \t]+index[ \t]+concurrently"
    r"|reindex\b.*\bconcurrently|vacuum|(?:create|drop)[ \t]+(?:database|tablespace)|alter[ \t]+system)\b",
    re.IGNORECASE,
)
"""Statements that cannot run in a transaction, at the start of a line."""

DUMP, MASK, MIGRATION = "dump", "mask", "migration"
"""What a file of SQL text is to the user. A dump has all in it, and nothing that fails in a transaction."""

COMMIT = re.compile(r"\bcommit\b[^;]*;", re.IGNORECASE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class SqlFile:
    """A file of SQL text, and how psql runs it.

    :ivar kind: what it is to the user, one of ``DUMP``, ``MASK``, ``MIGRATION``.
    :ivar folder: where psql runs.
    :ivar transaction: whether all of it is one transaction.
    :ivar rows: whether a failure may quote rows.
    """

    path: str
    kind: str
    folder: str
    transaction: bool = True
    rows: bool = True

    @property
    def name(self) -> str:
        path = os.path.relpath(self.path, self.folder)
        return f"{self.kind} {self.path if path.startswith('..') else path}"

    def parts(self) -> tuple[str, ...]:
        """Its path, and those of all files that it brings with it.

        :raises UserError: one cannot be read or found, or has a statement that cannot run in a transaction.
        """
        if self.kind == DUMP:
            return (self.path,)
        found: dict[str, None] = {}
        self._add(self.path, found)
        return tuple(found)

    def _add(self, path: str, found: dict[str, None]) -> None:
        if path in found:
            return
        found[path] = None
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError as error:
            raise UserError(f"cannot read {self._said(path)}: {error.strerror}") from error
        # Comments stay as empty lines, so that the numbers of lines are right.
        text = COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), text)
        self._check_transaction(path, text)
        for number, line in enumerate(text.splitlines(), 1):
            if include := INCLUDE.match(line):
                self._add(self._brought(include, path, number), found)
            elif copy := COPY.match(line):
                found[self._brought(copy, path, number)] = None

    def _check_transaction(self, path: str, text: str) -> None:
        if not self.transaction or COMMIT.search(text):
            return
        for number, line in enumerate(text.splitlines(), 1):
            if apart := APART.match(line):
                way_out = "golden.transaction: false" if self.kind == MIGRATION else "take it out"
                raise UserError(
                    f"{self._said(path)}, line {number}: {' '.join(apart['statement'].lower().split())} "
                    f"cannot run in a transaction, as all of a {self.kind} does",
                    hint=way_out,
                )

    def _brought(self, found: re.Match[str], path: str, number: int) -> str:
        """The file that a command of psql names."""
        named = found["path"].rstrip(";")
        said = f"{self._said(path)}, line {number}"
        if named.startswith("'"):
            named = named[1:-1].replace("''", "'")
        elif re.match(r"[:`\"]", named):
            raise UserError(
                f"{said}: which file \\{found['how']} {named} names is known to psql alone",
                hint="write its path there, so that a change of the file is noticed",
            )
        start = os.path.dirname(path) if found["how"] in BY_FILE else self.folder
        other = os.path.join(start, named)
        if not (os.path.isfile(other) and os.access(other, os.R_OK)):
            hint = f"paths of \\{found['how']} begin at {start}"
            raise UserError(f"{said}: there is no file {other} to read", hint=hint)
        return other

    def _said(self, path: str) -> str:
        return dataclasses.replace(self, path=path).name

    def digest(self) -> str:
        """Of the content of all its parts."""
        content = hashlib.sha256()
        for path in self.parts():
            with open(path, "rb") as file:
                content.update(hashlib.file_digest(file, "sha256").digest())
        return content.hexdigest()

    def run(
        self,
        target: Address,
        password: str,
        *,
        major: int,
        settings: t.Mapping[str, str] | None = None,
        keep: t.Sequence[int] = (),
    ) -> None:
        """Run it in a database, up to its first error.

        :arg major: the version of the server.
        :arg settings: of the session.
        :arg keep: descriptors of locks, for psql outlives us where we are killed.
        :raises EnvironmentFailure: where it failed and why.
        """
        self.parts()
        psql = _pg_programs.client("psql", major)
        with _pg_programs.reached(target, password, settings) as (where, files):
            mode = ("--single-transaction",) if self.transaction else ()
            argv = (psql, *PSQL, *mode, f"--dbname={where}", f"--file={os.path.abspath(self.path)}")
            done = _commands.run(argv, cwd=self.folder, keep=(*files, *keep))
        if not done.ok:
            raise self._failure(_sql_errors.of_psql(done.stderr, self.folder), done.ending(done.stderr))

    def _failure(self, reported: _sql_errors.Reported | None, ending: str) -> EnvironmentFailure:
        if reported is None:
            said = ending if self.rows else _sql_errors.NOT_SHOWN
            return EnvironmentFailure(f"{self.name}: psql {said}")
        return EnvironmentFailure(
            f"{self.kind} {reported.shown(rows=self.rows)}",
            hint=reported.hint or f"correct it: {shlex.quote(self.path)}",
        )
