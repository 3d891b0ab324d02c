# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database begins with, pulled from another server, such as the one of production.

Private to this collection: may change without notice.

The URL, its user and its password are told nowhere. ``pg_dump`` gets the last two in its environment, which nobody but
the same user can read, and the rest as an argument.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import typing as t

from . import _commands, _mounts, _pg_dumps, _postgres, _progress, _secrets
from ._door import Params
from ._errors import EnvironmentFailure, UserError
from ._pg_server import Server, compose

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

WAYS = ("url_variable", "url_file", "url_command")

OPTION: dict[str, t.Any] = {
    "type": "dict",
    "options": {
        "url_variable": {"type": "str"},
        "url_file": {"type": "path"},
        "url_command": {"type": "str"},
        "tables": {"type": "list", "elements": "str", "default": []},
        "exclude_tables": {"type": "list", "elements": "str", "default": []},
        "exclude_data": {"type": "list", "elements": "str", "default": []},
        "mask": {"type": "path"},
        "jobs": {"type": "int", "default": 4},
    },
    "mutually_exclusive": [WAYS],
    "required_one_of": [WAYS],
}

DUMP = (
    *("--no-password", "--strict-names", "--no-owner", "--no-privileges", "--no-tablespaces"),
    *("--no-publications", "--no-subscriptions", "--no-security-labels"),
)
VARIABLES = {"PGUSER": "user", "PGPASSWORD": "password"}
"""What is no argument of a program."""

CONNECT_SECONDS = 10
PORT = 5432
THOUSAND = 1000
TABLE = re.compile(r"^\d+; 1259 (\d+) TABLE ", re.MULTILINE)
"""A table in the list of a dump's contents, by its number in pg_class (1259)."""

ABOUT = """
select count(*), coalesce(sum(pg_table_size(c.oid)), 0)::bigint, coalesce(array_agg(distinct n.nspname::text), '{}')
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = any(%s::oid[])
"""

MAKEABLE = """
select name from pg_available_extension_versions v where not superuser or (to_jsonb(v) ->> 'trusted')::bool
"""
"""The extensions that a database's owner can make."""


@dataclasses.dataclass(frozen=True)
class Pull:
    """A pull as it is asked for.

    :ivar way: which of ``WAYS`` tells the URL.
    :ivar asked: what is given for it.
    """

    way: str
    asked: str
    tables: tuple[str, ...]
    exclude_tables: tuple[str, ...]
    exclude_data: tuple[str, ...]
    mask: str | None
    jobs: int

    @classmethod
    def of(cls, given: Params) -> Pull:
        """
        :raises UserError: it is nothing that could be pulled.
        """
        if given["jobs"] < 1:
            raise UserError(f"pull: jobs is {given['jobs']}, and has to be 1 or more")
        (way,) = (way for way in WAYS if given[way] is not None)
        lists = {key: tuple(given[key]) for key in ("tables", "exclude_tables", "exclude_data")}
        return cls(way=way, asked=given[way], mask=given["mask"], jobs=given["jobs"], **lists)

    def look(self) -> Source:
        """Look at the database that the URL tells, and whether it can be pulled.

        :raises UserError: there is no URL or no such mask.
        :raises EnvironmentFailure: its server does not let us in, or pg_dump is older or finds no such tables.
        """
        if self.mask is not None and not (os.path.isfile(self.mask) and os.access(self.mask, os.R_OK)):
            raise UserError(f"pull: there is no mask {self.mask} to read", hint="it is a file of SQL text")
        parameters = parse(self._url(), self._told)
        driver = _postgres.driver()
        try:
            given = {"connect_timeout": CONNECT_SECONDS, **parameters}
            with contextlib.closing(_postgres.connect_by(**given)) as connection:
                return self._looked_at(connection, parameters)
        except driver.Error as error:
            raise EnvironmentFailure(
                f"the server of the URL in {self._told} does not let us in: {hide(str(error).strip(), parameters)}",
                hint="see whether psql gets in with it from this machine",
            ) from None  # its words have the user

    def _looked_at(self, connection: Connection, parameters: dict[str, str]) -> Source:
        info, major = connection.info, connection.server_version // 10000
        where = f"{info.host}{'' if info.port == PORT else f':{info.port}'}/{info.dbname}"
        source = Source(self, parameters, where, major, _pg_dumps.client("pg_dump", major, f"{where}, which is"))
        with connection.cursor() as cursor:
            # In this transaction, and not in the start-up packet: there may be a pooler in between.
            cursor.execute(f"set local search_path = {_postgres.SEARCH_PATH}")
            cursor.execute(ABOUT, (source.tables(),))
            ((count, size, schemas),) = cursor.fetchall()
            cursor.execute("select extname from pg_extension where extname <> 'plpgsql' order by 1")
            extensions = tuple(name for (name,) in cursor.fetchall())
        # With a choice of tables, pg_dump leaves out extensions, and even the schemas that the tables are in.
        if self.tables:
            return dataclasses.replace(source, count=count, size=size, schemas=tuple(schemas))
        return dataclasses.replace(source, count=count, size=size, extensions=extensions)

    @property
    def _told(self) -> str:
        """Where the URL comes from."""
        kind = {"url_variable": "the environment variable", "url_file": "the file", "url_command": "the command"}
        return f"{kind[self.way]} {hide(self.asked, {})}"

    def _url(self) -> str:
        if self.way == "url_variable":
            url = os.environ.get(self.asked, "")
        elif self.way == "url_file":
            try:
                with open(self.asked, encoding="utf-8") as file:
                    url = file.read()
            except (OSError, UnicodeDecodeError) as error:
                words = error.strerror if isinstance(error, OSError) else "it is no text"
                raise UserError(f"pull: cannot read {self._told}: {words}") from None
        else:
            done = _commands.run_line(self.asked)
            if not done.ok:
                raise EnvironmentFailure(f"pull: {self._told} {done.ending(hide(done.stderr, {}))}")
            url = done.stdout
        if not url.strip():
            raise UserError(f"pull: there is no URL in {self._told}", hint="set it, or leave the pull out")
        return url.strip()

    @property
    def filters(self) -> tuple[str, ...]:
        """What pg_dump is told to take of it."""
        return (
            *(f"--table={pattern}" for pattern in self.tables),
            *(f"--exclude-table={pattern}" for pattern in self.exclude_tables),
        )


@dataclasses.dataclass(frozen=True)
class Source:
    """A database that is going to be pulled.

    :ivar parameters: of libpq, the password among them.
    :ivar where: the host and the database, which may be told.
    :ivar version: the major one of its server.
    :ivar program: the pg_dump that suits it.
    :ivar extensions: what it has of them, and what comes with a pull.
    :ivar schemas: those that have to be made for the tables.
    :ivar count: of the tables whose data come.
    :ivar size: of these tables, in bytes.
    """

    pull: Pull
    parameters: dict[str, str] = dataclasses.field(repr=False)
    where: str
    version: int
    program: str
    extensions: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    count: int = 0
    size: int = 0

    def action(self, database: str) -> str:
        tables = f"{self.count} table{'' if self.count == 1 else 's'}"
        masked = "" if self.pull.mask is None else f", masked by {self.pull.mask}"
        return f"pull {tables}, {_size(self.size)}, from {self.where} into database {database}{masked}"

    def tables(self) -> list[int]:
        """The tables whose data are to come, by their numbers: pg_dump alone knows what its patterns mean."""
        without_data = (f"--exclude-table={pattern}" for pattern in self.pull.exclude_data)
        schema = self._pg_dump("--schema-only", "--format=custom", *without_data)
        archive = schema.encode("utf-8", "surrogateescape")
        program = _pg_dumps.client("pg_restore", self.version)
        listing = _commands.must((program, "--list"), doing=f"cannot list the tables of {self.where}", stdin=archive)
        return [int(number) for number in TABLE.findall(listing)]

    def check_fits(self, server: Server, extensions: t.Iterable[str], *, as_superuser: bool) -> None:
        """Refuse what would fail at the end of a long pull.

        :arg extensions: what the database gets anyway.
        :arg as_superuser: whether it is restored by one.
        :raises UserError: the server is older, or extensions are not there or not for everybody to make.
        """
        major = server.major
        if self.version > major:
            raise UserError(
                f"{self.where} is PostgreSQL {self.version}, and the server at {server.where} is {major}, "
                "which is too old for its dump",
                hint=f"pull into PostgreSQL {self.version} or newer",
            )
        server.check_extensions(self.extensions)
        lacking = {*self.extensions}.difference(extensions)
        if lacking and not as_superuser:
            lacking.difference_update(name for (name,) in server.rows(MAKEABLE))
        if lacking and not as_superuser:
            raise UserError(
                f"{self.where} has extensions that only a superuser can make: {', '.join(sorted(lacking))}",
                hint="name them in extensions",
            )

    def fill(
        self, target: _postgres.Address, password: str, *, server: Server, folder: str, keep: t.Sequence[int]
    ) -> None:
        """Fill an empty database, and mask what it then has.

        :arg server: that it is in, for an administrator who may look at its size.
        :arg folder: for the dump; what a killed run left there is removed.
        :arg keep: descriptors of locks, for the programs outlive us where we are killed.
        :raises EnvironmentFailure: a program failed; with its last words, but for those that quote data.
        """
        from psycopg2.sql import SQL

        try:
            with _new_folder(folder):
                where_to = (f"--file={folder}", "--format=directory", f"--jobs={self.pull.jobs}")
                without_data = (f"--exclude-table-data={pattern}" for pattern in self.pull.exclude_data)
                with _progress.told(lambda: self._dumped(folder)):
                    self._pg_dump(*where_to, "--compress=1", "--no-sync", *without_data, keep=keep)
                if self.schemas:
                    statements = [compose("create schema if not exists {}", schema) for schema in self.schemas]
                    # With the role that these settings have a puller take on, so that the task owns the schemas.
                    with contextlib.closing(_postgres.connect_plainly(target, password)) as connection:
                        connection.cursor().execute(SQL("; ").join(statements))
                dump = _pg_dumps.Dump.of(folder, server.major)
                with _progress.told(lambda: self._restored(server.size(target.database))):
                    dump.restore(target, password, connections=None, keep=keep)
            if self.pull.mask is not None:
                _pg_dumps.run_text(self.pull.mask, target, password, major=server.major, keep=keep)
        except EnvironmentFailure as failure:
            raise EnvironmentFailure(without_rows(failure.message), hint=failure.hint) from None

    def _dumped(self, folder: str) -> str:
        """How far a dump is: each table has a file, from its beginning on."""
        with os.scandir(folder) as entries:
            sizes = [entry.stat().st_size for entry in entries if entry.name[0].isdecimal()]
        return f"pull from {self.where}: table {len(sizes)} of {self.count}, {_size(sum(sizes))} packed"

    def _restored(self, size: int) -> str:
        """How far a restore is; the indexes, which come last, are on top of the size of the tables."""
        return f"pull from {self.where}: restored {_size(size)}, with {_size(self.size)} of tables"

    def _pg_dump(self, *options: str, keep: t.Sequence[int] = ()) -> str:
        from psycopg2.extensions import make_dsn

        hidden = (*VARIABLES.values(), "sslpassword")
        where = make_dsn(**{key: value for key, value in self.parameters.items() if key not in hidden})
        argv = (self.program, *DUMP, *self.pull.filters, *options, f"--dbname={where}")
        secret = {name: self.parameters[key] for name, key in VARIABLES.items() if key in self.parameters}
        done = _commands.run(argv, env=secret, keep=keep)
        if not done.ok:
            told = dataclasses.replace(done, stderr=hide(done.stderr, self.parameters))
            raise told.failure(f"cannot dump {self.where}")
        return done.stdout


def parse(url: str, told: str) -> dict[str, str]:
    """The parameters of a URL, or of a connection string, as libpq reads them.

    :arg told: where it comes from.
    :raises UserError: it is none; without a word of it, for with a password that is not encoded anything is part of it.
    """
    driver = _postgres.driver()
    from psycopg2.extensions import parse_dsn

    try:
        parameters = t.cast("dict[str, str]", parse_dsn(url))
    except driver.Error:
        parameters = {}
    place = parameters.get("host", "") + parameters.get("dbname", "")
    if not parameters or "@" in place or not re.fullmatch(r"[0-9,]*", parameters.get("port", "")):
        raise UserError(
            f"pull: what is in {told} is no URL that PostgreSQL's programs take",
            hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters in them as in %40, "
            "and no parameters but those of libpq",
        )
    return parameters


def hide(text: str, parameters: t.Mapping[str, str]) -> str:
    """A text without the user and the password of a source, and without those of any URL."""
    if password := parameters.get("password"):
        text = text.replace(password, _secrets.MASK)
    if user := parameters.get("user"):
        text = re.sub(rf'\b(user|role) "{re.escape(user)}"', rf'\1 "{_secrets.MASK}"', text)
    text = re.sub(r"://\S*@", f"://{_secrets.MASK}@", text)
    return re.sub(r"(?i)\b((?:PG)?PASSWORD\s*=\s*)('[^']*'|\S+)", rf"\1{_secrets.MASK}", text)


def folder_of(password_file: str) -> str:
    """Where the dump lies while it is restored: at a place that the next run finds, should this one be killed."""
    return f"{password_file}.pull"


def forget(password_file: str) -> None:
    """Remove what a killed run has left of its dump."""
    _mounts.remove(folder_of(password_file))


def planned(databases: t.Iterable[Params]) -> list[str]:
    """The actions that make databases in a server which is not there yet; their sources are looked at all the same."""
    actions = []
    for one in databases:
        actions.append(f"create database {_postgres.fit_name(one['name'])}")
        if one["pull"]:
            actions.append(Pull.of(one["pull"]).look().action(_postgres.fit_name(one["name"])))
    return actions


@contextlib.contextmanager
def _new_folder(path: str) -> t.Iterator[None]:
    _mounts.remove(path)
    os.mkdir(path, 0o700)
    try:
        yield
    finally:
        _mounts.remove(path)


def without_rows(message: str) -> str:
    """What a program said, without the rows that it quotes."""
    return "\n".join(line for line in message.splitlines() if not re.match(r"(.*: )?(DETAIL|CONTEXT): ", line))


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < THOUSAND:
            return f"{size:.0f} {unit}"
        size /= THOUSAND
    return f"{size:.1f} TB"
