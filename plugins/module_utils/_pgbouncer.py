# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PgBouncer of a DB host: one address for all branches, each under its name.

Private to this collection: may change without notice.

    <state>/pgbouncer/pgbouncer.ini    its settings, which say where the rest is
    <state>/pgbouncer/databases.ini    a line a branch: its name, and the socket folder and port of its server
    <state>/pgbouncer/users.txt        the users of branches with their SCRAM verifiers, no passwords
    <state>/pgbouncer/probe            the password of the user by whom we see a branch work; root's and PgBouncer's

Files are written whole and renamed; PgBouncer is told to read them again, and then asked what it knows: up to 1.24 it
answers that all is well though a file was broken, and goes on with the old one. A branch that comes or goes is a line
more or less, and no concern of those who are connected to others.

Facts: https://www.pgbouncer.org/config.html and https://www.pgbouncer.org/usage.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
import typing as t

from . import _commands, _files, _postgres, _secrets, _services
from ._errors import EnvironmentFailure

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from ._db_host import Host
    from ._services import Supervisor

PROBE = "parallel_worktrees_probe"
"""Has nothing but the right to connect, in each branch."""

CONSOLE = "pgbouncer"
"""The database and the user by which PgBouncer talks of itself, to its own system user over its socket alone."""

START_SECONDS = 10
SPARE_CONNECTIONS = 5
"""Connections of a branch that PgBouncer leaves to administrators."""

CONFIG = """\
; Written by parallel.worktrees: changes are lost.
[databases]
%include {databases}

[pgbouncer]
listen_addr = {addresses}
listen_port = {port}
unix_socket_dir = {sockets}
auth_type = scram-sha-256
auth_file = {users}
pool_mode = session
max_client_conn = 2000
default_pool_size = {pool_size}
server_idle_timeout = 30
server_login_retry = 1
server_connect_timeout = 5
query_wait_timeout = 15
ignore_startup_parameters = extra_float_digits,options
"""
"""Sessions are the client's own, so that what holds for PostgreSQL holds here. By default PgBouncer lets a client
wait for two minutes, or for fifteen seconds when a server was away for a moment."""


@dataclasses.dataclass(frozen=True)
class Route:
    """Where a name leads.

    :ivar host: the socket folder of the server.
    :ivar user: who may come in, with its verifier.
    """

    name: str
    host: str
    port: int
    database: str
    user: str
    verifier: str


@dataclasses.dataclass(frozen=True)
class Known:
    """What PgBouncer says of a name."""

    host: str
    port: int
    database: str
    paused: bool


@dataclasses.dataclass(frozen=True)
class Use:
    """How a name is used.

    :ivar clients: who are connected now.
    :ivar queries: how many there were since PgBouncer has known the name.
    """

    clients: int = 0
    queries: int = 0


class Pooler:
    """PgBouncer, whether it runs or not."""

    def __init__(self, host: Host, supervisor: Supervisor) -> None:
        self.host = host
        self.supervisor = supervisor
        self.folder = os.path.join(host.state, "pgbouncer")
        self.config, self.databases, self.users, self._probe = (
            os.path.join(self.folder, name) for name in ("pgbouncer.ini", "databases.ini", "users.txt", "probe")
        )
        self.sockets = _services.socket_folder(host, "pgbouncer")

    # Its files

    def write(self, routes: t.Iterable[Route]) -> bool:
        """Write what it is to know, and tell whether that is something new."""
        routes = sorted(routes, key=lambda route: route.name)
        users = {route.user: route.verifier for route in routes} | {PROBE: self.probe_verifier()}
        lines = {
            self.databases: [
                f"{route.name} = host={_quoted(route.host)} port={route.port} dbname={_quoted(route.database)}"
                for route in routes
            ],
            self.users: [f'"{user}" "{verifier}"' for user, verifier in users.items()],
        }
        changes = [self._write(path, "".join(f"{line}\n" for line in given)) for path, given in lines.items()]
        return any(changes)

    def set_up(self) -> None:
        """Write settings for it, and files that it can begin with, where nobody else has."""
        if not os.path.exists(self.databases):
            self.write(())
        settings = {
            "databases": self.databases,
            "users": self.users,
            "sockets": self.sockets,
            "port": self.host.port,
            "addresses": ",".join(dict.fromkeys(("127.0.0.1", self.host.address))),
            "pool_size": max(1, self.host.branch.max_connections - SPARE_CONNECTIONS),
        }
        self._write(self.config, CONFIG.format(**settings))

    def probe_verifier(self) -> str:
        self._make_folder()
        return _postgres.steady_verifier(_secrets.ensure(self._probe))

    def _write(self, path: str, text: str) -> bool:
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            if file.read() == text and os.fstat(file.fileno()).st_uid == self._owner()[0]:
                return False
        self._make_folder()
        _files.write(path, text.encode(), mode=0o600, owner=self._owner())
        return True

    def _make_folder(self) -> None:
        os.makedirs(self.host.state, mode=0o711, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        os.chown(self.folder, *self._owner(), follow_symlinks=False)

    def _owner(self) -> tuple[int, int]:
        account = self.host.pooler_account
        return account.uid, account.gid

    # Talking to it

    @contextlib.contextmanager
    def console(self) -> t.Iterator[Connection]:
        """
        :raises EnvironmentFailure: it does not answer.
        """
        try:
            connection = self._connect()
        except _postgres.driver().OperationalError as error:
            raise EnvironmentFailure(
                f"PgBouncer does not answer at {self.sockets}: {str(error).strip()}",
                hint=f"see its log, and its settings: {self.config}",
            ) from error
        with contextlib.closing(connection):
            yield connection

    def start(self) -> None:
        """See that it runs.

        :raises EnvironmentFailure: it does not come up.
        """
        with contextlib.suppress(_postgres.driver().OperationalError):
            self._connect().close()
            return
        if not os.path.exists(self.config):  # the role db_host has written it, where that was at work
            self.set_up()
        self.supervisor.start_pooler(self.config)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.console():
                    return
            except EnvironmentFailure:
                if time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def known(self) -> dict[str, Known]:
        """What it knows now, by name."""
        with self.console() as console:
            return _known(console)

    def uses(self) -> dict[str, Use]:
        """How each name that it knows is used."""
        with self.console() as console:
            found = dict.fromkeys(_known(console), Use())
            for row in _shown(console, "POOLS"):
                if (use := found.get(row["database"])) is not None:
                    clients = use.clients + int(row["cl_active"]) + int(row["cl_waiting"])
                    found[row["database"]] = dataclasses.replace(use, clients=clients)
            for row in _shown(console, "STATS"):
                if (use := found.get(row["database"])) is not None:
                    found[row["database"]] = dataclasses.replace(use, queries=int(row["total_query_count"]))
            return found

    def reload(self) -> None:
        """Have it read its files; who is connected to a name that is still there notices nothing."""
        with self.console() as console:
            _tell(console, "RELOAD")

    def resume(self, name: str) -> None:
        with self.console() as console:
            _tell(console, f'RESUME "{name}"')

    @contextlib.contextmanager
    def paused(self, name: str) -> t.Iterator[None]:
        """Let new clients of a name wait while its server is away; those who are connected end with the server.

        PgBouncer answers when nobody is connected any more, so another thread waits for that.
        """
        try:
            console = self._connect()
        except _postgres.driver().OperationalError:  # whom nobody reaches needs no pause
            yield
            return
        if name not in _known(console):
            console.close()
            yield
            return
        waiting = threading.Thread(target=_pause, args=(console, name), daemon=True)
        waiting.start()
        try:
            yield
        finally:
            waiting.join(START_SECONDS)
            console.close()
            self.resume(name)

    def check(self, route: Route, identity: str, timeout: float) -> None:
        """See a name lead to the right server, as a client does.

        :raises EnvironmentFailure: it does not.
        """
        known = self.known().get(route.name)
        if known is None or (known.host, known.port, known.database) != (route.host, route.port, route.database):
            raise EnvironmentFailure(
                f"PgBouncer was told of {route.name} and does not know it: one of its files is broken, or not read",
                hint=f"see them: {self.config}, {self.databases}; and its log: {self._last_words()}",
            )
        if known.paused:
            self.resume(route.name)
        through = _postgres.Address(self.sockets, self.host.port, PROBE, route.name)
        _postgres.wait_until_answers(
            through, _secrets.read(self._probe), identity=identity, timeout=timeout, still_alive=lambda: None
        )

    def _connect(self) -> Connection:
        with as_user(self.host.pooler_account.uid):
            return _postgres.connect_plainly(_postgres.Address(self.sockets, self.host.port, CONSOLE, CONSOLE), None)

    def _last_words(self) -> str:
        log = os.path.join(self.folder, "pgbouncer.log")
        if os.path.exists(log):
            with open(log, encoding="utf-8", errors="replace") as file:
                return _commands.last_words(file.read(), 3)
        return f"journalctl -u {_services.POOLER_UNIT}"


@contextlib.contextmanager
def as_user(uid: int) -> t.Iterator[None]:
    """Be another user for as long as a connection is made: a server at a socket goes by that."""
    before = os.geteuid()
    if before != 0 or uid == 0:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


def _shown(console: Connection, what: str) -> list[dict[str, t.Any]]:
    with console.cursor() as cursor:
        cursor.execute(f"SHOW {what}")
        columns = [column.name for column in cursor.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _known(console: Connection) -> dict[str, Known]:
    return {
        row["name"]: Known(row["host"], int(row["port"]), row["database"], str(row["paused"]) == "1")
        for row in _shown(console, "DATABASES")
        if row["name"] != CONSOLE
    }


def _tell(console: Connection, command: str) -> None:
    """Have it do something; that it was done before is no matter."""
    with console.cursor() as cursor:
        try:
            cursor.execute(command)
        except _postgres.driver().Error as error:
            if "paused" not in str(error):  # "already", or "not"
                raise EnvironmentFailure(f"PgBouncer refuses {command}: {str(error).strip()}") from error


def _pause(console: Connection, name: str) -> None:
    """In a thread: what goes wrong shows in what is done meanwhile."""
    with contextlib.suppress(EnvironmentFailure):
        _tell(console, f'PAUSE "{name}"')


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
