# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server and data directory of a task's own, with no root and no Docker.

Private to this collection: may change without notice.

A cluster is one folder, complete from the moment it has its name:

    <directory>/<name>/cluster.json   whose it is and how it was asked for: the mark of ownership
    <directory>/<name>/data           copied from a template that initdb made once
    <directory>/<name>/server.conf    written anew from cluster.json at each start
    <directory>/<name>/server.log

What lies beside the clusters under a name with a dot is ours: locks, templates, and what a killed run left half made
or half removed, which the next run on the same name clears away.

The template's role has no password, so nobody comes in over TCP before the task's own is set. It is set over a socket
in a folder that only the server's system user (and root) can enter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import glob
import hashlib
import ipaddress
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import struct
import subprocess
import time
import typing as t

from . import _commands, _files, _mounts, _postgres, _secrets, _written
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError
from ._state import state_folder

if t.TYPE_CHECKING:
    from ._golden import Goldens

ARGUMENT_SPEC: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 60},
    "directory": {"type": "path"},
    "bin_directory": {"type": "path"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int"},
    "user": {"type": "str", "default": "postgres"},
    "database": {"type": "str"},
    "password_file": {"type": "path", "no_log": False},
    "settings": {"type": "dict", "default": {}},
    "system_user": {"type": "str", "default": "postgres"},
}

THROW_AWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
}
"""A crash of the machine may lose a task's database; a crash of its server, the last half second of commits."""

OUR_SETTINGS = {
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "unix_socket_permissions",
    _postgres.IDENTITY_SETTING,
}

INITDB = (
    "--no-sync",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--wal-segsize=1",
    "--auth-local=trust",
    "--auth-host=scram-sha-256",
)

SOCKETS = "/tmp/parallel-worktrees-{uid}"  # noqa: S108 - checked; the path of a socket may have 107 bytes only
STOPPING = ((signal.SIGINT, 15), (signal.SIGQUIT, 8), (signal.SIGKILL, 8))
"""Fast shutdown, immediate shutdown, and the seconds that each may take; PostgreSQL's own names."""

STARTED = ("starting", "ready", "standby")
READY = ("ready", "standby")
"""Last lines of postmaster.pid; the first of them comes when the server has bound its port."""

BUILDING = "building-"
"""Begins the name of a template that is not complete."""

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x00020000


@dataclasses.dataclass(frozen=True)
class Programs:
    """A PostgreSQL as it is installed.

    :ivar version: as it names itself, such as ``15.4``.
    """

    folder: str
    version: str

    @property
    def major(self) -> str:
        return re.match(r"\d*", self.version)[0]  # type: ignore[index]

    def path(self, program: str) -> str:
        return os.path.join(self.folder, program)


@dataclasses.dataclass(frozen=True)
class Record:
    """What ``cluster.json`` keeps.

    :ivar settings: of the server, without our defaults.
    """

    name: str
    owner: str
    version: str
    bin_directory: str
    socket_directory: str
    address: str
    port: int
    user: str
    database: str
    settings: dict[str, str]

    @property
    def programs(self) -> Programs:
        return Programs(self.bin_directory, self.version)

    @property
    def reached_at(self) -> _postgres.Address:
        return _postgres.Address(self.address, self.port, self.user, self.database)

    @property
    def server(self) -> tuple[t.Any, ...]:
        """What a running server cannot take up."""
        return self.address, self.port, self.settings

    def config(self) -> str:
        """The server's configuration: initdb's, then ours, in the syntax of ``postgresql.conf``."""
        settings = {
            **THROW_AWAY,
            "cluster_name": self.name,
            **self.settings,
            "listen_addresses": self.address,
            "port": str(self.port),
            "unix_socket_directories": self.socket_directory,
            "unix_socket_permissions": "0700",
            _postgres.IDENTITY_SETTING: self.name,
        }
        return f"include 'data/postgresql.conf'\n{_postgres.config(settings)}"


# The operation


def operation(params: Params, *, check: bool) -> Result:
    """Give a task its cluster, or remove it."""
    name = params["name"]
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", name):
        raise UserError(
            f"{name!r} is not a cluster name: letters, digits, '_', '.' and '-' are, "
            "beginning with none of the last two, 63 at most"
        )
    directory = os.path.realpath(params["directory"] or default_directory())
    cluster = Cluster(directory, name)
    act = _present if params["state"] == "present" else _absent
    untouched = check or (act is _absent and not os.path.isdir(directory))
    try:
        with contextlib.nullcontext() if untouched else _alone(directory, name):
            try:
                return act(params, cluster, check=check)
            except ServerEnded:
                # It was ending when we came, as after a run that was killed. One that cannot run ends again.
                return act(params, cluster, check=check)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise EnvironmentFailure(f"cluster {name}: {where}{error.strerror or error}") from error


def default_directory() -> str:
    """Where clusters lie; root's where the system user whom they run as can reach them."""
    if os.geteuid() == 0:
        return "/var/lib/parallel-worktrees/clusters"
    return os.path.join(state_folder(), "clusters")


def clusters(directory: str | None = None) -> list[dict[str, t.Any]]:
    """All clusters of ours in a directory: ``name``, ``owner``, ``directory``, ``running``."""
    directory = os.path.realpath(directory or default_directory())
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return []
    found = []
    for cluster in (Cluster(directory, name) for name in names):
        record = cluster.record()
        if record is not None:
            about = {"name": record.name, "owner": record.owner, "directory": cluster.folder}
            found.append({**about, "running": cluster.status() is not None})
    return found


def _shelf(directory: str) -> str:
    """Where the templates are that clusters are copied from."""
    return os.path.join(directory, ".templates")


def goldens(directory: str | None) -> list[dict[str, t.Any]]:
    """The templates with golden databases, and what interrupted builds left, as ``_golden.superseded`` wants them."""
    shelf = _shelf(os.path.realpath(directory or default_directory()))
    found = []
    for one in clusters(shelf):
        built = os.stat(os.path.join(one["directory"], "cluster.json")).st_mtime_ns
        complete = not one["name"].startswith(BUILDING)
        about = {"name": one["name"], "owner": one["owner"], "built": built, "complete": complete}
        found.append({**about, "in_use": False})
    return found


def remove_golden(directory: str | None, name: str) -> None:
    """Remove a template when nobody copies it."""
    shelf = _shelf(os.path.realpath(directory or default_directory()))
    golden = Cluster(shelf, name)
    with _alone(shelf, name.removeprefix(BUILDING)):
        if (record := golden.record()) is not None:
            golden.remove(record)
        _sweep(shelf, name)


def _present(params: Params, cluster: Cluster, *, check: bool) -> Result:
    _check_wish(params)
    account = Account.of(params["system_user"])
    found = cluster.record_of(params["owner"])
    if found is not None:
        _check_can_become(params, cluster, found, account)
    running = found is not None and cluster.status() is not None
    if not running and not check:
        cluster.stop()  # what a crash left at work, or a killed run just before its server could tell
    wished = _wished(params, cluster, account, found)
    restart = found is not None and running and found.server != wished.server
    start = restart or not running
    if start:
        programs = programs_in(params["bin_directory"], found)
        wished = dataclasses.replace(wished, bin_directory=programs.folder, version=programs.version)
        if found is None or not running or (found.address, found.port) != (wished.address, wished.port):
            _postgres.check_port_is_free(wished.address, wished.port)

    wait, until = params["wait"], time.monotonic() + params["timeout"]
    password = _password(params["password_file"], check=check)
    ready = wait and not start and cluster.is_open(wished, password, until)
    before = None if found is None else _state(found, running=running, ready=ready)
    actions: list[str] = []
    if found is None:
        actions.append(f"create cluster {wished.name} of PostgreSQL {wished.version} in {cluster.folder}")
        if not check:
            _create(cluster, wished, account, params)
    if restart:
        actions.append(f"stop cluster {wished.name}, whose settings have changed")
        if not check:
            cluster.stop()
    if not check and found not in (None, wished):
        cluster.write(wished)
    if start:
        actions.append(f"start cluster {wished.name} on port {wished.port} of {wished.address}")
        if not check:
            cluster.start(wished, until)
    if wait and not ready:
        closed = found is None or not start
        if not closed and not check:
            closed = not cluster.is_open(wished, password, until)
        if closed:
            actions.append(f"give user {wished.user} the password and database {wished.database}")
            if not check:
                cluster.let_in(wished, password, until)
    return {
        **_changes(cluster, before, _state(wished, running=True, ready=wait)),
        "actions": actions,
        "cluster": {
            "name": wished.name,
            "directory": cluster.folder,
            "port": wished.port,
            "running": True,
            "version": wished.version,
            "socket_directory": wished.socket_directory,
        },
        "database": wished.reached_at.facts("embedded", params["password_file"], cluster=wished.name),
    }


def _absent(params: Params, cluster: Cluster, *, check: bool) -> Result:
    found, password_file = cluster.record_of(params["owner"]), params["password_file"]
    before: dict[str, t.Any] = {}
    actions = []
    if found is not None:
        before = _state(found, running=cluster.status() is not None, ready=False)
        actions.append(f"remove cluster {found.name} in {cluster.folder}")
        _mounts.refuse(cluster.folder)
        if not check:
            cluster.remove(found)
    if not check:
        _sweep(cluster.directory, cluster.name)
    if password_file is not None and os.path.lexists(password_file):
        before["password_file"] = password_file
        actions.append(f"remove {password_file}")
        if not check:
            os.unlink(password_file)
    return {**_changes(cluster, before or None, None), "actions": actions}


def _check_wish(params: Params) -> None:
    """Refuse what no cluster can be.

    :raises UserError: a parameter is missing, or has a value that is not one.
    """
    name = params["name"]
    for option in ("port", "password_file"):
        if params[option] is None:
            raise UserError(f"cluster {name}: state=present needs {option}")
    if not 1 <= params["port"] <= 65535:
        raise UserError(f"cluster {name}: {params['port']} is not a port: 1 to 65535 are")
    address = params["address"]
    try:
        loopback = address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UserError(
            f"cluster {name}: it listens on a loopback address only, and {address!r} is none",
            hint="take 127.0.0.1; for other addresses there are containers (database_backend: container)",
        )
    _postgres.check_name("user", params["user"])
    _postgres.check_name("database", params["database"] or params["user"])
    if re.search(r"""^pg_|["$'\\]""", params["user"]):
        raise UserError(
            f"cluster {name}: PostgreSQL cannot be set up for the user {params['user']!r}: "
            "its name may have no quotes, '$' or '\\' in it, and not begin with pg_"
        )
    for setting, value in params["settings"].items():
        if setting.lower() in OUR_SETTINGS or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", setting):
            raise UserError(f"cluster {name}: the setting {setting!r} cannot be given")
        if not isinstance(value, (str, int, float)):
            raise UserError(f"cluster {name}: {value!r} is no value for the setting {setting!r}")


def _check_can_become(params: Params, cluster: Cluster, found: Record, account: Account) -> None:
    """Refuse what only a cluster made anew could be.

    :raises UserError: another role, another major version, or another system user is asked for.
    """
    asked = params["bin_directory"]
    if asked is not None and os.path.realpath(asked) != found.bin_directory:
        major = programs_in(asked, None).major
        if major != found.programs.major:
            raise _cannot_become(found, f"PostgreSQL {major}", f"PostgreSQL {found.programs.major}")
    if params["user"] != found.user:
        raise _cannot_become(found, f"user {params['user']}", f"user {found.user}")
    holder = cluster.account().name
    if holder != account.name:
        raise _cannot_become(found, f"system user {account.name}", f"system user {holder}")


def _cannot_become(found: Record, asked: str, there: str) -> UserError:
    return UserError(
        f"cluster {found.name} was made for {there}, not for {asked}, and to make it anew would lose its data",
        hint="tear the task down and provision it again, or ask for what is there",
    )


def _wished(params: Params, cluster: Cluster, account: Account, found: Record | None) -> Record:
    """What is asked for; with the programs that are in use, where there are any."""
    return Record(
        name=params["name"],
        owner=params["owner"],
        version="" if found is None else found.version,
        bin_directory="" if found is None else found.bin_directory,
        socket_directory=cluster.socket_directory(account),
        address=params["address"],
        port=params["port"],
        user=params["user"],
        database=params["database"] or params["user"],
        settings={name: _postgres.setting(value) for name, value in params["settings"].items()},
    )


def _password(path: str, *, check: bool) -> str:
    """The task's password; an empty one where check mode may not make it."""
    if not check:
        return _secrets.ensure(path)
    try:
        return _secrets.read(path)
    except FileNotFoundError:
        return ""


def _state(record: Record, *, running: bool, ready: bool) -> dict[str, t.Any]:
    return {**dataclasses.asdict(record), "running": running, "ready": ready}


def _changes(cluster: Cluster, before: dict[str, t.Any] | None, after: dict[str, t.Any] | None) -> Result:
    if before == after:
        return {"changed": False, "diff": []}
    header = f"cluster {cluster.name}"
    difference = {"before": before or {}, "after": after or {}, "before_header": header, "after_header": header}
    return {"changed": True, "diff": [difference]}


# One cluster


@dataclasses.dataclass(frozen=True)
class Account:
    """The system user that a server runs as, and that its data belong to."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, system_user: str) -> Account:
        """Who runs the server: we ourselves, or for root the system user.

        :raises UserError: there is no such user, or it is root as well.
        """
        if os.geteuid() != 0:
            return cls.number(os.geteuid())
        try:
            entry = pwd.getpwnam(system_user)
        except KeyError:
            entry = None
        if entry is None or entry.pw_uid == 0:
            raise UserError(
                f"PostgreSQL does not run as root, and there is no system user {system_user!r} to run it as"
                if entry is None
                else "PostgreSQL does not run as root, so system_user has to be another",
                hint="apt install postgresql makes the user postgres; or name another: "
                "database_system_user (option system_user)",
            )
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def number(cls, uid: int) -> Account:
        """The account with this number; PostgreSQL wants it to have a name."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError as error:
            raise EnvironmentFailure(
                f"PostgreSQL does not run as user {uid}, who has no name on this machine"
            ) from error
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)


class ServerEnded(EnvironmentFailure):
    """The server ended while it was worked with."""


class Cluster:
    """The folder of a cluster, whether it is there or not, and the server that works in it."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.name = name
        self.folder = os.path.join(directory, name)
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(self.folder, "server.log")

    def record(self) -> Record | None:
        """What ``cluster.json`` says; None where there is none."""
        path = os.path.join(self.folder, "cluster.json")
        try:
            with open(path, encoding="utf-8") as file:
                return Record(**json.load(file))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, TypeError, ValueError) as error:
            raise EnvironmentFailure(f"cannot read {path}: {error}") from error

    def record_of(self, owner: str) -> Record | None:
        """The same, of this owner.

        :raises UserError: the folder is somebody else's.
        """
        record = self.record()
        if record is None and os.path.lexists(self.folder):
            raise UserError(
                f"{self.folder} is there, and is no cluster of ours: it has no cluster.json",
                hint="choose another name, or move it away",
            )
        if record is not None and record.owner != owner:
            raise UserError(
                f"cluster {self.name} in {self.directory} belongs to {record.owner}, not to {owner}",
                hint="choose another name, or let its owner remove it",
            )
        return record

    def write(self, record: Record) -> None:
        _write_record(self.folder, record)

    def account(self) -> Account:
        """Whom the data belong to."""
        return Account.number(os.stat(self.data).st_uid)

    def socket_directory(self, account: Account) -> str:
        return os.path.join(SOCKETS.format(uid=account.uid), _digest(self.folder)[:16])

    # The server

    def status(self) -> str | None:
        """What the server says of itself, such as ``starting`` and ``ready``; None where none runs.

        Facts: https://www.postgresql.org/docs/current/storage-file-layout.html, and pidfile.h of its sources.
        """
        try:
            with open(self._pid_file, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
            if not _is_at_work(int(lines[0]), self.data, os.stat(self.data)):
                return None
        except (OSError, ValueError, IndexError):
            return None
        return lines[7].strip() if len(lines) > 7 else ""

    def start(self, record: Record, until: float) -> None:
        """Start the server, where none is at work, and see it take its port.

        :arg until: by when, on the monotonic clock.
        """
        # Nobody is at work here, so these are of a server that crashed; its number may be another process' by now.
        for stale in (self._pid_file, *glob.glob(os.path.join(record.socket_directory, ".s.PGSQL.*"))):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stale)
        account = self.account()
        shared = SOCKETS.format(uid=account.uid)  # the folder in a place where everybody may be first
        if record.socket_directory.startswith(f"{shared}/"):
            _make_private(shared, account)
        _make_private(record.socket_directory, account)
        config = os.path.join(self.folder, "server.conf")
        _files.write(config, record.config().encode(), mode=0o644)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.log, f"{self.log}.old")
        switch: dict[str, t.Any] = {"user": account.uid, "group": account.gid, "extra_groups": []}
        with open(self.log, "xb") as log:
            os.fchmod(log.fileno(), 0o600)
            server = subprocess.Popen(  # pylint: disable=ansible-bad-function # it outlives the call
                [record.programs.path("postgres"), "-D", self.data, "-c", f"config_file={config}"],
                cwd=self.data,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **(switch if os.geteuid() == 0 else {}),
            )
        self.await_status(STARTED, until, lambda: server.poll() is None)

    def await_status(
        self, words: t.Container[str], until: float, is_coming: t.Callable[[], bool] | None = None
    ) -> None:
        """Wait until the server says one of these words of itself.

        :arg is_coming: whether a server that says nothing yet may still do so.
        """
        while (status := self.status()) not in words:
            if status is None and not (is_coming and is_coming()):
                self.check_is_alive()
            if time.monotonic() > until:
                raise EnvironmentFailure(
                    f"the server of cluster {self.name} is not ready in time: {self.last_words()}",
                    hint=f"see the whole log: less {self.log}",
                )
            time.sleep(0.002)

    def check_is_alive(self) -> None:
        """
        :raises ServerEnded: with its last words.
        :raises EnvironmentFailure: it found its port taken.
        """
        if self.status() is not None:
            return
        words = self.last_words()
        record = self.record()
        if record is not None and "Address already in use" in words:
            raise _postgres.port_is_taken(record.address, record.port)
        raise ServerEnded(
            f"the server of cluster {self.name} has ended: {words}", hint=f"see the whole log: less {self.log}"
        )

    def is_open(self, record: Record, password: str, until: float) -> bool:
        """Whether the server lets the user in with the password, once it is ready."""
        self.await_status(READY, until)
        return _postgres.answers(record.reached_at, password, identity=self.name)

    def let_in(self, record: Record, password: str, until: float) -> None:
        """Give the user the password and the database, and see them work at the final address."""
        while True:
            self.await_status(READY, until)
            try:
                self._give_password_and_database(record, password)
                break
            except _postgres.driver().OperationalError as error:
                is_full = _files.is_full(self.folder)
                if is_full or time.monotonic() > until:
                    why = f"; {self.folder}: {os.strerror(errno.ENOSPC)}" if is_full else ""
                    raise EnvironmentFailure(
                        f"cluster {self.name} lets nobody in at {record.socket_directory}: {str(error).strip()}{why}",
                        hint=None if is_full else f"see its log: less {self.log}",
                    ) from error
            time.sleep(0.02)
        _postgres.wait_until_answers(
            record.reached_at,
            password,
            identity=self.name,
            timeout=max(0.0, until - time.monotonic()),
            still_alive=self.check_is_alive,
        )

    def stop(self) -> None:
        """End the server, and what may be left of one that crashed.

        :raises EnvironmentFailure: a process does not end.
        """
        processes = self._processes()
        for sign, seconds in STOPPING:
            server = self._server()
            if not processes:
                return
            if server not in processes and sign == signal.SIGINT:
                continue
            for pid in [server] if server in processes and sign != signal.SIGKILL else processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            until = time.monotonic() + seconds
            while processes and time.monotonic() < until:
                time.sleep(0.002)
                processes = self._processes(processes)
        if processes:
            raise EnvironmentFailure(f"these processes of cluster {self.name} do not end: {processes}")

    def remove(self, record: Record) -> None:
        """Stop the server and put the folder where it is swept away."""
        _mounts.refuse(self.folder)
        self.stop()
        _mounts.remove(record.socket_directory)
        os.rename(self.folder, _aside(self.directory, self.name))

    def _give_password_and_database(self, record: Record, password: str) -> None:
        inside = _postgres.Address(record.socket_directory, record.port, record.user, "postgres")
        with contextlib.closing(_postgres.connect(inside, None)) as connection, connection.cursor() as cursor:
            from psycopg2 import sql

            user, database = sql.Identifier(record.user), sql.Identifier(record.database)
            verifier = _postgres.scram_verifier(password)
            cursor.execute(sql.SQL("alter role {} password %s").format(user), (verifier,))
            cursor.execute("select from pg_database where datname = %s", (record.database,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("create database {}").format(database))
        inside = dataclasses.replace(inside, database=record.database)
        with contextlib.closing(_postgres.connect(inside, None)) as connection:
            _written.start_in(connection, anew=False)

    # Its processes

    @property
    def _pid_file(self) -> str:
        return os.path.join(self.data, "postmaster.pid")

    def _server(self) -> int | None:
        """The number in postmaster.pid, which may be a stale one."""
        try:
            with open(self._pid_file, encoding="utf-8", errors="replace") as file:
                return int(file.readline())
        except (OSError, ValueError):
            return None

    def _processes(self, among: t.Iterable[int] | None = None) -> list[int]:
        """The processes of PostgreSQL that work in the data directory, a server's or those that it left behind."""
        try:
            home = os.stat(self.data)
        except FileNotFoundError:
            return []
        numbers = (int(entry) for entry in os.listdir("/proc") if entry.isdigit()) if among is None else among
        return [pid for pid in numbers if _is_at_work(pid, self.data, home)]

    def last_words(self) -> str:
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                return _commands.last_words(file.read())
        except FileNotFoundError:
            return "it left no log"


def _is_at_work(pid: int, data: str, home: os.stat_result) -> bool:
    """Whether a process is PostgreSQL and works in this folder: a number alone may be another process' by now.

    :arg home: the folder, whatever its name.
    """
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            if file.read() != "postgres\n":
                return False
        try:
            return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), home)
        except PermissionError:  # in a container root may not look there; a server says it in its arguments
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return os.fsencode(data) in file.read().split(b"\0")
    except OSError:
        return False


# Making one


def _create(cluster: Cluster, record: Record, account: Account, params: Params) -> None:
    """Make the folder of a stopped cluster, which gets its name when it is complete."""
    plain = _template(cluster.directory, record, account)
    goldens: Goldens | None = params.get("goldens")
    _sweep(cluster.directory, cluster.name)
    _spread(cluster.directory)
    draft = _aside(cluster.directory, cluster.name)
    _make_folder(draft)
    with (
        _golden_template(plain, goldens, record, account, params["timeout"])
        if goldens
        else contextlib.nullcontext(plain)
    ) as template:
        _copy(template, os.path.join(draft, "data"), account)
    _write_record(draft, record)
    os.rename(draft, cluster.folder)


def _write_record(folder: str, record: Record) -> None:
    content = json.dumps(dataclasses.asdict(record), indent=2) + "\n"
    _files.write(os.path.join(folder, "cluster.json"), content.encode(), mode=0o600)


def _template(directory: str, record: Record, account: Account) -> str:
    """The data directory that clusters like this one are copied from; made where it is not there yet."""
    shelf = _shelf(directory)
    key = f"{record.version}-{_digest(json.dumps([record.user, account.uid, INITDB]))[:8]}"
    template = os.path.join(shelf, key)
    if os.path.isdir(template):
        return template
    _make_folder(shelf)
    with _files.locked(shelf) as lock:
        if os.path.isdir(template):  # another run was first
            return template
        _sweep(shelf, "")
        draft = _aside(shelf, "")
        os.mkdir(draft, 0o700)
        os.chown(draft, account.uid, account.gid)
        as_account = ("setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--")
        _commands.must(
            (
                *(as_account if os.geteuid() == 0 else ()),
                *(record.programs.path("initdb"), *INITDB, f"--username={record.user}", f"--pgdata={draft}"),
            ),
            doing="cannot make the template of the clusters",
            hint=f"see whether user {account.name} can write there: {directory}",
            cwd=draft,
            keep=[lock],  # initdb outlives us when we are killed, and nobody else may begin before it ends
        )
        check_is_shut_down(record.programs, draft)
        os.rename(draft, template)
    return template


@contextlib.contextmanager
def _golden_template(plain: str, goldens: Goldens, record: Record, account: Account, timeout: float) -> t.Iterator[str]:
    """The data directory that has these golden databases, for as long as it is copied; made where it is not there yet.

    It lies among the templates as the data of a cluster that nobody starts any more.
    """
    shelf, key = os.path.split(plain)
    golden = Cluster(shelf, f"golden-{_digest(key + goldens.key)[:16]}")
    with _alone(shelf, golden.name):
        if not os.path.isdir(golden.folder):
            _build(golden, plain, goldens, record, account, timeout)
        yield golden.data


def _build(golden: Cluster, plain: str, goldens: Goldens, record: Record, account: Account, timeout: float) -> None:
    builder = Cluster(golden.directory, BUILDING + golden.name)
    sockets = builder.socket_directory(account)
    _discard(builder, sockets)
    try:
        _make_folder(builder.folder)
        _copy(plain, builder.data, account)
        built = dataclasses.replace(
            record,
            name=builder.name,
            owner=goldens.owner,
            port=_postgres.free_port(record.address),
            database="postgres",
            settings={**record.settings, **_postgres.SMALL_LOG},
            socket_directory=sockets,
        )
        builder.write(built)
        until = time.monotonic() + timeout
        password = secrets.token_urlsafe(24)
        builder.start(built, until)
        builder.let_in(built, password, until)
        goldens.build(built.reached_at, password)
        builder.stop()
        check_is_shut_down(record.programs, builder.data)
        builder.write(dataclasses.replace(built, name=golden.name))
        os.rename(builder.folder, golden.folder)
    finally:
        _discard(builder, sockets)


def _discard(builder: Cluster, sockets: str) -> None:
    """Remove what is left of building a golden template, by us or by a run that was killed."""
    builder.stop()
    for folder in (sockets, builder.folder):
        _mounts.remove(folder)


def control(programs: Programs, data: str) -> dict[str, str]:
    """What ``pg_controldata`` says of a data directory, by its own words."""
    said = _commands.must((programs.path("pg_controldata"), data), doing=f"cannot look at {data}")
    return {key: value.strip() for key, _colon, value in (line.partition(":") for line in said.splitlines())}


def check_is_shut_down(programs: Programs, data: str) -> None:
    """
    :raises EnvironmentFailure: a copy of it would have to recover first.
    """
    state = control(programs, data).get("Database cluster state")
    if state != "shut down":
        raise EnvironmentFailure(f"{data} is in a state that cannot be copied: {state}")


def _copy(source: str, target: str, account: Account) -> None:
    """Copy a folder; the kernel shares the blocks where the file system can (copy_file_range(2)).

    In this process and not with ``cp``, which would go on writing when we are killed.
    """
    os.mkdir(target, 0o700)
    os.chown(target, account.uid, account.gid)
    with os.scandir(source) as entries:
        for entry in entries:
            goal = f"{target}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                _copy(entry.path, goal, account)
                continue
            with _opened(entry.path, os.O_RDONLY) as old, _opened(goal, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as new:
                os.fchown(new, account.uid, account.gid)
                while os.copy_file_range(old, new, 1 << 30):
                    pass


@contextlib.contextmanager
def _opened(path: str, flags: int) -> t.Iterator[int]:
    handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def programs_in(folder: str | None, found: Record | None) -> Programs:
    """The PostgreSQL to use: the one that was asked for, or that is in use, or else is found here.

    :arg found: the cluster that it is for; only its major version will do.
    :raises EnvironmentFailure: there is none.
    """
    for candidate in _candidates(folder, found):
        programs = os.path.realpath(candidate)
        if all(os.access(os.path.join(programs, name), os.X_OK) for name in ("initdb", "pg_controldata", "postgres")):
            answer = _commands.must((os.path.join(programs, "postgres"), "--version"), doing="cannot use PostgreSQL")
            version = re.search(r"\) (\S+)", answer)
            if version and (found is None or found.programs.major == Programs("", version[1]).major):
                return Programs(programs, version[1])
    what = "PostgreSQL" if found is None else f"PostgreSQL {found.programs.major}, which made cluster {found.name},"
    raise EnvironmentFailure(
        f"{what} is not in {folder}" if folder else f"{what} is not on this machine",
        hint="apt install postgresql, or name the folder of its programs: "
        "database_bin_directory (option bin_directory)",
    )


def _candidates(folder: str | None, found: Record | None) -> t.Iterator[str]:
    if folder is not None:
        yield folder
        return
    if found is not None:
        yield found.bin_directory
    if shutil.which("pg_config"):
        yield _commands.run(("pg_config", "--bindir")).stdout.strip()
    installed = [*glob.glob("/usr/lib/postgresql/*/bin"), *glob.glob("/usr/pgsql-*/bin")]
    yield from sorted(installed, key=lambda path: [int(number) for number in re.findall(r"\d+", path)], reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        yield os.path.dirname(os.path.realpath(on_path))


# Folders


@contextlib.contextmanager
def _alone(directory: str, name: str) -> t.Iterator[None]:
    """Keep other runs from the same cluster. There are 256 locks, so that they can stay and few names share one."""
    locks = os.path.join(directory, ".locks")
    _make_folder(locks)
    with _files.locked(os.path.join(locks, _digest(name)[:2])):
        yield


def _make_folder(path: str) -> None:
    """Make a folder and those above it: ours alone, but for root, whose servers run as another user."""
    if os.path.isdir(path):
        return
    _make_folder(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        os.chmod(path, 0o711 if os.geteuid() == 0 else 0o700)


def _make_private(folder: str, account: Account) -> None:
    """Make a folder that only an account enters, in a place where others may have been first.

    :raises EnvironmentFailure: they were.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if os.lstat(folder).st_uid == os.geteuid():
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    about = os.lstat(folder)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != account.uid or about.st_mode & 0o077:
        raise EnvironmentFailure(
            f"{folder} is not a private folder of {account.name}: others may reach what is in it",
            hint=f"see who made it, and remove it: ls -ld {folder}",
        )


def _spread(folder: str) -> None:
    """Have ext4 put each folder in here into another part of the disk, as ``chattr +T`` does.

    It looks at every inode freed nearby in the last minutes before it gives a new one, so making a thousand files
    where a thousand were just removed would take ten times as long.
    """
    with _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as handle, contextlib.suppress(OSError):
        (flags,) = struct.unpack("i4x", fcntl.ioctl(handle, FS_IOC_GETFLAGS, bytes(8)))
        if not flags & FS_TOPDIR_FL:
            fcntl.ioctl(handle, FS_IOC_SETFLAGS, struct.pack("i4x", flags | FS_TOPDIR_FL))


def _aside(directory: str, name: str) -> str:
    """Where what has no name yet, or no longer, lies beside what has; a new name each time also serves to spread."""
    return os.path.join(directory, f".{name}~{secrets.token_hex(4)}")


def _sweep(directory: str, name: str) -> None:
    """Remove what was laid aside, by us or by runs that were killed."""
    for left in glob.glob(os.path.join(glob.escape(directory), f".{name}~*")):
        _mounts.remove(left)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
