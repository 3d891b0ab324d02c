# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden databases: the state that tasks' databases begin with, built once and then copied.

Private to this collection: may change without notice.

A golden database is known by a hash of all that it is built from, so a changed migration makes another one beside it.
It belongs to no task, but to its workspace and the database that begins with it.
Where it lies and how it is copied is the back end's: a template in a shared server, an image, a folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import tempfile
import typing as t

from . import _commands, _environment, _files, _mounts, _pg_dumps, _pg_pull, _registry, _secrets
from ._door import Params
from ._errors import EnvironmentFailure, UserError
from ._pg_server import Journal, Server, analyze
from ._postgres import Address
from ._sql_files import MIGRATION, SqlFile
from ._state import state_folder

OPTIONS: dict[str, t.Any] = {
    "folder": {"type": "path", "required": True},
    "dump": {"type": "path"},
    "pull": _pg_pull.OPTION,
    "files": {"type": "list", "elements": "str", "default": []},
    "transaction": {"type": "bool", "default": True},
    "commands": {"type": "list", "elements": "str", "default": []},
    "inputs": {"type": "list", "elements": "str", "default": []},
}

PREFIX = "golden:"
"""Begins what stands for the task in a mark of ownership; no branch, so no task, can have a colon in its name."""


@dataclasses.dataclass(frozen=True)
class Golden:
    """What a database is built from.

    :ivar owner: whose it is (:func:`owner_of`).
    :ivar files: SQL text, in the order in which it runs.
    :ivar commands: lines of shell that run in ``folder`` after that.
    :ivar inputs: what the commands read.
    :ivar name: of the database, unique to all of this.
    """

    owner: str
    folder: str
    dump: str | None
    pull: _pg_pull.Pull | None
    files: tuple[SqlFile, ...]
    commands: tuple[str, ...]
    inputs: tuple[str, ...]
    extensions: tuple[str, ...]
    name: str = ""

    @classmethod
    def of(cls, given: Params, owner: str, extensions: t.Iterable[str]) -> Golden:
        """
        :raises UserError: there is nothing to build it from.
        """
        folder = given["folder"]
        if not os.path.isdir(folder):
            raise UserError(
                f"golden database: there is no folder {folder}", hint="golden.folder is where it is built from"
            )
        if given["dump"] and given["pull"]:
            raise UserError("golden database: it begins with a dump or a pull", hint="leave one of them out")
        if not (given["dump"] or given["pull"] or given["files"] or given["commands"]):
            raise UserError(
                "golden database: it says not what it is built from",
                hint="give golden.dump, golden.pull, golden.files or golden.commands",
            )
        golden = cls(
            owner=owner,
            folder=folder,
            dump=None if given["dump"] is None else os.path.join(folder, given["dump"]),
            pull=None if given["pull"] is None else _pg_pull.Pull.of(given["pull"]),
            files=tuple(
                SqlFile(path, MIGRATION, folder, transaction=given["transaction"])
                for path in _matching(folder, given["files"])
            ),
            commands=tuple(given["commands"]),
            inputs=_matching(folder, given["inputs"]),
            extensions=tuple(sorted({*extensions})),
        )
        return dataclasses.replace(golden, name=golden._hashed())

    def fill(self, address: Address, password: str, *, server: Server) -> None:
        """Build it in an empty database, as the user whom the address names.

        :arg server: that it is in, for its administrator.
        :raises EnvironmentFailure: a step failed; with its last words.
        """
        if self.dump is not None:
            _pg_dumps.Dump.of(self.dump, server.major).restore(address, password, connections=None, keep=())
        if self.pull is not None:
            self._pull(self.pull, address, password, server)
        for file in self.files:
            file.run(address, password, major=server.major)
        known = {_secrets.DATABASE_PASSWORD: password}
        variables = {
            **_environment.without_postgresql(),  # they may mean another database
            "PGHOST": address.host,
            "PGPORT": str(address.port),
            "PGUSER": address.user,
            "PGDATABASE": address.database,
            "PGPASSWORD": password,
            "DATABASE_URL": _secrets.reveal(address.facts("", None)["url"], known),
        }
        for command in self.commands:
            done = _commands.run_line(command, cwd=self.folder, env=variables)
            if not done.ok:
                ending = done.ending(_secrets.mask(done.stdout + done.stderr, known), _commands.NEXT_LINE)
                raise EnvironmentFailure(
                    f"golden database: '{command}' {ending}",
                    hint=f"it runs in {self.folder}, with DATABASE_URL and PGHOST, PGPORT, ... of an empty database",
                )
        if self._hashed() != self.name:
            raise EnvironmentFailure(
                f"golden database: what it is built from has changed in {self.folder} while it was built",
                hint="run it again when nobody writes there",
            )

    def _pull(self, pull: _pg_pull.Pull, address: Address, password: str, server: Server) -> None:
        source = pull.look()
        as_superuser = server.is_superuser and address.user == server.address.user
        source.check_fits(server, self.extensions, as_superuser=as_superuser)
        with _new_pull() as (folder, lock):
            source.fill(address, password, server=server, folder=folder, keep=(lock,))

    def _hashed(self) -> str:
        def listed(paths: t.Iterable[str]) -> list[tuple[str, str]]:
            return [(os.path.relpath(path, self.folder), _digest(path)) for path in paths]

        content: list[t.Any] = [
            *(self.owner, self.extensions, self.commands, [file.transaction for file in self.files]),
            *(listed(part for file in self.files for part in file.parts()), sorted(listed(self.inputs))),
            None if self.dump is None else _digest(self.dump),
        ]
        if self.pull is not None:  # what is in the source is another every minute, so that is no part of it
            content += [repr(self.pull), self.pull.masking.digest()]
        return "golden_" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Goldens:
    """The golden databases of a server that is copied as a whole, with its data folder."""

    all: tuple[Golden, ...]

    @property
    def key(self) -> str:
        return ",".join(golden.name for golden in self.all)

    @property
    def owner(self) -> str:
        """Whose they are together."""
        keys = (_registry.task_of(golden.owner)[2].removeprefix(PREFIX) for golden in self.all)
        return owner_of(self.all[0].owner, ",".join(keys))

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
                golden.fill(inner, password, server=server)
                analyze(inner, password)


def owner_of(task: str, key: str) -> str:
    """The mark of ownership of what is built for one database of a workspace, whichever of its tasks builds it.

    :arg task: a task's mark.
    :arg key: tells the workspace's databases from each other.
    """
    registry, workspace, _task = _registry.task_of(task)
    return _registry.owner_of(registry, workspace, PREFIX + key)


def is_golden(owner: str) -> bool:
    return _registry.task_of(owner)[2].startswith(PREFIX)


def superseded(found: t.Sequence[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Those that are older than what their owner has now in the same place; what is newer may still be at work.

    :arg found: with ``place``, ``owner``, ``built`` (a number that grows from one to the next), ``complete`` and
        ``in_use``.
    """
    newest: dict[tuple[str, str], int] = {}
    for one in found:
        if one["complete"]:
            family = one["place"], one["owner"]
            newest[family] = max(one["built"], newest.get(family, 0))
    return [one for one in found if not one["in_use"] and one["built"] < newest.get((one["place"], one["owner"]), 0)]


PULLS = ".pull"


@contextlib.contextmanager
def _new_pull() -> t.Iterator[tuple[str, int]]:
    """Where the dump of a pull is going to lie, and the lock that says that somebody is at work there."""
    top = os.path.join(state_folder(), "golden")
    os.makedirs(top, mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _files.locked(top):
            _forget_pulls(top)
            folder = tempfile.mkdtemp(suffix=PULLS, dir=top)
            lock = stack.enter_context(_files.locked(folder))
        try:
            yield os.path.join(folder, "dump"), lock
        finally:
            _mounts.remove(folder)


def forget_pulls() -> None:
    """Remove what killed runs have left of dumps, which nobody has masked."""
    top = os.path.join(state_folder(), "golden")
    if os.path.isdir(top):
        with _files.locked(top):
            _forget_pulls(top)


def _forget_pulls(top: str) -> None:
    for folder in glob.glob(os.path.join(glob.escape(top), f"*{PULLS}")):
        # One that has just ended takes its folder away itself.
        with contextlib.suppress(FileNotFoundError):
            if not _files.is_locked(folder):
                _mounts.remove(folder)


def _matching(folder: str, patterns: t.Iterable[str]) -> tuple[str, ...]:
    """The files of some patterns, sorted by name within each, and each file once."""
    found: dict[str, None] = {}
    for pattern in patterns:
        paths = glob.glob(os.path.join(glob.escape(folder), pattern), recursive=True)
        files = sorted(path for path in paths if os.path.isfile(path))
        if not files:
            raise UserError(
                f"golden database: no file matches {pattern!r} in {folder}", hint="patterns begin at golden.folder"
            )
        found.update(dict.fromkeys(files))
    return tuple(found)


def _digest(path: str) -> str:
    """Of a file's content; of a folder's, names included."""
    if os.path.isdir(path):
        parts = sorted(os.listdir(path))
        content = [(name, _digest(os.path.join(path, name))) for name in parts]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"golden database: cannot read {path}: {error.strerror}", hint="golden.dump begins at golden.folder"
        ) from error
