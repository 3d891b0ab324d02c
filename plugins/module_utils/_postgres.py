# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL as its clients see it: readiness, passwords, names, and the facts of a task's database.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import hashlib
import hmac
import os
import secrets
import socket
import time
import typing as t
import urllib.parse

from . import _environment, _secrets
from ._errors import EnvironmentFailure, UserError

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

IDENTITY_SETTING = "parallel_worktrees.database"
"""A server of ours is started with this setting, so that a query through the final address shows whose it is."""

SMALL_LOG = {"wal_recycle": "off", "min_wal_size": "32MB", "max_wal_size": "128MB"}
"""For a server whose data folder is going to be copied: log that nobody needs should not be in it."""

SEARCH_PATH = "pg_catalog, pg_temp"
"""Nothing that people made is found without its schema."""

LIMITS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
}
"""Settings of work that takes as long as it takes."""

FIXED = {
    **LIMITS,
    "search_path": SEARCH_PATH,
    "role": "none",
    "local_preload_libraries": "",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "default_tablespace": "",
    "row_security": "on",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
}
"""Settings of each of our sessions. Who owns a database, or a role, can give it others (``ALTER DATABASE .. SET``), by
which our statements would run functions of his with our rights, or fail."""

IDLE_TIMEOUT_SINCE, TRANSACTION_TIMEOUT_SINCE, EVENT_TRIGGERS_SINCE = 14, 17, 17
"""The major versions that brought the settings idle_session_timeout, transaction_timeout and event_triggers."""

NAME_BYTES = 63
SCRAM = "SCRAM-SHA-256$"
SCRAM_ITERATIONS = 4096


@dataclasses.dataclass(frozen=True)
class Address:
    """How a client reaches a database; ``host`` may be a socket folder.

    :ivar tls: parameters of libpq such as ``sslmode``; none for its default, which encrypts where the server can and
        verifies nothing.
    """

    host: str
    port: int
    user: str
    database: str
    tls: tuple[tuple[str, str], ...] = ()

    def facts(self, backend: str, password_file: str | None, **more: t.Any) -> dict[str, t.Any]:
        """What a task is told of its database: the same keys whatever the back end."""
        user, name = (urllib.parse.quote(part, safe="") for part in (self.user, self.database))
        host = f"[{self.host}]" if ":" in self.host else urllib.parse.quote(self.host, safe="")
        return {
            "backend": backend,
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "name": self.database,
            "password": _secrets.DATABASE_PASSWORD,
            "password_file": password_file,
            "url": f"postgresql://{user}:{_secrets.DATABASE_PASSWORD}@{host}:{self.port}/{name}",
            **more,
        }


def fit_name(name: str) -> str:
    """A PostgreSQL identifier of at most 63 bytes; a longer name keeps its start and gets a hash of the whole."""
    if len(name.encode()) <= NAME_BYTES:
        return name
    digest = hashlib.sha1(name.encode()).hexdigest()[:8]  # noqa: S324 - a name, not a signature
    start = name.encode()[: NAME_BYTES - 9].decode("utf-8", "ignore")
    return f"{start}_{digest}"


def scram_verifier(password: str, salt: bytes | None = None, iterations: int = SCRAM_ITERATIONS) -> str:
    """What PostgreSQL stores for a password (RFC 5803), so that the password itself never travels.

    Facts: https://www.postgresql.org/docs/current/catalog-pg-authid.html

    :arg salt: a random one where none is given.
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    stored = hashlib.sha256(client).digest()
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"{SCRAM}{iterations}:{salt64}${stored64}:{server64}"


def steady_verifier(password: str) -> str:
    """The same, and the same each time; for a password that is random enough to be its own salt."""
    return scram_verifier(password, hashlib.sha256(b"parallel.worktrees " + password.encode()).digest()[:16])


def verifies(verifier: str, password: str) -> bool:
    """Whether a verifier is of this password, which may be a verifier itself, as PostgreSQL takes either."""
    if password.startswith(SCRAM):
        return verifier == password
    iterations, _colon, rest = verifier.removeprefix(SCRAM).partition(":")
    try:
        return verifier == scram_verifier(password, base64.b64decode(rest.partition("$")[0]), int(iterations))
    except ValueError:
        return False


def fixed(major: int, *, superuser: bool) -> dict[str, str]:
    """More settings of our sessions, for a server and a user that are known.

    Event triggers, and what they work on, may be others' as well.
    """
    settings = {}
    if major >= IDLE_TIMEOUT_SINCE:
        settings["idle_session_timeout"] = "0"
    if major >= TRANSACTION_TIMEOUT_SINCE:
        settings["transaction_timeout"] = "0"
    if superuser:
        settings |= {"session_preload_libraries": "", "session_replication_role": "replica"}
    if superuser and major >= EVENT_TRIGGERS_SINCE:
        settings["event_triggers"] = "off"
    return settings


def connect(
    address: Address,
    password: str | None,
    *,
    timeout: float = 5,
    settings: t.Mapping[str, str] | None = None,
) -> Connection:
    """Open a connection in autocommit mode, with settings that no database and no role can change.

    They are in the start-up packet, which beats what ``ALTER DATABASE`` and ``ALTER ROLE`` have set.

    :arg settings: beside ``FIXED``.
    :raises psycopg2.OperationalError: the server did not let us in.
    """
    connection = _connect(address, password, timeout, options=options_of({**FIXED, **(settings or {})}))
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"set search_path = {SEARCH_PATH}")  # a pooler may have left the options out
    except BaseException:
        connection.close()
        raise
    return connection


def connect_plainly(address: Address, password: str | None, *, timeout: float = 5) -> Connection:
    """Open a connection in autocommit mode that has the settings of its database and its role.

    For statements of the workspace that mean these, with no more rights than the task has; and for PgBouncer's console.

    :raises psycopg2.OperationalError: the server did not let us in.
    """
    return _connect(address, password, timeout)


def options_of(settings: t.Mapping[str, str]) -> str:
    """Settings in the syntax of libpq's ``options``."""
    escapes = str.maketrans({"\\": r"\\", " ": r"\ "})
    return " ".join(f"-c {name}={value.translate(escapes)}" for name, value in settings.items())


def _connect(address: Address, password: str | None, timeout: float, **more: str) -> Connection:
    connection = connect_by(
        host=address.host,
        port=address.port,
        user=address.user,
        dbname=address.database,
        password=password,
        connect_timeout=max(2, int(timeout)),
        application_name="parallel.worktrees",
        client_encoding="UTF8",
        **dict(address.tls),
        **more,
    )
    connection.autocommit = True
    return connection


def connect_by(**parameters: t.Any) -> Connection:
    """Open a connection by these parameters of libpq, and nothing else.

    libpq asks for variables with getenv(3), so they are taken away there. Python keeps them (``os.environ``), for the
    commands of a task that are to have them.

    :raises psycopg2.OperationalError: the server did not let us in.
    """
    for name in _environment.without_postgresql():
        os.unsetenv(name)
    return t.cast("Connection", driver().connect(**parameters))


def driver() -> t.Any:
    """The psycopg2 module."""
    try:
        import psycopg2
    except ImportError as error:
        raise EnvironmentFailure(
            "the Python of this machine has no psycopg2",
            hint="pip install psycopg2-binary, or apt install python3-psycopg2",
        ) from error
    return psycopg2


def wait_until_answers(
    address: Address,
    password: str | None,
    *,
    identity: str,
    timeout: float,
    still_alive: t.Callable[[], None],
) -> None:
    """Wait until the right server answers SQL through its final address.

    :arg identity: what the server was told to be (``IDENTITY_SETTING``).
    :arg timeout: seconds.
    :arg still_alive: raises, with the server's last words, when waiting has become pointless; it is asked rarely.
    :raises EnvironmentFailure: no answer in time, or another server answers there.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    asked_at = time.monotonic()
    while True:
        try:
            found = _identity(address, password)
        except driver().OperationalError as error:
            reason = str(error).strip()
            if "password authentication failed" in reason:
                raise EnvironmentFailure(
                    f"the server at {address.host}:{address.port} does not take the password of user {address.user}",
                    hint="another server may listen there; see who: ss -ltnp",
                ) from error
        else:
            if found != identity:
                raise EnvironmentFailure(
                    f"another PostgreSQL answers at {address.host}:{address.port}: "
                    f"expected {identity!r}, got {found!r}",
                    hint="see who listens there: ss -ltnp",
                )
            return
        now = time.monotonic()
        if now - asked_at > 0.25:
            still_alive()
            asked_at = now
        if now > deadline:
            raise EnvironmentFailure(
                f"no answer from PostgreSQL at {address.host}:{address.port} within {timeout:g} s: {reason}"
            )
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)


def answers(address: Address, password: str | None, *, identity: str) -> bool:
    """Whether the right server answers SQL now."""
    try:
        return _identity(address, password) == identity
    except driver().OperationalError:
        return False


def _identity(address: Address, password: str | None) -> str | None:
    with contextlib.closing(connect(address, password)) as connection, connection.cursor() as cursor:
        cursor.execute("select current_setting(%s, true)", (IDENTITY_SETTING,))
        row = cursor.fetchone()
        return None if row is None else t.cast("str | None", row[0])


def check_name(kind: str, name: str) -> None:
    """Refuse what cannot be an identifier.

    :raises UserError: it is empty, has a NUL byte, or is longer than 63 bytes.
    """
    if not name or "\0" in name or len(name.encode()) > NAME_BYTES:
        raise UserError(f"the {kind} {name!r} is not a PostgreSQL name: 1 to {NAME_BYTES} bytes are")


def setting(value: t.Any) -> str:
    """A server setting as PostgreSQL reads it."""
    return ("off", "on")[value] if isinstance(value, bool) else str(value)


def config(settings: t.Mapping[str, t.Any]) -> str:
    """Settings in the syntax of ``postgresql.conf``."""
    escapes = str.maketrans({"\\": r"\\", "'": "''", "\n": r"\n"})
    return "".join(f"{name} = '{setting(value).translate(escapes)}'\n" for name, value in settings.items())


def check_port_is_free(address: str, port: int) -> None:
    """Refuse a port that somebody listens on; old connections that linger do no harm (socket(7), SO_REUSEADDR).

    :raises EnvironmentFailure: it is taken, or the address is none of this machine's.
    """
    for family, kind, protocol, _name, where in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(where)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise port_is_taken(address, port) from error
                raise EnvironmentFailure(
                    f"a server cannot listen on port {port} of {address}: {error.strerror}"
                ) from error


def free_port(address: str) -> int:
    """A port that is free now, for a server that is needed for a while."""
    family, kind, protocol, _name, where = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.bind(where)
        return t.cast("int", probe.getsockname()[1])


def port_is_taken(address: str, port: int) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"port {port} of {address} is taken by another process",
        hint=f"see which: ss -ltnp 'sport = :{port}'; where it has to stay, tear the task down and provision it again: "
        "it then gets other ports",
    )
