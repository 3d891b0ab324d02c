# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A standby on a DB host: it follows a primary by streaming, and is what goldens are copied from.

Private to this collection: may change without notice.

Its server is told nothing but where its data are: all else lies in them, in ``postgresql.auto.conf``. Root alone gets
in, over a socket. The password for the primary is in a file of its own beside the pool, so
that no copy of the data has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
import time
import typing as t

from . import _clusters, _commands, _files, _hba, _postgres, _secrets, _services, _stores
from ._errors import EnvironmentFailure, UserError, WorktreesError
from ._pg_server import Journal, Server

if t.TYPE_CHECKING:
    from ._db_host import Host, Source

SHELF = "sources"
PORT = 5432
"""Of every server here: its socket lies in a folder of its own."""

UNIT = "parallel-worktrees-source@{}.service"
START_SECONDS = 600
"""How long a server may take to have replayed what it has to, before anybody can ask it anything."""

SETTINGS = "postgresql.auto.conf"
SAFE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
HERE_ALONE = {
    "archive_command": "",
    "archive_mode": "off",
    "listen_addresses": "",
    "max_logical_replication_workers": "0",
    "port": str(PORT),
    "restore_command": "",
    "ssl": "off",
    "unix_socket_permissions": "0700",
}
"""With these a copy of a server does nothing to the one that it is a copy of."""

AS_THE_PRIMARY = {
    "max_connections": "max_connections setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_worker_processes": "max_worker_processes setting",
}
"""A standby needs as much of these as its primary; the names that ``pg_controldata`` has for them."""

STATE = """
select
    coalesce((select status = 'streaming' from pg_stat_wal_receiver), false),
    extract(epoch from pg_last_xact_replay_timestamp())::float,
    extract(epoch from (select last_msg_send_time from pg_stat_wal_receiver))::float,
    coalesce(pg_wal_lsn_diff((select latest_end_lsn from pg_stat_wal_receiver), pg_last_wal_replay_lsn()), 0)::bigint
"""

COLLATIONS = """
select distinct c.collname::text, c.collversion, pg_catalog.pg_collation_actual_version(c.oid)
from pg_catalog.pg_collation c
where c.collversion is distinct from pg_catalog.pg_collation_actual_version(c.oid) and c.collversion is not null
    and (
        exists (
            select from pg_catalog.pg_depend
            where refclassid = 'pg_catalog.pg_collation'::regclass and refobjid = c.oid
        )
        or c.collprovider = 'c' and c.collcollate = (
            select datcollate from pg_catalog.pg_database where datname = current_database()
        )
    )
"""
DEFAULT_COLLATION = """
select 'the default'::text, datcollversion, pg_catalog.pg_database_collation_actual_version(oid)
from pg_catalog.pg_database
where datname = current_database() and datcollversion is not null
    and datcollversion is distinct from pg_catalog.pg_database_collation_actual_version(oid)
"""
"""Collations that the database uses, with the version by which the primary has sorted, and that of this machine."""

DEFAULT_COLLATION_SINCE = 15
_NO_TLS = "see what the primary offers, and who has signed its certificate: sslmode, sslrootcert"

TABLESPACES = "select spcname, pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) <> ''"


@dataclasses.dataclass(frozen=True)
class State:
    """How a standby stands.

    :ivar data_at: up to when it has the primary's data, in seconds since 1970; None where it cannot tell.
    :ivar behind: how many bytes of the primary's log it has not replayed yet.
    """

    running: bool
    streaming: bool = False
    data_at: float | None = None
    behind: int = 0


class Standby:
    """The standby of a source, whether it is there or not."""

    def __init__(self, host: Host, source: Source) -> None:
        self.host = host
        self.source = source
        self.name = f"{SHELF}/{source.name}"
        self.server = _clusters.Cluster(os.path.join(host.root, SHELF), source.name)
        self.sockets = os.path.join(host.run, ".sources", source.name)
        self.password_file = os.path.join(host.state, SHELF, f"{source.name}.pgpass")

    @property
    def log(self) -> str:
        """The command that shows what its server says."""
        is_unit = self.host.supervisor == "systemd"
        return f"journalctl -u {UNIT.format(self.source.name)}" if is_unit else f"less {self.server.log}"

    # Making one

    def check_primary(self) -> None:
        """Look at the primary as far as it lets us.

        :raises UserError: there is no password file, or what is there cannot be followed.
        :raises EnvironmentFailure: it does not let us in.
        """
        source, driver = self.source, _postgres.driver()
        self._check_root_certificate()
        try:
            with contextlib.closing(self._replication()) as connection:
                major = connection.server_version // 10000
        except driver.OperationalError as error:
            raise EnvironmentFailure(
                f"source {source.name}: user {source.user} does not get into the primary at "
                f"{source.host}:{source.port} to replicate it: {str(error).strip()}",
                hint=_NO_TLS
                if re.search(r"SSL|certificate", str(error))
                else f'on the primary: alter role "{source.user}" replication login; and in its pg_hba.conf: '
                f"host replication {source.user} ADDRESS_OF_THE_DB_HOST scram-sha-256",
            ) from error
        if major != int(self.host.programs.major):
            raise UserError(
                f"source {source.name}: the primary is PostgreSQL {major}, and the programs in "
                f"{self.host.bin_directory} are of {self.host.programs.version}",
                hint=f"set the host up with db_host_postgresql: {major}",
            )
        # Not everybody who may replicate is let into a database: what cannot be seen here is seen in the copy.
        with contextlib.suppress(driver.OperationalError):
            server = Server(self._address(source.database), self._password(), Journal(check=True))
            with contextlib.closing(server.connection):
                _refuse_tablespaces(source.name, [f"{name} in {place}" for name, place in server.rows(TABLESPACES)])
                for setting in ("fsync", "full_page_writes"):
                    if server.rows(f"show {setting}") == [("off",)]:
                        raise _unsafe(source.name, setting)

    def make(self) -> None:
        """Copy the primary into a volume of its own, and follow it from then on."""
        source = self.source
        mark: _stores.Mark = {"kind": "source", "phase": "creating", "source": source.name, "database": source.database}
        mark |= {
            "host": source.host,
            "port": source.port,
            "user": source.user,
            **dict(self._tls),
            "slot": source.slot,
            "admin": source.admin,
        }
        self._write_password()
        if source.slot is not None:
            self._make_slot(source.slot)
        with _stores.locked(self.host) as store:
            store.check_room(f"cannot copy source {source.name}")
            store.create(self.name, mark)
        try:
            self._copy()
        except WorktreesError:
            self.remove_volume()
            raise
        with _stores.locked(self.host) as store:
            store.set_mark(self.name, {**mark, "phase": "ready"})

    def _copy(self) -> None:
        source, account, data = self.source, self.host.source_account, self.server.data
        os.mkdir(data, 0o700)
        os.chown(data, account.uid, account.gid)
        command = ("--no-password", "--checkpoint=fast", "--wal-method=stream", f"--pgdata={data}")
        slot = () if source.slot is None else (f"--slot={source.slot}",)
        as_account(
            self.host,
            (self.host.programs.path("pg_basebackup"), *command, *slot, f"--dbname={self._conninfo()}"),
            doing=f"cannot copy the primary of source {source.name}",
            hint=f"see whether there is room for all of it: df -h {self.host.root}",
            cwd=data,
        )
        self.check_data()
        self.configure()

    def check_data(self) -> None:
        """Look whether a copy of the data would be whole, and apart from them.

        :raises UserError: it would not.
        """
        check_contained(self.source.name, self.server.data)
        control = _clusters.control(self.host.programs, self.server.data)
        if control.get("Latest checkpoint's full_page_writes") == "off":
            raise _unsafe(self.source.name, "full_page_writes")

    def configure(self) -> None:
        """Write what the server goes by, and let its system user have the data."""
        self._write_password()
        account = self.host.source_account
        if os.stat(self.server.data).st_uid != account.uid:
            give_to(account, self.server.data)
        settings = self.settings(_clusters.control(self.host.programs, self.server.data))
        write_settings(self.host, self.source.admin, self.server.data, settings)
        write_file(self.host, os.path.join(self.server.data, "standby.signal"), "")

    def is_configured(self) -> bool:
        """Whether the server has the settings that it is to have, and its data belong to their system user."""
        if os.stat(self.server.data).st_uid != self.host.source_account.uid:
            return False
        with open(os.path.join(self.server.data, SETTINGS), encoding="utf-8") as file:
            wanted = self.settings(_clusters.control(self.host.programs, self.server.data))
            return file.read() == _postgres.config(wanted)

    def settings(self, control: t.Mapping[str, str]) -> dict[str, str]:
        return {
            **self.source.settings,
            **HERE_ALONE,
            **SAFE,
            **as_the_primary(control),
            "hot_standby": "on",
            "primary_conninfo": self._conninfo(),
            "primary_slot_name": self.source.slot or "",
            "recovery_target_timeline": "latest",
            "unix_socket_directories": self.sockets,
        }

    # Its server

    def start(self) -> None:
        """See that it runs and lets us in."""
        if self.server.status() is None:
            self.configure()
            make_socket_folder(self.host, self.sockets)
            if self.host.supervisor == "systemd":
                unit = UNIT.format(self.source.name)
                doing = f"cannot start the standby of source {self.source.name}"
                _commands.must(("systemctl", "start", unit), doing=doing, hint=f"see its log: {self.log}")
            else:
                start(self.host, self.server, self.sockets)
        until = time.monotonic() + START_SECONDS
        self.server.await_status(("standby", "ready"), until, lambda: time.monotonic() < until - START_SECONDS + 5)

    def other_collations(self) -> list[str]:
        """Those by which this machine sorts otherwise than the primary, so that indexes of text may be wrong here."""
        if self.server.status() not in _clusters.READY:
            return []
        address = _postgres.Address(self.sockets, PORT, self.source.admin, self.source.database)
        settings = _postgres.fixed(int(self.host.programs.major), superuser=True)
        try:
            server = Server(address, None, Journal(check=True), settings)
        except _postgres.driver().OperationalError:  # it is told of elsewhere, or there is no such database
            return []
        with contextlib.closing(server.connection):
            queries = [COLLATIONS, *([DEFAULT_COLLATION] if server.major >= DEFAULT_COLLATION_SINCE else [])]
            rows = [row for query in queries for row in server.rows(query)]
        return [f"{name} ({there} there, {here or 'none'} here)" for name, there, here in sorted(rows)]

    def stop(self) -> None:
        if self.host.supervisor == "systemd":
            unit = UNIT.format(self.source.name)
            _commands.must(("systemctl", "stop", unit), doing=f"cannot stop the standby of source {self.source.name}")
        self.server.stop()

    def look(self) -> State:
        """How it stands; a server that lets nobody in is one that does not run."""
        if self.server.status() not in _clusters.READY:
            return State(running=False)
        address = _postgres.Address(self.sockets, PORT, self.source.admin, "postgres")
        try:
            settings = _postgres.fixed(int(self.host.programs.major), superuser=True)
            server = Server(address, None, Journal(check=True), settings)
        except _postgres.driver().OperationalError as error:
            raise lets_nobody_in(self.source, str(error)) from error
        with contextlib.closing(server.connection):
            ((streaming, replayed, heard, behind),) = server.rows(STATE)
        # Where nothing is left to replay, the data are those of the moment at which the primary last said so.
        data_at = heard if streaming and behind <= 0 and heard is not None else replayed
        return State(running=True, streaming=streaming, data_at=data_at, behind=max(0, behind))

    # Its end

    def remove(self, *, force: bool) -> None:
        """Take all of it away, with its slot on the primary, which would keep log for it without end.

        :arg force: even where the primary cannot be asked.
        """
        self.stop()
        if self.source.slot is not None:
            self._drop_slot(self.source.slot, force=force)
        self.remove_volume()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.password_file)

    def remove_volume(self) -> None:
        """Take the copy away, with a server that may still work on it."""
        self.server.stop()
        with _stores.locked(self.host) as store:
            if store.volume(self.name) is not None:
                store.destroy(self.name)
        remove_socket_folder(self.sockets)

    # The primary

    def _password(self) -> str | None:
        """None where there is none; of a source that the host file no longer has, libpq reads it from our own file."""
        if self.source.password_file is None:
            return None
        try:
            return _secrets.read(self.source.password_file)
        except FileNotFoundError as error:
            path = self.source.password_file
            raise UserError(
                f"source {self.source.name}: there is no password file {path}",
                hint=f"write the password of user {self.source.user} there: install -m 600 /dev/stdin {path}",
            ) from error

    def _write_password(self) -> None:
        """The password as libpq reads it, where the server can."""
        password = self._password()
        if password is None:
            return
        folder = os.path.dirname(self.password_file)
        os.makedirs(folder, exist_ok=True)
        _stores.close(folder, self.host)
        escaped = re.sub(r"([\\:])", r"\\\1", password)
        write_file(self.host, self.password_file, f"*:*:*:*:{escaped}\n")

    def _conninfo(self) -> str:
        from psycopg2.extensions import make_dsn

        return make_dsn(**self._primary, application_name=f"parallel_worktrees_{self.source.name}")

    @property
    def _primary(self) -> dict[str, t.Any]:
        source = self.source
        has_password = source.password_file is not None or os.path.exists(self.password_file)
        secret = {"passfile": self.password_file} if has_password else {}
        return {"host": source.host, "port": source.port, "user": source.user, **dict(self._tls), **secret}

    @property
    def _tls(self) -> tuple[tuple[str, str], ...]:
        about = {"sslmode": self.source.sslmode, "sslrootcert": self.source.sslrootcert}
        return tuple((name, value) for name, value in about.items() if value is not None)

    def _address(self, database: str) -> _postgres.Address:
        return _postgres.Address(str(self.source.host), self.source.port, str(self.source.user), database, self._tls)

    def _check_root_certificate(self) -> None:
        """
        :raises UserError: the standby, which is another user than we are, cannot read it.
        """
        path, account = self.source.sslrootcert, self.host.source_account
        if path is None:
            return
        if not _commands.run((*_services.unprivileged(account), "--", "test", "-r", path)).ok:
            raise UserError(
                f"source {self.source.name}: the user {account.name} of standbys cannot read sslrootcert {path}",
                hint=f"it is no secret: chmod 644 {path}; and let everybody into its folders",
            )

    def _replication(self) -> t.Any:
        from psycopg2.extras import PhysicalReplicationConnection

        return _postgres.connect_by(
            **self._primary,
            password=self._password(),
            connect_timeout=10,
            connection_factory=PhysicalReplicationConnection,
        )

    def _make_slot(self, slot: str) -> None:
        """Have the primary keep its log until it is here; a slot that is there already is used."""
        driver = _postgres.driver()
        try:
            with contextlib.closing(self._replication()) as connection, connection.cursor() as cursor:
                cursor.execute(f'CREATE_REPLICATION_SLOT "{slot}" PHYSICAL RESERVE_WAL')
        except driver.errors.DuplicateObject:
            pass
        except driver.Error as error:
            raise EnvironmentFailure(
                f"source {self.source.name}: the primary makes no slot {slot}: {str(error).strip()}",
                hint="raise max_replication_slots there, or leave slot out",
            ) from error

    def _drop_slot(self, slot: str, *, force: bool) -> None:
        driver = _postgres.driver()
        until = time.monotonic() + 10
        while True:
            try:
                with contextlib.closing(self._replication()) as connection, connection.cursor() as cursor:
                    cursor.execute(f'DROP_REPLICATION_SLOT "{slot}"')
                return
            except driver.errors.UndefinedObject:
                return
            except driver.Error as error:
                # The primary needs a moment to see that the standby has gone.
                if isinstance(error, driver.errors.ObjectInUse) and time.monotonic() < until:
                    time.sleep(0.1)
                elif force:
                    return
                else:
                    raise EnvironmentFailure(
                        f"source {self.source.name}: its slot {slot} on the primary at {self.source.host} cannot be "
                        f"dropped, and would keep log there without end: {str(error).strip()}",
                        hint=f"drop it there: select pg_drop_replication_slot('{slot}'); then use force: true",
                    ) from error


# What standbys and goldens have in common


def check_contained(name: str, data: str) -> None:
    """Refuse data that lie in part elsewhere: a copy would work on what it is a copy of.

    :raises UserError: the log is a link, or there are tablespaces.
    """
    log = os.path.join(data, "pg_wal")
    if os.path.islink(log):
        raise UserError(
            f"source {name}: its log lies outside of its volume: {log} is a link to {os.readlink(log)}, so that "
            "a copy would write the log of the source",
            hint=f"stop its server, and put the folder in the place of the link: {log}",
        )
    links = glob.glob(os.path.join(glob.escape(data), "pg_tblspc", "*"))
    _refuse_tablespaces(name, [os.path.realpath(link) for link in links])


def as_the_primary(control: t.Mapping[str, str]) -> dict[str, str]:
    """The settings that a server has to have to replay the log of another."""
    return {"wal_level": "replica", **{name: control[told] for name, told in AS_THE_PRIMARY.items() if told in control}}


def write_settings(host: Host, admin: str, data: str, settings: t.Mapping[str, t.Any]) -> None:
    """Give data settings of our own instead of those that came with them, and let root in only."""
    for name, content in {
        "postgresql.conf": "# The settings are in postgresql.auto.conf.\n",
        SETTINGS: _postgres.config(settings),
        **_hba.files(admin),
    }.items():
        write_file(host, os.path.join(data, name), content)


def write_file(host: Host, path: str, content: str) -> None:
    account = host.source_account
    _files.write(path, content.encode(), mode=0o600, owner=(account.uid, account.gid))


def make_socket_folder(host: Host, folder: str) -> None:
    """Make a folder for a socket that the system user of sources alone enters."""
    shelf, account = os.path.dirname(folder), host.source_account
    for one in (shelf, folder):
        os.makedirs(one, mode=0o755, exist_ok=True)
    os.chown(shelf, os.geteuid(), os.getegid(), follow_symlinks=False)  # or it could put a link in the folder's place
    os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    os.chmod(folder, 0o700)


def remove_socket_folder(folder: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(folder):
            os.unlink(os.path.join(folder, entry))
        os.rmdir(folder)


def start(host: Host, server: _clusters.Cluster, sockets: str) -> None:
    """Start a server as a process of its own, by the settings in its data."""
    programs = host.programs
    make_socket_folder(host, sockets)
    record = _clusters.Record(
        name=server.name,
        owner="",
        version=programs.version,
        bin_directory=programs.folder,
        socket_directory=sockets,
        address="",
        port=PORT,
        user="",
        database="",
        settings={},
    )
    server.start(record, time.monotonic() + START_SECONDS)


def as_account(host: Host, argv: t.Sequence[str], *, doing: str, cwd: str, hint: str | None = None) -> str:
    """Run a program of PostgreSQL's as the system user of sources; it ends when we are killed."""
    switch = _services.unprivileged(host.source_account)
    return _commands.must((*switch, "--pdeathsig=KILL", "--", *argv), doing=doing, hint=hint, cwd=cwd)


def give_to(account: _clusters.Account, data: str) -> None:
    """Let a system user have data on which no server works; links are not followed."""
    for folder, _folders, files in os.walk(data):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        for name in files:
            os.chown(os.path.join(folder, name), account.uid, account.gid, follow_symlinks=False)


def lets_nobody_in(source: Source, reason: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"source {source.name}: its server does not let {source.admin} in: {reason.strip()}",
        hint=f"say who is a superuser of the primary: db_host_sources.{source.name}.admin",
    )


def _refuse_tablespaces(name: str, places: t.Sequence[str]) -> None:
    if places:
        raise UserError(
            f"source {name}: it has tablespaces outside of its data directory, which a copy would share with it: "
            f"{', '.join(places)}",
            hint="move what is in them: alter table ... set tablespace pg_default; or restore a dump (kind: dump)",
        )


def _unsafe(name: str, setting: str) -> UserError:
    return UserError(
        f"source {name}: {setting} is off on the primary, so that a copy of it may be broken",
        hint=f"on the primary: alter system set {setting} = on; select pg_reload_conf(); checkpoint",
    )
