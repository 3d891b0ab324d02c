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

from . import _commands, _mounts, _pg_dumps, _pg_programs, _postgres, _progress, _pull_source, _secrets
from ._door import Params
from ._errors import EnvironmentFailure, UserError
from ._masking import SILENT, Masking
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
        "exclude_kinds": {"type": "list", "elements": "str"},
        "mask": {"type": "path"},
        "mask_verify": {"type": "str"},
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
MAKEABLE = """
select name from pg_available_extension_versions v where not superuser or (to_jsonb(v) ->> 'trusted')::bool
"""
"""The extensions that a database's owner can make."""


ROLES = "select rolname from pg_roles"
ENCODING = "select pg_encoding_to_char(encoding), datcollate from pg_database where datname = 'template1'"
ASCII = "SQL_ASCII"
"""The encoding of a database that keeps bytes as they come."""

READER = (
    *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--file=-"),
    *("--record-separator=\x1e", "--field-separator=\x1f"),
)
"""Options of psql, for names that can have anything in them."""


@dataclasses.dataclass(frozen=True)
class Pull:
    """A pull as it is asked for.

    :ivar way: which of ``WAYS`` tells the URL.
    :ivar asked: what is given for it.
    :ivar exclude_kinds: of objects, as pg_restore lists them; None for those that a mask does not reach.
    """

    way: str
    asked: str
    tables: tuple[str, ...]
    exclude_tables: tuple[str, ...]
    exclude_data: tuple[str, ...]
    exclude_kinds: tuple[str, ...] | None
    masking: Masking
    jobs: int

    @classmethod
    def of(cls, given: Params) -> Pull:
        """
        :raises UserError: it is nothing that could be pulled.
        """
        if given["jobs"] < 1:
            raise UserError(f"pull: jobs is {given['jobs']}, and has to be 1 or more")
        (way,) = (way for way in WAYS if given[way] is not None)
        kinds = given["exclude_kinds"]
        return cls(
            way=way,
            asked=given[way],
            exclude_kinds=None if kinds is None else tuple(" ".join(kind.lower().split()) for kind in kinds),
            masking=Masking(given["mask"], given["mask_verify"]),
            jobs=given["jobs"],
            **{option: tuple(given[option]) for option in _pull_source.OPTIONS},
        )

    def look(self) -> Source:
        """Look at the database that the URL tells, and whether it can be pulled.

        :raises UserError: there is no URL or no such mask, or what is to come cannot be pulled.
        :raises EnvironmentFailure: its server does not let us in, or pg_dump is older.
        """
        self.masking.check()
        parameters = parse(self._url(), self._told)
        driver = _postgres.driver()
        try:
            connection = _postgres.connect_by(**{"connect_timeout": CONNECT_SECONDS, **parameters})
        except driver.Error as error:
            raise EnvironmentFailure(
                f"the server of the URL in {self._told} does not let us in: {hide(str(error).strip(), parameters)}",
                hint="see whether psql gets in with it from this machine",
            ) from None  # its words have the user
        with contextlib.closing(connection):
            try:
                return self._looked_at(connection, parameters)
            except driver.Error as error:
                said = hide(str(error).strip(), parameters)
                raise EnvironmentFailure(f"cannot look at the database of the URL in {self._told}: {said}") from None

    def _looked_at(self, connection: Connection, parameters: dict[str, str]) -> Source:
        info, major = connection.info, connection.server_version // 10000
        where = f"{info.host}{'' if info.port == PORT else f':{info.port}'}/{info.dbname}"
        pg_dump = _pg_programs.client("pg_dump", major, f"{where}, which is")
        source = Source(self, parameters, where, major, pg_dump)
        settings = {**_postgres.LIMITS, "search_path": _postgres.SEARCH_PATH}
        with connection.cursor() as cursor:
            # In this transaction, and not in the start-up packet: there may be a pooler in between.
            cursor.execute("; ".join(f"set local {name} = {value}" for name, value in settings.items()))
        patterns = {option: getattr(self, option) for option in _pull_source.OPTIONS}
        contents = _pull_source.contents(source, connection, patterns)
        source = dataclasses.replace(source, contents=contents)
        with connection.cursor() as cursor:
            cursor.execute(_pull_source.ABOUT, {"tables": [*contents.tables], "relations": [*contents.relations]})
            ((count, size, schemas),) = cursor.fetchall()
            cursor.execute("select extname from pg_extension where extname <> 'plpgsql' order by 1")
            extensions = tuple(name for (name,) in cursor.fetchall())
            cursor.execute(_pull_source.POLICIES, {"relations": [*contents.relations]})
            policies = {} if "policy" in source.excluded else dict(cursor.fetchall())
            cursor.execute("select count(*) from pg_largeobject_metadata")
            ((large_objects,),) = cursor.fetchall()
            cursor.execute(ENCODING.replace("'template1'", "current_database()"))
            ((encoding, collation),) = cursor.fetchall()
        self._check_kinds(source, large_objects)
        takes = bool(large_objects) and not self.tables and _pull_source.LARGE_OBJECT not in source.excluded
        _pull_source.check_readable(connection, where, contents, large_objects=takes)
        if "fk constraint" not in source.excluded:
            _pull_source.check_references(connection, where, contents)
        # With a choice of tables, pg_dump leaves out extensions, and even the schemas that the tables are in.
        return dataclasses.replace(
            source,
            count=count,
            size=size,
            policies=policies,
            encoding=encoding,
            collation=collation,
            schemas=tuple(schemas) if self.tables else (),
            extensions=() if self.tables else extensions,
        )

    def _check_kinds(self, source: Source, large_objects: int) -> None:
        """
        :raises UserError: there are no objects of a kind that is to be left out.
        """
        there = {*_pull_source.kinds(source.contents.listing), *([_pull_source.LARGE_OBJECT] if large_objects else [])}
        for kind in self.exclude_kinds or ():
            if kind not in there:
                raise UserError(
                    f"pull: exclude_kinds has {kind!r}, and {source.where} has no object of this kind",
                    hint=f"the kinds there: {', '.join(sorted(there))}",
                )

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


@dataclasses.dataclass(frozen=True)
class Source:
    """A database that is going to be pulled.

    :ivar parameters: of libpq, the password among them.
    :ivar where: the host and the database, which may be told.
    :ivar version: the major one of its server.
    :ivar program: the pg_dump that suits it.
    :ivar contents: what comes of it.
    :ivar extensions: what it has of them, and what comes with a pull.
    :ivar schemas: those that have to be made for the tables.
    :ivar policies: those that come, with the roles that each names.
    :ivar encoding: of its text.
    :ivar collation: by which it sorts text.
    :ivar count: of the tables whose data come.
    :ivar size: of these tables, in bytes.
    """

    pull: Pull
    parameters: dict[str, str] = dataclasses.field(repr=False)
    where: str
    version: int
    program: str
    contents: _pull_source.Contents = dataclasses.field(default_factory=_pull_source.Contents)
    extensions: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    policies: t.Mapping[str, t.Sequence[str]] = dataclasses.field(default_factory=dict)
    encoding: str = "UTF8"
    collation: str = ""
    count: int = 0
    size: int = 0

    def action(self, database: str, server: Server | None = None) -> str:
        """
        :arg server: that it comes to, if there is one yet.
        """
        tables = f"{self.count} table{'' if self.count == 1 else 's'}"
        mask = self.pull.masking.path
        masked = "" if mask is None else f", masked by {mask}"
        ((_encoding, collation),) = server.rows(ENCODING) if server else [("", self.collation)]
        sorted_by = "" if collation == self.collation else f", sorted by {collation}, not by {self.collation} as there"
        return f"pull {tables}, {_size(self.size)}, from {self.where} into database {database}{masked}{sorted_by}"

    @property
    def excluded(self) -> frozenset[str]:
        """The kinds of objects that do not come."""
        by_default = () if self.pull.masking.path is None else _pull_source.UNMASKED
        return frozenset(by_default if self.pull.exclude_kinds is None else self.pull.exclude_kinds)

    def definitions(self, filters: t.Sequence[str]) -> tuple[str, str]:
        """Of what comes: an archive, and pg_restore's list of it."""
        archive = self._pg_dump("--schema-only", "--format=custom", *filters)
        return archive, self._pg_restore(archive, "--list")

    def _pg_restore(self, archive: str, *options: str, keep: t.Sequence[int] = ()) -> str:
        program = _pg_programs.client("pg_restore", self.version)
        stdin = archive.encode("utf-8", "surrogateescape")
        doing = f"cannot read the definitions of {self.where}"
        return _commands.must((program, *options), doing=doing, stdin=stdin, keep=keep)

    def psql(self, script: str, *variables: str) -> _commands.Completed:
        """Run commands of psql in it, with these variables."""
        psql = _pg_programs.client("psql", self.version)
        argv = (psql, *READER, *(f"--set={variable}" for variable in variables), f"--dbname={self._place}")
        limits = "".join(f"set {name} = {value};\n" for name, value in _postgres.LIMITS.items())
        return self._run(argv, stdin=(limits + script).encode("utf-8", "surrogateescape"))

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
        if not as_superuser:
            self._check_superusers_objects(server)
        self._check_encoding(server)

    def _check_superusers_objects(self, server: Server) -> None:
        """
        :raises UserError: there are objects that only a superuser can make, or whose roles only an administrator can.
        """
        lacking = self._lacking_roles(server)
        if lacking:
            named = sorted(policy for policy, roles in self.policies.items() if {*roles} & {*lacking})
            raise UserError(
                f"policies of {self.where} name roles that the server at {server.where} does not have: "
                f"{', '.join(lacking)} (policy {', '.join(named[: _pull_source.MOST_NAMED])})",
                hint=f'make them there, as in: create role "{lacking[0]}" nologin; or leave all policies out: '
                "exclude_kinds: [policy]",
            )
        triggers = _pull_source.kinds(self.contents.listing).get("event trigger", [])
        if triggers and "event trigger" not in self.excluded:
            names = ", ".join(name.removeprefix("- ").rpartition(" ")[0] for name in triggers)
            raise UserError(
                f"{self.where} has event triggers, which only a superuser can make: {names}",
                hint="leave them out: exclude_kinds: [event trigger]",
            )

    def _check_encoding(self, server: Server) -> None:
        """
        :raises UserError: text of the source may not be text there.
        """
        ((encoding, _collation),) = server.rows(ENCODING)
        if self.encoding != encoding and encoding != ASCII and (encoding != "UTF8" or self.encoding == ASCII):
            raise UserError(
                f"{self.where} has the encoding {self.encoding}, and new databases of the server at {server.where} "
                f"have {encoding}, in which not all of it can be written",
                hint=f"pull into a server that was made with initdb --encoding={self.encoding}",
            )

    def fill(
        self, target: _postgres.Address, password: str, *, server: Server, folder: str, keep: t.Sequence[int]
    ) -> None:
        """Fill an empty database, and mask what it then has.

        :arg target: the database, and its owner.
        :arg server: that it is in, for its administrator.
        :arg folder: for the dump; what a killed run left there is removed.
        :arg keep: descriptors of locks, for the programs outlive us where we are killed.
        :raises EnvironmentFailure: a program failed; of what is to be masked, without a row.
        """
        masking = self.pull.masking
        own = server.is_superuser and target.user == server.address.user
        if own:
            self._make_roles(server)
        elif server.is_superuser and masking.path is not None:
            silence = "alter role {{}} set {} = {{value}}"
            set_all = [compose(silence.format(name), target.user, value=value) for name, value in SILENT.items()]
            server.act(None, *set_all)
        self._rehearse(target, password)
        with _new_folder(folder):
            where_to = (f"--file={folder}", "--format=directory", f"--jobs={self.pull.jobs}")
            with _progress.told(lambda: self._dumped(folder)):
                how = ("--compress=1", "--no-sync", *self._leaving_out, *self.contents.filters)
                self._pg_dump(*where_to, *how, keep=keep)
            self._make_schemas(target, password)
            dump = _pg_dumps.Dump.of(folder, server.major, without=self.excluded, name=self.where)
            with _progress.told(lambda: self._restored(server.size(target.database))):
                dump.restore(
                    target,
                    password,
                    connections=None,
                    keep=keep,
                    settings=SILENT if own else None,
                    rows=masking.path is None,
                )
        masking.apply(target, password, administration=server, own=own, keep=keep)

    @property
    def _leaving_out(self) -> tuple[str, ...]:
        """What pg_dump itself leaves out of what is not to come."""
        options = {_pull_source.LARGE_OBJECT: "--no-blobs", _pull_source.COMMENT: "--no-comments"}
        return tuple(option for kind, option in options.items() if kind in self.excluded)

    def _make_schemas(self, target: _postgres.Address, password: str) -> None:
        from psycopg2.sql import SQL

        if self.schemas:
            statements = [compose("create schema if not exists {}", schema) for schema in self.schemas]
            with contextlib.closing(_postgres.connect(target, password)) as connection:
                connection.cursor().execute(SQL("; ").join(statements))

    def _make_roles(self, server: Server) -> None:
        """In a server of the task's own, policies get the roles that they name."""
        for role in self._lacking_roles(server):
            server.act(f"create role {role}, which policies name", compose("create role {} nologin", role))

    def _lacking_roles(self, server: Server) -> list[str]:
        if not self.policies:
            return []
        there = {role for (role,) in server.rows(ROLES)}
        return sorted({role for roles in self.policies.values() for role in roles} - there)

    def _rehearse(self, target: _postgres.Address, password: str) -> None:
        """Make all definitions in one transaction, and roll it back, so that what cannot be made shows at once.

        :raises UserError: one cannot be made.
        """
        contents = self.contents
        kept = _pg_dumps.makeable(_pull_source.without_kinds(contents.listing, self.excluded))
        with _pg_programs.in_memory(kept) as listing:
            use = f"--use-list={_pg_programs.path_of(listing)}"
            script = self._pg_restore(contents.archive, *_pg_dumps.LEFT_OUT, use, "--file=-", keep=(listing,))
        schemas = "".join(f"create schema if not exists {_pull_source.quoted(schema)};\n" for schema in self.schemas)
        failed = _pg_dumps.rehearse(schemas + script, target, password, major=self.version)
        if failed is not None:
            kind, name, message = failed
            raise UserError(
                f"pull: {kind} {name} of {self.where} cannot be made in this server: {message}",
                hint=f"make what it needs in the server, or leave such objects out: exclude_kinds: [{kind}]",
            )

    def _dumped(self, folder: str) -> str:
        """How far a dump is: each table has a file, from its beginning on."""
        with os.scandir(folder) as entries:
            sizes = [entry.stat().st_size for entry in entries if entry.name[0].isdecimal()]
        return f"pull from {self.where}: table {len(sizes)} of {self.count}, {_size(sum(sizes))} packed"

    def _restored(self, size: int) -> str:
        """How far a restore is; the indexes, which come last, are on top of the size of the tables."""
        return f"pull from {self.where}: restored {_size(size)}, with {_size(self.size)} of tables"

    def _pg_dump(self, *options: str, keep: t.Sequence[int] = ()) -> str:
        done = self._run((self.program, *DUMP, *options, f"--dbname={self._place}"), keep=keep)
        if not done.ok:
            raise EnvironmentFailure(f"cannot dump {self.where}: pg_dump {done.ending(done.stderr)}")
        return done.stdout

    @property
    def _place(self) -> str:
        """What may be an argument of a program."""
        from psycopg2.extensions import make_dsn

        hidden = (*VARIABLES.values(), "sslpassword")
        return make_dsn(**{key: value for key, value in self.parameters.items() if key not in hidden})

    def _run(self, argv: t.Sequence[str], **options: t.Any) -> _commands.Completed:
        secret = {name: self.parameters[key] for name, key in VARIABLES.items() if key in self.parameters}
        done = _commands.run(argv, env=secret, **options)
        return dataclasses.replace(done, stderr=hide(done.stderr, self.parameters))


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


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < THOUSAND:
            return f"{size:.0f} {unit}"
        size /= THOUSAND
    return f"{size:.1f} TB"
