# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of a DB host: real primaries streaming to real standbys on real pools; looked at with psql."""

from __future__ import annotations

import collections.abc as c
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import typing as t

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration.pools import KINDS, command, pool
from integration.servers import MISLEADING, Shared, certified, fork, outcome, reachable, shared_server

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _branches,
    _clusters,
    _db_host,
    _refresh,
    _sources,
    _standby,
    _stores,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._db_host import Host
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer, filled
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import WorktreesError

pytestmark = pytest.mark.root

FILL = """
create role application login password 'of production';
create role copy login replication password 'of the copy';
create database other;
create database app owner application;
"""
FILL_APP = """
create schema private authorization application;
create table private.people (id serial primary key, name text);
alter table private.people owner to application;
insert into private.people (name) select 'person ' || n from generate_series(1, 1000) n;
create function public.hello() returns text language sql as $$select 'hello'$$;
create extension postgres_fdw;
create server elsewhere foreign data wrapper postgres_fdw options (host 'production');
create user mapping for application server elsewhere options (user 'x', password 'of elsewhere');
"""
MASK = "update private.people set name = 'somebody ' || id;\n"
DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "wal_level": "logical",
    "max_wal_senders": "7",
    "max_replication_slots": "9",
    "max_prepared_transactions": "3",
    "max_connections": "120",
}


@dataclasses.dataclass
class DbHost:
    """A host with one source, asked as a playbook asks it."""

    host: Host
    file: pathlib.Path
    name: str = "app"
    first: dict[str, t.Any] = dataclasses.field(default_factory=dict)

    def run(self, *, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
        given = {"name": self.name, "host_file": str(self.file), **more}
        checked = ArgumentSpecValidator(_sources.ARGUMENT_SPEC).validate(given)
        assert not checked.error_messages, checked.error_messages
        return answer(_sources.operation, checked.validated_parameters, check=check, diff=True)

    def must(self, **more: t.Any) -> dict[str, t.Any]:
        result = self.run(**more)
        assert not result.get("failed"), result
        return result

    def refused(self, kind: str, **more: t.Any) -> str:
        result = self.run(**more)
        assert result.get("failure") == kind, result
        assert result["hint"], result
        return t.cast("str", result["msg"])

    def report(self) -> dict[str, t.Any]:
        given = {"name": None, "host_file": str(self.file)}
        return answer(_sources.info, given, check=False, diff=False)

    def change(self, **source: t.Any) -> None:
        """Have the role write another host file."""
        given = json.loads(self.file.read_text())
        given["sources"][self.name] |= source
        self.file.write_text(json.dumps(given))
        self.host = _db_host.load(str(self.file))

    @property
    def source(self) -> _db_host.Source:
        return self.host.source(self.name)

    @property
    def standby(self) -> _standby.Standby:
        return _standby.Standby(self.host, self.source)

    @property
    def store(self) -> _stores.Store:
        return _stores.of(self.host)

    def catch_up(self, primary: Shared) -> None:
        """Wait until the standby has all that the primary has."""
        there = primary.psql("select pg_current_wal_lsn()")
        until = time.monotonic() + 30
        while psql(self.standby.sockets, f"select pg_last_wal_replay_lsn() < '{there}'", "postgres") == "t":
            assert time.monotonic() < until
            time.sleep(0.05)

    def goldens(self) -> list[_refresh.Golden]:
        return _refresh.goldens(self.store, self.name)

    def branch(self, name: str) -> str:
        """Have a branch stand on the newest golden."""
        golden = _refresh.newest(self.goldens())
        assert golden is not None
        self.store.clone(f"{golden.name}@ready", f"branches/{name}", {"kind": "branch"})
        return golden.name

    @contextlib.contextmanager
    def served(self, name: str) -> c.Iterator[c.Callable[..., str]]:
        """A server on a copy of a golden, as a branch has it, but for the address."""
        self.store.clone(f"{name}@ready", "branches/served", {"kind": "branch"})
        server = _clusters.Cluster(self.store.path("branches"), "served")
        sockets = os.path.join(self.host.run, ".branches", "served")
        with (pathlib.Path(server.data) / "postgresql.auto.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{sockets}'\n")
        try:
            _standby.start(dataclasses.replace(self.host, source_user=self.host.user), server, sockets)
            server.await_status(("ready",), time.monotonic() + 30)
            log = pathlib.Path(server.log).read_text()
            assert "not properly shut down" not in log
            yield lambda sql, database="app": psql(sockets, sql, database)
        finally:
            server.stop()
            self.store.destroy("branches/served")

    def stop(self) -> None:
        for shelf in ("sources/*", "goldens/*/*", "branches/*"):
            for folder in pathlib.Path(self.host.root).glob(shelf):
                _clusters.Cluster(str(folder.parent), folder.name).stop()


def psql(sockets: str, sql: str, database: str = "app") -> str:
    return command("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", sockets, "-U", "postgres", "-d", database, "-c", sql)


@pytest.fixture(scope="module")
def folder(pg_binaries):  # noqa: ARG001 - it fails where there is no PostgreSQL
    with reachable() as folder:
        yield folder


@pytest.fixture(scope="module")
def primary(folder, pg_binaries) -> Shared:
    """One that encrypts, with a certificate for its address that ``right.crt`` has signed."""
    server = shared_server(folder, pg_binaries, **DURABLE, **certified(folder))
    for statement in filter(None, FILL.strip().split("\n")):
        server.psql(statement)
    server.psql(FILL_APP, "app")
    return server


@contextlib.contextmanager
def db_host(kind: str, source: dict[str, t.Any], folder: pathlib.Path, **more: t.Any) -> c.Iterator[DbHost]:
    with pool(kind, sources={"app": source}, **more) as host:
        about = {**dataclasses.asdict(host), "branch_ports": {}, "sources": {"app": source}}
        file = folder / f"{os.path.basename(os.path.dirname(host.root))}.json"
        file.write_text(json.dumps(about))
        there = DbHost(host, file)
        try:
            yield there
        finally:
            there.stop()


@pytest.fixture(scope="module")
def standby_source(primary, folder) -> dict[str, t.Any]:
    password_file, mask = folder / "copy.password", folder / "mask.sql"
    password_file.write_text("of the copy\n")
    password_file.chmod(0o600)
    mask.write_text(MASK)
    return {
        "kind": "standby",
        "database": "app",
        "host": "127.0.0.1",
        "port": primary.port,
        "user": "copy",
        "password_file": str(password_file),
        "mask": str(mask),
        "keep": 2,
    }


@pytest.fixture(scope="module", params=KINDS)
def standing(request, standby_source, folder):
    """A host of each file system with a standby, made once."""
    source = {**standby_source, "slot": f"host_{request.param}"}
    with db_host(request.param, source, folder) as there:
        with pytest.MonkeyPatch.context() as caller:
            for name, value in MISLEADING.items():
                caller.setenv(name, value)
            there.first = there.must()
        yield there


# A standby, on each file system


def test_a_source_is_set_up_once(standing, primary):
    first = standing.first
    assert first["changed"]
    assert [action.split(" source app")[0] for action in first["actions"]] == [
        "copy the primary of",
        "start the standby of",
        "make a golden of",
    ]
    assert "of the copy" not in json.dumps(first)
    again = standing.must()
    assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
    told = again["source"]
    assert told["standby"]["streaming"]
    assert told["standby"]["lag"] == 0
    assert (told["golden"], told["problems"]) == (standing.goldens()[0].name, [])
    assert primary.psql(f"select active from pg_replication_slots where slot_name = '{standing.source.slot}'") == "t"
    about = standing.store.must_have(told["golden"]).mark
    assert (about["kind"], about["phase"], about["source"], about["database"]) == ("golden", "ready", "app", "app")
    assert (about["admin"], about["owner_role"]) == ("postgres", "parallel_worktrees_owner")


def unmasked(data: str) -> list[str]:
    """Files with rows from before the mask, which whoever gets out of a branch's server could read."""
    search = ["grep", "--recursive", "--text", "--files-with-matches", "--extended-regexp", "person [0-9]+", data]
    return subprocess.run(search, check=False, capture_output=True, text=True).stdout.splitlines()


def test_a_golden_is_what_branches_can_rely_on(standing):
    golden = standing.goldens()[-1].name
    data = f"{standing.store.path(golden)}/data"
    assert re.search(r"cluster state: +shut down\n", command("/usr/lib/postgresql/15/bin/pg_controldata", data))
    texts = "".join(path.read_text() for path in pathlib.Path(data).glob("*.conf"))
    assert "of the copy" not in texts
    assert "primary_conninfo" not in texts
    assert not list(pathlib.Path(data).glob("*.signal"))
    assert not os.listdir(f"{data}/pg_replslot")
    assert pathlib.Path(f"{data}/pg_hba.conf").read_text() == 'local all "postgres" peer map=parallel_worktrees\n'
    assert unmasked(data) == []
    with standing.served(golden) as sql:
        assert sql("select pg_is_in_recovery()") == "f"
        assert sql("select count(*), count(*) filter (where name like 'somebody%') from private.people") == "1000|1000"
        assert sql("select rolname from pg_roles where rolcanlogin") == "postgres"
        assert sql("select count(rolpassword) from pg_authid") == "0"
        assert sql("select datname from pg_database where not datistemplate order by 1") == "app\npostgres"
        owners = "select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'private'::regnamespace"
        assert sql(owners) == "parallel_worktrees_owner"
        assert (
            sql("select pg_get_userbyid(proowner) from pg_proc where proname = 'hello'") == "parallel_worktrees_owner"
        )
        assert (
            sql("select pg_get_userbyid(datdba) from pg_database where datname = 'app'") == "parallel_worktrees_owner"
        )
        assert sql("select count(*) from pg_user_mappings") == "0"
        assert sql("select count(*) from pg_replication_slots") == "0"


def test_a_golden_has_what_the_primary_had(standing, primary):
    """And neither of the two knows what the other did since."""
    primary.psql(f"insert into private.people (name) values ('for {standing.host.store}')", "app")
    standing.catch_up(primary)
    result = standing.must(refresh=True)
    assert result["changed"]
    with standing.served(result["source"]["golden"]) as sql:
        assert int(sql("select count(*) from private.people")) == int(
            primary.psql("select count(*) from private.people", "app")
        )
        sql("drop table private.people")
    assert primary.psql("select count(*) from private.people where name like 'somebody%'", "app") == "0"
    assert standing.report()["sources"][0]["standby"]["streaming"]
    primary.psql("delete from private.people where name like 'for %'", "app")


def test_goldens_go_when_the_policy_says_so_but_not_from_under_branches(standing):
    used = standing.branch("stands")
    for _again in range(3):
        standing.must(refresh=True)
    names = [one.name for one in standing.goldens()]
    assert names[0] == used
    assert len(names) == 3  # two that are kept, and the one in use
    told = standing.report()["sources"][0]
    assert [one["branches"] for one in told["goldens"]] == [["branches/stands"], [], []]
    assert "branches/stands stand on it" in standing.refused("user", state="absent")
    assert "branches/stands stand on it" in standing.refused("user", state="absent", check=True)
    standing.store.destroy("branches/stands")
    for check in (True, False):
        gone = standing.must(check=check)
        assert gone["actions"] == [f"remove {used}, which is not kept any longer"]
    assert not standing.must()["changed"]
    assert len(standing.goldens()) == 2
    # of the standby there is one snapshot for each golden, and no more
    assert len(standing.store.snapshots("sources/app")) == 2


def test_a_source_is_taken_away_to_the_last_trace(standing, primary):
    planned = standing.must(state="absent", check=True)
    assert planned["changed"]
    assert standing.store.volumes()
    done = standing.must(state="absent")
    assert (done["changed"], done["actions"]) == (True, planned["actions"])
    assert standing.store.volumes() == []
    assert primary.psql(f"select from pg_replication_slots where slot_name = '{standing.source.slot}'") == ""
    assert not os.path.exists(standing.standby.password_file)
    assert not processes(standing.host)
    assert not standing.must(state="absent")["changed"]


def processes(host: Host) -> set[str]:
    """The folders of a pool that somebody works in."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if (folder := os.readlink(f"/proc/{pid}/cwd")).startswith(f"{host.root}/"):
                found.add(folder)
    return found


# What is refused, and what fails


@pytest.fixture(scope="module")
def app(standby_source, folder):
    """A host whose standby others look at, too; each test leaves it as it was."""
    with db_host("btrfs", {**standby_source, "mask": None}, folder) as there:
        there.must()
        yield there


def elsewhere(app: DbHost, part: str, then: str) -> pathlib.Path:
    """Move a folder of the standby out of its volume, and leave something in its place."""
    app.standby.stop()
    inside, outside = pathlib.Path(app.standby.server.data) / part, pathlib.Path(app.host.root) / "elsewhere"
    if then == "link":
        command("mv", inside, outside)
        inside.symlink_to(outside)
    else:
        outside.mkdir()
        (inside / "16999").symlink_to(outside)
    return outside


def test_a_log_outside_of_the_volume_is_refused(app):
    kept = app.goldens()
    outside = elsewhere(app, "pg_wal", "link")
    for check in (True, False):
        assert "is a link to" in app.refused("user", refresh=True, check=check)
    assert app.goldens() == kept
    os.unlink(f"{app.standby.server.data}/pg_wal")
    command("mv", outside, f"{app.standby.server.data}/pg_wal")
    app.must(refresh=True)


def test_a_tablespace_outside_of_the_volume_is_refused(app, primary):
    outside = elsewhere(app, "pg_tblspc", "entry")
    for check in (True, False):
        assert f"tablespaces outside of its data directory, which a copy would share with it: {outside}" in app.refused(
            "user", refresh=True, check=check
        )
    os.unlink(f"{app.standby.server.data}/pg_tblspc/16999")
    outside.rmdir()
    app.must()
    # and one that the primary has is seen before anything is copied; within its data, for a standby here makes it, too
    primary.psql("create tablespace far location ''", PGOPTIONS="-c allow_in_place_tablespaces=on")
    try:
        with pytest.raises(Exception, match="far in pg_tblspc/"):
            app.standby.check_primary()
    finally:
        primary.psql("drop tablespace far")


def test_a_primary_that_is_not_safe_to_copy_is_refused(app, primary):
    for setting in ("fsync", "full_page_writes"):
        primary.psql(f"alter system set {setting} = off")
        primary.psql("select pg_reload_conf()")
        time.sleep(0.2)
        try:
            with pytest.raises(Exception, match=f"{setting} is off on the primary"):
                app.standby.check_primary()
        finally:
            primary.psql("alter system reset all")
            primary.psql("select pg_reload_conf()")


def test_the_primary_is_verified_where_that_is_asked_for(app, primary, folder):
    def refusal(**given):
        app.change(**given)
        with pytest.raises(WorktreesError, match="primary") as raised:
            app.standby.check_primary()
        return str(raised.value.message)

    right, wrong = (str(folder / f"{name}.crt") for name in ("right", "wrong"))
    encrypted = "select distinct ssl from pg_stat_replication join pg_stat_ssl using (pid)"
    encrypted += " where application_name = 'parallel_worktrees_app'"
    encrypted += " and pid not in (select active_pid from pg_replication_slots where active)"  # those of other tests
    try:
        for mode in ("verify-ca", "verify-full"):
            assert "certificate verify failed" in refusal(sslmode=mode, sslrootcert=wrong)
        assert "does not match host name" in refusal(host="localhost", sslrootcert=right)
        app.change(host="127.0.0.1")
        os.chmod(right, 0o600)
        with pytest.raises(Exception, match="the user backup of standbys cannot read sslrootcert"):
            app.standby.check_primary()
        os.chmod(right, 0o644)
        app.must()
        wait_for(lambda: app.standby.look().streaming)
        wait_for(lambda: primary.psql(encrypted) == "t")
        app.change(sslmode="disable", sslrootcert=None)
        app.must()
        wait_for(lambda: app.standby.look().streaming)
        wait_for(lambda: primary.psql(encrypted) == "f")
    finally:
        app.change(sslmode=None, sslrootcert=None)
    app.must()


def test_collations_of_another_version_are_told_of(app, primary):
    primary.psql("update pg_database set datcollversion = '2.19' where datname = 'app'")
    primary.psql('create table sorted (name text collate "en-x-icu")', "app")
    primary.psql("update pg_collation set collversion = '0.1' where collname = 'en-x-icu'", "app")
    app.catch_up(primary)
    try:
        (problem,) = app.report()["problems"]
        assert re.search(r"en-x-icu \(0.1 there, [0-9.]+ here\), the default \(2.19 there, none here\)", problem)
    finally:
        primary.psql("update pg_database set datcollversion = null where datname = 'app'")
        primary.psql("drop table sorted", "app")
        app.catch_up(primary)
    assert app.report()["problems"] == []


def test_what_is_mounted_in_a_golden_or_a_standby_is_not_let_go(app, tmp_path):
    (tmp_path / "kept").write_text("kept")
    app.must(refresh=True)
    for volume in (app.goldens()[0].name, app.standby.name):
        place = pathlib.Path(app.store.path(volume)) / "of someone"
        place.mkdir()
        command("mount", "--bind", tmp_path, place)
        try:
            for check in (True, False):
                assert str(place) in app.refused("user", state="absent", force=True, check=check)
            if volume != app.standby.name:  # it is one more than are kept
                assert str(place) in app.refused("user", refresh=True)
            assert (tmp_path / "kept").read_text() == "kept"
            assert app.standby.look().running
        finally:
            command("umount", place)
            place.rmdir()
    app.must()


def test_a_nearly_full_pool_is_refused(app):
    before = app.goldens()
    given = json.loads(app.file.read_text())
    app.file.write_text(json.dumps({**given, "reserve": 99.9}))
    try:
        for check in (True, False):
            message = app.refused("environment", refresh=True, check=check)
            assert "cannot make a golden of source app" in message
            assert "goldens/app/" in message
        assert app.goldens() == before
        assert any("less than 99.9 %" in problem for problem in app.report()["problems"])
    finally:
        app.file.write_text(json.dumps(given))


BIG = "create table big as select repeat(md5(n::text), 60) from generate_series(1, 250000) n;"


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_that_gets_full_loses_nothing(kind, folder):
    dump = folder / f"growing_{kind}.sql"
    dump.write_text("create table small (id int);")
    source = {"kind": "dump", "database": "app", "dump": str(dump), "settings": {"max_wal_size": "64MB"}}
    with db_host(kind, source, folder, megabytes=320, reserve=5) as there:
        there.must()
        before = there.goldens()
        dump.write_text(BIG)
        message = there.refused("environment", refresh=True)
        assert "No space left on device, which is in the pool" in message
        assert there.goldens() == before
        assert processes(there.host) == set()
        there.branch("after")
        there.store.destroy("branches/after")


def test_a_copy_that_does_not_fit_leaves_nothing(standby_source, folder):
    with db_host("zfs", {**standby_source, "slot": "full"}, folder, megabytes=64, reserve=1) as there:
        message = there.refused("environment")
        assert "cannot copy the primary of source app" in message
        assert "No space left on device" in message
        assert there.store.volumes() == []
        there.must(state="absent")


def test_a_mask_that_fails_makes_no_golden_and_tells_no_data(app, folder):
    before = app.goldens()
    mask = folder / "broken.sql"
    mask.write_text("update private.people set id = 1;")
    app.change(mask=str(mask))
    try:
        message = app.refused("environment", refresh=True)
        assert "cannot mask its data, so there is no new golden" in message
        assert "duplicate key" in message
        assert "(id)" not in message
        assert app.goldens() == before
        assert processes(app.host) == {app.standby.server.data}
        mask.unlink()
        assert f"its mask {mask} cannot be read" in app.refused("user", refresh=True, check=True)
    finally:
        app.change(mask=None)


OLD = "S3NTINEL"
READABLE = """
select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'S') and n.nspname !~ '^pg_(toast|temp)'
"""
WITH_OLD = f"""
create schema old authorization application; set role application;
create table old.person (id int, email text, city text); create table old.gone (line text);
create statistics old.both_of_them (mcv) on email, city from old.person;
insert into old.person select n, '{OLD}' || n % 5, '{OLD} city ' || n % 5 from generate_series(1, 500) n;
insert into old.gone select '{OLD}' || n % 5 from generate_series(1, 500) n;
create materialized view old.shown as select email from old.person;
create view old.between_them as select * from old.shown;
create materialized view old.again as select * from old.between_them;
comment on table old.person is 'of {OLD}'; comment on database app is 'of {OLD}'; reset role;
comment on role application is 'of {OLD}'; select lo_from_bytea(4711, 'by {OLD}');
vacuum analyze
"""


def test_nothing_from_before_the_mask_is_left_in_a_golden(app, primary, folder):
    filling, _end, last = WITH_OLD.rpartition(";\n")
    primary.psql(filling, "app")
    primary.psql(last, "app")
    app.catch_up(primary)
    mask, verify = folder / "old.sql", "select from old.person where email ~ '^S3'"
    text = "update old.person set email = 'masked', city = 'c'{}; delete from old.gone;"
    try:
        mask.write_text(text.format(" where id > 2"))
        app.change(mask=str(mask), mask_verify=verify)
        message = app.refused("user", refresh=True)
        assert "no new golden: the result is not masked: mask_verify returned 2 rows" in message
        mask.write_text(text.format(""))
        golden = app.must(refresh=True)["source"]["golden"]
        with app.served(golden) as sql:
            for database in ("app", "postgres"):
                relations = sql(READABLE, database)
                for relation in relations.splitlines():
                    assert OLD not in sql(f"select * from {relation}", database), relation
            assert sql("select count(*) from pg_largeobject_metadata") == "0"
            assert sql("select count(*) from old.again where email = 'masked'") == "500"
        app.change(exclude_kinds=[])
        golden = app.must(refresh=True)["source"]["golden"]
        with app.served(golden) as sql:
            assert sql("select convert_from(lo_get(4711), 'utf8')") == f"by {OLD}"
            assert sql("select obj_description('old.person'::regclass)") == f"of {OLD}"
    finally:
        app.change(mask=None, mask_verify=None, exclude_kinds=None)
        primary.psql("drop schema old cascade; select lo_unlink(4711); comment on database app is null", "app")


def test_a_golden_takes_longer_than_a_statement_may_in_production(app, primary, folder):
    mask = folder / "slow.sql"
    mask.write_text("select pg_sleep(0.5);")
    app.change(mask=str(mask))
    limits = ("statement_timeout = '300ms'", "idle_session_timeout = '300ms'")
    for limit in limits:
        primary.psql(f"alter database app set {limit}")
    app.catch_up(primary)
    try:
        app.must(refresh=True)
    finally:
        for limit in limits:
            primary.psql(f"alter database app reset {limit.split()[0]}")
        app.change(mask=None)


def test_a_new_mask_is_for_the_next_branch_already(app, folder):
    mask, asked = folder / "new.sql", {"name": "x", "owner": "shop/x@0123abcd", "host_file": str(app.file)}
    mask.write_text(MASK)
    app.change(mask=str(mask))
    try:
        for text in (MASK, MASK + "-- and another one\n"):
            mask.write_text(text)
            given = filled(_branches.ARGUMENT_SPEC, asked)
            refused = answer(_branches.operation, given, check=True, diff=False)
            assert "no golden that is masked" in refused["msg"]
            assert "not masked by" in app.report()["problems"][0]
            assert _refresh.is_due(app.source, app.goldens(), 0)
            assert app.must()["actions"] == ["make a golden of source app"]
            assert not app.must()["changed"]
            assert answer(_branches.operation, given, check=True, diff=False)["changed"]
        with app.served(app.goldens()[-1].name) as sql:
            assert sql("select count(*) from private.people where name not like 'somebody%'") == "0"
        app.change(mask=None)
        app.must(refresh=True)
        app.change(mask=str(folder / "not_there.sql"))
        assert "no golden that is masked" in answer(_branches.operation, given, check=True, diff=False)["msg"]
        assert "cannot be read" in app.refused("user")
        app.change(mask=None)
        assert not app.must()["changed"]
    finally:
        app.change(mask=None)


def test_a_lost_source_leaves_what_there_is(app, primary, monkeypatch):
    before = app.goldens()
    monkeypatch.setattr(_refresh, "HEARS_SECONDS", 1)
    primary.stop()
    try:
        wait_for(lambda: not app.standby.look().streaming)
        message = app.refused("environment", refresh=True)
        assert "its standby has had nothing from the primary at 127.0.0.1 since 20" in message
        assert app.goldens() == before
        assert _sources.up(app.host) == []
        app.standby.stop()
        app.must()  # it runs without its primary, too
        wait_for(lambda: app.standby.look().running)
        (told,) = app.report()["sources"]
        assert told["standby"]["running"]
        assert not told["standby"]["streaming"]
        assert any("has had nothing from the primary" in problem for problem in told["problems"])
        app.branch("made_meanwhile")
        app.store.destroy("branches/made_meanwhile")
    finally:
        primary.start()
    wait_for(lambda: app.standby.look().streaming)
    monkeypatch.undo()
    app.must(refresh=True)
    assert app.report()["problems"] == []


def wait_for(condition: c.Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_primary_lets_nobody_in(standby_source, folder):
    wrong = folder / "wrong.password"
    wrong.write_text("wrong")
    with db_host("btrfs", {**standby_source, "password_file": str(wrong)}, folder) as there:
        for check in (True, False):
            message = there.refused("environment", check=check)
            assert "user copy does not get into the primary" in message
            assert "pg_hba.conf" in message
        wrong.unlink()
        assert f"there is no password file {wrong}" in there.refused("user", check=True)
        assert there.store.volumes() == []
        there.change(password_file=standby_source["password_file"], database="missing")
        assert "the primary has no database missing, but app, other, postgres" in there.refused("user")


def test_new_settings_are_given_to_the_standby(app):
    app.change(settings={"shared_buffers": "16MB"})
    planned = app.must(check=True)
    assert [action.split()[0] for action in planned["actions"]] == ["stop", "start"]
    assert app.must()["actions"] == planned["actions"]
    assert psql(app.standby.sockets, "show shared_buffers", "postgres") == "16MB"
    assert not app.must()["changed"]
    app.change(settings={})
    app.must()


def test_a_standby_comes_back_after_a_reboot(app):
    app.stop()
    assert app.report()["problems"][0].startswith("source app: its standby does not run")
    assert _sources.up(app.host) == ["start the standby of source app"]
    assert _sources.up(app.host) == []
    wait_for(lambda: app.standby.look().streaming)


def test_the_timer_makes_what_is_due(app):
    main = f"""
import sys
from ansible_collections.parallel.worktrees.plugins.module_utils import _db_host, _sources
_db_host.HOST_FILE = {str(app.file)!r}
load = _db_host.load
_db_host.load = lambda: load(_db_host.HOST_FILE)
sys.exit(_sources.main(sys.argv[1:]))
"""
    said = [command(sys.executable, "-c", main, "refresh", *names) for names in ([], ["app"])]
    assert said[0] == ""
    assert json.loads(said[1])[0] == f"make {app.goldens()[-1].name}"
    app.change(every="0s")
    assert json.loads(command(sys.executable, "-c", main, "refresh"))[0] == f"make {app.goldens()[-1].name}"
    app.change(every="1h", keep=1)  # nothing is due, and the pool may have no room for another
    one, last = app.goldens()
    assert json.loads(command(sys.executable, "-c", main, "refresh")) == [f"remove {one.name}"]
    assert app.goldens() == [last]
    app.change(keep=2)
    with pytest.raises(AssertionError, match="no source 'other'"):
        command(sys.executable, "-c", main, "refresh", "other")


def test_two_at_once_make_two(app):
    """Neither hurts the other, and both are whole."""
    app.change(keep=9)
    before = {one.name for one in app.goldens()}
    runs = [fork(lambda: app.must(refresh=True)["source"]["golden"]) for _run in range(2)]
    assert [bool(outcome(one)) for one in runs] == [True, True]
    made = [one for one in app.goldens() if one.name not in before]
    assert len(made) == 2
    assert all(one.ready for one in made)
    app.change(keep=2)


# Killed


STEPS = {
    "at once": lambda app: True,  # noqa: ARG005
    "with a volume": lambda app: any(not one.ready for one in app.goldens()),
    "with settings": lambda app: found(app, "data/postgresql.auto.conf", "unix_socket_directories"),
    "with a server": lambda app: found(app, "data/postmaster.pid", ""),
    "with a server that is up": lambda app: found(app, "data/postmaster.pid", "standby"),
    "promoted": lambda app: found(app, "data/postmaster.pid", "ready"),
    "stopped again": lambda app: (
        not found(app, "data/postmaster.pid", "")
        and found(app, "data/PG_VERSION", "")
        and not found(app, "data/standby.signal", "")
    ),
    "with settings for branches": lambda app: (
        found(app, "data/postgresql.auto.conf", "")
        and not found(app, "data/postgresql.auto.conf", "unix_socket_directories")
    ),
    "kept": lambda app: any(app.store.snapshots(one.name) for one in app.goldens() if not one.ready),
}


def found(app: DbHost, path: str, text: str) -> bool:
    """Whether a file of the golden that is being made has something in it."""
    for one in app.goldens():
        with contextlib.suppress(OSError):
            if not one.ready and text in pathlib.Path(app.store.path(one.name), path).read_text():
                return True
    return False


@pytest.mark.parametrize("step", STEPS)
def test_killed_while_a_golden_is_made(app, step):
    last = app.goldens()[-1]
    pid, answers = fork(lambda: app.run(refresh=True))
    with answers:
        until = time.monotonic() + 30
        while not STEPS[step](app) and os.waitpid(pid, os.WNOHANG) == (0, 0):
            assert time.monotonic() < until
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert last in app.goldens()
    result = app.must()
    assert result["source"]["problems"] == []
    assert all(one.ready for one in app.goldens())
    assert processes(app.host) == {app.standby.server.data}
    assert not app.must()["changed"]
    app.must(refresh=True)
    assert len(app.store.snapshots("sources/app")) == len(app.goldens()) == 2


def test_killed_while_the_primary_is_copied(standby_source, folder):
    with db_host("xfs", {**standby_source, "slot": "killed"}, folder) as there:
        for seconds in (0.1, 0.4, 0.8, 1.2):
            pid, answers = fork(there.run)
            with answers:
                time.sleep(seconds)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        there.must()
        assert not there.must()["changed"]
        assert [one.name.split("/")[0] for one in there.store.volumes()] == ["goldens", "sources"]
        there.must(state="absent")
        assert there.store.volumes() == []


# A dump


@pytest.mark.parametrize("options", [("--no-owner", "--no-privileges"), ("-Fc",)], ids=["text", "archive"])
def test_a_dump_is_restored_anew_when_it_is_another(primary, folder, options):
    dump, mask = folder / f"dump{len(options)}", folder / "mask_dump.sql"
    primary.program("pg_dump", *options, "--schema=private", "-f", str(dump), "app")
    mask.write_text(MASK)
    source = {"kind": "dump", "database": "app", "dump": str(dump), "extensions": ["pgcrypto"], "mask": str(mask)}
    with db_host("xfs", {**source, "every": "0s"}, folder) as there:
        assert there.must(check=True)["changed"]
        assert there.store.volumes() == []
        first = there.must()
        assert first["changed"]
        assert not there.must()["changed"]
        assert unmasked(there.store.path(first["source"]["golden"])) == []
        with there.served(first["source"]["golden"]) as sql:
            assert sql("select count(*) from private.people where name like 'somebody%'") == "1000"
            assert sql("select rolname from pg_roles where rolcanlogin") == "postgres"
            assert sql("select extname from pg_extension order by 1") == "pgcrypto\nplpgsql"
        assert "everybody on the machine can read" in there.report()["problems"][0]
        dump.chmod(0o600)
        assert there.report()["problems"] == []
        assert _sources.refresh(there.host, there.source, only_due=True) == []
        os.utime(dump, (time.time(), time.time() + 5))
        assert len(_sources.refresh(there.host, there.source, only_due=True)) == 1
        assert len(there.goldens()) == 2
        dump.unlink()
        assert "its dump" in there.report()["problems"][0]
        assert f"its dump {dump} cannot be read" in there.refused("user", refresh=True)
        assert len(there.goldens()) == 2
        there.must(state="absent")
        assert there.store.volumes() == []
