# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks have planted in their databases, and administrators who come by: every verb, in every back end."""

from __future__ import annotations

import collections.abc as c
import os
import pathlib
import re
import typing as t

import pytest
from integration import branches, traps
from integration.servers import (
    Shared,
    docker,
    must,
    packaged,
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

from ansible_collections.parallel.worktrees.plugins.module_utils import _branches, _database_info
from ansible_collections.parallel.worktrees.plugins.module_utils._door import filled


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def server(pg_binaries):
    with reachable() as folder:
        yield shared_server(folder, pg_binaries, max_connections=60, max_prepared_transactions=5)


@pytest.fixture(scope="module")
def newest():
    with reachable() as folder:
        yield shared_server(folder, packaged(folder), max_connections=60)


@pytest.fixture
def log(server):
    return log_from_now(server)


def log_from_now(server: Shared) -> c.Callable[[], str]:
    path = pathlib.Path(server.parameters["directory"], server.parameters["name"], "server.log")
    start = len(path.read_text())
    return lambda: path.read_text()[start:]


def in_server(server: Shared, **more: t.Any) -> dict[str, t.Any]:
    task = task_parameters("shared", **more)
    task |= {"user": task["name"], "port": server.port, "shared": {"admin_password_file": server.password_file}}
    task["databases"] = [{"name": task["name"], "extensions": ["file_fdw"]}]
    return task


@pytest.mark.parametrize("kind", traps.SETTINGS)
def test_no_verb_runs_what_a_task_has_planted_in_a_shared_server(server, log, kind):
    task = recorded(in_server(server))
    role, facts = task["user"], must(task)["database"]
    psql(facts, "create table own (id int)")
    psql(facts, "begin; create table work (id int); prepare transaction 'left open'")
    assert psql(facts, traps.planted(role, role, traps.SETTINGS[kind])) == ""

    assert must(task)["changed"] is False
    task["databases"][0]["extensions"] = ["file_fdw", "pg_trgm"]
    assert run(task, check=True)["changed"]
    assert must(task)["changed"]
    assert [one["name"] for one in status()["tasks"]] == [task["name"]]
    looked = _database_info.operation(filled(_database_info.ARGUMENT_SPEC, {"databases": {"own": facts}}), check=False)
    assert (looked["databases"][0]["state"], looked["databases"][0]["tables"]) == ("running", 1)
    task["databases"][0]["extensions"] += ["pageinspect"]
    assert f"{role} has functions there" in refused(task, "user")
    prune(apply=True)
    must(task, state="absent")
    assert traps.sprung(log(), role) == []


HERE = "do $$ begin execute pg_catalog.format('alter database %I set search_path = public, pg_catalog', {}); end $$"
INDEXED = """
create table public.indexed (id int);
insert into public.indexed values (1);
create function public.index_of(int) returns bool immutable language sql as 'select public.trap()';
create index on public.indexed (public.index_of(id));
"""


def test_no_copy_of_a_golden_runs_what_is_planted_in_it(server, log, tmp_path):
    """By what the workspace runs there, such as the migrations of a dependency."""
    sql = tmp_path / "planted.sql"
    sql.write_text(f"{traps.planted('nobody', 'none', {})}; {INDEXED} {HERE.format('pg_catalog.current_database()')};")
    task = in_server(server)
    role = task["user"]
    task["databases"][0]["golden"] = {"folder": str(tmp_path), "files": [sql.name]}
    made = must(task)
    (golden,) = re.findall("build golden database (golden_[0-9a-f]+)", str(made["actions"]))
    assert must(task)["changed"] is False
    must(task, state="absent")
    assert traps.sprung(log(), role, golden) == []


@pytest.mark.parametrize("kind", traps.SETTINGS)
def test_no_pull_runs_what_is_planted_at_either_end(server, log, tmp_path, kind):
    """The URL of production has a superuser, and whoever owns the database there is none."""
    seller = f"seller_{kind}"
    server.psql(f"create role {seller} login password 'of the seller'")
    server.psql(f"create database sales_{kind} owner {seller}")
    planted = traps.planted(seller, f"sales_{kind}", traps.LURES)
    as_seller = {"PGUSER": seller, "PGPASSWORD": "of the seller"}
    sold = "create table public.sold (id int); insert into public.sold values (1)"
    server.psql(f"{sold}; {planted}", f"sales_{kind}", **as_seller)
    url = tmp_path / "url"
    url.write_text(f"postgresql://postgres:{read(server.password_file)}@127.0.0.1:{server.port}/sales_{kind}")
    task = in_server(server)
    role = task["user"]
    task["databases"] = [{"name": role, "pull": {"url_file": str(url), "tables": ["public.sold"]}}]
    facts = must(task)["database"]
    assert psql(facts, traps.planted(role, role, traps.SETTINGS[kind])) == ""
    assert must(task)["changed"] is False
    assert must(task, pull_again=True)["changed"]
    assert psql(facts, "select count(*) from public.sold") == "1"
    assert psql(facts, traps.planted(role, role, traps.SETTINGS[kind])) == ""
    must(task, state="absent")
    server.psql(f"drop database sales_{kind}")
    assert traps.sprung(log(), role, seller) == []


# Servers of the tasks' own, in which nobody has less rights than they


@pytest.fixture(params=["embedded", "container"])
def own(request):
    """A task with a server of its own, and what shows the server's log."""
    task = task_parameters(request.param)
    task["databases"] = [{"name": "work", "extensions": ["file_fdw"]}]
    if request.param == "container":
        request.getfixturevalue("docker_client")
        task["container"] = {"image": request.getfixturevalue("postgres_image"), "pull": "never"}
        task = recorded(task)
        yield task, lambda: docker("logs", task["name"])
        must(task, state="absent")
        return
    with reachable() as folder:
        task["embedded"] = {"directory": str(folder)}
        task = recorded(task)
        yield task, (folder / task["name"] / "server.log").read_text
        must(task, state="absent")


def test_a_container_stays_with_the_daemon_that_made_it(postgres_image, tmp_path, monkeypatch):
    """Which a variable of the caller may have named, and the run that removes it has another."""
    socket = tmp_path / "docker.sock"
    socket.symlink_to(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    task = task_parameters("container", container={"image": postgres_image, "pull": "never"})
    with monkeypatch.context() as caller:
        caller.setenv("DOCKER_HOST", f"unix://{socket}")
        plan = must(task, wait=False)["plan"]
    assert plan["container"]["docker_host"] == f"unix://{socket}"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/another.sock")
    gone = must({**task, **plan}, state="absent")
    assert f"remove container {task['name']}" in gone["actions"]
    assert task["name"] not in docker("--host", f"unix://{socket}", "ps", "--all")


def test_a_server_of_a_tasks_own_works_whatever_is_planted(own):
    task, log = own
    facts = must(task)["database"]
    user = facts["user"]
    everywhere = "; ".join(
        f"""alter role "{user}" set {name} = '{value}'""" for name, value in traps.OBSTACLES.items() if name != "role"
    )
    planted = traps.planted(user, "work", traps.LURES | {**traps.OBSTACLES, "role": "pg_monitor"})
    assert psql(facts, f"{planted}; {everywhere}") == ""
    assert must(task)["changed"] is False
    task["databases"] += [{"name": "more"}]
    task["databases"][0]["extensions"] += ["pageinspect"]
    assert must(task)["changed"]
    assert [one["name"] for one in status()["tasks"]] == [task["name"]]
    prune(apply=True)
    assert traps.sprung(log(), "psql") == []


LOG_OF_CHANGES = """
create table public.changes (what text);
create function public.note() returns event_trigger language plpgsql as $$
    begin insert into public.changes values (tg_tag); end $$;
create event trigger noted on ddl_command_start execute function public.note();
alter event trigger noted enable always;
"""
SPRINGING = """
create function public.on_insert() returns trigger language plpgsql as
    $$ begin perform public.trap(); return new; end $$;
create trigger sprung before insert on public.changes execute function public.on_insert();
alter table public.changes enable always trigger sprung
"""


LOG_OF_SESSIONS = "create event trigger entered on login execute function note(); "
LOG_OF_SESSIONS += "alter event trigger entered enable always"


@pytest.mark.parametrize("version", ["server", "newest"])
def test_an_event_trigger_does_not_run_what_a_task_has_put_behind_it(request, version):
    """It is an administrator's, it fires in every session, and its table is the task's by now."""
    server = request.getfixturevalue(version)
    log = log_from_now(server)
    server.psql("create database logging")
    server.psql(LOG_OF_CHANGES, "logging")
    if server.version >= 17:
        server.psql(LOG_OF_SESSIONS, "logging")
    task, heir = in_server(server), in_server(server)
    task["databases"][0] |= {"template": "logging", "extensions": []}
    facts, role = must(task)["database"], task["user"]
    assert psql(facts, f"{traps.trap(role)}; {SPRINGING}") == ""
    task["databases"][0]["extensions"] = ["pg_trgm"]
    must(task)
    heir["databases"][0] |= {"template": role, "extensions": []}
    must(heir)
    assert f"{heir['user']} has functions there" in refused(
        heir, "user", databases=[{**heir["databases"][0], "extensions": ["file_fdw"]}]
    )
    for one in (task, heir):
        must(one, state="absent")
    server.psql("drop database logging")
    assert traps.sprung(log(), role, heir["user"]) == []


# A DB host


@pytest.fixture(scope="module")
def host():
    with branches.db_host("btrfs", fill=branches.FILL + LOG_OF_CHANGES) as made:
        yield made


THROUGH_POOLER = ("local_preload_libraries", "statement_timeout")
"""Settings that keep a task out of its own branch, for a pooler takes no options."""


def test_no_verb_runs_what_a_task_has_planted_in_a_branch(host):
    """Nor in a branch of this branch, nor what an event trigger of production does."""
    host.must("a")
    settings = {name: value for name, value in traps.OBSTACLES.items() if name not in THROUGH_POOLER}
    settings["role"] = branches.OWNER_ROLE
    host.sql("a", f"{traps.planted('a', 'app', traps.LURES | settings)}; {SPRINGING}")
    host.sql("a", "set role a; create table public.mine (id int)")

    assert not host.must("a")["changed"]
    host.must("a", password="another")
    host.must("b", parent="a")
    host.must("c", parent="b")
    assert {"a", "b", "c"} <= host.info().keys()
    host.must("c", state="reset")
    _branches.sweep(host.host)
    _branches.up(host.host)
    owner = "set search_path = pg_catalog; select tableowner from pg_tables where tablename = 'mine'"
    assert host.sql("b", owner) == [branches.OWNER_ROLE]
    logs = "".join(path.read_text() for path in pathlib.Path(host.host.root).glob("branches/*/server.log*"))
    for name in ("c", "b", "a"):
        host.must(name, state="absent")
    assert traps.sprung(logs, "a", "b", "c") == []
