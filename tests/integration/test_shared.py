# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_database in a server that is there, and in the declared container of one; checked with docker and psql."""

from __future__ import annotations

import functools
import json
import os
import secrets
import typing as t

import pytest
from integration.servers import (
    docker,
    fork,
    kill_after,
    must,
    outcome,
    prune,
    psql,
    reachable,
    read,
    recorded,
    refused,
    run,
    shared_server,
    status,
    task_parameters,
)
from ports import free_port

NOTHING_DONE = {"changed": False, "actions": [], "diff": []}


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A state folder for each test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "parallel-worktrees"


@pytest.fixture(scope="module")
def server(pg_binaries):
    with reachable() as folder:
        yield shared_server(folder, pg_binaries, max_connections=60)


def in_server(server, **more: t.Any) -> dict[str, t.Any]:
    """The parameters of a new task with two databases in a server that is there."""
    task = task_parameters("shared", **more)
    task |= {"user": task["name"], "port": server.port, "shared": {"admin_password_file": server.password_file}}
    task["databases"] = [{"key": key, "name": f"{key}_{task['name']}"} for key in ("carlo", "world")]
    return task


@pytest.fixture
def task(server):
    given = in_server(server)
    yield given
    must(given, state="absent")
    assert given["name"] not in server.trace()


@pytest.fixture
def container(docker_client, postgres_image):  # noqa: ARG001 - it fails where Docker does not answer
    """A server's container and its volume as a workspace declares them, removed at the end."""
    name = f"shared-test-{secrets.token_hex(4)}"
    yield {"name": name, "image": postgres_image, "volume": name, "pull": "never"}
    docker("rm", "--force", "--volumes", name, f"{name}-other", check=False)
    docker("volume", "rm", "--force", name, check=False)


@pytest.fixture
def in_container(container):
    """Makes the parameters of tasks with a database each in the declared server."""
    port = free_port()

    def made(**more: t.Any) -> dict[str, t.Any]:
        task = task_parameters("shared", shared={"container": container}, **more)
        return {**task, "port": port, "user": task["name"], "databases": [{"name": task["name"]}]}

    return made


def there(name: str) -> tuple[bool, bool]:
    """Whether there is such a container, and such a volume."""
    containers = docker("ps", "--all", "--format", "{{.Names}}").split()
    return name in containers, name in docker("volume", "ls", "--quiet").split()


# A server that is there


def test_gives_databases_and_takes_them_back(server, task, state):
    before = server.trace()
    planned = must(task, check=True)
    assert (server.trace(), state.exists()) == (before, False)
    assert must(task, wait=False)["databases"] == planned["databases"]
    assert server.trace() == before

    made = must(task)
    assert made["actions"] == planned["actions"]
    assert made["database"] == made["databases"]["carlo"] == planned["databases"]["carlo"]
    assert psql(made["databases"]["world"], "select current_database()") == f"world_{task['name']}"
    assert made["plan"]["shared"]["admin_password_file"] == server.password_file
    for check in (True, False):
        again = must(task, check=check)
        assert {key: again[key] for key in NOTHING_DONE} == NOTHING_DONE
        assert again["databases"] == made["databases"]

    assert must(task, state="absent", check=True)["changed"]
    assert psql(made["database"], "select 1") == "1"
    assert must(task, state="absent")["changed"]
    assert server.trace() == before
    assert not os.path.exists(made["database"]["password_file"])
    assert not must(task, state="absent")["changed"]


def test_a_server_that_is_down_is_told(server, task):
    must(task)
    server.stop()
    try:
        for more in ({}, {"check": True}, {"state": "absent"}):
            assert "does not get into the server" in refused(task, "environment", **more)
    finally:
        server.start()
    assert not must(task)["changed"]


@pytest.mark.parametrize(
    ("databases", "words"),
    [
        ([{"name": "a"}, {"key": "b", "name": "a"}], "two databases have the name 'a'"),
        ([{"key": "k", "name": "a"}, {"key": "k", "name": "b"}], "two databases have the key 'k'"),
        ([{"name": "a"}, {"key": "a", "name": "b"}], "two databases have the key 'a'"),
    ],
)
@pytest.mark.parametrize("backend", ["shared", "embedded", "container"])
def test_databases_that_cannot_be_told_apart_are_refused(server, backend, databases, words):
    task = {**in_server(server), "backend": backend, "databases": databases}
    for check in (True, False):
        assert words in refused(task, "user", check=check)


# Status and prune


def test_status_sees_databases_and_orphans_and_prune_removes_those(server):
    task = recorded({**in_server(server), "user": "r" * 70})
    orphan = recorded(in_server(server), plan=False)
    try:
        seen = status()
        assert [one["database"]["state"] for one in seen["tasks"]] == ["running"]
        found = [(one["kind"], one["name"], one["owner"], one["ours"]) for one in seen["orphans"]]
        assert found == [("shared", orphan["name"], orphan["owner"], True)]

        trace = server.trace()
        assert [one["kind"] for one in prune()["leftovers"]] == ["shared"]
        assert server.trace() == trace
        assert prune(apply=True)["changed"]
        assert orphan["name"] not in server.trace()
        assert psql(must(task)["database"], "select 1") == "1"
        assert not prune(apply=True)["changed"]

        server.psql(f'drop database "{must(task)["database"]["name"]}"')
        seen = status()
        assert [one["database"]["state"] for one in seen["tasks"]] == ["incomplete"]
        assert seen["tasks"][0]["drift"][0] == f"database {must(task, check=True)['database']['name']} is missing"

        server.stop()
        try:
            seen = status()
        finally:
            server.start()
        assert [one["database"]["state"] for one in seen["tasks"]] == ["unknown"]
        assert "is unknown: user postgres does not get into the server" in seen["tasks"][0]["drift"][0]
    finally:
        must(task, state="absent")
        must(orphan, state="absent")


def test_prune_looks_into_the_server_that_the_workspace_names(server):
    """Where no task is registered that is in it."""
    orphan = recorded(in_server(server), plan=False)
    about = {"address": "127.0.0.1", "port": server.port, "container": None, "admin_user": "postgres"}
    named = {**about, "admin_password_file": server.password_file, "maintenance_database": "postgres"}
    assert prune()["leftovers"] == []
    assert [one["name"] for one in prune(backend="shared", shared=named)["leftovers"]] == [orphan["name"]]
    assert prune(backend="shared", shared=named, apply=True)["changed"]
    assert orphan["name"] not in server.trace()


# A declared container


def test_whoever_comes_first_starts_it_and_it_stays(in_container, container, state):
    tasks = [in_container() for _number in range(6)]
    name = container["name"]
    planned = must(tasks[0], check=True)
    assert (there(name), state.exists()) == ((False, False), False)

    made = [outcome(one) for one in [fork(functools.partial(run, task)) for task in tasks]]
    assert not [one["msg"] for one in made if one.get("failed")]
    starts = [one for one in made if f"create and start container {name}" in one["actions"]]
    assert len(starts) == 1
    assert planned["database"] == made[0]["database"]
    for one in made:
        assert psql(one["database"], "select current_user = current_database()") == "t"
        assert psql(one["database"], "show fsync; show full_page_writes; show synchronous_commit") == "on\non\non"

    password = read(str(state / "servers" / name))
    assert os.stat(state / "servers" / name).st_mode & 0o777 == 0o600
    told = docker("inspect", name) + docker("image", "history", "--no-trunc", container["image"])
    assert password not in told + json.dumps(made)
    assert docker("exec", name, "cat", "/opt/parallel-worktrees/first-password") == ""
    assert not [one for one in made if read(one["database"]["password_file"]) in told + json.dumps(made)]

    started = docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name)
    for check in (True, False):
        again = must(tasks[0], check=check)
        assert {key: again[key] for key in NOTHING_DONE} == NOTHING_DONE
    for task in tasks:
        must(task, state="absent")
    assert docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name) == started
    assert not os.path.exists(made[0]["database"]["password_file"])


def test_a_stopped_or_removed_one_comes_back_with_its_data(in_container, container):
    task, name = in_container(), container["name"]
    made = must(task)["database"]
    assert psql(made, "create table kept as select 7 as n") == ""
    for command, action in (("stop", "start"), ("kill", "start"), ("rm --force", "create and start")):
        docker(*command.split(), name)
        actions = [f"{action} container {name}"]
        assert must(task, check=True)["actions"][:1] == actions
        assert must(task)["actions"] == actions
        assert psql(made, "select n from kept") == "7"
    docker("rm", "--force", name)
    gone = must(task, state="absent")  # the data are there, so the server is needed
    assert gone["actions"][:2] == [f"create and start container {name}", f"drop database {task['name']}"]
    roles = ("exec", "--user", "postgres", name, "psql", "-Atc", "select rolname from pg_roles where rolname ~ '^task'")
    assert docker(*roles) == ""


def test_what_started_is_waited_for_later(in_container):
    first, second = in_container(), in_container()
    started = must(first, wait=False)
    assert started["changed"]
    assert os.path.exists(started["database"]["password_file"])
    assert must(second, check=True, wait=False)["changed"]  # while the server is coming up
    waited = must(first)
    assert waited["changed"]
    assert waited["database"] == started["database"]
    assert psql(waited["database"], "select 1") == "1"
    assert not must(first)["changed"]
    must(second)


@pytest.mark.parametrize("seconds", [0.2, 0.8, 1.3])
def test_killed_during_the_first_start_it_converges(in_container, container, seconds):
    task = in_container()
    kill_after(seconds, task)
    if seconds == 0.8:  # what a person may do on seeing it
        docker("rm", "--force", container["name"], check=False)
    assert psql(must(task)["database"], "select 1") == "1"
    assert not must(task)["changed"]


def test_what_is_not_as_declared_is_refused(in_container, container, state):
    task, name = in_container(), container["name"]
    for lacking in ("image", "volume"):
        said = refused(task, "user", check=True, shared={"container": {**container, lacking: None}})
        assert f"needs {lacking}" in said

    docker("create", "--name", name, container["image"])
    for check in (True, False):
        assert "is not one of ours" in refused(task, "user", check=check)
    docker("rm", "--volumes", name)

    docker("volume", "create", name)
    for check in (True, False):
        assert "is not there to tell the password" in refused(task, "environment", check=check)
    docker("run", "--detach", "--name", f"{name}-other", "--volume", f"{name}:/data", container["image"], "sleep", "60")
    for check in (True, False):
        assert f"is in use by container {name}-other" in refused(task, "user", check=check)
    docker("rm", "--force", "--volumes", f"{name}-other")
    docker("volume", "rm", name)

    must(task)
    other = {"container": {**container, "volume": f"{name}-other"}}
    for check in (True, False):
        assert "volume is" in refused(task, "user", check=check, shared=other)
    assert there(f"{name}-other") == (False, False)
    os.rename(state / "servers" / name, state / "kept")
    assert "is not there to tell it" in refused(task, "environment", check=True)
    os.rename(state / "kept", state / "servers" / name)
    must(task, state="absent")


def test_absent_where_the_server_is_gone(in_container, container):
    task, name = in_container(), container["name"]
    path = must(task)["database"]["password_file"]
    docker("rm", "--force", "--volumes", name)
    docker("volume", "rm", name)
    assert must(task, state="absent", check=True)["actions"] == [f"remove {path}"]
    assert must(task, state="absent")["changed"]
    assert not os.path.exists(path)
    assert there(name) == (False, False)
    for check in (True, False):
        assert not must(task, state="absent", check=check)["changed"]
