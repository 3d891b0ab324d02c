# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time to a usable database with data in it, by back end and size, against the bare commands of one run.

Run by ``scripts/benchmark databases``, which sets up what it needs. Usable is what answers a query at its final address
with the task's own password. The golden database is built beforehand on every road; ours runs in process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import pwd
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

import psycopg2
from pytest_postgresql.janitor import DatabaseJanitor

from ansible_collections.parallel.worktrees.plugins.module_utils import _containers, _databases
from ansible_collections.parallel.worktrees.plugins.module_utils._door import filled

MEGABYTES = {"10 MB": 2, "100 MB": 92, "1 GB": 1010}
"""What is put into a database beside the 8 MB that PostgreSQL begins with."""

OWNER = "benchmark/{}@0"
ACCOUNT = pwd.getpwnam("postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return t.cast("int", probe.getsockname()[1])


def run(*argv: str, **variables: str) -> None:
    """As who runs the servers."""
    drop = {"user": ACCOUNT.pw_uid, "group": ACCOUNT.pw_gid} if os.geteuid() == 0 and argv[0] != "docker" else {}
    done = subprocess.run(
        argv,
        env={**os.environ, **variables},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **t.cast("t.Any", drop),
    )
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}")


def answered(port: int, database: str, password: str, seconds: float = 60) -> None:
    """Wait as bare scripts do, only more eagerly."""
    until = time.monotonic() + seconds
    while True:
        try:
            with contextlib.closing(
                psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname=database, password=password)
            ) as connection:
                connection.cursor().execute("select count(*) from filled")
            return
        except psycopg2.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.005)


class Ours:
    """The task databases of one back end and size; the first is not counted, for it builds the golden one."""

    def __init__(self, folder: pathlib.Path, backend: str, sql: pathlib.Path, options: dict[str, t.Any]) -> None:
        self.folder, self.backend, self.sql, self.options = folder, backend, sql, options
        self.made = 0

    def params(self, name: str, state: str) -> dict[str, t.Any]:
        golden = {"folder": str(self.sql.parent), "files": [self.sql.name]}
        wish = {"name": name, "key": "main", "golden": golden}
        options = _databases.COMMON["databases"]["options"]
        wish = filled(options, wish)
        wish["golden"] = filled(options["golden"]["options"], golden)
        own = _databases.ARGUMENT_SPEC[self.backend]["options"]
        return filled(
            _databases.ARGUMENT_SPEC,
            {
                "backend": self.backend,
                "name": name,
                "owner": OWNER.format(name),
                "state": state,
                "user": name if self.backend == "shared" else "postgres",
                "port": self.options.get("port") or free_port(),
                "password_file": str(self.folder / "passwords" / name),
                "databases": [wish],
                "timeout": 600.0,
                self.backend: filled(own, self.options.get("own", {})),
            },
        )

    def time(self) -> float:
        self.made += 1
        name = f"b{self.made}_{secrets.token_hex(3)}"
        params = self.params(name, "present")
        begin = time.perf_counter()
        result = _databases.operation(params, check=False)
        seconds = time.perf_counter() - begin
        database = result["database"]
        password = pathlib.Path(database["password_file"]).read_text(encoding="ascii").strip()
        with contextlib.closing(
            psycopg2.connect(
                host=database["host"], port=database["port"], user=database["user"], dbname=name, password=password
            )
        ) as connection:
            connection.cursor().execute("select count(*) from filled")
        _databases.operation(self.params(name, "absent"), check=False)
        return seconds


class Bare:
    """The same with PostgreSQL's own programs and Docker, as directly as can be written down."""

    def __init__(self, folder: pathlib.Path, programs: pathlib.Path, image: str, sql: pathlib.Path) -> None:
        self.folder, self.programs, self.image, self.sql = folder, programs, image, sql
        self.template = folder / f"template-{sql.stem}"
        self.port = free_port()

    def program(self, name: str, *arguments: str) -> None:
        run(str(self.programs / name), *arguments)

    def start(self, data: pathlib.Path, port: int) -> None:
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k '' -c fsync=off -c full_page_writes=off"
        self.program("pg_ctl", "start", "-w", "-D", str(data), "-o", options, "-l", f"{data}.log")

    def stop(self, data: pathlib.Path) -> None:
        self.program("pg_ctl", "stop", "-m", "fast", "-D", str(data))

    def prepare(self) -> None:
        """A server with a filled template, and the same folder at rest for the roads that copy it."""
        self.program("initdb", "-N", "-A", "trust", "-U", "postgres", "-D", str(self.template))
        self.start(self.template, self.port)
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-q")
        self.program("psql", *where, "-c", "create database filled")
        self.program("psql", *where, "-d", "filled", "-f", str(self.sql), "-c", "checkpoint")
        self.stop(self.template)

    def initdb(self) -> float:
        """A cluster from nothing, and the SQL: what one does who has no golden database."""
        data, port = self.folder / f"data-{secrets.token_hex(4)}", free_port()
        begin = time.perf_counter()
        self.program("initdb", "-N", "-A", "trust", "-U", "postgres", "-D", str(data))
        self.start(data, port)
        self.program("psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-q", "-f", str(self.sql))
        answered(port, "postgres", "")
        seconds = time.perf_counter() - begin
        self.stop(data)
        shutil.rmtree(data)
        return seconds

    def copy(self) -> float:
        """A copied data folder and a server on it."""
        data, port = self.folder / f"data-{secrets.token_hex(4)}", free_port()
        begin = time.perf_counter()
        run("cp", "-a", "--reflink=auto", str(self.template), str(data))
        self.start(data, port)
        answered(port, "filled", "")
        seconds = time.perf_counter() - begin
        self.stop(data)
        shutil.rmtree(data)
        return seconds

    def create(self, strategy: str) -> float:
        """CREATE DATABASE by psql in a server that runs."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-q")
        begin = time.perf_counter()
        self.program("psql", *where, "-c", f"create database copy template filled strategy {strategy}")
        answered(self.port, "copy", "")
        seconds = time.perf_counter() - begin
        self.program("psql", *where, "-c", "drop database copy")
        return seconds

    def janitor(self) -> float:
        """What pytest-postgresql does for each test in a server that runs: a copy of its template."""
        keeper = DatabaseJanitor(
            user="postgres", host="127.0.0.1", port=self.port, dbname="copy", template_dbname="filled"
        )
        begin = time.perf_counter()
        keeper.init()
        answered(self.port, "copy", "")
        seconds = time.perf_counter() - begin
        keeper.drop()
        return seconds

    def docker(self) -> float:
        """docker run of the image as it is, and the SQL."""
        name, port = f"bare-{secrets.token_hex(4)}", free_port()
        begin = time.perf_counter()
        run(
            *("docker", "run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:5432"),
            *("--env", "POSTGRES_PASSWORD=bare", self.image, "-c", "fsync=off"),
        )
        until = time.monotonic() + 60
        while True:  # the image starts its server twice, and only the second one listens on TCP
            try:
                psycopg2.connect(host="127.0.0.1", port=port, user="postgres", password="bare").close()
                break
            except psycopg2.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.005)
        where = ("-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-q")
        run(str(self.programs / "psql"), *where, "-f", str(self.sql), PGPASSWORD="bare")
        answered(port, "postgres", "bare")
        seconds = time.perf_counter() - begin
        run("docker", "rm", "--force", "--volumes", name)
        return seconds


def median(act: t.Callable[[], float], rounds: int) -> float:
    return statistics.median(act() for _number in range(rounds))


def measure(title: str, ours: list[Ours], bare: Bare, rounds: int) -> None:
    print(f"\n{title}", flush=True)
    bare.prepare()
    times = {
        "initdb, start, SQL": median(bare.initdb, 1),
        "docker run, SQL": median(bare.docker, 1),
        "copy of a data folder, start": median(bare.copy, rounds),
    }
    bare.start(bare.template, bare.port)
    try:
        for strategy in ("wal_log", "file_copy"):
            bare.create(strategy)
            times[f"create database, {strategy}"] = median(lambda: bare.create(strategy), rounds)  # noqa: B023
        times["pytest-postgresql"] = median(bare.janitor, rounds)
    finally:
        bare.stop(bare.template)
    for name, seconds in times.items():
        print(f"  bare  {name:<30} {seconds:7.3f} s")
    best = {
        "shared": min(times["create database, wal_log"], times["create database, file_copy"]),
        "embedded": times["copy of a data folder, start"],
        "container": times["docker run, SQL"],
    }
    for road in ours:
        first = road.time()
        seconds = median(road.time, rounds)
        print(
            f"  ours  {road.backend:<30} {seconds:7.3f} s   {seconds / best[road.backend]:5.2f} x the bare best of its"
            f" kind   (with building it once: {first:.2f} s)",
            flush=True,
        )
    shutil.rmtree(bare.template)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default="parallel-worktrees-test/postgres:15")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default=",".join(MEGABYTES), help="of: %(default)s")
    options = parser.parse_args()
    programs = max(path.parent for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    with tempfile.TemporaryDirectory(prefix="parallel-worktrees-benchmark-", dir="/var/tmp") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o711)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        (folder / "passwords").mkdir()
        data = folder / "data"
        data.mkdir()
        shutil.chown(data, ACCOUNT.pw_uid, ACCOUNT.pw_gid)
        clusters = {"directory": str(folder / "clusters")}
        with contextlib.ExitStack() as stack:
            server = shared_server(folder, clusters, stack)
            stack.callback(remove_prepared, options.image)
            for title in options.sizes.split(","):
                sql = data / f"filled{MEGABYTES[title]}.sql"
                sql.write_text(
                    "create table filled as select n, md5(n::text) || repeat('x', 960) as text"
                    f" from generate_series(1, {MEGABYTES[title]} * 1000) n;\n",
                    encoding="ascii",
                )
                ours = [
                    Ours(folder, "shared", sql, server),
                    Ours(folder, "embedded", sql, {"own": clusters}),
                    Ours(folder, "container", sql, {"own": {"image": options.image}}),
                ]
                measure(title, ours, Bare(data, programs, options.image, sql), options.rounds)


def shared_server(folder: pathlib.Path, clusters: dict[str, str], stack: contextlib.ExitStack) -> dict[str, t.Any]:
    """A server for the shared back end: a cluster of ours, with the same settings as the bare one."""
    params = filled(
        _databases.ARGUMENT_SPEC,
        {
            "backend": "embedded",
            "name": "shared",
            "owner": OWNER.format("shared"),
            "port": free_port(),
            "password_file": str(folder / "passwords" / "shared"),
            "embedded": filled(_databases.ARGUMENT_SPEC["embedded"]["options"], clusters),
        },
    )
    _databases.operation(params, check=False)
    stack.callback(lambda: _databases.operation({**params, "state": "absent"}, check=False))
    return {"port": params["port"], "own": {"admin_password_file": params["password_file"]}}


def remove_prepared(image: str) -> None:
    with _containers.connected(None) as client:
        for one in _containers.prepared_images(client):
            if one["base"] == image and not one["containers"]:
                _containers.remove_prepared(client, one["key"])


if __name__ == "__main__":
    main()
