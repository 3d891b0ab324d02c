# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clusters of a task on a real PostgreSQL; what it says is checked with psql and /proc."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pathlib
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing as t

import psycopg2
import psycopg2.sql
import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from integration.servers import FOR_EVER, fork, outcome
from ports import free_port

from ansible_collections.parallel.worktrees.plugins.module_utils import _clusters, _postgres
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer

ROOT = os.geteuid() == 0
KILLS = 16


@pytest.fixture(scope="module", autouse=True)
def top(pg_binaries):  # noqa: ARG001 - it fails where there is no PostgreSQL
    """A folder that the server's system user can reach, which pytest's own are not."""
    folder = tempfile.mkdtemp(prefix="pg-cluster-", dir="/tmp")
    os.chmod(folder, 0o711)
    yield pathlib.Path(folder)
    for left in pathlib.Path(folder).glob("**/cluster.json"):
        _clusters.Cluster(str(left.parent.parent), left.parent.name).stop()
    shutil.rmtree(folder)


@pytest.fixture
def task(top):
    """The parameters of a task's cluster, which is removed at the end."""
    given = parameters(top)
    yield given
    run(given, state="absent")
    assert_gone(given)


def parameters(top: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    name = f"task_{secrets.token_hex(4)}"
    return {
        "name": name,
        "owner": f"test/{name}",
        "port": free_port(),
        "directory": str(top / "clusters"),
        "password_file": str(top / "secrets" / name),
        **more,
    }


def validated(task: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    checked = ArgumentSpecValidator(_clusters.ARGUMENT_SPEC).validate({**task, **more})
    assert not checked.error_messages
    return t.cast("dict[str, t.Any]", checked.validated_parameters)


def run(task: dict[str, t.Any], *, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    return answer(_clusters.operation, validated(task, **more), check=check, diff=True)


def must(task: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    result = run(task, **more)
    assert not result.get("failed"), result["msg"]
    return result


def psql(task: dict[str, t.Any], sql: str, password: str | None = None, **where: str) -> str:
    if password is None:
        password = pathlib.Path(task["password_file"]).read_text(encoding="ascii").strip()
    about = {"host": "127.0.0.1", "user": "postgres", "dbname": "postgres", "port": str(task["port"]), **where}
    done = subprocess.run(
        ["psql", "-XAtq", "-c", sql, " ".join(f"{key}='{value}'" for key, value in about.items())],
        env={**os.environ, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).strip()


def folder_of(task: dict[str, t.Any]) -> pathlib.Path:
    return pathlib.Path(task["directory"], task["name"])


def pid_of(task: dict[str, t.Any]) -> int:
    return int((folder_of(task) / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])


def at_work(folder: pathlib.Path) -> list[int]:
    """Processes in a folder, or where a folder of this name was."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "cwd").startswith(str(folder)):
                found.append(int(entry.name))
    return found


def leftovers(task: dict[str, t.Any]) -> list[str]:
    directory = pathlib.Path(task["directory"])
    return [path.name for path in directory.glob("*") if task["name"] in path.name]


def assert_gone(task: dict[str, t.Any]) -> None:
    assert leftovers(task) == []
    assert at_work(folder_of(task)) == []
    assert not os.path.exists(task["password_file"])
    owner = "postgres" if ROOT else pwd.getpwuid(os.geteuid()).pw_name
    cluster = _clusters.Cluster(task["directory"], task["name"])
    assert not os.path.exists(cluster.socket_directory(_clusters.Account.number(pwd.getpwnam(owner).pw_uid)))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", task["port"])) != 0


def kill_all(task: dict[str, t.Any]) -> None:
    """What a crash of the machine does to the server."""
    pid = pid_of(task)
    for one in {pid, *at_work(folder_of(task))}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while at_work(folder_of(task)) and time.monotonic() < deadline:
        time.sleep(0.005)


# Making and removing


def test_gives_a_database_and_takes_it_back(task):
    planned = must(task, check=True)
    assert leftovers(task) == []
    assert not os.path.exists(task["password_file"])

    made = must(task)
    assert made == {**planned}
    assert made["changed"]
    assert (
        psql(task, "select current_setting('parallel_worktrees.database'), current_user") == f"{task['name']}|postgres"
    )
    assert made["cluster"] == {
        "name": task["name"],
        "directory": str(folder_of(task)),
        "port": task["port"],
        "running": True,
        "version": psql(task, "show server_version").split()[0],
        "socket_directory": psql(task, "show unix_socket_directories"),
    }
    assert made["database"]["url"].endswith(f"@127.0.0.1:{task['port']}/postgres")
    assert made["database"]["backend"] == "embedded"
    assert psql(task, "show listen_addresses") == "127.0.0.1"
    assert _clusters.clusters(task["directory"]) == [
        {"name": task["name"], "owner": task["owner"], "directory": str(folder_of(task)), "running": True}
    ]

    for check in (True, False):
        again = must(task, check=check)
        assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])

    assert must(task, check=True, state="absent")["changed"]
    assert psql(task, "select 1") == "1"
    assert must(task, state="absent")["changed"]
    assert_gone(task)
    for check in (True, False):
        gone = must(task, check=check, state="absent")
        assert (gone["changed"], gone["actions"], gone["diff"]) == (False, [], [])


def test_absent_where_nothing_ever_was(top):
    task = parameters(top, directory=str(top / "never"))
    assert not must(task, state="absent")["changed"]
    assert not (top / "never").exists()


def test_names_as_people_give_them(task):
    names = {"user": "María O-Hara", "database": "prueba %s; drop"}
    made = must(task, **names)
    assert psql(task, "select current_user", user=names["user"], dbname=names["database"]) == names["user"]
    assert not must(task, **names)["changed"]
    connection = psycopg2.connect(made["database"]["url"].replace(made["database"]["password"], secret(task)))
    connection.close()


def secret(task: dict[str, t.Any]) -> str:
    return pathlib.Path(task["password_file"]).read_text(encoding="ascii").strip()


def test_text_is_utf8_with_the_order_of_code_points(task):
    must(task)
    assert psql(task, "show server_encoding") == "UTF8"
    assert psql(task, "select lower('ÁÑ'), 'Z' < 'a'") == "áñ|t"


@pytest.mark.parametrize("address", ["127.0.0.2", "::1", "localhost"])
def test_listens_on_the_loopback_address_that_is_asked_for(task, address):
    made = must(task, address=address)
    assert psql(task, "show listen_addresses", host=address) == address
    psycopg2.connect(made["database"]["url"].replace(made["database"]["password"], secret(task))).close()


def test_started_and_not_waited_for_lets_nobody_in(task):
    started = must(task, wait=False)
    assert started["changed"]
    assert secret(task)
    deadline = time.monotonic() + 10
    while "starting up" in (answered := psql(task, "select 1", password="")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "no password supplied" in answered
    assert "password authentication failed" in psql(task, "select 1")
    assert not must(task, wait=False)["changed"]
    assert must(task, check=True)["changed"]

    waited = must(task)
    assert waited["changed"]
    assert waited["actions"] == ["give user postgres the password and database postgres"]
    assert psql(task, "select 1") == "1"
    assert not must(task)["changed"]
    assert not must(task, wait=False)["changed"]


# Keeping


def test_a_stopped_server_is_started_with_its_data(task):
    must(task)
    psql(task, "create table t as select 7 as x")
    _clusters.Cluster(task["directory"], task["name"]).stop()
    assert must(task, check=True)["changed"]
    again = must(task)
    assert again["changed"]
    assert again["actions"] == [f"start cluster {task['name']} on port {task['port']} of 127.0.0.1"]
    assert psql(task, "select x from t") == "7"


def test_a_crashed_server_is_started_with_its_data(task):
    must(task)
    psql(task, "create table t as select 7 as x; checkpoint")
    psql(task, "insert into t values (8)")
    time.sleep(0.7)  # the writer of the WAL may be as late as this
    kill_all(task)
    assert must(task)["changed"]
    assert psql(task, "select sum(x) from t") == "15"


def test_a_stale_pid_that_is_another_process_by_now_does_no_harm(task):
    must(task)
    kill_all(task)
    sockets = pathlib.Path(must(task, check=True)["cluster"]["socket_directory"])
    account = (folder_of(task) / "data").stat().st_uid  # PostgreSQL itself sees through a stranger's
    stranger = subprocess.Popen(["sleep", "60"], user=account if ROOT else None)
    try:
        for path in (folder_of(task) / "data" / "postmaster.pid", *sockets.glob(".s.PGSQL.*.lock")):
            lines = path.read_text(encoding="ascii").splitlines()
            path.write_text("\n".join([str(stranger.pid), *lines[1:], ""]), encoding="ascii")
        assert _clusters.clusters(task["directory"])[0]["running"] is False
        assert must(task)["changed"]
        assert psql(task, "select 1") == "1"
        _clusters.Cluster(task["directory"], task["name"]).stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_backends_that_outlive_the_server_are_ended_first(task):
    must(task)
    busy = subprocess.Popen(
        ["psql", "-XAtq", "-c", "select count(*) from generate_series(1, 1e12::bigint)"],
        env={**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(task["port"]), "PGUSER": "postgres"}
        | {"PGPASSWORD": secret(task)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while "t" not in psql(
        task, "select true from pg_stat_activity where query like '%1e12%' and pid <> pg_backend_pid()"
    ):
        time.sleep(0.05)
    server = pid_of(task)
    os.kill(server, signal.SIGKILL)
    while server in at_work(folder_of(task)):
        time.sleep(0.005)
    assert at_work(folder_of(task)), "the busy one has ended with it"
    assert must(task)["changed"]
    assert psql(task, "select 1") == "1"
    busy.wait(10)


def test_changed_settings_restart_the_server(task):
    must(task, settings={"work_mem": "9MB"})
    psql(task, "create table t as select 7 as x")
    assert psql(task, "show work_mem; show fsync") == "9MB\noff"
    settings = {"work_mem": "11MB", "fsync": True, "log_line_prefix": "it's \\%p "}
    for check in (True, False):
        result = must(task, check=check, settings=settings)
        assert result["changed"]
        assert result["actions"][0] == f"stop cluster {task['name']}, whose settings have changed"
    assert psql(task, "show work_mem; show fsync; show log_line_prefix") == "11MB\non\nit's \\%p"
    assert psql(task, "select x from t") == "7"
    assert not must(task, settings=settings)["changed"]


def test_a_changed_port_moves_the_server(task):
    must(task)
    psql(task, "create table t as select 7 as x")
    moved = {**task, "port": free_port()}
    assert must(moved)["changed"]
    assert psql(moved, "select x from t") == "7"
    assert "refused" in psql(task, "select 1")
    must(task)


def test_another_database_is_added(task):
    must(task)
    result = must(task, database="app")
    assert result["changed"]
    assert psql(task, "select current_database()", dbname="app") == "app"
    assert not must(task, database="app")["changed"]


def test_a_lost_or_changed_password_is_given_anew(task):
    must(task)
    old = secret(task)
    os.unlink(task["password_file"])
    assert must(task, check=True)["changed"]
    assert not os.path.exists(task["password_file"])
    assert must(task)["changed"]
    assert psql(task, "select 1") == "1"
    assert "password authentication failed" in psql(task, "select 1", password=old)
    pathlib.Path(task["password_file"]).write_text("rotated\n", encoding="ascii")
    assert must(task)["changed"]
    assert psql(task, "select 1", password="rotated") == "1"


# Refusing and failing


def test_the_cluster_of_another_owner_is_left_alone(task):
    must(task)
    for state in ("present", "absent"):
        for check in (True, False):
            refused = run(task, owner="test/other", state=state, check=check)
            assert refused["failure"] == "user"
            assert f"belongs to {task['owner']}, not to test/other" in refused["msg"]
    assert psql(task, "select 1") == "1"


def test_a_cluster_is_not_made_for_another_user(task):
    must(task)
    refused = run(task, user="app")
    assert refused["failure"] == "user"
    assert "made for user postgres, not for user app" in refused["msg"]


def test_a_port_that_somebody_has_is_told_before_anything_is_made(task):
    with socket.create_server(("127.0.0.1", task["port"])):
        for check in (True, False):
            failed = run(task, check=check)
            assert failed["failure"] == "environment"
            assert f"port {task['port']} of 127.0.0.1 is taken" in failed["msg"]
            assert "ss -ltnp" in failed["hint"]
        assert leftovers(task) == []
        assert not os.path.exists(task["password_file"])
    must(task)


def test_a_port_that_is_taken_meanwhile_is_told_too(task, monkeypatch):
    monkeypatch.setattr(_postgres, "check_port_is_free", lambda _address, _port: None)
    with socket.create_server(("127.0.0.1", task["port"])):
        failed = run(task, timeout=FOR_EVER)
        assert f"port {task['port']} of 127.0.0.1 is taken" in failed["msg"]
    assert must(task)["changed"]
    assert psql(task, "select 1") == "1"


def test_a_server_that_cannot_start_is_told_with_its_last_words(task):
    failed = run(task, settings={"max_connections": "plenty"}, timeout=FOR_EVER)
    assert failed["failure"] == "environment"
    assert 'invalid value for parameter "max_connections": "plenty"' in failed["msg"]
    assert str(folder_of(task) / "server.log") in failed["hint"]
    assert must(task)["changed"]
    assert psql(task, "select 1") == "1"


def test_a_server_that_dies_while_it_starts_is_told_at_once(task):
    must(task)
    kill_all(task)
    shutil.rmtree(folder_of(task) / "data" / "pg_wal")
    failed = run(task, timeout=FOR_EVER)
    assert "pg_wal" in failed["msg"]


def test_a_server_that_is_just_ending_is_started_again(task):
    for _number in range(5):
        must(task)
        ending = pid_of(task)
        os.kill(ending, signal.SIGINT)
        time.sleep(random.random() / 50)
        must(task)
        while ending in at_work(folder_of(task)):  # it may still have answered
            time.sleep(0.005)
        must(task)
        assert psql(task, "select 1") == "1"


def test_a_cluster_whose_data_are_gone_is_told_and_can_be_removed(task):
    must(task)
    kill_all(task)
    shutil.rmtree(folder_of(task) / "data")
    assert run(task)["failure"] == "environment"
    assert must(task, state="absent")["changed"]


# Secrets and strangers


def test_the_password_is_in_its_file_and_nowhere_else(task):
    made = must(task, settings={"log_statement": "all"})
    must(task, settings={"log_statement": "all"}, database="app")
    password = secret(task)
    assert os.stat(task["password_file"]).st_mode & 0o777 == 0o600
    assert password not in json.dumps(made)
    _clusters.Cluster(task["directory"], task["name"]).stop()
    for path in folder_of(task).rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path


def test_the_server_inherits_nothing_that_it_does_not_need(task, monkeypatch):
    monkeypatch.setenv("A_TOKEN", "of-the-caller")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    must(task)
    os.close(writer)
    server = pathlib.Path(f"/proc/{pid_of(task)}")
    assert b"of-the-caller" not in (server / "environ").read_bytes()
    assert os.getsid(pid_of(task)) == pid_of(task)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # the end: the server does not hold the other side
    os.close(reader)


def test_nobody_else_enters_by_the_socket(task):
    made = must(task)
    folder = pathlib.Path(made["cluster"]["socket_directory"])
    for place in (folder.parent, folder):
        about = place.stat()
        assert about.st_mode & 0o777 == 0o700
        assert about.st_uid == (folder_of(task) / "data").stat().st_uid


def test_a_folder_of_sockets_that_somebody_prepared_is_refused(task, monkeypatch, top):
    trap = top / f"trap-{secrets.token_hex(4)}"
    trap.mkdir()
    trap.chmod(0o777)
    monkeypatch.setattr(_clusters, "SOCKETS", str(trap))
    failed = run(task)
    assert failed["failure"] == "environment"
    assert "is not a private folder" in failed["msg"]
    trap.rmdir()


def test_a_deep_directory_is_no_trouble(top):
    task = parameters(top, directory=str(top / ("d" * 100) / ("e" * 100)))
    must(task)
    assert psql(task, "select 1") == "1"
    must(task, state="absent")
    assert_gone(task)


@pytest.mark.skipif(not ROOT, reason="only root can be somebody else")
def test_works_for_a_plain_user(top):
    nobody = pwd.getpwnam("nobody").pw_uid
    home = top / f"home-{secrets.token_hex(4)}"
    home.mkdir(mode=0o700)
    os.chown(home, nobody, nobody)
    task = parameters(top, directory=str(home / "clusters"), password_file=str(home / "secrets" / "p"))
    # The system user is for root; here there is none of that name, and nobody asks.
    made = outcome(fork(lambda: run(task, system_user="nobody-of-this-name"), nobody))
    assert made.get("changed"), made
    assert psql(task, "select current_setting('parallel_worktrees.database')") == task["name"]
    assert os.stat(f"/proc/{pid_of(task)}").st_uid == nobody
    assert outcome(fork(lambda: run(task), nobody))["changed"] is False
    assert outcome(fork(lambda: run(task, settings={"work_mem": "9MB"}), nobody))["changed"] is True
    assert psql(task, "show work_mem") == "9MB"
    assert outcome(fork(lambda: run(task, state="absent"), nobody))["changed"] is True
    assert leftovers(task) == []
    assert at_work(folder_of(task)) == []


@pytest.mark.skipif(not ROOT, reason="for root only")
def test_root_gives_the_server_to_the_system_user(task, top):
    must(task)
    assert os.stat(f"/proc/{pid_of(task)}").st_uid == pwd.getpwnam("postgres").pw_uid
    data = folder_of(task) / "data"
    assert {path.stat().st_uid for path in data.rglob("*")} == {pwd.getpwnam("postgres").pw_uid}
    assert (folder_of(task) / "cluster.json").stat().st_uid == 0
    refused = run(task, system_user="nobody")
    assert "made for system user postgres, not for system user nobody" in refused["msg"]
    assert "no system user 'nobody-of-this-name'" in run(task, system_user="nobody-of-this-name")["msg"]
    hidden = parameters(top, directory=str(top / f"hidden-{secrets.token_hex(4)}"))
    os.mkdir(hidden["directory"], 0o700)
    failed = run(hidden)
    assert failed["failure"] == "environment"
    assert f"see whether user postgres can write there: {hidden['directory']}" in failed["hint"]


# Many at once, and interrupted


def test_six_processes_give_the_same_cluster(task):
    results = [outcome(one) for one in [fork(lambda: run(task)) for _number in range(6)]]
    assert [result.get("msg") for result in results] == [None] * 6
    assert sorted(result["changed"] for result in results) == [False] * 5 + [True]
    assert psql(task, "select 1") == "1"


def test_six_processes_give_six_clusters_without_a_template(top):
    directory = str(top / f"fresh-{secrets.token_hex(4)}")
    tasks = [parameters(top, directory=directory) for _number in range(6)]
    forked = [fork(functools.partial(run, task)) for task in tasks]
    results = [outcome(one) for one in forked]
    assert [result.get("msg") for result in results] == [None] * 6
    assert [psql(task, "show parallel_worktrees.database") for task in tasks] == [task["name"] for task in tasks]
    assert len(os.listdir(os.path.join(directory, ".templates"))) == 1
    forked = [fork(functools.partial(run, task, state="absent")) for task in tasks]
    assert all(outcome(one)["changed"] for one in forked)
    assert sorted(os.listdir(directory)) == [".locks", ".templates"]


def test_present_and_absent_at_once_end_in_one_of_both(task):
    for _number in range(4):
        forked = [fork(functools.partial(run, task, state=state)) for state in ("present", "absent") * 3]
        for result in map(outcome, forked):
            assert "msg" not in result, result["msg"]
        if folder_of(task).exists():
            assert psql(task, "select 1") == "1"
        else:
            assert_gone(task)


@pytest.mark.parametrize("state", ["present", "absent"])
def test_killed_at_any_moment_it_goes_on_where_it_was(task, state):
    """The moments are spread evenly over the run, each with a bit of chance."""
    took = measured(task, state)
    for moment in range(KILLS):
        if state == "absent":
            must(task)
        kill_after(task, state, took * (moment + random.random()) / KILLS)
        must(task)
        assert leftovers(task) == [task["name"]]
        assert psql(task, "select current_setting('parallel_worktrees.database')") == task["name"]
        assert not must(task)["changed"]
        if state == "absent":
            kill_after(task, state, took * (moment + random.random()) / KILLS)
        must(task, state="absent")
        assert_gone(task)


def test_killed_while_the_template_is_made(top):
    for moment in range(5):
        task = parameters(top, directory=str(top / f"fresh-{secrets.token_hex(4)}"))
        kill_after(task, "present", 0.1 + 0.8 * (moment + random.random()) / 5)
        shelf = pathlib.Path(task["directory"], ".templates")
        held = is_locked(shelf)
        assert held or not at_work(shelf), "initdb goes on, and nobody need wait for it"
        must(task)
        assert psql(task, "select 1") == "1"
        must(task, state="absent")
        assert_gone(task)
        assert sorted(os.listdir(task["directory"])) == [".locks", ".templates"]
        assert len(os.listdir(os.path.join(task["directory"], ".templates"))) == 1


def is_locked(folder: pathlib.Path) -> bool:
    if not folder.exists():
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def measured(task: dict[str, t.Any], state: str) -> float:
    must(task)
    must(task, state="absent")
    if state == "absent":
        must(task)
    began = time.monotonic()
    must(task, state=state)
    took = time.monotonic() - began
    must(task, state="absent")
    return took


def kill_after(task: dict[str, t.Any], state: str, seconds: float) -> None:
    pid, answers = fork(lambda: run(task, state=state))
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    answers.close()
