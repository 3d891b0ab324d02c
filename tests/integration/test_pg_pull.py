# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's database that is pulled from another server, on every back end that does it its own way; told by psql."""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import json
import os
import pathlib
import re
import signal
import threading
import time
import typing as t

import psycopg2
import pytest
from integration.servers import (
    MISLEADING,
    Shared,
    fork,
    must,
    outcome,
    packaged,
    psql,
    reachable,
    read,
    refused,
    run,
    shared_server,
    task_parameters,
)
from ports import free_port

from ansible_collections.parallel.worktrees.plugins.module_utils import _pg_programs, _postgres, _progress

USER, PASSWORD = "the_reader", "p:a\\ss w@rd/'1"
LOCAL = 7
KILLS = 4
BUSY = 20

DATA = """
create schema app; create extension pg_trgm schema app; create type app.mood as enum ('good', 'bad');
create table app.person (id serial primary key, email text unique, mood app.mood default 'good');
create index on app.person using gin (email app.gin_trgm_ops);
create view app.shown as select * from app.person;
create table app.log (line text); create table app.audit (line text); create table public.small (x int primary key);
insert into app.person (email) select 'person' || n || '@example.com' from generate_series(1, 200) n;
insert into app.log select repeat('x', 100) from generate_series(1, 5000);
insert into app.audit values ('one'); insert into small values (1);
grant usage on schema app to the_reader; grant select on all tables in schema app, public to the_reader;
grant select on all sequences in schema app, public to the_reader;
"""
MASK = "update app.person set email = 'masked' || id;"
EMAILS = "select count(*) filter (where email ~ '^masked'), count(*) from app.person"


# A production server, and a task


@pytest.fixture(scope="module")
def production(pg_binaries) -> c.Iterator[Shared]:
    with reachable() as folder:
        server = shared_server(folder, pg_binaries, max_connections=40)
        with contextlib.closing(administrator(server, "postgres")) as connection, connection.cursor() as cursor:
            cursor.execute("create role the_reader login password %s", (PASSWORD,))
        server.psql("create database carlo")
        server.psql(DATA, "carlo")
        server.psql("vacuum analyze", "carlo")
        yield server


@pytest.fixture(scope="module")
def server(pg_binaries) -> c.Iterator[Shared]:
    with reachable() as folder:
        yield shared_server(folder, pg_binaries, max_connections=60, max_prepared_transactions=5)


@pytest.fixture(scope="module")
def newest() -> c.Iterator[Shared]:
    """A server of the newest PostgreSQL that there is, which takes what an older one dumps."""
    with reachable() as folder:
        yield shared_server(folder, packaged(folder), max_connections=60, max_prepared_transactions=5)


def administrator(server: Shared, database: str) -> t.Any:
    address = _postgres.Address("127.0.0.1", server.port, "postgres", database)
    return _postgres.connect_plainly(address, read(server.password_file))


@pytest.fixture
def url(production, monkeypatch) -> str:
    """Its URL, which the environment has as well."""
    encoded = "".join(f"%{byte:02x}" for byte in PASSWORD.encode())
    text = f"postgresql://{USER}:{encoded}@127.0.0.1:{production.port}/carlo"
    monkeypatch.setenv("PRODUCTION_URL", text)
    monkeypatch.setenv("PGPASSWORD", "the password of something else")
    return text


@pytest.fixture(params=["shared", "shared by the newest", "embedded"])
def task(request, tmp_path, monkeypatch, url):  # noqa: ARG001 - the environment has it
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    backend = request.param.partition(" ")[0]
    given = task_parameters(backend)
    if backend == "shared":
        server = request.getfixturevalue("server" if backend == request.param else "newest")
        monkeypatch.setenv("PATH", f"{server.programs}:{os.environ['PATH']}")  # psql is as new as the server
        given |= {"user": given["name"], "port": server.port, "shared": {"admin_password_file": server.password_file}}
        yield asking(given)
        must(given, state="absent")
        assert given["name"] not in server.trace()
    else:
        with reachable() as folder:
            given["embedded"] = {"directory": str(folder)}
            yield asking(given)
            must(given, state="absent")
    assert not list((tmp_path / "state").glob("**/secrets/**/database*"))


on = functools.partial(pytest.mark.parametrize, "task", indirect=True)


def asking(given: dict[str, t.Any], **pull: t.Any) -> dict[str, t.Any]:
    """A task whose only database is pulled, from the URL in the environment unless another way is given."""
    if not any(key.startswith("url_") for key in pull):
        pull["url_variable"] = "PRODUCTION_URL"
    given["databases"] = [{"name": f"carlo_{given['name']}", "pull": pull}]
    return given


def name_of(task: dict[str, t.Any]) -> str:
    return t.cast("str", task["databases"][0]["name"])


def script(folder: pathlib.Path, text: str) -> str:
    path = folder / "mask.sql"
    path.write_text(text, encoding="utf-8")
    return str(path)


def databases(facts: dict[str, t.Any], task: dict[str, t.Any]) -> list[str]:
    """All that there are for a task, half-made ones included."""
    about = {**facts, "url": facts["url"].rpartition("/")[0] + "/postgres"}
    return psql(about, f"select datname from pg_database where datname ~ '{task['name']}' order by 1").splitlines()


def sizes(facts: dict[str, t.Any]) -> str:
    return psql(facts, "select (select count(*) from app.person), (select count(*) from app.log)")


def assert_silent(url: str, *told: t.Any) -> None:
    text = json.dumps(told)
    for secret in (url, PASSWORD, json.dumps(PASSWORD)[1:-1], url.partition("://")[2].partition("@")[0], USER):
        assert secret not in text


# Pulled once


@pytest.mark.parametrize(
    ("task", "way"),
    [("shared", "variable"), ("shared", "file"), ("shared", "command"), ("embedded", "variable")],
    indirect=["task"],
)
def test_pulls_what_a_url_tells_and_never_again(task, production, url, tmp_path, way):
    (tmp_path / "url").write_text(url + "\n", encoding="utf-8")
    given = {"variable": "PRODUCTION_URL", "file": str(tmp_path / "url"), "command": f"cat {tmp_path}/url"}
    asking(task, **{f"url_{way}": given[way]})
    planned = must(task, check=True)
    made = must(task)
    assert made["actions"][-1] == planned["actions"][-1]
    where = f"127.0.0.1:{production.port}/carlo"
    assert made["actions"][-1].startswith("pull 4 tables, ")
    assert made["actions"][-1].endswith(f" kB, from {where} into database {name_of(task)}")
    facts = made["database"]
    assert sizes(facts) == "200|5000"
    assert (
        psql(facts, "alter table app.person add z int; select tableowner from pg_tables where tablename = 'log'")
        == (facts["user"])
    )
    assert databases(facts, task) == [name_of(task)]
    assert_silent(url, planned, made)

    psql(facts, f"delete from app.person where id > {LOCAL}")
    production.psql("revoke connect on database carlo from public")  # what is complete needs no source
    try:
        for check in (True, False):
            again = must(task, check=check)
            assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
    finally:
        production.psql("grant connect on database carlo to public")
    assert sizes(facts) == f"{LOCAL}|5000"


@on(["shared", "embedded"])
def test_how_far_it_is_is_told(task, production, url, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(_progress, "SECONDS", 0.001)
    monkeypatch.setattr(_progress, "_tell", lines.append)
    must(task)
    begin = f"pull from 127.0.0.1:{production.port}/carlo: "
    told = [re.sub(r"[0-9.]+ (bytes|kB|MB)", "SIZE", line.removeprefix(begin)) for line in lines]
    assert {*told} <= {*(f"table {n} of 4, SIZE packed" for n in range(5)), "restored SIZE, with SIZE of tables"}
    assert "restored SIZE, with SIZE of tables" in told
    assert any(line.startswith("table ") for line in told)
    assert_silent(url, lines)


def test_what_is_empty_is_pulled_and_what_is_not_is_left(task, production):
    pull = task["databases"][0].pop("pull")
    task["databases"][0]["extensions"] = ["pg_stat_statements"]
    facts = must(task)["database"]
    assert not must(task)["changed"]
    task["databases"][0]["pull"] = pull
    planned = must(task, check=True)
    made = must(task)
    assert planned["actions"] == made["actions"]
    assert sizes(facts) == "200|5000"
    psql(facts, "drop schema app cascade; drop table small; create type mine as (x int)")
    assert not must(task)["changed"]
    psql(facts, "drop type mine")
    production.psql("create database nothing owner the_reader")
    try:  # where there is nothing to pull, it is not tried for ever
        task["databases"][0]["pull"] = {"url_command": 'echo "${PRODUCTION_URL%/carlo}/nothing"'}
        assert not must(task)["changed"]
    finally:
        production.psql("drop database nothing")
    task["databases"][0]["pull"] = pull
    must(task)
    assert sizes(facts) == "200|5000"
    assert databases(facts, task) == [name_of(task)]


@on(["embedded"])
def test_a_database_that_a_person_has_closed_keeps_its_data(task):
    facts = must(task)["database"]
    psql(facts, f"delete from app.person where id > {LOCAL}")
    psql(facts, f'alter database "{name_of(task)}" connection limit 0')
    assert not must(task)["changed"]
    assert sizes(facts) == f"{LOCAL}|5000"


@on(["shared", "embedded"])
def test_variables_of_the_caller_lead_nowhere_else(task, tmp_path, monkeypatch):
    """Neither a connection nor a program: pg_dump, pg_restore, psql, initdb."""
    asking(task, mask=script(tmp_path, MASK))
    with monkeypatch.context() as elsewhere:
        for name, value in MISLEADING.items():
            elsewhere.setenv(name, value)
        facts = must(task)["database"]
        assert not must(task)["changed"]
    assert psql(facts, EMAILS) == "200|200"


@on(["shared"])
@pytest.mark.parametrize(
    ("filters", "tables", "counts"),
    [
        ({"tables": ["app.l*", "small"]}, "app.log, small", "log 5000, small 1"),
        ({"exclude_tables": ["app.log", "*.audit"]}, "app.person, small", "person 200, small 1"),
        ({"exclude_data": ["app.log", "app.audit"]}, "app.audit, app.log, app.person, small", "log 0, small 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_filters_tables(task, filters, tables, counts):
    made = must(asking(task, **filters))
    facts = made["database"]
    there = "select string_agg(oid::regclass::text, ', ' order by oid::regclass::text) from pg_class"
    assert psql(facts, f"{there} where relkind = 'r' and oid > 16384 and relnamespace > 99") == tables
    assert "pull 2 tables, " in made["actions"][-1]
    for pair in counts.split(", "):
        table, count = pair.split()
        name = table if table == "small" else f"app.{table}"
        assert psql(facts, f"select count(*) from {name}") == count


def held(folder: pathlib.Path, then: str = MASK) -> str:
    """A mask that waits for the file ``go``, with all of the data there, and tells by another that it does."""
    waits = f"touch {folder}/masking; while [ ! -e {folder}/go ]; do sleep 0.02; done"
    return script(folder, f"\\! {waits}\n{then}")


@contextlib.contextmanager
def masking(folder: pathlib.Path, task: dict[str, t.Any], **more: t.Any) -> c.Iterator[list[t.Any]]:
    """While a run is at its mask; in the end there is what it answered."""
    forked, answers = fork(functools.partial(run, task, **more)), list[t.Any]()
    try:
        wait_for(folder / "masking")
        yield answers
    finally:
        (folder / "go").touch()
        answers.append(outcome(forked))


def wait_for(path: pathlib.Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_nobody_sees_what_is_not_masked_yet(task, tmp_path):
    name, other = name_of(task), f"other_{task['name']}"
    given = task["databases"]
    facts = must(task, databases=[{"name": other}])["database"]
    task["databases"] = [*given, {"name": other}]
    mask = given[0]["pull"]["mask"] = held(tmp_path)

    def seen(database: str) -> str:
        place = facts["url"].rpartition("/")[0]
        return psql({**facts, "url": f"{place}/{database.replace(' ', '%20')}"}, "select 1")

    with masking(tmp_path, task) as answers:
        assert f'database "{name}" does not exist' in seen(name)
        if task["backend"] == "shared":
            assert f'permission denied for database "{name} (pulled)"' in seen(f"{name} (pulled)")
        assert not list((tmp_path / "state").glob("**/*.pull"))
    made = answers[0]
    assert f"into database {name}, masked by {mask}" in made["actions"][-1]
    assert psql(made["database"], EMAILS) == "200|200"
    assert databases(made["database"], task) == [name, other]


@on(["shared"])
def test_secrets_are_in_no_argument_and_no_log(task, server, url, tmp_path):
    server.psql("alter system set log_statement = 'all'")
    server.psql("select pg_reload_conf()")
    stop, seen = threading.Event(), set[str]()

    def look() -> None:
        while not stop.is_set():
            for place in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(place.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        made = must(asking(task, mask=script(tmp_path, "select pg_sleep(0.2)")))
    finally:
        stop.set()
        looking.join()
        server.psql("alter system reset all")
        server.psql("select pg_reload_conf()")
    ours = [line for line in seen if "pg_dump" in line or "pg_restore" in line or "psql" in line]
    assert any("pg_dump" in line and "dbname=carlo" in line for line in ours)
    assert any("mask.sql" in line for line in ours)
    log = pathlib.Path(server.parameters["directory"], "server", "server.log").read_text("utf-8")
    assert name_of(task) in log
    assert_silent(url, ours, log, made)


# Pulled again


def test_pulled_again_comes_in_the_place_of_what_is_there(task):
    facts = must(task)["database"]
    assert not must(task)["changed"]
    psql(facts, f"delete from app.person where id > {LOCAL}")
    with_password = facts["url"].replace(facts["password"], read(facts["password_file"]))
    if task["backend"] == "shared":
        psql(facts, "begin; delete from small; prepare transaction 'left'")
    stop, entered = threading.Event(), [0]

    def come_in() -> None:
        while not stop.is_set():
            with contextlib.suppress(psycopg2.Error), contextlib.closing(psycopg2.connect(with_password)) as session:
                entered[0] += 1
                while not stop.is_set():
                    session.cursor().execute("select 1")
                    time.sleep(0.05)

    busy = [threading.Thread(target=come_in) for _number in range(BUSY)]
    for one in busy:
        one.start()
    try:
        planned = must(task, pull_again=True, check=True)
        assert sizes(facts) == f"{LOCAL}|5000"
        made = must(task, pull_again=True)
    finally:
        stop.set()
        for one in busy:
            one.join()
    name = name_of(task)
    told = [f"put it in the place of database {name}", f"drop database {name} (pulled), which it was until now"]
    assert made["changed"]
    assert made["actions"] == planned["actions"]
    assert made["actions"][-2:] == told
    assert entered[0] > BUSY
    assert sizes(facts) == "200|5000"
    assert databases(facts, task) == [name]
    assert not must(task)["changed"]


@pytest.mark.parametrize("broken", ["mask", "source", "killed"])
def test_a_pull_that_breaks_leaves_what_was_there(task, production, url, tmp_path, broken):
    facts = must(task)["database"]
    psql(facts, f"delete from app.person where id > {LOCAL}")
    name, before = name_of(task), databases(facts, task)
    if broken == "mask":
        asking(task, mask=script(tmp_path, f"{MASK} insert into app.person (id, email) values (1, 'p'); nonsense;"))
        message = refused(task, "environment", pull_again=True)
        assert "mask.sql" in message
        assert "duplicate key" in message
        assert "DETAIL" not in message
        assert_silent(url, message)
    elif broken == "source":
        with end_of_dumps(production):
            message = refused(task, "environment", pull_again=True)
        assert f"cannot dump 127.0.0.1:{production.port}/carlo" in message
        assert_silent(url, message)
    else:
        asking(task, mask=held(tmp_path))
        pid, answers = fork(functools.partial(run, task, pull_again=True))
        wait_for(tmp_path / "masking")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        answers.close()
        (tmp_path / "go").touch()
        assert sizes(facts) == f"{LOCAL}|5000"
        asking(task)
        again = must(task)
        assert f"drop database {name} (pulled), which is half made" in again["actions"]
        assert again["changed"]
    assert databases(facts, task) == before
    assert not must(task)["changed"]
    assert sizes(facts) == f"{LOCAL}|5000"
    assert not list((tmp_path / "state").glob("**/*.pull"))
    must(asking(task), pull_again=True)
    assert sizes(facts) == "200|5000"


@contextlib.contextmanager
def end_of_dumps(production: Shared) -> c.Iterator[None]:
    """The source ends a session of pg_dump when it is at the data: its second one."""
    stop = threading.Event()

    def end() -> None:
        copying = "pid in (select pid from pg_stat_activity where query ~ '^COPY')"
        with contextlib.closing(administrator(production, "postgres")) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {copying}")

    production.psql("insert into app.log select repeat('y', 1000) from generate_series(1, 30000)", "carlo")
    ending = threading.Thread(target=end)
    ending.start()
    try:
        yield
    finally:
        stop.set()
        ending.join()
        production.psql("delete from app.log where line ~ '^y'", "carlo")
        production.psql("vacuum full app.log", "carlo")


@pytest.mark.parametrize(
    ("task", "again"), [("shared", False), ("shared", True), ("embedded", True)], indirect=["task"]
)
def test_killed_at_any_moment_it_goes_on_where_it_was(task, server, tmp_path, again):
    """The moments are spread evenly over the run."""
    asking(task, mask=script(tmp_path, MASK))
    must(task)
    began = time.monotonic()
    facts = must(task, pull_again=True)["database"]
    took = time.monotonic() - began
    for moment in range(KILLS):
        if not again:
            must(task, state="absent")
        pid, answers = fork(functools.partial(run, task, pull_again=again))
        time.sleep(took * (moment + 0.5) / KILLS)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        answers.close()
        if moment % 2 and not again:
            must(task, state="absent")
            assert task["name"] not in server.trace()
        must(task)
        assert psql(facts, EMAILS) == "200|200"
        assert databases(facts, task) == [name_of(task)]
        assert not must(task)["changed"]
        assert not list((tmp_path / "state").glob("**/*.pull"))


# What cannot be pulled


@on(["shared"])
def test_what_cannot_be_pulled_is_told_before_anything_is_made(task, server, production, url, tmp_path, monkeypatch):
    before = server.trace()
    place = f"127.0.0.1:{production.port}"
    texts = {
        "WRONG_PASSWORD": f"postgresql://{USER}:{PASSWORD[:3]}zzz@{place}/carlo",
        "NO_SUCH_USER": f"postgresql://somebody_else:secret_word@{place}/carlo",
        "NO_SUCH_DATABASE": url.replace("/carlo", "/nowhere"),
        "NOBODY_THERE": url.replace(str(production.port), str(free_port())),
        "NOT_ENCODED": f"postgresql://{USER}:{PASSWORD}@{place}/carlo",
        "NO_URL": "mysql://a:secret_word@b/c",
        "EMPTY": "  ",
    }
    for key, text in texts.items():
        monkeypatch.setenv(key, text)
    failing = "echo postgresql://a:secret_word@b/c; echo got postgresql://a:secret_word@b/c >&2; exit 3"
    for kind, pull, words in (
        ("environment", {"url_variable": "WRONG_PASSWORD"}, 'password authentication failed for user "********"'),
        ("environment", {"url_variable": "NO_SUCH_USER"}, "the environment variable NO_SUCH_USER does not let us in"),
        ("environment", {"url_variable": "NO_SUCH_DATABASE"}, 'database "nowhere" does not exist'),
        ("environment", {"url_variable": "NOBODY_THERE"}, "Connection refused"),
        ("user", {"url_variable": "NOT_ENCODED"}, "variable NOT_ENCODED is no URL"),
        ("user", {"url_variable": "NO_URL"}, "variable NO_URL is no URL"),
        ("user", {"url_variable": "EMPTY"}, "no URL in the environment variable EMPTY"),
        ("user", {"url_variable": "NOT_SET"}, "no URL in the environment variable NOT_SET"),
        ("user", {"url_file": "/nowhere/url"}, "cannot read the file /nowhere/url: No such file"),
        ("environment", {"url_command": failing}, "ended with 3: got postgresql://********@b/c"),
        ("user", {"mask": str(tmp_path / "nowhere.sql")}, "cannot read mask nowhere.sql: No such file"),
        ("user", {"jobs": 0}, "jobs is 0, and has to be 1 or more"),
        ("user", {"tables": ["app.persons"]}, "tables has the pattern 'app.persons', which matches no table of"),
    ):
        asking(task, **pull)
        for check in (True, False):
            message = refused(task, kind, check=check)
            assert words in message
            assert_silent(url, message)
            assert failing == pull.get("url_command") or "secret_word" not in message
    asking(task)["databases"][0]["dump"] = "/nowhere"
    assert "begins with a pull or with a dump, not with both" in refused(task, "user")
    assert server.trace() == before
    asking(task)


@on(["shared"])
def test_a_pg_dump_that_is_too_old_is_told_at_once(task, server, production, tmp_path, monkeypatch):
    before = server.trace()
    monkeypatch.setattr(_pg_programs.glob, "glob", lambda _pattern: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pg_dump is not on this machine" in refused(task, "environment")
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 11.22'\n", encoding="ascii")
    old.chmod(0o755)
    where = f"127.0.0.1:{production.port}/carlo"
    for check in (True, False):
        message = refused(task, "environment", check=check)
        assert f"pg_dump 11 is older than {where}, which is PostgreSQL {production.version}" in message
        assert f"apt install postgresql-client-{production.version}" in message
    assert server.trace() == before


@on(["shared"])
def test_extensions_that_only_a_superuser_makes_are_told_at_once(task, production, server):
    before = server.trace()
    production.psql("create extension file_fdw", "carlo")
    try:
        for check in (True, False):
            assert "extensions that only a superuser can make: file_fdw" in refused(task, "user", check=check)
        assert server.trace() == before
        task["databases"][0]["extensions"] = ["file_fdw"]
        assert sizes(must(task)["database"]) == "200|5000"
    finally:
        production.psql("drop extension file_fdw", "carlo")


def test_what_was_closed_to_be_replaced_is_opened_again(task):
    task["databases"][0]["extensions"] = ["hstore"]
    facts = must(task)["database"]
    about = {**facts, "url": facts["url"].rpartition("/")[0] + "/postgres"}
    psql(about, f"alter database {name_of(task)} allow_connections false")
    for check in (True, False):
        assert must(task, check=check)["changed"]
    assert sizes(facts) == "200|5000"
    assert not must(task)["changed"]


@on(["shared"])
def test_an_admin_needs_no_more_than_he_uses(task, server, tmp_path):
    admin = f"admin_{task['name']}"
    server.psql(f"create role {admin} login createdb createrole password '{read(server.password_file)}'")
    task["shared"]["admin_user"] = admin
    asking(task, mask=script(tmp_path, MASK))["databases"][0]["extensions"] = ["hstore"]
    for again in (False, True):
        facts = must(task, pull_again=again)["database"]
        assert psql(facts, EMAILS) == "200|200"
        assert not must(task)["changed"]
        assert databases(facts, task) == [name_of(task)]
        access = f"select datacl::text ~ 'admin|pulling' from pg_database where datname = '{name_of(task)}'"
        assert server.psql(access) == "f"
    must(task, state="absent")
    del task["shared"]["admin_user"]
    server.psql(f"drop role {admin}")
