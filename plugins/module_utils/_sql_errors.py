# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What psql and pg_restore report of an error: where it is, what it is, and what helps.

Private to this collection: may change without notice.

The server's words can quote rows, and not only in DETAIL and CONTEXT: 'invalid input syntax for type date: "Ada"'.
Where rows are not masked yet, a message is shown only if it names nothing but what the SQL text or the schema has in
it; otherwise the name of its SQLSTATE stands for it.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any

from . import _postgres

PSQL_ERROR = re.compile(r"^psql:(?P<path>.*?):(?P<line>\d+): [^\s:]+:\s+(?P<code>[0-9A-Z]{5}): (?P<message>.*)$")
"""With VERBOSITY=verbose. The severity is in the server's language."""

PSQL_OWN = re.compile(r"^psql:(?P<path>.*?):(?P<line>\d+): (?:error: )?(?P<message>.*)$")
"""What psql reports by itself, such as a file that is not there."""

NO_ERRORS = ("00", "01", "02")
"""Classes of SQLSTATE that notices and warnings have."""

POSITION, INNER = re.compile(r"^LINE \d+: "), re.compile(r"^(QUERY|CONTEXT): ")

ENTRY = re.compile(r"^pg_restore: from TOC entry \d+; \d+ \d+ (?P<kind>[A-Z][A-Z ]*[A-Z]) (?P<name>.*) \S+$")
RESTORE_ERROR = re.compile(r"^pg_restore: error: (?P<message>.*)$")
QUERY_ERROR = re.compile(r"^could not execute query: [^\s:]+:\s+(?P<message>.*)$")
COPY_ERROR = re.compile(r'^(?P<copy>(?:COPY failed for|error returned by PQputCopy\w* for) table ".*?"): .*$')

NO_ROWS = re.compile(
    r"^(duplicate key value violates unique constraint|could not create unique index"
    r"|null value in column \"[^\"]*\"( of relation \"[^\"]*\")? violates|new row for relation \"[^\"]*\" violates"
    r"|(insert or update|update or delete) on table \"[^\"]*\" violates"
    r"|check constraint \"[^\"]*\" of relation \"[^\"]*\" is violated"
    r"|permission denied (for|to)|must be (owner|superuser)|could not (extend|write to|create) file"
    r"|no space left on device|out of (shared )?memory|division by zero"
    r"|canceling statement due to|current transaction is aborted|[A-Z ]+ cannot run inside a transaction block)",
    re.IGNORECASE,
)
"""Messages that name objects and never a value."""

NO_OBJECT = re.compile(
    r"^(role|type|schema|extension|relation|table|function|operator|access method|language) .* does not exist"
)
NOT_SHOWN = "the server's words may quote rows that are not masked, so they are not shown"

PLAIN = "take the statement out, as pg_dump --no-owner --no-privileges does"
HINTS = (
    ("25001", "", "it cannot run in a transaction: give golden.transaction: false, or take the statement out"),
    ("42501", "extension", "name the extension in extensions: an administrator makes it"),
    ("42501", "", f"the role that runs it owns the database, and is no superuser: {PLAIN}"),
    ("42704", "role", f"make the role in the server, or {PLAIN}"),
    ("42710", "extension", "name it in extensions or make it in the file, not both"),
    ("0A000|58P01", "extension", "install the extension on the server, or take the statement out"),
    ("53100", "", "free some space on the server's disk: df -h"),
    ("53200", "", "raise max_locks_per_transaction of the server"),
    ("57014", "", "statement_timeout of the role or of the server ends it"),
    ("57P0.", "", "the server was stopped, or an administrator ended the session: run it again"),
)
"""What helps, by SQLSTATE and by what the message is about."""


@dataclasses.dataclass(frozen=True)
class Reported:
    """An error that a program reported.

    :ivar place: the file and the line, or the object of a dump.
    :ivar code: its SQLSTATE, if the program says it.
    :ivar line: of the file.
    :ivar names_only: whether its words are about the SQL text or the schema, and quote no row.
    """

    place: str
    code: str | None
    message: str
    names_only: bool
    line: int = 0

    def shown(self, *, rows: bool) -> str:
        """
        :arg rows: whether rows may be quoted.
        """
        if rows or self.names_only:
            message = self.message
        elif self.code is not None:
            message = f"{condition(self.code)} (SQLSTATE {self.code}); {NOT_SHOWN}"
        else:
            message = NOT_SHOWN
        return ": ".join(filter(None, (self.place, message)))

    @property
    def hint(self) -> str | None:
        for code, about, hint in HINTS:
            if re.fullmatch(code, self.code or "") and re.search(about, self.message):
                return hint
        return None


def of_psql(stderr: str, folder: str) -> Reported | None:
    """The error at which psql stopped, if it reports where.

    :arg folder: files are named as they are called from there.
    """
    lines = stderr.splitlines()
    for at in range(len(lines) - 1, -1, -1):
        if (found := PSQL_ERROR.match(lines[at])) and not found["code"].startswith(NO_ERRORS):
            after = lines[at + 1 :]
            in_text = any(map(POSITION.match, after)) and not any(map(INNER.match, after))
            names_only = bool(NO_ROWS.match(found["message"])) or in_text
            return Reported(_place(found, folder), found["code"], found["message"], names_only, int(found["line"]))
    for at in range(len(lines) - 1, -1, -1):
        if found := PSQL_OWN.match(lines[at]):
            if PSQL_ERROR.match(lines[at]):
                break
            return Reported(_place(found, folder), None, found["message"], names_only=True)
    return None


def _place(found: re.Match[str], folder: str) -> str:
    path = os.path.relpath(found["path"], folder) if os.path.isabs(found["path"]) else found["path"]
    return f"{os.path.basename(path) if path.startswith('..') else path}, line {found['line']}"


def of_pg_restore(stderr: str) -> Reported | None:
    """The error at which pg_restore stopped, if it reports the object."""
    place = ""
    for line in stderr.splitlines():
        if entry := ENTRY.match(line):
            place = f"{entry['kind'].lower()} {entry['name']}"
        if error := RESTORE_ERROR.match(line):
            message = error["message"]
            if copy := COPY_ERROR.match(message):
                return Reported(copy["copy"], None, message.removeprefix(f"{copy['copy']}: "), names_only=False)
            if query := QUERY_ERROR.match(message):
                message = query["message"]
                names_only = bool(NO_ROWS.match(message) or NO_OBJECT.match(message))
                return Reported(place, _code(message), message, names_only)
    return None


def _code(message: str) -> str | None:
    """The SQLSTATE, which pg_restore does not report, of messages for which there is a hint."""
    for pattern, code in (
        ("permission denied|must be (owner|superuser)", "42501"),
        ("does not exist", "42704"),
        ("already exists", "42710"),
        ("extension .* is not available", "0A000"),
        ("could not open extension control file", "58P01"),
        ("could not extend file|No space left", "53100"),
        ("out of shared memory", "53200"),
    ):
        if re.search(pattern, message):
            return code
    return None


def condition(code: str) -> str:
    """The name of a SQLSTATE, as in ``division by zero``."""
    _postgres.driver()
    from psycopg2 import errors

    try:
        name = errors.lookup(code).__name__.rstrip("_")
    except KeyError:
        return "error"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def of_driver(error: Any, place: str) -> Reported:
    """An error that psycopg2 reports."""
    said = error.diag
    message = said.message_primary or "the connection was lost"
    in_text = said.statement_position is not None and said.context is None and said.internal_query is None
    return Reported(place, error.pgcode, message, in_text or bool(NO_ROWS.match(message)))
