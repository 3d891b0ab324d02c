# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time to a branch that answers through PgBouncer, by store and size, against the bare commands of one run.

Run by ``scripts/benchmark branches``, which sets up what it needs. The bare road is what one would type: a snapshot of
the golden's volume, a clone of that and ``pg_ctl start``, with a query to its socket; and beside it
``CREATE DATABASE ... TEMPLATE`` in a server that runs. Ours is the operation of ``pg_branch`` in process, with a query
through PgBouncer as the task's user.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import pwd
import secrets
import statistics
import subprocess
import sys
import time
import typing as t

import psycopg2
from integration import branches, pools

MEGABYTES = {"10 MB": 2, "100 MB": 92, "1 GB": 1010}
"""What is put into a database beside the 8 MB that PostgreSQL begins with."""

FILL = """
create table filled as select n, md5(n::text) || repeat('x', 960) as text from generate_series(1, {megabytes} * 1000) n;
"""
AT_ONCE = 30
SMALL = "-c shared_buffers=32MB -c max_connections=30"


def run(*argv: str, account: pwd.struct_passwd | None = None) -> None:
    switch = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False, **t.cast("t.Any", switch))
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def ask(**where: t.Any) -> None:
    with contextlib.closing(psycopg2.connect(**where)) as connection:
        connection.cursor().execute("select count(*) from pg_class")


class Ours:
    """Branches of the newest golden."""

    def __init__(self, host: branches.DbHost) -> None:
        self.host = host

    def make(self, name: str) -> float:
        begin = time.perf_counter()
        self.host.must(name)
        self.host.sql(name, "select count(*) from pg_class")
        return time.perf_counter() - begin

    def remove(self, name: str) -> None:
        self.host.must(name, state="absent")

    def one(self) -> float:
        name = f"b{secrets.token_hex(4)}"
        seconds = self.make(name)
        self.remove(name)
        return seconds

    def many(self, workers: int) -> float:
        """Several of them, this many at once."""
        names = [f"m{number}_{secrets.token_hex(3)}" for number in range(AT_ONCE)]
        with concurrent.futures.ProcessPoolExecutor(workers) as pool:
            list(pool.map(os.getpid, ()))  # the processes are there before the clock runs
            begin = time.perf_counter()
            list(pool.map(self.make, names))
            seconds = time.perf_counter() - begin
            list(pool.map(self.remove, names))
        return seconds


class Bare:
    """The same with the commands of the file system and of PostgreSQL, as directly as can be written down."""

    def __init__(self, host: branches.DbHost) -> None:
        self.host = host
        self.account = pwd.getpwnam(host.host.user)
        self.golden = host.golden()
        self.socket = os.path.join(host.host.run, "bare")
        os.makedirs(self.socket, exist_ok=True)
        os.chown(self.socket, self.account.pw_uid, self.account.pw_gid)

    def path(self, name: str) -> str:
        return os.path.join(self.host.host.root, name)

    def clone(self, snapshot: str, name: str) -> None:
        kind, pool = self.host.host.store, self.host.host.pool
        source, goal = self.path(self.golden), self.path(name)
        if kind == "zfs":
            run("zfs", "snapshot", f"{pool}/{self.golden}@{snapshot}")
            run("zfs", "clone", f"{pool}/{self.golden}@{snapshot}", f"{pool}/{name}")
        elif kind == "btrfs":
            run("btrfs", "subvolume", "snapshot", "-r", source, self.path(snapshot))
            run("btrfs", "subvolume", "snapshot", self.path(snapshot), goal)
        else:
            run("cp", "-a", "--reflink=always", source, goal)

    def destroy(self, snapshot: str, name: str) -> None:
        kind, pool = self.host.host.store, self.host.host.pool
        if kind == "zfs":
            pools.insist("zfs", "destroy", f"{pool}/{name}")
            pools.insist("zfs", "destroy", f"{pool}/{self.golden}@{snapshot}")
        elif kind == "btrfs":
            run("btrfs", "subvolume", "delete", self.path(name), self.path(snapshot))
        else:
            run("rm", "-r", self.path(name))

    def one(self) -> float:
        snapshot, name = f"s{secrets.token_hex(4)}", f"bare{secrets.token_hex(4)}"
        data, pg_ctl = self.path(f"{name}/data"), os.path.join(self.host.host.bin_directory, "pg_ctl")
        options = f"-c port=5432 -c unix_socket_directories={self.socket} -c fsync=off {SMALL}"
        begin = time.perf_counter()
        self.clone(snapshot, name)
        run(pg_ctl, "start", "-w", "-D", data, "-o", options, "-l", f"{data}/log", account=self.account)
        ask(host=self.socket, port=5432, user="postgres", dbname="app")
        seconds = time.perf_counter() - begin
        run(pg_ctl, "stop", "-m", "immediate", "-D", data, account=self.account)
        self.destroy(snapshot, name)
        return seconds

    def create_database(self, rounds: int) -> float:
        """``CREATE DATABASE ... TEMPLATE`` by psql, in a server on a clone of the golden, the faster of its ways."""
        snapshot, name = f"s{secrets.token_hex(4)}", f"bare{secrets.token_hex(4)}"
        self.clone(snapshot, name)
        data, programs = self.path(f"{name}/data"), self.host.host.bin_directory
        options = f"-c port=5432 -c unix_socket_directories={self.socket} -c fsync=off"
        pg_ctl = os.path.join(programs, "pg_ctl")
        run(pg_ctl, "start", "-w", "-D", data, "-o", options, "-l", f"{data}/log", account=self.account)
        try:
            return min(
                statistics.median(self._create_database(programs, strategy) for _round in range(rounds))
                for strategy in ("wal_log", "file_copy")
            )
        finally:
            run(pg_ctl, "stop", "-m", "immediate", "-D", data, account=self.account)
            self.destroy(snapshot, name)

    def _create_database(self, programs: str, strategy: str) -> float:
        where = ("-h", self.socket, "-U", "postgres", "-d", "postgres", "-q", "-c")
        begin = time.perf_counter()
        run(
            *(os.path.join(programs, "psql"), *where, f"create database copied template app strategy {strategy}"),
            account=self.account,
        )
        ask(host=self.socket, port=5432, user="postgres", dbname="copied")
        seconds = time.perf_counter() - begin
        run(os.path.join(programs, "psql"), *where, "drop database copied", account=self.account)
        return seconds


def measure(kind: str, title: str, rounds: int, *, many: bool) -> None:
    megabytes = MEGABYTES[title]
    with branches.db_host(kind, megabytes=2048 + 4 * megabytes, fill=FILL.format(megabytes=megabytes)) as host:
        ours, bare = Ours(host), Bare(host)
        for road in (ours, bare):
            road.one()
        pairs = [(bare.one(), ours.one()) for _round in range(rounds)]  # in turns, so that both have the same weather
        theirs, mine = (statistics.median(times) for times in zip(*pairs, strict=True))
        created = bare.create_database(max(1, rounds // 3))
        print(
            f"  {kind:<6} {title:>7}   bare {theirs:6.3f} s   ours {mine:6.3f} s   {mine / theirs:5.2f} x"
            f"   create database {created:6.3f} s   {mine / created:5.2f} x",
            flush=True,
        )
        if many:
            for workers in (1, AT_ONCE):
                seconds = ours.many(workers)
                how = "one after another" if workers == 1 else "at once"
                print(f"  {kind:<6} {title:>7}   {AT_ONCE} {how}: {seconds:6.2f} s, {seconds / AT_ONCE:6.3f} s each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", default=",".join(MEGABYTES), help="of: %(default)s")
    parser.add_argument("--stores", default=",".join(pools.KINDS), help="of: %(default)s")
    parser.add_argument("--many", default="100 MB", help="the size of which many are made; none if empty")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("a DB host is root's: run it as root")
    for kind in options.stores.split(","):
        for title in options.sizes.split(","):
            measure(kind, title, options.rounds, many=title == options.many)


if __name__ == "__main__":
    main()
