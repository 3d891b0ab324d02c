# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Goldens of a DB host: what branches are copied from, made anew from a source and retired when nobody needs them.

Private to this collection: may change without notice.

A golden is a volume ``goldens/<source>/<time>`` with a snapshot ``@ready``, made when all is done that a branch must
be able to rely on: the server has left its primary, its data are masked, nobody of the source can log in, one role
owns the database, and it was shut down in good order. A branch is never made of anything else.

Its server runs as the system user of sources. In the end the data are given to the system user of the branches, who
cannot reach them here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import os
import time
import typing as t

from . import _clusters, _commands, _db_host, _mounts, _old_rows, _pg_dumps, _postgres, _standby, _stores
from ._errors import EnvironmentFailure, UserError, WorktreesError
from ._masking import SILENT
from ._pg_server import Journal, Server, compose

if t.TYPE_CHECKING:
    from ._db_host import Host, Source

SHELF = "goldens"
LABEL = "ready"
OWNER_ROLE = "parallel_worktrees_owner"
KEPT_DATABASES = ("postgres", "template0", "template1")
FULL = os.strerror(errno.ENOSPC)
TIME = "%Y%m%dT%H%M%SZ"

NOT_INHERITED = ("postmaster.pid", "postmaster.opts", "backup_label.old", "tablespace_map.old")
NOT_INHERITED_FOLDERS = ("pg_replslot", "log", "pg_log")

INITDB = ("--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=peer")

SUBSCRIPTIONS = "select subname from pg_subscription join pg_database d on d.oid = subdbid where datname = %(name)s"
MAPPINGS = "select usename, srvname from pg_user_mappings"
ROLES = "select rolname from pg_roles where rolname !~ '^pg_' and rolname not in (current_user, %(owner)s)"
OTHER_DATABASES = "select datname from pg_database where datname <> all (%(kept)s)"
PREPARED = "select gid from pg_prepared_xacts where database = %(name)s"
NO_COMMENTS = (
    "delete from pg_description where objoid >= 16384",
    "delete from pg_shdescription where objoid >= 16384",
    "delete from pg_seclabel",
    "delete from pg_shseclabel",
)
UNLINK = "select lo_unlink(oid) from (select oid from pg_largeobject_metadata limit 1000) as few"
"""Each takes a lock, of which a server has a few thousand."""

OPEN_DATABASES = "select datname from pg_database where datallowconn"


@dataclasses.dataclass(frozen=True)
class Golden:
    """
    :ivar created: when, in seconds since 1970.
    :ivar branches: the names of the volumes that stand on it.
    """

    name: str
    created: float
    ready: bool
    branches: tuple[str, ...]
    mark: dict[str, t.Any]


def goldens(store: _stores.Store, source: str) -> list[Golden]:
    """Those of a source, the newest last."""
    return [
        Golden(
            one.name,
            one.created,
            one.mark.get("phase") == "ready",
            tuple(branch for snapshot in store.snapshots(one.name) for branch in snapshot.dependants),
            one.mark,
        )
        for one in store.volumes(f"{SHELF}/{source}")
        if one.mark.get("kind") == "golden"
    ]


def newest(found: t.Sequence[Golden]) -> Golden | None:
    return max((one for one in found if one.ready), key=lambda one: one.name, default=None)


def superfluous(
    found: t.Sequence[Golden], *, keep: int, keep_age: float | None, age: t.Callable[[float], float]
) -> list[str]:
    """The goldens that can go: beyond the number, or older than the age; never one in use, nor the newest.

    :arg age: seconds since a golden was made.
    """
    ready = sorted((one for one in found if one.ready), key=lambda one: one.name, reverse=True)
    return [
        one.name
        for place, one in enumerate(ready)
        if place > 0 and not one.branches and (place >= keep or (keep_age is not None and age(one.created) > keep_age))
    ]


def is_due(source: Source, found: t.Sequence[Golden], now: float) -> bool:
    """Whether it is time for a new golden: the newest is old enough, and a dump is another one; or the mask is."""
    last = newest(found)
    if last is None or not source.has_masked(last.mark):
        return True
    if now - last.created < source.every:
        return False
    return source.kind == "standby" or last.mark.get("made_of") != made_of(source)


def made_of(source: Source) -> str:
    """Tells one state of a dump, and of what is done with it, from another."""
    paths = [path for path in (source.dump, source.mask) if path is not None]
    if source.dump is not None and os.path.isdir(source.dump):
        paths += sorted(entry.path for entry in os.scandir(source.dump))
    abouts = [(path, os.stat(path).st_mtime_ns, os.stat(path).st_size) for path in paths if os.path.exists(path)]
    return hashlib.sha256(repr((source.database, source.extensions, source.settings, abouts)).encode()).hexdigest()


def check(host: Host, source: Source) -> None:
    """Look whether a golden can be made.

    :raises UserError: a file that it is made of is not there, or a copy of the standby would share data with it.
    :raises EnvironmentFailure: the pool is nearly full.
    """
    for option, path in (("dump", source.dump), ("mask", source.mask)):
        if path is not None and not os.access(path, os.R_OK):
            raise UserError(
                f"source {source.name}: its {option} {path} cannot be read",
                hint=f"put it there, or change db_host_sources.{source.name}.{option}",
            )
    _stores.of(host).check_room(f"cannot make a golden of source {source.name}")
    if source.kind == "standby":
        _standby.Standby(host, source).check_data()


def clear(host: Host, source: str) -> list[str]:
    """Remove what killed runs have left of goldens; the caller holds the source's lock.

    :returns: what was removed.
    """
    with _stores.locked(host) as store:
        store.tidy()
        left = [one for one in goldens(store, source) if not one.ready]
    for one in left:
        _discard(host, one.name)
    with _stores.locked(host) as store:
        follower = f"{_standby.SHELF}/{source}"
        if store.volume(follower) is not None:
            for snapshot in store.snapshots(follower):
                if not snapshot.dependants:
                    store.destroy_snapshot(snapshot.name)
    return [one.name for one in left]


def refresh(host: Host, source: Source) -> str:
    """Make a new golden of a source, and tell its name; the caller holds the source's lock.

    Where it fails, the goldens that there are stay as they are.
    """
    clear(host, source.name)
    name = _begin(host, source)
    try:
        _finish(host, source, name)
    except (WorktreesError, OSError, _postgres.driver().Error) as error:
        failure = _failure(source, _server(host, name), error)
        _discard(host, name)
        raise failure from error
    return name


def _failure(source: Source, server: _clusters.Cluster, error: Exception) -> WorktreesError:
    """Why a golden could not be made; a server that found the pool full may only have ended, and freed much of it."""
    said = str(error).strip()
    is_full = FULL in said
    with contextlib.suppress(OSError), open(server.log, encoding="utf-8", errors="replace") as log:
        is_full = is_full or FULL in log.read()
    if is_full:
        return EnvironmentFailure(
            f"cannot make a golden of source {source.name}: {FULL}, which is in the pool: {said}",
            hint="remove branches or goldens, or make the pool larger",
        )
    if isinstance(error, WorktreesError):
        return error
    return EnvironmentFailure(f"cannot make a golden of source {source.name}: {said}: {server.last_words()}")


def retire(host: Host, source: Source) -> list[str]:
    """Remove the goldens that the policy no longer keeps; the caller holds the source's lock."""
    gone = []
    for name in not_kept(host, source, check=False):
        _stores.of(host).check_unmounted(name)
        with contextlib.suppress(UserError):  # somebody has just made a branch of it
            _discard(host, name)
            gone.append(name)
    return gone


def not_kept(host: Host, source: Source, *, check: bool) -> list[str]:
    """The goldens that the policy no longer keeps."""
    found = goldens(_stores.of(host), source.name)
    return superfluous(found, keep=source.keep, keep_age=source.keep_age, age=host.elapsed(check=check).since)


def check_unused(store: _stores.Store, source: str) -> None:
    """
    :raises UserError: branches stand on a golden of it.
    """
    for one in goldens(store, source):
        for snapshot in store.snapshots(one.name):
            _stores.check_alone(snapshot)


def remove_all(host: Host, source: str) -> None:
    """Remove the goldens of a source; the caller holds the source's lock, and has looked whether they are unused."""
    for one in goldens(_stores.of(host), source):
        _discard(host, one.name)


def _discard(host: Host, name: str) -> None:
    """Remove a golden, with the snapshot of the standby that it is a copy of."""
    server = _server(host, name)
    server.stop()
    _standby.remove_socket_folder(_sockets(host, name))
    with _stores.locked(host) as store:
        volume = store.must_have(name)
        store.destroy(name)
        if volume.origin is not None and volume.origin.startswith(f"{_standby.SHELF}/"):
            store.destroy_snapshot(volume.origin)


def _server(host: Host, name: str) -> _clusters.Cluster:
    return _clusters.Cluster(*os.path.split(os.path.join(host.root, name)))


def _sockets(host: Host, name: str) -> str:
    return os.path.join(host.run, ".goldens", name.split("/")[1])


def _begin(host: Host, source: Source) -> str:
    """Make the volume of a golden, with the data of a standby in it; with none where a dump is to be restored."""
    standby = _standby.Standby(host, source) if source.kind == "standby" else None
    if standby is not None:
        _see_standby(standby)
    check(host, source)
    data_at = os.stat(str(source.dump)).st_mtime if standby is None else _data_at(standby)
    mark = {
        "kind": "golden",
        "source": source.name,
        "phase": "creating",
        "data_at": utc(data_at),
        "database": source.database,
        "admin": source.admin,
        "owner_role": OWNER_ROLE,
        "made_of": made_of(source),
        "masked_by": source.masked_by(),
    }
    at_rest = standby is not None and not _stores.of(host).atomic
    if standby is not None and at_rest:
        standby.stop()
    try:
        with _stores.locked(host) as store:
            name = _free_name(store, source.name)
            if standby is None:
                store.create(name, mark)
            else:
                store.clone(store.snapshot(standby.name, f"g_{os.path.basename(name)}"), name, mark)
    finally:
        if standby is not None and at_rest:
            standby.start()
    return name


def _see_standby(standby: _standby.Standby) -> None:
    """
    :raises UserError: there is none.
    """
    source = standby.source.name
    volume = _stores.of(standby.host).volume(standby.name)
    if volume is None or volume.mark.get("phase") != "ready":
        raise UserError(
            f"source {source} has no standby yet", hint="set it up: ansible-playbook parallel.worktrees.db_host"
        )


def _data_at(standby: _standby.Standby) -> float:
    """Up to when the standby has its primary's data.

    :raises EnvironmentFailure: it has lost its primary, so that a golden would be no newer than the last.
    """
    standby.start()
    until = time.monotonic() + HEARS_SECONDS
    while not (state := standby.look()).streaming:
        if time.monotonic() > until:
            since = "an unknown time" if state.data_at is None else utc(state.data_at)
            raise EnvironmentFailure(
                f"source {standby.source.name}: its standby has had nothing from the primary at {standby.source.host} "
                f"since {since}; the goldens and branches that there are stay",
                hint=f"see why: {standby.log}",
            )
        time.sleep(0.2)
    return time.time() if state.data_at is None else state.data_at


HEARS_SECONDS = 15
"""How long a standby may need to find its primary, which it tries every five seconds."""


def _free_name(store: _stores.Store, source: str) -> str:
    """By the time, in whole seconds; two in one second get two names."""
    moment = int(time.time())
    while store.volume(name := f"{SHELF}/{source}/{time.strftime(TIME, time.gmtime(moment))}") is not None:
        moment += 1
    return name


def _finish(host: Host, source: Source, name: str) -> None:
    """Make of a volume what branches can rely on."""
    server, sockets = _server(host, name), _sockets(host, name)
    settings = {
        **source.settings,
        **_standby.HERE_ALONE,
        "autovacuum": "off",
        "fsync": "off",
        "unix_socket_directories": sockets,
        **({**SILENT, **_old_rows.SETTINGS} if source.mask else {}),
    }
    if source.kind == "standby":
        _leave_behind(server.data)
        settings |= _standby.as_the_primary(_clusters.control(host.programs, server.data))
        settings |= {"hot_standby": "on", "primary_conninfo": "", "primary_slot_name": ""}
    else:
        _initdb(host, source, server.data)
    _standby.write_settings(host, source.admin, server.data, settings)
    _standby.start(host, server, sockets)
    try:
        _work(host, source, server, sockets)
    finally:
        server.stop()
    _clusters.check_is_shut_down(host.programs, server.data)
    # What branches begin with: settings that lead nowhere, and nothing of the time in which it was made.
    _standby.write_settings(host, source.admin, server.data, {**source.settings, **_standby.HERE_ALONE})
    _standby.give_to(host.account, server.data)
    for left in ("server.conf", "server.log", "server.log.old"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(server.folder, left))
    _standby.remove_socket_folder(sockets)
    _commands.must(("sync", "--file-system", server.folder), doing=f"cannot write {name} to the disk")
    with _stores.locked(host) as store:
        store.snapshot(name, LABEL)
        store.set_mark(name, {**store.must_have(name).mark, "phase": "ready"})


def _leave_behind(data: str) -> None:
    """Take out of a copy of a standby's data what would lead it back to its source."""
    for name in NOT_INHERITED:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(data, name))
    for name in NOT_INHERITED_FOLDERS:
        folder = os.path.join(data, name)
        for entry in os.listdir(folder) if os.path.isdir(folder) and not os.path.islink(folder) else ():
            _mounts.remove(os.path.join(folder, entry))


def _initdb(host: Host, source: Source, data: str) -> None:
    account = host.source_account
    os.mkdir(data, 0o700)
    os.chown(data, account.uid, account.gid)
    _standby.as_account(
        host,
        (host.programs.path("initdb"), *INITDB, f"--username={source.admin}", f"--pgdata={data}"),
        doing=f"cannot make a cluster for source {source.name}",
        cwd=data,
    )


def _work(host: Host, source: Source, server: _clusters.Cluster, sockets: str) -> None:
    """All that is done with the server at work."""
    until = time.monotonic() + _standby.START_SECONDS
    server.await_status(_clusters.READY, until)
    if source.kind == "standby":
        seconds = f"--timeout={_standby.START_SECONDS}"
        _standby.as_account(
            host,
            (host.programs.path("pg_ctl"), "promote", "--wait", seconds, f"--pgdata={server.data}"),
            doing=f"cannot promote the copy of source {source.name}",
            cwd=server.data,
        )
        server.await_status(("ready",), until)
    with _administration(host, source, sockets) as outside:
        if source.kind == "standby":
            _cut_off(source, outside)
        else:
            outside.act(None, compose("create database {} template template0", source.database))
        with outside.at_work_in(source.database) as inside:
            if source.kind == "dump":
                outside.check_extensions(source.extensions)
                inside.create_extensions(source.database, source.extensions)
                dump = _pg_dumps.Dump.of(str(source.dump), outside.major)
                with _explained(source, "restore its dump"):
                    dump.restore(inside.address, "", connections=None, keep=(), rows=source.mask is None)
            _leave_out(inside, source.excluded)
            with _explained(source, "mask its data"):
                source.masking.apply(inside.address, "", administration=outside, own=False, keep=())
            _hand_over(source, outside, inside)
            inside.act(None, compose("vacuum (analyze)"))
            if source.mask is not None:
                _old_rows.remove(inside)


@contextlib.contextmanager
def _administration(host: Host, source: Source, sockets: str) -> t.Iterator[Server]:
    address = _postgres.Address(sockets, _standby.PORT, source.admin, "postgres")
    try:
        settings = _postgres.fixed(int(host.programs.major), superuser=True)
        server = Server(address, None, Journal(check=False), settings)
    except _postgres.driver().OperationalError as error:
        raise _standby.lets_nobody_in(source, str(error)) from error
    with contextlib.closing(server.connection):
        if not server.is_superuser:
            raise _standby.lets_nobody_in(source, f"{source.admin} is no superuser")
        yield server


def _cut_off(source: Source, server: Server) -> None:
    """End what the copy has in common with its source: transactions and subscriptions under way, other databases."""
    databases = [name for (name,) in server.rows(OPEN_DATABASES)]
    if source.database not in databases:
        raise UserError(
            f"source {source.name}: the primary has no database {source.database}, but {', '.join(sorted(databases))}",
            hint=f"name one of them: db_host_sources.{source.name}.database",
        )
    for name in databases:
        with server.at_work_in(name) as inside:
            for (gid,) in inside.rows(PREPARED, name=name):
                inside.act(None, compose("rollback prepared {gid}", gid=gid))
            for (subscription,) in inside.rows(SUBSCRIPTIONS, name=name):
                for text in ("{} disable", "{} set (slot_name = none)"):
                    inside.act(None, compose(f"alter subscription {text}", subscription))
                inside.act(None, compose("drop subscription {}", subscription))
    # What is not masked, nobody is to have.
    for (name,) in server.rows(OTHER_DATABASES, kept=[*KEPT_DATABASES, source.database]):
        server.drop(name, timeout=60)


@contextlib.contextmanager
def _explained(source: Source, doing: str) -> t.Iterator[None]:
    """Say of a failure that there is no new golden."""
    try:
        yield
    except (EnvironmentFailure, UserError) as failure:
        message = f"source {source.name}: cannot {doing}, so there is no new golden: {failure.message}"
        raise type(failure)(message, hint=failure.hint) from None


def _leave_out(server: Server, kinds: t.Collection[str]) -> None:
    """Remove the objects of some kinds, which a copy of a standby brings with it."""
    if _db_host.COMMENT in kinds:
        server.act("remove comments", *map(compose, NO_COMMENTS))
    if _db_host.LARGE_OBJECT in kinds:
        while server.rows("select from pg_largeobject_metadata limit 1"):
            server.act("remove large objects", compose(UNLINK))


def _hand_over(source: Source, outside: Server, inside: Server) -> None:
    """Leave nobody who can log in but the administrator over the socket, and one role that owns the database."""
    if not outside.rows("select from pg_roles where rolname = %(name)s", name=OWNER_ROLE):
        outside.act(None, compose("create role {}", OWNER_ROLE))
    outside.act(None, compose("alter role {} nologin nosuperuser password null", OWNER_ROLE))
    outside.act(None, compose("alter role {} password null", source.admin))
    for (role,) in outside.rows(ROLES, owner=OWNER_ROLE):
        outside.act(None, compose("alter role {} nologin password null", role))
    outside.act(None, compose("alter database {} owner to {}", source.database, OWNER_ROLE))
    outside.act(
        None, compose("alter database {} is_template false allow_connections true connection limit -1", source.database)
    )
    for user, server in inside.rows(MAPPINGS):  # with the passwords of other servers
        who = "public" if user == "public" else "{}"
        names = (server,) if user == "public" else (user, server)
        inside.act(None, compose(f"drop user mapping for {who} server {{}}", *names))
    inside.hand_over(OWNER_ROLE)


def utc(moment: float) -> str:
    """A moment as people and programs read it."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="seconds")
