# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden databases: the state that tasks' databases begin with, built once and then copied.

Private to this collection: may change without notice.

A golden database is known by a hash of all that it is built from, so a changed migration makes another one beside it.
Where it lies and how it is copied is the back end's: a template in a shared server, an image, a folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import typing as t

from . import _commands, _pg_dumps, _secrets
from ._door import Params
from ._errors import EnvironmentFailure, UserError
from ._pg_server import Journal, Server
from ._postgres import Address

OPTIONS: dict[str, t.Any] = {
    "folder": {"type": "path", "required": True},
    "dump": {"type": "path"},
    "files": {"type": "list", "elements": "str", "default": []},
    "commands": {"type": "list", "elements": "str", "default": []},
    "inputs": {"type": "list", "elements": "str", "default": []},
}


@dataclasses.dataclass(frozen=True)
class Golden:
    """What a database is built from.

    :ivar files: SQL text, in the order in which it runs.
    :ivar commands: lines of shell that run in ``folder`` after that.
    :ivar name: of the database, unique to what it is built from.
    """

    folder: str
    dump: str | None
    files: tuple[str, ...]
    commands: tuple[str, ...]
    extensions: tuple[str, ...]
    name: str

    @classmethod
    def of(cls, given: Params, label: str, extensions: t.Iterable[str]) -> Golden:
        """
        :arg label: tells databases of one task that are built from the same.
        :raises UserError: there is nothing to build it from.
        """
        folder = given["folder"]
        if not os.path.isdir(folder):
            raise UserError(
                f"golden database: there is no folder {folder}", hint="golden.folder is where it is built from"
            )
        files = [path for pattern in given["files"] for path in _matching(folder, pattern)]
        inputs = [path for pattern in given["inputs"] for path in _matching(folder, pattern)]
        dump = None if given["dump"] is None else os.path.join(folder, given["dump"])
        if not (dump or files or given["commands"]):
            raise UserError(
                "golden database: it says not what it is built from",
                hint="give golden.dump, golden.files or golden.commands",
            )
        extensions = tuple(sorted({*extensions}))
        content = [
            *(label, extensions, given["commands"]),
            *([os.path.relpath(path, folder), _digest(path)] for path in files + inputs),
            None if dump is None else _digest(dump),
        ]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        return cls(folder, dump, tuple(files), tuple(given["commands"]), extensions, f"golden_{key}")

    def fill(self, address: Address, password: str, *, major: int) -> None:
        """Build it in an empty database, as the user whom the address names.

        :raises EnvironmentFailure: a step failed; with its last words.
        """
        if self.dump is not None:
            _pg_dumps.Dump.of(self.dump, major).restore(address, password, connections=None, keep=())
        for path in self.files:
            _pg_dumps.run_text(path, address, password, major=major)
        variables = {
            "PGHOST": address.host,
            "PGPORT": str(address.port),
            "PGUSER": address.user,
            "PGDATABASE": address.database,
            "PGPASSWORD": password,
            "DATABASE_URL": _secrets.reveal(address.facts("", None)["url"], {_secrets.DATABASE_PASSWORD: password}),
        }
        for command in self.commands:
            # A line of the workspace's own file, so a shell is what its author expects.
            done = _commands.run(("/bin/sh", "-c", command), cwd=self.folder, env=variables)
            if not done.ok:
                words = _commands.last_words(
                    _secrets.mask(done.stdout + done.stderr, {_secrets.DATABASE_PASSWORD: password})
                )
                raise EnvironmentFailure(
                    f"golden database: '{command}' ended with {done.code}:\n{words}",
                    hint=f"it runs in {self.folder}, with DATABASE_URL and PGHOST, PGPORT, ... of an empty database",
                )


@dataclasses.dataclass(frozen=True)
class Goldens:
    """The golden databases of a server that is copied as a whole, with its data folder."""

    all: tuple[Golden, ...]

    @property
    def key(self) -> str:
        return ",".join(golden.name for golden in self.all)

    def build(self, address: Address, password: str) -> None:
        """Make and fill them in a server that nobody else knows.

        :arg address: of any database there, as a superuser.
        """
        server = Server(address, password, Journal(check=False))
        with contextlib.closing(server.connection):
            for golden in self.all:
                inner = dataclasses.replace(address, database=golden.name)
                server.check_extensions(golden.extensions)
                server.create(golden.name, address.user, None, server.strategy("auto", None))
                with server.within(golden.name) as inside:
                    inside.create_extensions(golden.name, golden.extensions)
                golden.fill(inner, password, major=server.version // 10000)
                with server.within(golden.name) as inside, inside.connection.cursor() as cursor:
                    cursor.execute("analyze")


def _matching(folder: str, pattern: str) -> list[str]:
    """The files of a pattern, sorted by name."""
    found = sorted(
        path for path in glob.glob(os.path.join(glob.escape(folder), pattern), recursive=True) if os.path.isfile(path)
    )
    if not found:
        raise UserError(f"golden database: no file matches {pattern!r} in {folder}")
    return found


def _digest(path: str) -> str:
    """Of a file's content; of a folder's, names included."""
    if os.path.isdir(path):
        parts = sorted(os.listdir(path))
        return hashlib.sha256(
            json.dumps([[name, _digest(os.path.join(path, name))] for name in parts]).encode()
        ).hexdigest()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"golden database: cannot read {path}: {error.strerror}") from error
