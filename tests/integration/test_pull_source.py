# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pull selects of its source, and what it refuses before the long work begins."""

from __future__ import annotations

import collections.abc as c
import os
import typing as t

import pytest
from integration.servers import (
    Shared,
    must,
    packaged,
    psql,
    reachable,
    read,
    refused,
    shared_server,
    task_parameters,
)

DATA = """
create schema app;
create table audit_log (line text); insert into audit_log values ('public');
create table app.audit_log (line text); insert into app.audit_log values ('app');
create table app."Log" (line text); insert into app."Log" values ('log');
create table app.event (n int, line text) partition by list (n);
create table app.event_1 partition of app.event for values in (1);
create table app.event_2 partition of app.event for values in (2) partition by list (line);
create table app.event_2a partition of app.event_2 default;
insert into app.event values (1, 'one'), (2, 'two');
create table app.base (n int); insert into app.base values (1);
create table app.more (m int) inherits (app.base); insert into app.more values (2, 2);
create view app.shown as select * from app.base;
create table app.owned (n int, who text); insert into app.owned values (1, 'web');
"""
COUNTS = """
select string_agg(format('%s %s', oid::regclass, (xpath('//c/text()', query_to_xml(
    format('select count(*) as c from only %s', oid::regclass), false, true, '')))[1]), ', ')
from pg_class where relkind = 'r' and oid > 16384 and relnamespace > 99
"""
ALL = {
    'app."Log"': 1,
    "app.audit_log": 1,
    "app.base": 1,
    "app.event_1": 1,
    "app.event_2a": 1,
    "app.more": 1,
    "app.owned": 1,
    "audit_log": 1,
}


@pytest.fixture(scope="module")
def production(pg_binaries) -> c.Iterator[Shared]:
    with reachable() as folder:
        server = shared_server(folder, pg_binaries)
        server.psql("create database shop; ")
        server.psql(DATA, "shop")
        server.psql("create role reader login password 'reader'; alter role reader set statement_timeout = '5s'")
        server.psql("alter role reader set idle_in_transaction_session_timeout = '20ms'")
        grants = "grant usage on schema {0} to reader; grant select on all tables in schema {0} to reader"
        server.psql("; ".join(grants.format(schema) for schema in ("public", "app")), "shop")
        yield server


@pytest.fixture(scope="module")
def server(pg_binaries) -> c.Iterator[Shared]:
    with reachable() as folder:
        yield shared_server(folder, pg_binaries, max_connections=60)


@pytest.fixture
def task(request, tmp_path, monkeypatch, production) -> c.Iterator[dict[str, t.Any]]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    password = read(production.password_file)
    monkeypatch.setenv("SHOP_URL", f"postgresql://postgres:{password}@127.0.0.1:{production.port}/shop")
    monkeypatch.setenv("READER_URL", f"postgresql://reader:reader@127.0.0.1:{production.port}/shop")
    backend = getattr(request, "param", "shared")
    given = task_parameters(backend)
    given["databases"] = [{"name": f"shop_{given['name']}", "pull": {"url_variable": "SHOP_URL"}}]
    with reachable() as folder:
        if backend == "shared":
            own = request.getfixturevalue("server")
            given |= {"user": given["name"], "port": own.port, "shared": {"admin_password_file": own.password_file}}
        else:
            given["embedded"] = {"directory": str(folder)}
        yield given
        must(given, state="absent")


def pulling(task: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    task["databases"][0]["pull"] = {"url_variable": "SHOP_URL", **more}
    return task


def counts(task: dict[str, t.Any]) -> dict[str, int]:
    told = psql(must(task)["database"], COUNTS)
    must(task, state="absent")
    return {name: int(count) for name, _space, count in (one.rpartition(" ") for one in told.split(", "))}


# Patterns


def test_patterns_select_with_partitions_and_heirs(task):
    for pull, changes in (
        ({"exclude_data": ["app.event", "*.audit_log"]}, {"app.event_1": 0, "app.event_2a": 0, "app.audit_log": 0}),
        ({"exclude_tables": ["app.base", 'app."Log"', "app.shown"]}, dict.fromkeys(("app.base", "app.more"))),
        ({"tables": ["app.event", "audit_log"], "exclude_data": ["app.event_1"]}, {"app.event_1": 0}),
    ):
        expected = {**ALL, **changes}
        if "exclude_data" in pull and "*.audit_log" in pull["exclude_data"]:
            expected["audit_log"] = 0
        if "exclude_tables" in pull:
            expected['app."Log"'] = None
        if "tables" in pull:
            expected = {name: n for name, n in expected.items() if name.startswith("app.event") or name == "audit_log"}
        assert counts(pulling(task, **pull)) == {name: n for name, n in expected.items() if n is not None}


NOTHING = [
    ({"exclude_data": ["event"]}, "exclude_data has the pattern 'event', which matches no table of"),
    ({"exclude_data": ["app.log"]}, "exclude_data has the pattern 'app.log'"),
    ({"exclude_data": ["app.base", "app.evnt*"]}, "exclude_data has the pattern 'app.evnt*'"),
    ({"exclude_tables": ["a.b.c.d"]}, "exclude_tables has the pattern 'a.b.c.d'"),
    ({"exclude_tables": ["`touch /tmp/no`"]}, "exclude_tables has the pattern '`touch /tmp/no`'"),
    ({"tables": ["app.*", "nowhere"]}, "tables has the pattern 'nowhere'"),
    ({"tables": ["app.*"], "exclude_data": ["audit_log"]}, "'audit_log', which matches no table that comes of"),
    ({"tables": ["app.*"], "exclude_tables": ["audit_log"]}, "'audit_log', which matches no table that comes of"),
    ({"exclude_tables": ["app.event"], "exclude_data": ["app.event_1"]}, "'app.event_1', which matches no table that"),
    ({"exclude_kinds": ["policy"]}, "exclude_kinds has 'policy', and"),
    ({"exclude_kinds": ["large object"]}, "exclude_kinds has 'large object', and"),
]


def test_what_selects_nothing_is_refused(task, server):
    before = server.trace()
    for pull, words in NOTHING:
        said = refused(pulling(task, **pull), "user", check=True)
        assert words in said
        assert "hint: " in said
    pulling(task, **NOTHING[0][0])
    assert "*.TABLE in any" in refused(task, "user")
    assert server.trace() == before


# What would fail later


def test_what_a_reader_cannot_read_is_refused(task, production):
    """Although sessions of this user end soon, which is for people and not for a dump."""
    pulling(task, url_variable="READER_URL")
    try:
        production.psql("create table app.numbered (id serial)", "shop")
        production.psql(
            "grant select on app.numbered to reader; alter table app.owned enable row level security", "shop"
        )
        for words, mend in (
            ("app.numbered_id_seq of", "grant select on app.numbered_id_seq to reader"),
            ("app.owned of", "alter table app.owned disable row level security"),
        ):
            assert words in refused(task, "user", check=True)
            production.psql(mend, "shop")
        large_object = production.psql("select lo_from_bytea(0, 'x')", "shop")
        assert f"large object {large_object} of" in refused(task, "user", check=True)
        production.psql(f"grant select on large object {large_object} to reader", "shop")
        assert psql(must(task)["database"], "select count(*) from pg_largeobject_metadata") == "1"
    finally:
        production.psql("drop table app.numbered; select lo_unlink(oid) from pg_largeobject_metadata", "shop")


@pytest.mark.parametrize("task", ["shared", "embedded"], indirect=True)
def test_roles_of_policies(task, server, production):
    production.psql("create role web; create role office")
    production.psql("create policy own on app.owned to web, office using (who = current_user)", "shop")
    try:
        if task["backend"] == "shared":
            for check in (True, False):
                said = refused(task, "user", check=check)
                assert "name roles that the server" in said
                assert "office, web (policy own on app.owned)" in said
                assert 'create role "office" nologin' in said
            assert "policies" in counts_of_policies(pulling(task, exclude_kinds=["policy"]))
            server.psql("create role web; create role office")
            pulling(task)
        assert psql(must(task)["database"], "select roles from pg_policies") == "{office,web}"
    finally:
        production.psql("drop policy own on app.owned; drop role web; drop role office", "shop")
        must(task, state="absent")
        if task["backend"] == "shared":
            server.psql("drop role web; drop role office")


def counts_of_policies(task: dict[str, t.Any]) -> str:
    said = psql(must(task)["database"], "select count(*) || ' policies' from pg_policies")
    must(task, state="absent")
    assert said == "0 policies"
    return said


def test_event_triggers_and_what_else_only_a_superuser_makes(task, server, production):
    production.psql(
        "create function app.silent() returns event_trigger language plpgsql as 'begin end';"
        "create event trigger silent on sql_drop execute function app.silent();"
        "comment on event trigger silent is 'of nothing'",
        "shop",
    )
    before = server.trace()
    try:
        for check in (True, False):
            assert "has event triggers, which only a superuser can make: silent" in refused(task, "user", check=check)
        assert psql(must(pulling(task, exclude_kinds=["event trigger"]))["database"], "select 1") == "1"
        must(task, state="absent")
        assert server.trace() == before
        production.psql("create function app.c(int) returns int language internal as 'int4abs'", "shop")
        said = refused(task, "user")
        assert "function c(integer) of" in said
        assert "cannot be made in this server: permission denied for language internal" in said
        assert "exclude_kinds: [function]" in said
        assert f"shop_{task['name']}" not in server.psql("select string_agg(datname, ' ') from pg_database")
    finally:
        production.psql("drop event trigger silent; drop function app.silent, app.c", "shop")


def test_bytes_that_are_no_text_are_refused(task, production, monkeypatch):
    production.psql("create database bytes template template0 encoding 'SQL_ASCII' locale 'C'")
    monkeypatch.setenv("SHOP_URL", os.environ["SHOP_URL"].replace("/shop", "/bytes"))
    for check in (True, False):
        assert "has the encoding SQL_ASCII, and new databases" in refused(task, "user", check=check)


def test_rows_that_refer_to_rows_that_do_not_come_are_refused(task, production):
    production.psql("create table app.person (id int primary key); insert into app.person values (1)", "shop")
    production.psql("create table app.letter (id int, person int references app.person)", "shop")
    try:
        pulling(task, exclude_data=["app.person"])
        assert psql(must(task)["database"], "select count(*) from app.person") == "0"  # there is no letter yet
        must(task, state="absent")
        production.psql("insert into app.letter values (1, null), (2, 1)", "shop")
        for check in (True, False):
            said = refused(task, "user", check=check)
            assert "rows of app.letter in" in said
            assert "refer to rows of app.person, which do not come (letter_person_fkey)" in said
        pulling(task, exclude_data=["app.person"], exclude_kinds=["fk constraint"])
        assert psql(must(task)["database"], "select count(*) from app.letter") == "2"
        must(task, state="absent")
        assert "fk constraint letter letter_person_fkey" in refused(
            pulling(task, exclude_tables=["app.person"]), "user"
        )
    finally:
        production.psql("drop table app.letter, app.person", "shop")


# Programs


@pytest.mark.parametrize("task", ["embedded"], indirect=True)
def test_psql_is_that_of_the_servers_programs(task, tmp_path):
    """No other on this machine is as new as the server."""
    with reachable() as folder:
        task["embedded"] |= {"bin_directory": str(packaged(folder))}
        (tmp_path / "1.sql").write_text("create table t (x int);", encoding="utf-8")
        task["databases"] = [{"name": "shop", "golden": {"folder": str(tmp_path), "files": ["1.sql"]}}]
        assert psql(must(task)["database"], "select count(*) from t") == "0"
        must(task, state="absent")
