# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_branch on real pools, with real servers behind a real PgBouncer, looked at through psycopg2 and the stores."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import threading
import time

import psycopg2
import pytest
from clocks import Clock
from integration import branches, pools
from integration.servers import fork, outcome

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _branches,
    _db_host,
    _files,
    _pgbouncer,
    _postgres,
    _services,
    _sources,
    _stores,
)


@pytest.fixture(scope="module", params=pools.KINDS)
def each(request):
    """A host with every store in turn."""
    with branches.db_host(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def host():
    """A host with the store that is the fastest."""
    with branches.db_host("btrfs") as made:
        yield made


@pytest.fixture
def name(request, host):
    """A name of the test's own, of which nothing is left at its end."""
    own = request.node.name.removeprefix("test_").partition("[")[0][:40]
    yield own
    for branch in sorted(host.info(), key=lambda one: host.info()[one]["parent"] is None):
        if branch.startswith(own):
            host.must(branch, state="absent", force=True)


COUNT = "select count(*) from orders"
YEAR = 365 * 86400


# What a branch is


def test_a_life(each):
    planned = each.run("life", check=True)
    assert planned["changed"]
    assert each.left("life") == []
    made = each.must("life")
    assert made["actions"] == planned["actions"]
    assert {key: made[key] for key in ("name", "user", "host", "port", "source")} == {
        "name": "life",
        "user": "life",
        "host": each.host.address,
        "port": each.host.port,
        "source": "app",
    }
    assert made["golden"] == f"{each.golden()}@ready"
    assert made["data_at"]
    assert each.sql("life", COUNT) == [100]
    for check in (True, False):
        again = each.must("life", check=check)
        assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
    assert each.must("life", state="absent", check=True)["changed"]
    assert each.sql("life", COUNT) == [100]
    assert each.must("life", state="absent")["changed"]
    assert each.left("life") == []
    assert not each.must("life", state="absent")["changed"]


def test_branches_know_nothing_of_each_other_nor_of_the_source(each):
    for name in ("one", "two"):
        each.must(name)
    assert each.sql("one", "delete from orders where id > 10") == []
    assert each.sql("two", "insert into orders (what) values ('more')") == []
    each.must("three")
    assert [each.sql(name, COUNT) for name in ("one", "two", "three")] == [[10], [101], [100]]
    for name in ("one", "two", "three"):
        each.must(name, state="absent")
        assert each.left(name) == []
    assert [one.name for one in each.store().volumes()] == [each.golden()]


def test_a_reset_begins_anew(each):
    each.must("again")
    each.sql("again", "drop table orders; create table mine (n int)")
    planned = each.must("again", state="reset", check=True)
    assert each.sql("again", "select count(*) from mine") == [0]
    done = each.must("again", state="reset", password=None)
    assert done["actions"] == planned["actions"]
    assert each.sql("again", COUNT) == [100]
    assert not each.must("again")["changed"]
    each.sql("again", "drop table orders")
    each.must("again", state="reset")
    assert each.sql("again", COUNT) == [100]
    each.must("again", state="absent")
    assert each.left("again") == []


def test_a_reset_that_cannot_swap_leaves_the_branch_at_work(monkeypatch):
    """A process in the dataset keeps it busy; the next reset only swaps, and makes nothing anew."""
    made = []
    clone = _stores.Zfs.clone

    def noted(*of, **more):
        made.append(of[2])
        return clone(*of, **more)

    monkeypatch.setattr(_stores.Zfs, "clone", noted)
    with branches.db_host("zfs") as host:
        host.must("one")
        host.sql("one", "delete from orders where id > 42")
        for shelf in ("branches", "resets"):  # the first has to go, and the second to take its place
            where = host.store().path(f"{shelf}/one")
            with monkeypatch.context() as patch, subprocess.Popen(["sleep", "60"], cwd=where) as busy:
                patch.setattr(_stores, "PATIENCE", 0.3 if shelf == "branches" else 3)
                said = host.refused("one", "environment", state="reset")
                assert "it has been busy for" in said
                assert f"process {busy.pid} (sleep)" in said
                assert host.sql("one", COUNT) == [42]  # at once, and with no other run
                busy.kill()
        assert host.must("one", state="reset")["actions"] == [
            f"reset branch one to {host.golden()}@ready, as an earlier run has built it"
        ]
        assert made == ["branches/one", "resets/one"]
        assert host.sql("one", COUNT) == [100]
        assert not host.must("one")["changed"]
        host.must("one", state="absent")
        assert host.left("one") == []


def test_what_is_mounted_in_a_branch_is_not_emptied(each, tmp_path):
    """Nor let go, whether by a removal with force, a reset, or the sweep."""
    (tmp_path / "kept").write_text("kept")
    each.must("mounted", expires="1s")
    place = pathlib.Path(each.store().path("branches/mounted")) / "data" / "of someone"
    place.mkdir()
    pools.command("mount", "--bind", tmp_path, place)
    try:
        for state in ("absent", "reset"):
            for check in (True, False):
                result = each.run("mounted", state=state, force=True, check=check)
                assert (result["failure"], str(place) in result["msg"]) == ("user", True), result
                assert result["hint"] == f"unmount it first: umount '{place}'"
        with each.locked_store() as store, pytest.raises(Exception, match="of someone"):
            store.destroy("branches/mounted")
        assert each.sql("mounted", COUNT) == [100]
        assert (tmp_path / "kept").read_text() == "kept"
    finally:
        pools.command("umount", place)
    each.must("mounted", state="absent")
    assert each.left("mounted") == []


def test_a_branch_of_a_branch(each):
    each.must("old")
    each.sql("old", "delete from orders where id > 42; create table added (n int)")
    assert each.must("young", parent="old", check=True)["changed"]
    each.must("young", parent="old")
    assert not each.must("young", parent="old")["changed"]
    assert each.sql("young", COUNT) == [42]
    each.sql("young", "delete from orders; drop table added")
    assert (each.sql("old", COUNT), each.sql("young", COUNT)) == ([42], [0])
    with pytest.raises(psycopg2.OperationalError, match=r"no such user|authentication failed|pg_hba"):
        each.connect("young", user="old")
    each.must("young", state="reset")
    assert each.sql("young", COUNT) == [42]
    for state in ("absent", "reset"):
        assert "young stand on it" in each.refused("old", "user", state=state)
    assert each.sql("old", COUNT) == [42]
    # Both in one run, whichever is begun first.
    together = {"state": "absent", "leaving": ["old", "young"]}
    assert each.must("old", check=True, **together)["changed"]
    each.must("young", parent="old", protected=True)
    assert "young stand on it" in each.refused("old", "user", check=True, **together)
    each.must("young", parent="old", protected=False)
    parent = multiprocessing.get_context("fork").Process(target=each.must, args=("old",), kwargs=together)
    parent.start()
    each.must("young", **together)
    parent.join()
    assert parent.exitcode == 0
    for name in ("young", "old"):
        assert each.left(name) == []


def test_the_newest_golden_is_taken(host, name):
    before = host.golden()
    later = branches.make_golden(host, branches.FILL + "delete from orders where id > 7;")
    assert later > before
    with host.locked_store() as store:
        half_made = store.create("goldens/app/29991123T180000Z", {**store.must_have(before).mark, "phase": "creating"})
    try:
        assert host.must(name)["golden"] == f"{later}@ready"
        assert host.sql(name, COUNT) == [7]
        host.must(name, state="absent")
    finally:
        with host.locked_store() as store:
            for one in (later, half_made.name):
                store.destroy(one)


def test_a_source_with_an_odd_name_lets_in_who_it_should_and_nobody_else(host, name, tmp_path):
    """Names are data in pg_hba.conf, pg_ident.conf and PgBouncer's file; quotes in them let nobody in."""
    odd = {"database": 'a", all" trust # it\'s \\', "admin": "odd, all", "keep": 9, "kind": "dump"}
    dump = tmp_path / "odd.sql"
    dump.write_text(branches.FILL.partition(";")[2])
    given = json.loads(host.file.read_text())
    other = tmp_path / "db_host.json"
    other.write_text(json.dumps({**given, "sources": {**given["sources"], "odd": {**odd, "dump": str(dump)}}}))
    there = branches.DbHost(_db_host.load(str(other)), other)
    _sources.refresh(there.host, there.host.source("odd"))
    try:
        there.must(name, source="odd")
        assert there.sql(name, COUNT) == [100]
        assert there.sql(name, "select current_database()") == [odd["database"]]
        where = {"host": os.path.join(there.host.run, name), "port": there.info()[name]["branch_port"]}
        for user, database in ((name, "postgres"), ("anybody", odd["database"])):
            with pytest.raises(psycopg2.OperationalError, match="no pg_hba"):
                psycopg2.connect(**where, user=user, dbname=database)
        psycopg2.connect(**where, user=odd["admin"], dbname="postgres").close()
        there.must(name, state="absent")
    finally:
        with there.locked_store() as store:
            for one in store.volumes("goldens/odd"):
                store.destroy(one.name)


def test_event_triggers_of_production_keep_nobody_from_a_branch(host, name):
    refusing = "create function no() returns event_trigger language plpgsql as $$begin raise 'no change'; end$$;"
    trigger = "create event trigger no on ddl_command_start execute function no();"
    later = branches.make_golden(host, branches.FILL + refusing + trigger)
    try:
        host.must(name)
        host.must(f"{name}_young", parent=name)
        for one in (f"{name}_young", name):
            with pytest.raises(psycopg2.Error, match="no change"):
                host.sql(one, "create table mine ()")
            host.must(one, state="absent")
    finally:
        with host.locked_store() as store:
            store.destroy(later)


def test_what_it_may_and_what_it_cannot(host, name):
    """It owns all that is in the database, is no superuser, and has no way to its source or to others."""
    host.must(name)
    host.must(f"{name}_two")
    told = "select current_setting(%r) as it"
    assert host.sql(name, "select current_user") == [branches.OWNER_ROLE]
    assert host.sql(name, "select rolsuper from pg_roles where rolname = current_user") == [False]
    host.sql(name, "alter table orders add column more int; create extension pg_trgm; create schema mine")
    for setting, value in (
        ("archive_mode", "off"),
        ("listen_addresses", "127.0.0.1"),
        ("parallel_worktrees.database", name),
        ("shared_buffers", "32MB"),
        ("max_connections", "30"),
    ):
        assert host.sql(name, told % setting) == [value]
    assert host.sql(name, "select rolname from pg_roles where rolcanlogin order by 1") == sorted(
        [name, _pgbouncer.PROBE, "postgres"]
    )
    for who in ({"user": "production", "password": "of production"}, {"user": "postgres"}, {"user": f"{name}_two"}):
        with pytest.raises(psycopg2.OperationalError):
            host.connect(name, **who)
    with pytest.raises(psycopg2.OperationalError):
        host.connect("pgbouncer", user=name, password=f"of {name}")
    with pytest.raises(psycopg2.OperationalError):
        host.connect(name, password="another")
    secrets_of = pathlib.Path(host.host.state, "pgbouncer", "users.txt")
    assert f"of {name}" not in secrets_of.read_text()
    assert secrets_of.stat().st_mode & 0o777 == 0o600


def test_its_own_server_takes_the_same_password(host, name):
    port = host.must(name)["branch_port"]
    with contextlib.closing(
        psycopg2.connect(host="127.0.0.1", port=port, dbname="app", user=name, password=f"of {name}")
    ) as connection:
        assert connection.info.dbname == "app"


def test_a_password_travels_as_a_verifier_and_changes(host, name):
    verifier = _postgres.steady_verifier("kept at home")
    host.must(name, password=verifier)
    assert host.sql(name, COUNT, password="kept at home") == [100]
    assert not host.must(name, password=verifier)["changed"]
    assert not host.must(name, password="kept at home")["changed"]
    assert host.must(name, password="another")["actions"] == [f"give user {name} of branch {name} the password"]
    assert host.sql(name, COUNT, password="another") == [100]
    assert not host.must(name, password=None)["changed"]


def test_the_list(host, name):
    host.must(name, expires="2h", protected=True)
    host.must(f"{name}_young", parent=name)
    with contextlib.closing(host.connect(name)):
        found = host.info()
        one, young = found[name], found[f"{name}_young"]
        assert (one["phase"], one["running"], one["routed"], one["sessions"]) == ("ready", True, True, 1)
        assert (one["expires"], one["protected"], one["owner"]) == (7200, True, f"shop/{name}@0123abcd")
        assert (young["parent"], young["golden"], young["protected"]) == (name, one["golden"], False)
        assert 0 < young["own_bytes"] < young["full_bytes"]
        assert one["age"] < 60
    assert list(host.info(name=name)) == [name]
    assert list(host.info(owner="nobody")) == []


# What is refused


@pytest.mark.parametrize(
    "bad",
    [
        "x; drop database app",
        "x\nevil = host=/tmp",
        "../../etc",
        "a/b",
        "a@b",
        "-rf",
        "a.b",
        "",
        "ü",
        "a'b",
        'a"b',
        "%i",
        "pgbouncer",
        "postgres",
        _pgbouncer.PROBE,
    ],
)
def test_a_name_that_is_none(host, bad):
    host.refused(bad, "user")
    host.refused("named", "user", parent=bad)
    if bad:
        host.refused("named", "user", user=bad)
    assert "named" not in host.info()


def test_a_long_name_fits(host):
    long = "n" * 90
    made = host.must(long)
    assert len(made["name"]) == 63
    assert host.sql(made["name"], COUNT, password=f"of {long}") == [100]
    host.must(long, state="absent")
    assert host.left(made["name"]) == []


def test_what_is_anothers_stays(host, name):
    host.must(name)
    for state in ("present", "absent", "reset"):
        assert "belongs to shop/" in host.refused(name, "user", state=state, owner="shop/another@0123abcd")
        assert "belongs to shop/" in host.refused(name, "user", state=state, owner="shop/another@0123abcd", check=True)
    assert f"of branch {name}" in host.refused("sharing", "user", user=name)
    for user in ("production", "postgres", branches.OWNER_ROLE):
        host.refused("sharing", "user", user=user)
    assert host.left("sharing") == []
    with host.locked_store() as store:
        store.create("branches/foreign", {"kind": "another"})
    try:
        assert "is no branch" in host.refused("foreign", "user", state="absent")
    finally:
        with host.locked_store() as store:
            store.destroy("branches/foreign")


def test_what_cannot_be_made(host, name):
    host.must(name)
    assert "no source 'shop'" in host.refused("none", "user", source="shop")
    assert "no branch missing" in host.refused("none", "user", parent="missing")
    assert "not of both" in host.refused("none", "user", parent=name, source="app")
    assert "was made with the parent None" in host.refused(name, "user", parent="other")
    assert "length of time" in host.refused("none", "user", expires="soon")
    assert "no branch none to reset" in host.refused("none", "user", state="reset")
    assert "needs a password" in host.refused("none", "user", password=None)
    assert host.left("none") == []


def test_what_is_protected_stays(host, name):
    host.must(name, protected=True)
    for state in ("absent", "reset"):
        assert "is protected" in host.refused(name, "user", state=state, protected=True)
    assert host.must(name, protected=False)["changed"]
    host.must(name, state="absent")


def test_a_golden_that_reaches_out_is_no_ground(host):
    """Data of which a part lies elsewhere, or that somebody made wrong, are refused before a server works on them."""
    golden = host.golden()
    with host.locked_store() as store:
        store.snapshot(golden, "again")
        bad = store.clone(f"{golden}@again", "goldens/app/29991124T180000Z", store.must_have(golden).mark)
        wal = os.path.join(bad.path, "data", "pg_wal")
        os.rename(wal, f"{bad.path}/wal")
        os.symlink(f"{bad.path}/wal", wal)
        store.snapshot(bad.name, "ready")
    try:
        assert "would reach into its source" in host.refused("reaching", "environment")
        assert host.left("reaching") == []
    finally:
        with host.locked_store() as store:
            store.destroy(bad.name)
            store.destroy_snapshot(f"{golden}@again")


def test_no_room(host, name):
    little = dict(json.loads(host.file.read_text()), reserve=101)
    file = host.file.with_name("little.json")
    file.write_text(json.dumps(little))
    for check in (True, False):
        assert "have to stay so" in host.refused(name, "environment", host_file=str(file), check=check)
    assert host.left(name) == []


def test_no_room_because_of_what_is_not_ours(each, tmp_path):
    """The message names a file that fills the pool, and with ZFS another dataset, before smaller volumes of ours."""
    theirs, dataset = pathlib.Path(each.host.root) / "backup.tar", f"{str(each.host.pool).partition('/')[0]}/theirs"
    places = [theirs]
    if each.host.store == "zfs":
        pools.command("zfs", "create", "-o", f"mountpoint={tmp_path}/theirs", dataset)
        places.append(tmp_path / "theirs" / "other.tar")
    little = each.file.with_name("little.json")
    little.write_text(json.dumps({**json.loads(each.file.read_text()), "reserve": 101}))
    try:
        for megabytes, place in zip((120, 80), places, strict=False):
            with place.open("wb") as file:
                for _number in range(megabytes):
                    file.write(os.urandom(1 << 20))
                os.fsync(file.fileno())
        hint = each.run("x", host_file=str(little))["hint"]
        first, second, *_others = hint.partition("the largest are ")[2].split("; ")
        assert first == f"0.12 GB: {theirs}, which is not ours"
        if each.host.store == "zfs":
            assert second == f"0.08 GB: dataset {dataset}, which is not ours"
        else:
            assert "goldens/app/" in second
    finally:
        theirs.unlink(missing_ok=True)
        if each.host.store == "zfs":
            pools.insist("zfs", "destroy", dataset)


def test_no_ports(host, name):
    given = json.loads(host.file.read_text())
    first = given["branch_ports"]["first"] + 59
    file = host.file.with_name("ports.json")
    file.write_text(json.dumps({**given, "branch_ports": {"first": first, "last": first}}))
    host.must(name, host_file=str(file))
    assert "all ports for branches" in host.refused(f"{name}_two", "environment", host_file=str(file))


# Several at once


def test_many_at_once_and_two_that_want_the_same(host, name):
    def ask(number, owner):
        return host.run(f"{name}_{number}", owner=owner)

    with concurrent.futures.ProcessPoolExecutor(6) as pool:
        asked = [pool.submit(_asked, host, f"{name}_{number}", f"t/{owner}@0") for number in range(3) for owner in "ab"]
        results = [one.result() for one in asked]
    for pair in (results[0:2], results[2:4], results[4:6]):
        assert sorted(str(one.get("failure")) for one in pair) == ["None", "user"]
    for number in range(3):
        assert host.sql(f"{name}_{number}", COUNT) == [100]
        owner = host.info()[f"{name}_{number}"]["owner"]
        host.must(f"{name}_{number}", owner=owner, state="absent")
    ports = [one["branch_port"] for one in results if "branch_port" in one]
    assert len(set(ports)) == 3


def _asked(host, name, owner):
    return host.run(name, owner=owner)


def test_the_same_asked_for_twice_at_once(host, name):
    with concurrent.futures.ProcessPoolExecutor(3) as pool:
        results = [one.result() for one in [pool.submit(_asked, host, name, "t/a@0") for _number in range(3)]]
    assert sorted(one["changed"] for one in results) == [False, False, True]
    host.must(name, owner="t/a@0", state="absent")


def test_others_sessions_are_left_alone(host, name):
    """Names come, are reset and go, PgBouncer reads its files: a session held elsewhere goes on, in its transaction."""
    host.must(name)
    with contextlib.closing(host.connect(name)) as held, held.cursor() as cursor:
        cursor.execute("begin; create temp table here (n int); select pg_backend_pid()")
        pid = cursor.fetchone()
        host.must(f"{name}_other")
        host.sql(f"{name}_other", COUNT)
        host.must(f"{name}_other", state="reset")
        host.must(f"{name}_child", parent=f"{name}_other")
        for other in ("child", "other"):
            host.must(f"{name}_{other}", state="absent")
        cursor.execute("insert into here values (1); select pg_backend_pid()")
        assert cursor.fetchone() == pid


def test_a_reset_lets_clients_wait(host, name):
    """Who knocks while the data are swapped gets in afterwards, without an error."""
    host.must(name)
    stop, errors, counts = threading.Event(), [], []

    def knock():
        while not stop.is_set():
            try:
                counts.extend(host.sql(name, COUNT))
            except psycopg2.Error as error:
                errors.append(str(error))

    host.sql(name, "delete from orders")
    knocking = threading.Thread(target=knock)
    with contextlib.closing(host.connect(name)):  # one is in, which a reset ends
        knocking.start()
        try:
            host.must(name, state="reset")
        finally:
            time.sleep(0.1)
            stop.set()
            knocking.join()
    assert counts[0] == 0
    assert counts[-1] == 100
    # Only a query that was under way may have been cut off.
    assert all("terminating connection" in one or "closed" in one for one in errors), errors
    assert len(errors) <= 1


def test_removal_ends_sessions(host, name):
    host.must(name)
    with contextlib.closing(host.connect(name)) as held:
        host.must(name, state="absent")
        with pytest.raises(psycopg2.Error), held.cursor() as cursor:
            cursor.execute("select 1")
    with pytest.raises(psycopg2.OperationalError):
        host.connect(name)
    assert host.left(name) == []


# What goes wrong


def test_the_server_has_crashed(host, name):
    host.must(name)
    server = _services.server_in(os.path.join(host.host.root, "branches", name))
    with open(os.path.join(server.data, "postmaster.pid")) as file:
        os.kill(int(file.readline()), signal.SIGKILL)
    time.sleep(0.1)
    assert host.run(name, check=True)["changed"]
    assert host.must(name)["changed"]
    assert host.sql(name, COUNT) == [100]
    assert not host.must(name)["changed"]


def test_pgbouncer_is_down(host, name):
    """It is started, and one that cannot be is told; a branch goes without it."""
    host.must(f"{name}_before")
    host.stop_pooler()
    host.must(name)
    assert host.sql(f"{name}_before", COUNT) == host.sql(name, COUNT) == [100]
    config = pathlib.Path(host.pooler().config)
    host.stop_pooler(signal.SIGKILL)
    host.must(f"{name}_before", state="absent")
    assert host.left(f"{name}_before") == []
    assert not config.read_text().startswith("nonsense")
    host.must(name)
    assert host.sql(name, COUNT) == [100]


def test_a_broken_file_of_pgbouncer_is_noticed(host, name):
    """It answers that all is well, and knows nothing of the new name."""
    host.must(f"{name}_before")
    config = pathlib.Path(host.pooler().config)
    good = config.read_bytes()
    config.write_bytes(b"this is [no] setting\n" + good)
    try:
        assert "does not know it" in host.refused(name, "environment")
        assert host.sql(f"{name}_before", COUNT) == [100]
    finally:
        config.write_bytes(good)
    host.must(name)
    assert host.sql(name, COUNT) == [100]
    assert not host.must(name)["changed"]


def test_files_of_pgbouncer_that_are_lost_are_written_anew(host, name):
    host.must(f"{name}_before")
    for file in ("databases.ini", "users.txt"):
        pathlib.Path(host.pooler().folder, file).write_text("nonsense\n")
    host.must(name)
    assert host.sql(f"{name}_before", COUNT) == host.sql(name, COUNT) == [100]


def test_reloads_all_the_time_do_no_harm(host, name):

    def reload():
        while True:
            host.pooler().reload()

    host.must(f"{name}_before")
    with contextlib.closing(host.connect(f"{name}_before")) as held, held.cursor() as cursor:
        pid, _answers = fork(reload)
        try:
            host.must(name)
            host.must(name, state="absent")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        cursor.execute(COUNT)
        assert cursor.fetchone() == (100,)


def test_after_a_reboot(host, name):
    """The servers and PgBouncer come back, and names lead to the same branches."""
    host.must(name)
    host.sql(name, "delete from orders where id > 3")
    host.must(f"{name}_two")
    host.stop()
    done = _branches.up(host.host)
    assert done == [f"start the server of branch {one}" for one in (name, f"{name}_two")]
    for one in (name, f"{name}_two"):
        host.wait(one)
    assert (host.sql(name, COUNT), host.sql(f"{name}_two", COUNT)) == ([3], [100])
    assert _branches.up(host.host) == []


def test_one_that_does_not_come_back_keeps_no_other_from_it(host, name):
    """As after a loss of power, which a branch need not survive."""
    for one in ("a", "b"):
        host.must(f"{name}_{one}")
    host.stop()
    folder = os.path.join(host.host.root, "branches", f"{name}_a")
    os.rename(os.path.join(folder, "data", "PG_VERSION"), os.path.join(folder, "PG_VERSION"))
    _branches.up(host.host)
    host.wait(f"{name}_b")
    assert host.sql(f"{name}_b", COUNT) == [100]
    assert "last words" in host.refused(f"{name}_a", "environment")
    host.must(f"{name}_a", state="absent")
    assert host.left(f"{name}_a") == []


# Time passes


def test_what_nobody_uses_expires(host, name):
    host.must(name, expires="1s")
    host.must(f"{name}_kept")
    host.must(f"{name}_protected", expires="1s", protected=True)
    host.must(f"{name}_parent", expires="1s")
    host.must(f"{name}_young", parent=f"{name}_parent")
    with contextlib.closing(host.connect(name)):
        time.sleep(1.2)
        _branches.sweep(host.host)
        assert name in host.info()  # for somebody is in it
    host.sql(name, COUNT)  # and was, since the last look
    time.sleep(1.2)
    _branches.sweep(host.host)
    assert name in host.info()
    time.sleep(1.2)
    assert _branches.sweep(host.host) == [f"remove branch {name}, which nobody has used for 1 s"]
    assert name not in host.info()
    assert {f"{name}_{one}" for one in ("kept", "protected", "parent", "young")} <= host.info().keys()


def test_a_clock_that_is_set_has_nothing_expire(host, name, monkeypatch):
    """Neither forwards nor back; nor does a machine that slept for days, or whose notes of the time are lost."""
    clock = Clock(monkeypatch, time.time())
    host.must(name, expires="3h")
    for step in (YEAR, -2 * YEAR, YEAR):
        clock.set(step)
        assert _branches.sweep(host.host) == []
    clock.pass_by(YEAR)
    assert _branches.sweep(host.host) == []
    clock.pass_by(YEAR)
    clock.reboot()
    assert _branches.sweep(host.host) == []
    pathlib.Path(host.host.state, "clock.json").unlink()
    clock.set(YEAR)
    for _round in range(4):
        assert _branches.sweep(host.host) == []
        clock.pass_by(3600)
    assert _branches.sweep(host.host) == [f"remove branch {name}, which nobody has used for 10800 s"]


def test_a_clock_that_is_set_back_keeps_no_branch(host, name, monkeypatch):
    clock = Clock(monkeypatch, time.time())
    host.must(name, expires="1h")
    assert _branches.sweep(host.host) == []
    clock.set(-YEAR)
    for _round in range(2):
        assert _branches.sweep(host.host) == []
        clock.pass_by(3600)
    assert _branches.sweep(host.host) == [f"remove branch {name}, which nobody has used for 3600 s"]


def test_a_clock_that_was_wrong_while_a_branch_was_made(host, name, monkeypatch):
    clock = Clock(monkeypatch, time.time())
    for _round in range(3):
        host.host.elapsed(check=False)
        clock.pass_by(3600)
    clock.set(-YEAR)
    host.must(name, expires="1h")
    _services.of(host.host).stop(name, os.path.join(host.host.root, "branches", name))  # so that none sees its use
    clock.set(YEAR)
    assert _branches.sweep(host.host) == []
    assert name in host.info()


def test_what_killed_runs_left_long_ago_is_swept(host, name, monkeypatch):
    kill_at(host, 4, name)
    assert host.info()[name]["phase"] == "creating"
    assert _branches.sweep(host.host) == []
    monkeypatch.setattr(_branches, "HALF_MADE_SECONDS", 0)
    assert _branches.sweep(host.host) == [f"remove branch {name}, which a killed run has left"]
    assert host.left(name) == []


# Killed anywhere

STEPS = (
    *((_stores.Btrfs, step) for step in ("_copy", "_remove", "set_mark", "rename", "_snapshot")),
    *((_services.Process, step) for step in ("start", "stop", "start_pooler")),
    *((_pgbouncer.Pooler, step) for step in ("write", "reload", "resume", "check")),
    *((_branches.Work, step) for step in ("let_in", "adapt", "discard")),
    (_files, "write"),
    (_pgbouncer, "_pause"),
)


def kill_at(host, number, name, **more):
    """Kill a run just before its step of this number; True where it had fewer, and came to its end."""

    def work():
        count = 0

        def stepping(act):
            def step(*arguments, **options):
                nonlocal count
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return act(*arguments, **options)

            return step

        for place, step in STEPS:
            setattr(place, step, stepping(getattr(place, step)))
        return host.run(name, **more)

    pid, answers = fork(work)
    with answers:
        text = answers.read()
    ended = os.waitpid(pid, 0)[1]
    if not ended:
        assert not json.loads(text).get("failed"), text
        return True
    assert ended == signal.SIGKILL, text
    return False


def through_all_steps(kill, after):
    """Kill a run before each of its steps; see what the next run makes of what that left."""
    number = 0
    while not kill(number):
        after(number)
        number += 1
    return number


def test_killed_while_it_is_made(host, name):
    def after(number):
        if number % 2:
            host.must(name)
            assert host.sql(name, COUNT) == [100]
        host.must(name, state="absent")
        assert host.left(name) == []

    assert through_all_steps(lambda number: kill_at(host, number, name), after) > 8


def test_killed_while_it_is_removed(host, name):
    def kill(number):
        host.must(name)
        return kill_at(host, number, name, state="absent")

    def after(number):
        if number % 2:
            host.must(name)
            assert host.sql(name, COUNT) == [100]
        host.must(name, state="absent")
        assert host.left(name) == []

    assert through_all_steps(kill, after) > 4


def test_killed_while_it_is_reset(host, name):
    """There is always a branch that works, the old one or the new, and nothing beside it."""
    host.must(name)

    def kill(number):
        host.sql(name, "delete from orders where id > 50")
        return kill_at(host, number, name, state="reset")

    def after(number):
        host.must(name, state="reset" if number % 3 == 0 else "present")
        assert host.sql(name, COUNT) in ([50], [100])
        assert not host.must(name)["changed"]
        assert [one.name for one in host.store().volumes() if name in one.name] == [f"branches/{name}"]

    assert through_all_steps(kill, after) > 12


def test_killed_while_a_branch_is_made_of_a_branch(host, name):
    young = f"{name}_young"
    host.must(name)

    def after(number):
        if number % 2:
            host.must(young, parent=name)
            assert host.sql(young, COUNT) == [100]
        else:
            host.must(name)
        assert host.sql(name, COUNT) == [100]
        host.must(young, state="absent")
        assert host.left(young) == []

    assert through_all_steps(lambda number: kill_at(host, number, young, parent=name), after) > 8


def test_a_killed_reset_on_zfs_and_xfs_is_finished(each):
    """The swap, on stores that rename otherwise."""
    each.must("swapped")
    each.sql("swapped", "delete from orders")
    with each.locked_store() as store:
        mark = store.must_have("branches/swapped").mark
        _services.server_in(store.path("branches/swapped")).stop()
        store.clone(mark["golden"], "resets/swapped", {**mark, "phase": "creating"})
        store.rename("branches/swapped", "replaced/swapped")
    each.must("swapped")  # half built: back to what there was
    assert each.sql("swapped", COUNT) == [0]
    assert outcome(fork(lambda: each.run("swapped", state="reset")))["changed"]
    assert each.sql("swapped", COUNT) == [100]
    each.must("swapped", state="absent")
    assert each.left("swapped") == []
