# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After a pull with a mask, no value from before the mask is anywhere that the task's role can read."""

from __future__ import annotations

import collections.abc as c
import os
import pathlib
import re
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
from integration.sweeper import found, found_in_files

SECRET, NUMBER = "S3NTINEL", "77007707"
SENTINELS = (SECRET, NUMBER)

DATA = f"""
create table person (id serial primary key, email text, city text, street text, note text);
create index on person (lower(email));
create statistics both_of_them (mcv, dependencies) on city, street from person;
create table gone (line text); create statistics gone_both on line, (lower(line)) from gone;
create table part (n int, name text) partition by list (n); create table part_1 partition of part for values in (1);
create sequence number_seq; select setval('number_seq', {NUMBER});
create table numbered (id bigint default nextval('number_seq'), name text);
insert into person (note, email, city, street)
    select '{SECRET} note ' || n, '{SECRET}' || n % 9 || '@example.com', '{SECRET} city ' || n % 3, '{SECRET} ' || n
    from generate_series(1, 900) n;
insert into gone select '{SECRET} gone ' || n % 5 from generate_series(1, 500) n;
insert into part select 1, '{SECRET} part ' || n % 5 from generate_series(1, 500) n;
insert into numbered (name) select 'x' from generate_series(1, 20);
create materialized view first as select email from person;
create view between_them as select email from first;
create materialized view zero as select email from between_them;
create materialized view empty as select email from person with no data;
comment on table person is 'of {SECRET}'; comment on column person.email is 'as in {SECRET}@example.com';
create table document (content oid); insert into document values (lo_from_bytea(0, 'by {SECRET}'));
"""
MASK = f"""
analyze;
update person set email = 'masked' || id, city = 'c', street = 's'; alter table person drop column note;
delete from gone; delete from part; update numbered set id = id - {NUMBER};
"""


@pytest.fixture(scope="module")
def production(pg_binaries) -> c.Iterator[Shared]:
    with reachable() as folder:
        server = shared_server(folder, pg_binaries)
        server.psql("create database shop")
        server.psql(DATA, "shop")
        server.psql("vacuum analyze", "shop")
        yield server


@pytest.fixture(scope="module")
def server(pg_binaries) -> c.Iterator[Shared]:
    with reachable() as folder:
        yield shared_server(folder, pg_binaries, max_connections=60)


@pytest.fixture(scope="module")
def newest() -> c.Iterator[Shared]:
    with reachable() as folder:
        yield shared_server(folder, packaged(folder), max_connections=60)


@pytest.fixture(params=["shared", "shared by the newest", "embedded"])
def task(request, tmp_path, monkeypatch, production) -> c.Iterator[dict[str, t.Any]]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(
        "SHOP_URL", f"postgresql://postgres:{read(production.password_file)}@127.0.0.1:{production.port}/shop"
    )
    backend = request.param.partition(" ")[0]
    given = task_parameters(backend)
    pull = {"url_variable": "SHOP_URL", "mask": script(tmp_path, MASK)}
    given["databases"] = [{"name": f"shop_{given['name']}", "pull": pull}]
    if backend == "shared":
        own = request.getfixturevalue("server" if backend == request.param else "newest")
        monkeypatch.setenv("PATH", f"{own.programs}:{os.environ['PATH']}")
        given |= {"user": given["name"], "port": own.port, "shared": {"admin_password_file": own.password_file}}
        yield given
        must(given, state="absent")
        assert given["name"] not in own.trace()
    else:
        with reachable() as folder:
            given["embedded"] = {"directory": str(folder)}
            yield given
            must(given, state="absent")


shared = pytest.mark.parametrize("task", ["shared"], indirect=True)
embedded = pytest.mark.parametrize("task", ["embedded"], indirect=True)
each = pytest.mark.parametrize("task", ["shared", "embedded"], indirect=True)


def script(folder: pathlib.Path, text: str) -> str:
    path = folder / "mask.sql"
    path.write_text(text, encoding="utf-8")
    return str(path)


def pull_of(task: dict[str, t.Any]) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", task["databases"][0]["pull"])


def test_nothing_from_before_the_mask_is_left(task):
    facts = must(task)["database"]
    assert found(facts, SENTINELS) == []
    if task["backend"] == "embedded":  # whose user is a superuser
        assert found_in_files(pathlib.Path(task["embedded"]["directory"]), SENTINELS) == []
        assert psql(facts, "show wal_recycle") == "on"
    masked = "select count(*) filter (where email ~ '^masked'), count(*) from"
    for relation in ("person", "first", "zero"):
        assert psql(facts, f"{masked} {relation}") == "900|900"
    assert "has not been populated" in psql(facts, "select * from empty")
    assert psql(facts, "insert into numbered (name) values ('next') returning id") == "21"
    assert psql(facts, "select count(*) > 0 from pg_stats where tablename = 'person'") == "t"
    owners = "select distinct relowner::regrole::text from pg_class where oid > 16384 and relnamespace = 2200"
    assert psql(facts, owners) == facts["user"]
    assert not must(task)["changed"]


@embedded
def test_no_file_of_the_log_that_was_named_anew_keeps_a_row(task, tmp_path):
    """A checkpoint gives old files of the log the names of those to come, with what is in them."""
    switches = "select pg_switch_wal();\ncheckpoint;\n" * 3
    pull_of(task)["mask"] = script(tmp_path, f"{switches}{MASK}{switches}")
    task["settings"] = {"min_wal_size": "256MB"}
    must(task)
    assert found_in_files(pathlib.Path(task["embedded"]["directory"]), SENTINELS) == []


@shared
def test_what_a_mask_does_not_reach_comes_where_it_is_asked_for(task):
    pull_of(task)["exclude_kinds"] = []
    places = found(must(task)["database"], SENTINELS)
    assert any("large object" in place for place in places)
    assert any("pg_description" in place for place in places)
    assert not [place for place in places if not re.search("large object|pg_largeobject|pg_description", place)]


@shared
def test_the_owner_to_be_does_not_let_himself_in(task, tmp_path):
    """Who owns a database can grant himself the right to connect to it."""
    other = f"other_{task['name']}"
    facts = must(task, databases=[{"name": other}])["database"]
    about = {**facts, "url": facts["url"].replace(facts["password"], read(facts["password_file"]))}
    name = task["databases"][0]["name"]
    grant = f'grant connect on database "{name} (pulled)" to current_user'
    pull_of(task)["mask"] = script(tmp_path, f"\\! psql -Xc '{grant}' '{about['url']}' >{tmp_path}/said 2>&1\n{MASK}")
    must(task, databases=[*task["databases"], {"name": other}])
    assert (
        "no privileges were granted" in (tmp_path / "said").read_text() + ""
        or "permission denied" in (tmp_path / "said").read_text()
    )
    task["databases"].append({"name": other})


@shared
def test_an_admin_who_is_no_superuser_leaves_no_statistics_either(task, server, tmp_path):
    admin = f"admin_{task['name']}"
    server.psql(f"create role {admin} login createdb createrole password '{read(server.password_file)}'")
    task["shared"]["admin_user"] = admin
    said = refused(task, "environment")
    assert "the planner's statistics of public.gone" in said
    assert "superuser" in said
    script(
        tmp_path,
        MASK.replace("delete from gone; delete from part;", "update gone set line = 'x'; update part set name = 'x';"),
    )
    assert found(must(task)["database"], SENTINELS) == []
    must(task, state="absent")
    del task["shared"]["admin_user"]
    server.psql(f"drop role {admin}")


# A mask that fails


FAILING = [
    ("select email::date from person;", "invalid datetime format (SQLSTATE 22007)"),
    (
        "do $$ declare e text; begin select email into e from person; raise exception 'bad %', e; end $$;",
        "raise except",
    ),
    ("select replace(email, '.', '')::regclass from person;", "undefined table (SQLSTATE 42P01)"),
    ("create unique index on person (city);", 'could not create unique index "person_city_idx"'),
    (
        "alter table person add check (email ~ '^x');",
        'check constraint "person_email_check" of relation "person" is viol',
    ),
    ("insert into person (id, email) select id, email from person;", "duplicate key value violates unique constraint"),
    ("select nothing from person;", 'column "nothing" does not exist'),
    ("do $$ begin raise notice '%', (select min(email) from person); end $$; select 1 / 0;", "division by zero"),
]


@pytest.mark.parametrize(
    ("task", "statement", "words"),
    [*(("shared", *one) for one in FAILING), *(("embedded", *one) for one in FAILING[:2])],
    indirect=["task"],
    ids=lambda value: value[:20],
)
def test_a_mask_that_fails_quotes_no_row(task, server, tmp_path, statement, words):
    script(tmp_path, f"-- one\n{statement}\n")
    said = refused(task, "environment")
    assert f"mask mask.sql, line 2: {words}" in said
    assert not [one for one in SENTINELS if one in said]
    logs = pathlib.Path(
        server.parameters["directory"] if task["backend"] == "shared" else task["embedded"]["directory"]
    )
    for log in logs.rglob("server.log"):
        assert SECRET not in log.read_text("utf-8", "replace")


# mask_verify


@each
def test_a_result_that_is_not_masked_is_refused(task, tmp_path):
    pull_of(task)["mask_verify"] = "select email from person where email !~ '^masked';"
    script(tmp_path, MASK.replace("'masked' || id", "case when id > 3 then 'masked' || id else email end"))
    said = refused(task, "user")
    assert "not masked: mask_verify returned 3 rows" in said
    assert SECRET not in said
    pull_of(task)["mask_verify"] = "select from person where email::date is null"
    said = refused(task, "environment")
    assert "cannot run mask_verify: invalid datetime format" in said
    assert SECRET not in said
    pull_of(task)["mask_verify"] = "/etc/shop/verify.sql"
    for check in (True, False):
        assert "mask_verify is no query" in refused(task, "user", check=check)
    pull_of(task)["mask_verify"] = "select email from person where email !~ '^masked';"
    script(tmp_path, MASK)
    assert psql(must(task)["database"], "select count(*) from person") == "900"


@each
def test_a_golden_pull_is_masked_as_well(task, tmp_path):
    wish = task["databases"][0]
    wish["golden"] = {"folder": str(tmp_path), "pull": {**wish.pop("pull"), "mask_verify": "select from gone"}}
    assert found(must(task)["database"], SENTINELS) == []
