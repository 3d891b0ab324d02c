# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A DB host on this machine: a real pool, a golden of an application, PostgreSQL and PgBouncer without systemd."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import tempfile
import time
import typing as t

import psycopg2
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration import pools
from ports import free_base, free_port

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _branches,
    _db_host,
    _pgbouncer,
    _refresh,
    _services,
    _sources,
    _stores,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._db_host import Host
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer

OWNER_ROLE = _refresh.OWNER_ROLE
FILL = """
create role production login password 'of production';
create table orders (id serial primary key, what text not null);
insert into orders (what) select 'order ' || n from generate_series(1, 100) n;
"""


@dataclasses.dataclass
class DbHost:
    """A host, and tasks that ask it for branches."""

    host: Host
    file: pathlib.Path

    def run(self, name: str, *, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
        given = {"name": name, "owner": f"shop/{name}@0123abcd", "password": f"of {name}", "host_file": str(self.file)}
        return run(_branches.operation, _branches.ARGUMENT_SPEC, {**given, **more}, check=check)

    def must(self, name: str, **more: t.Any) -> dict[str, t.Any]:
        result = self.run(name, **more)
        assert not result.get("failed"), result["msg"]
        return result

    def refused(self, name: str, kind: str, **more: t.Any) -> str:
        result = self.run(name, **more)
        assert result.get("failure") == kind, result
        assert result["hint"], result
        return t.cast("str", result["msg"])

    def info(self, **more: t.Any) -> dict[str, dict[str, t.Any]]:
        result = run(_branches.info, _branches.INFO_SPEC, {"host_file": str(self.file), **more}, check=False)
        return {one["name"]: one for one in result["branches"]}

    def connect(self, name: str, *, user: str | None = None, password: str | None = None) -> t.Any:
        """As the task does, through PgBouncer."""
        connection = psycopg2.connect(
            host=self.host.address,
            port=self.host.port,
            dbname=name,
            user=user or name,
            password=password or f"of {name}",
            connect_timeout=10,
        )
        connection.autocommit = True
        return connection

    def sql(self, name: str, text: str, **who: t.Any) -> list[t.Any]:
        with contextlib.closing(self.connect(name, **who)) as connection, connection.cursor() as cursor:
            cursor.execute(text)
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def wait(self, name: str) -> None:
        """Until a server that has just been started lets the task in."""
        until = time.monotonic() + 20
        while True:
            try:
                self.connect(name).close()
                return
            except psycopg2.OperationalError:
                assert time.monotonic() < until
            time.sleep(0.05)

    def store(self) -> _stores.Store:
        return _stores.of(self.host)

    def locked_store(self) -> contextlib.AbstractContextManager[_stores.Store]:
        return _stores.locked(self.host)

    def golden(self) -> str:
        """The name of the newest."""
        last = _refresh.newest(_refresh.goldens(self.store(), "app"))
        assert last is not None
        return last.name

    def left(self, name: str) -> list[str]:
        """All that a branch has left anywhere."""
        found = [one.name for one in self.store().volumes() if os.path.basename(one.name) == name]
        for one in self.store().volumes("branches"):
            found += [snapshot.name for snapshot in self.store().snapshots(one.name) if name in snapshot.name]
        found += [str(path) for path in pathlib.Path(self.host.run).glob(f"{name}*")]
        for file in (pathlib.Path(self.host.state) / "pgbouncer").glob("*.*"):
            if file.suffix in (".ini", ".txt") and name in file.read_text():
                found.append(str(file))
        root = os.path.join(self.host.root, "")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                where = os.readlink(f"/proc/{pid}/cwd")
                if where.startswith(root) and f"/{name}/" in where:
                    found.append(f"process {pid} in {where}")
        return found

    def pooler(self) -> _pgbouncer.Pooler:
        return _pgbouncer.Pooler(self.host, _services.of(self.host))

    def stop_pooler(self, sign: int = signal.SIGTERM) -> None:
        config = self.pooler().config
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if line[0].endswith("pgbouncer") and config in line:
                    os.kill(int(pid), sign)
                    wait_for_end(int(pid))

    def stop(self) -> None:
        """End all that works on the pool."""
        self.stop_pooler()
        for shelf in ("branches", "resets", "replaced"):
            for one in self.store().volumes(shelf):
                _services.server_in(one.path).stop()


def run(operation: t.Any, spec: dict[str, t.Any], given: dict[str, t.Any], *, check: bool) -> dict[str, t.Any]:
    checked = ArgumentSpecValidator(spec).validate(given)
    assert not checked.error_messages, checked.error_messages
    return answer(operation, checked.validated_parameters, check=check, diff=True)


def wait_for_end(pid: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


@contextlib.contextmanager
def db_host(kind: str, *, fill: str = FILL, megabytes: int = 1024, **settings: t.Any) -> c.Iterator[DbHost]:
    """A host with a golden of the source ``app``; nothing of it is left at the end."""
    base = free_base()
    given = {
        "port": free_port(),
        "branch_ports": {"first": base, "last": base + 59},
        **settings,
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        pools.pool(kind, megabytes=megabytes, **given, sources=sources(folder)) as host,
    ):
        file = pathlib.Path(host.root).parent / "db_host.json"
        file.write_text(json.dumps({**as_file(host, given), "sources": sources(folder)}))
        assert _db_host.load(str(file)) == host
        made = DbHost(host, file)
        make_golden(made, fill)
        try:
            yield made
        finally:
            made.stop()


def sources(folder: str) -> dict[str, t.Any]:
    return {"app": {"kind": "dump", "dump": os.path.join(folder, "app.sql"), "database": "app", "keep": 9}}


def as_file(host: Host, given: dict[str, t.Any]) -> dict[str, t.Any]:
    plain = "store pool root run state user source_user pooler_user bin_directory supervisor address reserve".split()
    return {**{key: getattr(host, key) for key in plain}, **given}


def make_golden(made: DbHost, fill: str = FILL) -> str:
    """Have the host make a golden of a dump, and tell its name."""
    source = made.host.source("app")
    pathlib.Path(str(source.dump)).write_text(fill)
    _sources.refresh(made.host, source)
    return made.golden()
