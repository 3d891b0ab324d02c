# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in real shared servers, checked with psql: Debian's, that of a PyPI package, those in .work/postgres."""

from __future__ import annotations

import collections.abc as c
import contextlib
import functools
import json
import os
import pathlib
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import typing as t

import hypothesis
import psycopg2
import psycopg2.extensions
import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from hypothesis import strategies as st
from integration.servers import PACKAGE, Shared, fork, outcome, packaged, read
from ports import free_port

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _clusters,
    _pg_databases,
    _pg_programs,
    _pg_server,
    _postgres,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._door import answer

CLONE = pathlib.Path(__file__).resolve().parents[2]
PACKAGED = PACKAGE.version.partition(".")[0]
PROGRAMS = {
    folder.parent.name: folder
    for folder in (*CLONE.glob(".work/postgres/*/bin"), *pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
}
KILLS = 8
MEMORY = "/dev/shm"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\"'\\{}%$;-"), min_size=1)
SETTINGS = {"max_connections": 60, "max_prepared_transactions": 5, "wal_level": "logical", "max_wal_senders": 5}


# A server, and a task in it


@pytest.fixture(scope="module")
def top(pg_binaries):  # noqa: ARG001 - it fails where there is no PostgreSQL
    """A folder that the server's system user can reach, which pytest's own are not."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg-database-", dir="/tmp"))
    os.chmod(folder, 0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def clusters():
    """Where the servers' data are: in memory where that is large, for on a disk they wait for all who write to it."""
    is_large = os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 4 << 30
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg-database-", dir=MEMORY if is_large else "/tmp"))
    os.chmod(folder, 0o711)
    yield folder
    for left in folder.glob("**/cluster.json"):
        _clusters.Cluster(str(left.parent.parent), left.parent.name).stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def start(top, clusters) -> c.Callable[..., Shared]:
    @functools.cache
    def start(version: str) -> Shared:
        programs = packaged(top) if version == PACKAGED else PROGRAMS[version]
        server = Shared(
            {
                "name": f"server{version}",
                "owner": "test/server",
                "port": free_port(),
                "directory": str(clusters),
                "password_file": str(top / f"admin{version}"),
                "bin_directory": str(programs),
                "settings": SETTINGS,
            }
        )
        server.start()
        return server

    return start


@pytest.fixture
def server(start, pg_binaries, request):
    return start(getattr(request, "param", pg_binaries.parent.name))


every = pytest.mark.parametrize("server", sorted({*PROGRAMS, PACKAGED}), indirect=True)


@pytest.fixture
def task(server, tmp_path):
    given = parameters(server, tmp_path)
    yield given
    must(given, state="absent")
    assert_gone(server, given)


def parameters(server: Shared, folder: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    name = f"task_{secrets.token_hex(4)}"
    return {
        "databases": [{"name": name}],
        "owner": f"test/{name}@0123abcd",
        "role": name,
        "password_file": str(folder / f"{name}.password"),
        "port": server.port,
        "admin_password_file": server.password_file,
        **more,
    }


def run(task: dict[str, t.Any], *, check: bool = False, **more: t.Any) -> dict[str, t.Any]:
    checked = ArgumentSpecValidator(_pg_databases.ARGUMENT_SPEC).validate({**task, **more})
    assert not checked.error_messages
    return answer(_pg_databases.operation, checked.validated_parameters, check=check, diff=True)


def must(task: dict[str, t.Any], **more: t.Any) -> dict[str, t.Any]:
    result = run(task, **more)
    assert not result.get("failed"), result["msg"]
    return result


def refused(task: dict[str, t.Any], kind: str, **more: t.Any) -> str:
    result = run(task, **more)
    assert result.get("failure") == kind, result
    return t.cast("str", result["msg"])


def one(task: dict[str, t.Any], **more: t.Any) -> list[dict[str, t.Any]]:
    """The task's only database, otherwise."""
    return [{**task["databases"][0], **more}]


def as_task(server: Shared, task: dict[str, t.Any], sql: str, database: str | None = None) -> str:
    """What the task is answered, errors included."""
    name = _postgres.fit_name(task["databases"][0]["name"] if database is None else database)
    user, password = _postgres.fit_name(task["role"]), read(task["password_file"])
    return server.psql(sql, name, may_fail=True, PGUSER=user, PGPASSWORD=password)


def connected(server: Shared, database: str, user: str = "postgres", password_file: str | None = None) -> t.Any:
    password = read(password_file or server.password_file)
    return psycopg2.connect(host="127.0.0.1", port=server.port, user=user, password=password, dbname=database)


def assert_gone(server: Shared, task: dict[str, t.Any]) -> None:
    names = [_postgres.fit_name(wish["name"]) for wish in task["databases"]]
    trace = server.trace()
    assert not [line for line in trace.splitlines() if line.split("|")[1] in (*names, task["role"])]
    assert task["owner"] not in trace
    assert not os.path.exists(task["password_file"])


# Making and removing


@every
def test_gives_databases_and_takes_them_back(server, task):
    first, second = f"a_{task['role']}", f"b_{task['role']}"
    task["databases"] = [{"name": first}, {"name": second, "extensions": ["hstore"], "connection_limit": 9}]
    before = server.trace()
    planned = must(task, check=True)
    assert (server.trace(), os.path.exists(task["password_file"])) == (before, False)

    made = must(task)
    assert {**made, "statements": [text for text in made["statements"] if "owner to" not in text]} == planned
    assert made["actions"] == [
        f"create role {task['role']}",
        f"create database {first}",
        f"create database {second}",
        f"create extension hstore in database {second}",
    ]
    assert made["database"] == made["databases"][first]
    for name, facts in made["databases"].items():
        about = {key: facts[key] for key in ("backend", "host", "port", "user", "name", "password_file")}
        assert about == {
            "backend": "shared",
            "host": "127.0.0.1",
            "port": server.port,
            "user": task["role"],
            "name": name,
            "password_file": task["password_file"],
        }
        url = facts["url"].replace(facts["password"], read(task["password_file"]))
        with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("select current_setting('parallel_worktrees.database'), current_user")
            assert cursor.fetchall() == [(name, task["role"])]
            cursor.execute("create table t (); drop table t; create schema s; drop schema public cascade")
    assert server.psql("select datconnlimit from pg_database where datname ~ '_task_' order by datname") == "-1\n9"
    assert "hstore" in as_task(server, task, "select extname from pg_extension", second)
    assert json.loads(server.psql(f"select shobj_description('{task['role']}'::regrole, 'pg_authid')")) == {
        "owner": task["owner"]
    }
    assert {"role": task["role"], "owner": task["owner"], "databases": [first, second]} in listing(task)

    trace = server.trace()
    for check in (True, False):
        again = must(task, check=check)
        assert (again["changed"], again["actions"], again["statements"], again["diff"]) == (False, [], [], [])
        assert again["databases"] == made["databases"]
    assert must(task, check=True, state="absent")["changed"]
    assert server.trace() == trace

    taken = must(task, state="absent")
    assert taken["actions"] == [
        *(f"drop database {name}" for name in (first, second)),
        f"drop role {task['role']}",
        f"remove {task['password_file']}",
    ]
    assert_gone(server, task)
    for check in (True, False):
        gone = must(task, check=check, state="absent")
        assert (gone["changed"], gone["actions"], gone["diff"]) == (False, [], [])


def listing(task: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    checked = ArgumentSpecValidator(_pg_databases.ARGUMENT_SPEC).validate(task)
    return _pg_databases.marked(checked.validated_parameters)


@pytest.mark.parametrize(
    "name",
    [
        'a"; drop role postgres; --',
        "it's 100 %s of %(name)s {0} {} {name}",
        "host=example.invalid dbname=postgres",
        "postgresql://example.invalid/x",
        "back\\slash $$ $1 :x",
        "año_日本語_🐘",
        "-c",
        "CamelCase With Space",
        "x" * 200,
        "ñ" * 100,
    ],
)
def test_names_as_people_give_them(server, task, name):
    task |= {"role": name, "databases": [{"name": name, "extensions": ["pg_trgm"]}], "owner": f"test/{name}@0123abcd"}
    made = must(task)["databases"][name]
    assert as_task(server, task, "select current_setting('parallel_worktrees.database')") == made["name"]
    assert as_task(server, task, "select current_user") == made["user"]
    assert len(made["name"].encode()) <= 63
    assert not must(task)["changed"]
    url = made["url"].replace(made["password"], read(task["password_file"]))
    psycopg2.connect(url).close()


def test_long_names_that_differ_at_their_end_only_do_not_meet(task):
    names = ["y" * 199 + "a", "y" * 199 + "b", "y" * 54 + "_"]
    made = must(task, databases=[{"name": name} for name in names])
    assert len({facts["name"] for facts in made["databases"].values()}) == 3
    assert list(made["databases"]) == names
    task["databases"] = [{"name": name} for name in names]


def test_no_name_or_value_is_more_than_one(server):
    with contextlib.closing(connected(server, "postgres")) as connection, connection.cursor() as cursor:
        connection.set_client_encoding("UTF8")

        @hypothesis.given(TEXTS, TEXTS)
        def holds(name: str, value: str) -> None:
            name = _postgres.fit_name(name)
            cursor.execute(_pg_server.compose("select {value} as {}, 1 as one", name, value=value))
            assert ([column.name for column in cursor.description], cursor.fetchall()) == ([name, "one"], [(value, 1)])

        holds()


def test_a_socket_is_as_good_as_an_address(server, task):
    task["host"] = server.psql("show unix_socket_directories")
    del task["admin_password_file"]
    facts = must(task)["database"]
    assert facts["host"] == task["host"]
    with contextlib.closing(
        psycopg2.connect(facts["url"].replace(facts["password"], read(task["password_file"])))
    ) as there:
        assert (there.info.host, there.info.dbname) == (task["host"], facts["name"])
    assert not must(task)["changed"]
    os.unlink(task["password_file"])  # the socket lets everybody in, the address does not
    assert must(task)["actions"] == [f"set the password of role {task['role']}"]
    assert as_task(server, task, "select 1") == "1"


# Whose they are


def test_the_roles_of_two_tasks_are_kept_apart(server, task, tmp_path):
    other = parameters(server, tmp_path)
    must(task)
    must(other)
    as_task(server, other, "create table t as select 1")
    for mine, theirs in ((task, other), (other, task)):
        assert "permission denied for database" in as_task(server, mine, "select 1", theirs["role"])
        assert "must be owner" in as_task(server, mine, f"drop database {theirs['role']}")
        assert "permission denied" in as_task(server, mine, "create database x")
        assert "permission denied" in as_task(server, mine, "create role x")
    must(other, state="absent")
    assert as_task(server, task, "select 1") == "1"


def test_what_another_has_is_left_alone(server, task, tmp_path):
    other = parameters(server, tmp_path)
    must(other)
    before = server.trace()
    for state in ("present", "absent"):
        for check in (True, False):
            for stolen in ({"databases": other["databases"]}, {"role": other["role"]}):
                message = refused(task, "user", state=state, check=check, **stolen)
                assert f"belongs to {other['owner']}, not to {task['owner']}" in message
    assert server.trace() == before
    must(other, state="absent")


def test_what_no_task_made_is_left_alone(server, task):
    server.psql("create role a_person")
    server.psql("create database a_database")
    server.psql("comment on database a_database is 'for reports'")
    for state in ("present", "absent"):
        for strange in ({"databases": [{"name": "a_database"}]}, {"role": "a_person"}):
            assert "is there, and was made for no task" in refused(task, "user", state=state, **strange)
    server.psql("drop database a_database")
    server.psql("drop role a_person")


def test_what_a_task_says_of_its_databases_makes_no_difference(server, task, tmp_path):
    """Its comments neither keep it from being provisioned and removed, nor make a database another task's."""
    other = parameters(server, tmp_path)
    must(other)
    must(task)
    as_task(server, task, "create table t as select 7 as x")
    for comment in ("'mine'", "null", f"""'{{"owner": "{other["owner"]}"}}'"""):
        as_task(server, task, f"comment on database {task['role']} is {comment}")
        assert not must(task)["changed"]
        assert {"role": task["role"], "owner": task["owner"], "databases": [task["role"]]} in listing(task)
        for state in ("present", "absent"):
            stolen = {"databases": task["databases"], "state": state}
            assert f"belongs to {task['owner']}, not to" in refused(other, "user", **stolen)
    for name in (task["role"], other["role"]):
        assert "ERROR:" in as_task(server, task, f"comment on role {name} is 'mine'")
    assert as_task(server, task, "select x from t") == "7"
    must(task, state="absent")
    must(other, state="absent")


def test_what_is_half_made_and_not_asked_for_stays_half_made(server, task):
    name, more = task["role"], f"{task['role']}_more"
    must(task, databases=[{"name": name}, {"name": more}])
    mark = json.dumps({"owner": task["owner"], "creating": [more]})
    server.psql(f"comment on role {name} is '{mark}'")
    third = f"{name}_third"
    must(task, databases=[{"name": name}, {"name": third}])
    done = must(task, databases=[{"name": name}, {"name": more}, {"name": third}])
    assert f"drop database {more}, which is half made" in done["actions"]
    must(task, databases=[{"name": name}, {"name": more}, {"name": third}], state="absent")


@pytest.mark.parametrize("name", ["postgres", "template0", "template1", "main_db", "m" * 70])
def test_protected_databases_are_for_no_task(server, task, name):
    before = server.trace()
    for state in ("present", "absent"):
        wish = {"databases": [{"name": name}], "protected": ["main_db", "m" * 70]}
        assert "is protected" in refused(task, "user", state=state, **wish)
    assert server.trace() == before


@pytest.mark.parametrize(
    "setting",
    ["is_template true", "allow_connections false", "connection limit 0", "is_template true allow_connections false"],
)
def test_what_the_owner_sets_on_a_database_does_not_keep_it(server, task, setting):
    """The task's own sessions do not keep it either, nor a transaction that is prepared in it."""
    must(task)
    left = f"left in {task['role']}"  # the names of all databases are one set
    as_task(server, task, f"create table t (); begin; insert into t default values; prepare transaction '{left}'")
    with contextlib.closing(connected(server, task["role"], task["role"], task["password_file"])):
        settings = "select datistemplate, datallowconn, datconnlimit from pg_database where datname = "
        before = server.psql(f"{settings} '{task['role']}'")
        as_task(server, task, f'alter database "{task["role"]}" {setting}', "postgres")
        assert server.psql(f"{settings} '{task['role']}'") != before
        assert must(task, state="absent", check=True)["changed"]
        taken = must(task, state="absent")
    assert taken["actions"][0] == f"roll back the prepared transaction {left} in database {task['role']}"
    assert_gone(server, task)


# Keeping


def test_a_complete_database_keeps_its_data_and_is_given_what_it_lacks(server, task):
    must(task)
    name = task["role"]
    as_task(server, task, "create table t as select 7 as x")
    server.psql(f"alter database {name} reset all")
    server.psql(f"grant connect on database {name} to public")
    task["databases"] = one(task, connection_limit=5, extensions=["pg_trgm", "citext"], template="template0")
    planned = must(task, check=True)
    given = must(task)
    assert (
        given["actions"]
        == planned["actions"]
        == [
            f"set rights, limit and identity of database {name}",
            f"create extension citext in database {name}",
            f"create extension pg_trgm in database {name}",
        ]
    )
    assert not must(task)["changed"]
    assert as_task(server, task, "select x, current_setting('parallel_worktrees.database') from t") == f"7|{name}"

    del task["databases"][0]["connection_limit"]
    assert must(task)["changed"]
    assert server.psql(f"select datconnlimit from pg_database where datname = '{name}'") == "-1"


def test_an_extension_goes_into_the_schema_of_its_own(server, task):
    must(task)
    server.psql("drop extension plpgsql", task["role"])
    task["databases"] = one(task, extensions=["plpgsql"])
    must(task)
    where = "select extnamespace::regnamespace from pg_extension where extname = 'plpgsql'"
    assert as_task(server, task, where) == "pg_catalog"


def test_a_database_that_was_closed_is_opened(server, task):
    task["databases"] = one(task, extensions=["pg_trgm"])
    must(task)
    server.psql(f"alter database {task['role']} allow_connections false")
    assert must(task, check=True)["changed"]
    must(task)
    assert as_task(server, task, "select 1") == "1"
    assert not must(task)["changed"]


def test_a_database_is_added_to_those_there_are(server, task):
    must(task)
    as_task(server, task, "create table t as select 7 as x")
    task["databases"].append({"name": f"{task['role']}_more"})
    assert must(task)["actions"] == [f"create database {task['role']}_more"]
    assert as_task(server, task, "select x from t") == "7"


def test_a_lost_or_changed_password_is_given_anew(server, task):
    must(task)
    os.unlink(task["password_file"])
    assert must(task, check=True)["changed"]
    assert not os.path.exists(task["password_file"])
    assert must(task)["actions"] == [f"set the password of role {task['role']}"]
    assert as_task(server, task, "select 1") == "1"
    assert not must(task)["changed"]
    server.psql(f"alter role {task['role']} nologin")
    assert must(task)["changed"]
    assert as_task(server, task, "select 1") == "1"


def test_the_password_is_in_its_file_and_nowhere_else(server, task):
    task["databases"] = one(task, dump=dump_of(server, task), extensions=["file_fdw"])
    server.psql("alter system set log_statement = 'all'")
    server.psql("select pg_reload_conf()")
    try:
        made = must(task)
    finally:
        server.psql("alter system reset all")
        server.psql("select pg_reload_conf()")
    password = read(task["password_file"])
    assert os.stat(task["password_file"]).st_mode & 0o777 == 0o600
    assert password not in json.dumps(made)
    assert "SCRAM" not in json.dumps(made)
    log = pathlib.Path(server.parameters["directory"], server.parameters["name"], "server.log").read_text("utf-8")
    assert task["role"] in log
    assert password not in log
    assert server.psql(f"select rolpassword ~ '^SCRAM-SHA-256' from pg_authid where rolname = '{task['role']}'") == "t"


def test_what_the_role_has_elsewhere_keeps_it(server, task):
    must(task)
    server.psql(f"create database reports owner {task['role']}")
    taken = must(task, state="absent")
    (left,) = taken["left"]
    for words in (
        f"role {task['role']} at",
        "stays, without a login",
        "database reports",
        f'drop role "{task["role"]}"',
    ):
        assert words in left
    assert server.psql(f"select rolcanlogin from pg_roles where rolname = '{task['role']}'") == "f"
    assert taken["actions"] == [f"drop database {task['role']}"]
    again = must(task, state="absent")
    assert (again["changed"], again["left"]) == (False, taken["left"])
    assert must(task)["changed"]
    server.psql("drop database reports")


# Templates and dumps

SCHEMA = """
create schema app; create extension pg_trgm schema app;
create table app.parent (id serial primary key, at int generated always as identity, tags text) partition by range (id);
create table app.child partition of app.parent for values from (0) to (1000);
create index on app.parent using gin (tags app.gin_trgm_ops);
create view app.shown as select * from app.parent;
create materialized view app.kept as select count(*) from app.parent;
create type app.mood as enum ('good', 'bad'); create domain app.small as int check (value < 10);
create type app.pair as (a int, b app.mood); create type app.spread as range (subtype = int);
create function app.one(int default 1, variadic text[] default '{}') returns int language sql as 'select 1';
create procedure app.two() language sql as 'select 1';
create aggregate app.three(int) (sfunc = int4pl, stype = int);
create operator app.=== (leftarg = int, rightarg = int, function = int4eq);
create collation app.c (locale = 'C'); create statistics app.s on id, tags from app.parent;
create text search configuration app.words (copy = simple); create sequence "Odd {Name} 100%";
create table public."quo""ted" (x int); insert into app.parent (tags) select 'x' from generate_series(1, 100);
select lo_create(4711);
"""
RARE = """
create conversion app.latin for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
create operator family app.family using hash; create text search dictionary app.dictionary (template = simple);
create operator class app.class for type int using hash family app.family as operator 1 =, function 1 hashint4(int);
create extension file_fdw; create server files foreign data wrapper file_fdw;
create foreign table app.file (line text) server files options (filename '/dev/null');
"""
OWNED_BY_OTHERS = """
select c.oid::regclass::text from pg_class c where c.oid >= 16384 and pg_get_userbyid(c.relowner) not in ({owners})
    and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'e')
union all select proname from pg_proc p where p.oid >= 16384 and pg_get_userbyid(p.proowner) not in ({owners})
    and prokind <> 'f'
union all select nspname from pg_namespace n where n.oid >= 16384 and pg_get_userbyid(n.nspowner) not in ({owners})
    and nspname !~ '^pg_'
union all select typname from pg_type t where t.oid >= 16384 and pg_get_userbyid(t.typowner) not in ({owners})
    and typname !~ 'trgm|_multirange$'
"""
"""Before PostgreSQL 17 a multirange type does not follow its range's owner; it goes with it all the same."""


@pytest.fixture
def template(server):
    with filled(server) as name:
        yield name


@contextlib.contextmanager
def filled(server: Shared) -> c.Iterator[str]:
    """A database in which a superuser has made something of each kind."""
    name = f"golden_{secrets.token_hex(4)}"
    server.psql(f"create database {name}")
    try:
        assert server.psql(SCHEMA, name) == "4711"
        yield name
    finally:
        server.psql(f"alter database {name} is_template false")
        server.psql(f"drop database {name} with (force)")


@every
def test_a_copy_of_a_template_is_wholly_the_tasks(server, task, template):
    server.psql(RARE, template)
    server.psql(f"alter database {template} set work_mem = '7MB'")
    task["databases"] = one(task, template=template)
    made = must(task)
    assert made["actions"][1:] == [f"create database {task['role']} as a copy of {template}"]
    strategies = [text for text in made["statements"] if "strategy file_copy" in text]
    assert bool(strategies) == (server.version >= 15)
    assert ("set file_copy_method = clone" in made["statements"]) == (server.version >= 18)
    owners = f"'{task['role']}', 'pg_database_owner'"
    assert as_task(server, task, OWNED_BY_OTHERS.format(owners=owners)) == ""
    assert as_task(server, task, "select count(*) from app.shown") == "100"
    assert "ERROR" not in as_task(server, task, "alter table app.parent add z int; refresh materialized view app.kept")
    assert "ERROR" not in as_task(server, task, "select lo_unlink(4711); alter type app.mood add value 'ugly'")
    assert "ERROR" not in as_task(server, task, "drop operator class app.class using hash; drop foreign table app.file")
    assert "ERROR" not in as_task(server, task, "drop conversion app.latin; drop operator family app.family using hash")
    assert "ERROR" not in as_task(server, task, "drop text search dictionary app.dictionary")
    assert "ERROR" not in as_task(server, task, "drop schema public cascade; drop schema app cascade")
    assert not must(task)["changed"]


def test_what_is_the_database_owners_needs_no_change_of_hands(server, task, template):
    admin = _postgres.Address("127.0.0.1", server.port, "postgres", template)
    golden = _pg_server.Server(admin, read(server.password_file), _pg_server.Journal(check=False))
    with contextlib.closing(golden.connection):
        golden.hand_over("pg_database_owner")
    server.psql(f"alter database {template} is_template true allow_connections false")
    task["databases"] = one(task, template=template)
    assert not [text for text in must(task)["statements"] if "owner to" in text]
    assert "ERROR" not in as_task(server, task, "alter table app.parent add z int; drop schema app cascade")


@every
def test_nobody_becomes_superuser_by_an_event_trigger_of_a_template(server, task, template):
    function = "function on_change() returns event_trigger language plpgsql as"
    server.psql(f"create {function} 'begin end'", template)
    server.psql("create event trigger seen on ddl_command_start execute function on_change()", template)
    task["databases"] = one(task, template=template)
    must(task)
    said = as_task(server, task, f"create or replace {function} 'begin alter role {task['role']} superuser; end'")
    assert "must be owner of function on_change" in said
    must(task, databases=one(task, template=template, extensions=["pg_trgm"]))
    assert as_task(server, task, "select rolsuper from pg_roles where rolname = current_user") == "f"


def test_a_template_in_use_is_told_with_who_uses_it(server, task, template):
    task["databases"] = one(task, template=template)
    with contextlib.closing(connected(server, template)) as session, session.cursor() as cursor:
        cursor.execute("set application_name = 'an editor'; select pg_backend_pid()")
        ((pid,),) = cursor.fetchall()
        session.commit()
        for check in (True, False):
            message = refused(task, "environment", check=check)
            assert f"somebody is connected to it: pid {pid}, user postgres, an editor" in message
        cursor.execute("select 1")
        session.rollback()
        # Who leaves within PostgreSQL's five seconds is in nobody's way.
        leaving = threading.Timer(0.5, session.close)
        leaving.start()
        must(task)
        leaving.join()


def test_what_is_asked_for_and_not_there_is_told_before_anything_is_made(server, task):
    before = server.trace()
    for wish, words in (
        ({"template": "nowhere"}, "there is no template nowhere"),
        ({"extensions": ["plpgsql", "no_such"]}, "has no extension no_such"),
        ({"dump": "/nowhere/x.dump"}, "cannot read the dump /nowhere/x.dump: No such file"),
        ({"connection_limit": 0}, "has to be 1 or more"),
        ({"connection_limit": 58}, "has 57 connections for all"),
    ):
        for check in (True, False):
            assert words in refused(task, "user", check=check, databases=[{"name": "fine"}, *one(task, **wish)])
    assert (server.trace(), os.path.exists(task["password_file"])) == (before, False)


def dump_of(server: Shared, task: dict[str, t.Any], kind: str = "custom", *options: str) -> str:
    """A dump of what a superuser made, with an extension that only he can make, and his comment on it."""
    path = f"{task['password_file']}.{kind}"
    with filled(server) as source:
        server.psql("create extension file_fdw; grant select on app.parent to pg_monitor", source)
        server.program("pg_dump", f"--format={kind}", f"--file={path}", *options, source)
    return path


@every
@pytest.mark.parametrize("kind", ["custom", "directory", "tar", "plain"])
def test_restores_a_dump(server, task, kind, monkeypatch):
    monkeypatch.setenv("PATH", str(server.programs), prepend=os.pathsep)
    monkeypatch.setenv("PGPASSWORD", "the password of something else")
    pathlib.Path(task["password_file"]).write_text("a:b\\c'd e\n", encoding="ascii")
    options = ("--no-owner", "--no-privileges", "--no-comments") if kind == "plain" else ()
    path = dump_of(server, task, kind, *options)
    task["databases"] = one(task, dump=path, extensions=["file_fdw"], connection_limit=3)
    planned = must(task, check=True)
    made = must(task)
    assert made["actions"] == planned["actions"]
    assert made["actions"][-1] == f"restore {path} into database {task['role']}"
    assert as_task(server, task, "select count(*) from app.shown") == "100"
    assert as_task(server, task, OWNED_BY_OTHERS.format(owners=f"'{task['role']}', 'pg_database_owner'")) == ""
    as_task(server, task, "delete from app.parent")
    assert not must(task)["changed"]
    assert as_task(server, task, "select count(*) from app.shown") == "0"


@every
def test_a_restore_takes_longer_than_a_session_may_be_idle(server, task, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(server.programs), prepend=os.pathsep)
    dump = tmp_path / "slow.sql"
    dump.write_text("create table slow as select 1 as n from pg_sleep(1);", encoding="ascii")
    server.psql("alter role postgres set idle_session_timeout = '300ms'")
    try:
        made = must(task, databases=one(task, dump=str(dump)))
    finally:
        server.psql("alter role postgres reset idle_session_timeout")
    assert len(made["actions"]) == 3


def test_a_dump_that_fails_leaves_nothing_half_made(server, task):
    task["databases"] = [{"name": f"{task['role']}_first"}, *one(task, dump=dump_of(server, task))]
    message = refused(task, "partial")
    assert f"into database {task['role']}" in message
    assert "permission denied to create extension" in message
    assert f"(made: {task['role']}_first)" in message
    assert "name" in message.partition("hint: ")[2]
    assert server.psql(f"select datname from pg_database where datname ~ '{task['role']}'") == f"{task['role']}_first"
    task["databases"][1]["extensions"] = ["file_fdw"]
    assert must(task)["actions"][0] == f"create database {task['role']}"
    assert as_task(server, task, "select count(*) from app.shown", task["role"]) == "100"


def test_a_client_older_than_the_server_is_told_at_once(server, task, tmp_path, monkeypatch):
    task["databases"] = one(task, dump=dump_of(server, task))
    before = server.trace()
    monkeypatch.setattr(_pg_programs.glob, "glob", lambda _pattern: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pg_restore is not on this machine" in refused(task, "environment")
    old = tmp_path / "pg_restore"
    old.write_text("#!/bin/sh\necho 'pg_restore (PostgreSQL) 11.22'\n", encoding="ascii")
    old.chmod(0o755)
    message = refused(task, "environment")
    assert f"pg_restore 11 is older than the server, PostgreSQL {server.version}" in message
    assert f"apt install postgresql-client-{server.version}" in message
    assert server.trace() == before


@every
def test_what_a_killed_run_left_is_made_anew(server, task):
    """The role's comment says so."""
    must(task)
    name = task["role"]
    for state in ("present", "absent"):
        as_task(server, task, "create table half (x int)")
        server.psql(f"""comment on role {name} is '{{"owner": "{task["owner"]}", "creating": ["{name}"]}}'""")
        assert {"role": name, "owner": task["owner"], "databases": [name]} in listing(task)
        planned, done = must(task, state=state, check=True), must(task, state=state)
        assert planned["actions"] == done["actions"]
        if state == "present":
            assert f"drop database {name}, which is half made" in done["actions"]
            assert "does not exist" in as_task(server, task, "select from half")
            assert not must(task)["changed"]


def test_a_removal_that_was_interrupted_is_finished(server, task):
    must(task)
    server.psql(f"update pg_database set datconnlimit = -2 where datname = '{task['role']}'")
    assert must(task)["changed"]
    assert as_task(server, task, "select 1") == "1"
    server.psql(f"update pg_database set datconnlimit = -2 where datname = '{task['role']}'")
    must(task, state="absent")


# Dropping what is in use


@contextlib.contextmanager
def pgbench(server: Shared, task: dict[str, t.Any], *options: str) -> c.Iterator[None]:
    script = pathlib.Path(task["password_file"]).with_suffix(".sql")
    script.write_text("select count(*) from generate_series(1, 20000);\n", encoding="ascii")
    done = subprocess.Popen(
        [server.programs / "pgbench", "-n", "-c20", "-T60", "-f", script, *options, task["role"]],
        env={
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": task["role"],
            "PGPASSWORD": read(task["password_file"]),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        query = f"select count(*) from pg_stat_activity where usename = '{task['role']}'"
        until = time.monotonic() + 20
        while int(server.psql(query)) < (5 if "-C" in options else 20) and time.monotonic() < until:
            assert done.poll() is None
        yield
    finally:
        done.kill()
        done.wait()


@pytest.mark.parametrize(("options", "force"), [((), True), (("-C",), True), (("-C",), False)])
def test_drops_under_twenty_busy_connections(server, task, monkeypatch, options, force):
    if not force:  # as on PostgreSQL 12
        monkeypatch.setattr(_pg_server, "FORCE_SINCE", 10**6)
    must(task)
    with pgbench(server, task, *options):
        if not options:
            assert not must(task)["changed"]
        must(task, state="absent")
    assert_gone(server, task)


def test_prepared_transactions_are_rolled_back(server, task):
    must(task)
    as_task(server, task, "create table t (); begin; insert into t default values; prepare transaction 'it''s one'")
    taken = must(task, state="absent")
    assert taken["actions"][0] == f"roll back the prepared transaction it's one in database {task['role']}"
    assert_gone(server, task)


def test_a_database_that_is_replicated_is_told(server, task):
    must(task)
    name = task["role"]
    server.psql(f"create subscription s_{name} connection 'dbname=postgres' publication p with (connect = false)", name)
    for check in (True, False):
        assert f"subscription s_{name} is in use" in refused(task, "user", state="absent", check=check)
    server.psql(f"alter subscription s_{name} set (slot_name = none)", name)
    server.psql(f"drop subscription s_{name}", name)

    server.psql(f"select pg_create_logical_replication_slot('slot_{name}', 'test_decoding')", name)
    reader = subprocess.Popen(
        [
            *(server.programs / "pg_recvlogical", "--start", "-f", "-", f"--slot=slot_{name}"),
            *("-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", name),
        ],
        env={**os.environ, "PGPASSWORD": read(server.password_file)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with reader:
        while "t" not in server.psql("select true from pg_replication_slots where active"):
            time.sleep(0.01)
        assert f"replication slot slot_{name} is in use" in refused(task, "user", state="absent")
        reader.kill()
    while "t" in server.psql("select true from pg_replication_slots where active"):
        time.sleep(0.01)
    must(task, state="absent")


# A server that does not do its part


def test_too_few_connections_are_told_with_who_holds_them(server, task):
    with contextlib.ExitStack() as stack:
        for _number in range(57):
            stack.enter_context(contextlib.closing(connected(server, "postgres")))
        for check in (True, False):
            message = refused(task, "environment", check=check)
            assert f"the server at 127.0.0.1:{server.port} has 0 of 57 connections left, and 1 are needed" in message
            assert "held are 57 by unnamed (user postgres, database postgres)" in message
    until = time.monotonic() + 30
    while run(task).get("failed"):
        assert time.monotonic() < until
    with contextlib.ExitStack() as stack:
        for _number in range(57):
            stack.enter_context(contextlib.closing(connected(server, "postgres")))
        assert not must(task)["changed"]
    server.psql(f"alter role {task['role']} connection limit 0")
    task["databases"].append({"name": f"{task['role']}_more"})
    assert f"role {task['role']} at 127.0.0.1:{server.port} has 0 of 0 connections left" in refused(task, "environment")
    server.psql(f"alter role {task['role']} connection limit -1")


def test_a_database_that_is_full_of_its_own_sessions_is_there(server, task):
    task["databases"] = one(task, connection_limit=1)
    must(task)
    with contextlib.closing(connected(server, task["role"], task["role"], task["password_file"])):
        assert not must(task)["changed"]


def test_a_wrong_admin_is_told(server, task, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n", encoding="ascii")
    before = server.trace()
    for state in ("present", "absent"):
        message = refused(task, "environment", state=state, admin_password_file=str(wrong))
        assert "password authentication failed" in message
        assert "check database_admin_user and database_admin_password_file" in message
        assert "no admin_password_file" in refused(task, "user", state=state, admin_password_file="/nowhere")
        message = refused(task, "environment", state=state, admin_password_file=str(tmp_path))
        assert "cannot be read: Is a directory" in message
        (tmp_path / "key").write_bytes(b"\xff\xfe")
        message = refused(task, "environment", state=state, admin_password_file=str(tmp_path / "key"))
        assert "cannot be read: it is no text" in message
        message = refused(task, "environment", state=state, port=free_port())
        assert "Connection refused" in message
        assert "hint: start it, or check host and port: pg_isready --host 127.0.0.1 --port" in message
        assert "name one that is there" in refused(task, "environment", state=state, maintenance_database="nowhere")
        assert "pg_isready" in refused(task, "environment", state=state, host="/nowhere")
    assert server.trace() == before


@every
def test_an_admin_needs_no_more_than_he_uses(server, task):
    admin = f"admin_{task['role']}"
    server.psql(f"create role {admin} login password '{read(server.password_file)}'")
    task["admin_user"] = admin
    message = refused(task, "environment")
    assert f"user {admin} at 127.0.0.1:{server.port} may not make databases and roles" in message
    assert f'alter role "{admin}" createdb createrole' in message
    server.psql(f"alter role {admin} createdb createrole")
    server.psql(f"create database {admin} owner {admin}")
    made = "create schema app; create table app.t as select 7 as x"
    server.psql(made, admin, PGUSER=admin)
    task["databases"] = one(task, template=admin, extensions=["pg_trgm"])
    assert must(task)["changed"]
    assert not must(task)["changed"]
    assert as_task(server, task, "alter table app.t add y int; select x from app.t") == "7"
    settled = [f"set rights, limit and identity of database {task['role']}"]
    assert must(task, admin_user="postgres")["actions"] == settled
    assert not must(task)["changed"]
    assert as_task(server, task, "create table t as select 7; select current_user") == task["role"]
    session = connected(server, task["role"], task["role"], task["password_file"])
    must(task, state="absent")
    session.close()
    del task["admin_user"]
    server.psql(f"drop database {admin}")
    server.psql(f"drop role {admin}")


@pytest.mark.parametrize("at", ["create", "drop", "hand_over", "lock", "check_room"])
def test_a_restart_meanwhile_begins_the_work_again(server, task, template, monkeypatch, at):
    task["databases"] = one(task, template=template)
    if at == "drop":
        must(task)
    original, restarts = getattr(_pg_server.Server, at), iter([server.restart])

    def interrupted(self: t.Any, *arguments: t.Any) -> t.Any:
        next(restarts, lambda: None)()
        return original(self, *arguments)

    monkeypatch.setattr(_pg_server.Server, at, interrupted)
    state = "absent" if at == "drop" else "present"
    assert must(task, state=state)["changed"]
    assert next(restarts, None) is None
    assert not must(task, state=state)["changed"]
    if state == "present":
        assert as_task(server, task, "select count(*) from app.shown") == "100"


def test_a_server_that_ends_every_connection_is_told(server, task, monkeypatch):
    original = _pg_server.Server.create

    def ended(self: t.Any, *arguments: t.Any) -> None:
        pid = self.connection.info.backend_pid
        server.psql(f"select pg_terminate_backend({pid})")
        while server.psql(f"select from pg_stat_activity where pid = {pid}"):
            pass
        original(self, *arguments)

    monkeypatch.setattr(_pg_server.Server, "create", ended)
    message = refused(task, "environment")
    assert f"twice refused or ended the connection on which it was asked to create database {task['role']}" in message
    monkeypatch.undo()
    must(task)


def test_a_server_that_is_starting_is_waited_for(server, task):
    server.stop()
    starting = threading.Thread(target=server.start)
    assert "pg_isready" in refused(task, "environment")
    starting.start()
    until = time.monotonic() + 30
    while run(task).get("failed"):
        assert time.monotonic() < until
    starting.join()


def test_a_task_that_may_not_log_in_is_told(server, task):
    rules = pathlib.Path(server.psql("show hba_file"))
    kept = rules.read_text(encoding="utf-8")
    rules.write_text(f"host all {task['role']} 127.0.0.1/32 reject\n{kept}", encoding="utf-8")
    server.psql("select pg_reload_conf()")
    message = refused(task, "environment")
    assert f"role {task['role']} does not get into database {task['role']}" in message
    assert "pg_hba.conf has to let roles in" in message
    rules.write_text(kept, encoding="utf-8")
    server.psql("select pg_reload_conf()")
    until = time.monotonic() + 30
    while run(task).get("failed"):
        assert time.monotonic() < until
    assert not must(task)["changed"]


@pytest.fixture
def small_disk(server, top):
    """A disk of 24 MB for the server, as a tablespace."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    holder = os.stat(pathlib.Path(server.psql("show data_directory"), "PG_VERSION"))
    options = f"size=24m,mode=700,uid={holder.st_uid},gid={holder.st_gid}"
    disk = top / "disk"
    disk.mkdir()
    subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    try:
        server.psql(f"create tablespace small location '{disk}'")
        yield "small"
        server.psql("drop tablespace small")
    finally:
        subprocess.run([*as_root, "umount", disk], check=True)


def test_a_full_disk_is_told_and_nothing_is_left_on_it(server, task, small_disk):
    server.psql(f"create database wide tablespace {small_disk}")
    server.psql("create table t as select repeat('x', 500) from generate_series(1, 12000)", "wide")
    task["databases"] = one(task, template="wide")
    message = refused(task, "environment")
    assert f"cannot create database {task['role']} as a copy of wide" in message
    assert "No space left on device" in message
    assert "hint: free some space on the server's disk: df -h" in message
    assert server.psql(f"select count(*) from pg_database where datname = '{task['role']}'") == "0"
    server.psql("truncate t", "wide")
    server.psql("checkpoint")
    must(task)
    must(task, state="absent")
    server.psql("drop database wide")


# Many at once, and interrupted


def test_six_processes_give_the_same_databases(server, task):
    task["databases"] += [{"name": f"{task['role']}_2", "extensions": ["hstore"]}]
    results = [outcome(one) for one in [fork(functools.partial(run, task)) for _number in range(6)]]
    assert [result.get("msg") for result in results] == [None] * 6
    assert sorted(result["changed"] for result in results) == [False] * 5 + [True]
    assert as_task(server, task, "select 1") == "1"
    gone = [outcome(one) for one in [fork(functools.partial(run, task, state="absent")) for _number in range(6)]]
    assert sorted(result["changed"] for result in gone) == [False] * 5 + [True]


def test_six_processes_give_six_copies_of_one_template(server, template, tmp_path):
    tasks = [parameters(server, tmp_path) for _number in range(6)]
    for task in tasks:
        task["databases"] = one(task, template=template)
    results = [outcome(one) for one in [fork(functools.partial(run, task)) for task in tasks]]
    assert [result.get("msg") for result in results] == [None] * 6
    assert [as_task(server, task, "select count(*) from app.shown") for task in tasks] == ["100"] * 6
    for result in [outcome(one) for one in [fork(functools.partial(run, task, state="absent")) for task in tasks]]:
        assert "msg" not in result
    for task in tasks:
        assert_gone(server, task)


def test_of_six_who_want_one_name_one_has_it(server, tmp_path):
    tasks = [parameters(server, tmp_path, databases=[{"name": "wanted"}]) for _number in range(6)]
    results = [outcome(one) for one in [fork(functools.partial(run, task)) for task in tasks]]
    assert sorted(result.get("failure", "") for result in results) == ["", *["user"] * 5]
    (winner,) = (task for task, result in zip(tasks, results, strict=True) if "failure" not in result)
    assert as_task(server, winner, "select current_user") == winner["role"]
    for task in (*(one for one in tasks if one is not winner), winner):
        must(task, state="absent", databases=winner["databases"] if task is winner else [])
        assert_gone(server, {**task, "databases": []})
    assert_gone(server, winner)


def test_present_and_absent_at_once_end_in_one_of_both(server, task):
    forked = [fork(functools.partial(run, task, state=state)) for state in ("present", "absent") * 3]
    assert [result.get("msg") for result in map(outcome, forked)] == [None] * 6
    if server.psql(f"select from pg_database where datname = '{task['role']}'"):
        assert as_task(server, task, "select 1") == "1"


@pytest.mark.parametrize("state", ["present", "absent"])
def test_killed_at_any_moment_it_goes_on_where_it_was(server, task, template, state):
    """The moments are spread evenly over the run, each with a bit of chance."""
    task["databases"] = [
        *one(task, template=template),
        {"name": f"{task['role']}_2", "extensions": ["file_fdw"], "dump": dump_of(server, task)},
    ]
    must(task)
    began = time.monotonic()
    must(task, state="absent")
    took = time.monotonic() - began
    if state == "present":
        began = time.monotonic()
        must(task)
        took = time.monotonic() - began
    for moment in range(KILLS):
        must(task, state="absent" if state == "present" else "present")
        pid, answers = fork(functools.partial(run, task, state=state))
        time.sleep(took * (moment + random.random()) / KILLS)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        answers.close()
        if moment % 2:
            must(task, state="absent")
            assert_gone(server, task)
        must(task)
        assert as_task(server, task, "select count(*) from app.shown") == "100"
        assert as_task(server, task, "select count(*) from app.shown", f"{task['role']}_2") == "100"
        assert not must(task)["changed"]


def test_a_restore_that_outlives_its_run_keeps_others_off(server, task, tmp_path, monkeypatch):
    task["databases"] = one(task, dump=dump_of(server, task), extensions=["file_fdw"])
    slow, started = tmp_path / "pg_restore", tmp_path / "started"
    real = server.programs / "pg_restore"
    slow.write_text(
        f'#!/bin/sh\ncase "$*" in *--jobs*) echo $$ >{started}; sleep 2 ;; esac\nexec {real} "$@"\n', encoding="ascii"
    )
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(_pg_programs.glob, "glob", lambda _pattern: [])
    pid, answers = fork(functools.partial(run, task))
    while not started.exists():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    answers.close()
    assert "another run has been at work" in refused(task, "environment", timeout=0.2)
    slow.unlink()
    assert f"drop database {task['role']}, which is half made" in must(task)["actions"]
    assert as_task(server, task, "select count(*) from app.shown") == "100"


def test_another_run_at_work_is_waited_for_and_told(server, task):
    with contextlib.closing(connected(server, "postgres")) as other, other.cursor() as cursor:
        keys = _pg_server.LOCK, _pg_server.zlib.crc32(f"role {task['role']}".encode()) - (1 << 31)
        cursor.execute("select pg_advisory_lock(%s, %s)", keys)
        message = refused(task, "environment", timeout=0.2)
        assert f"another run has been at work on role {task['role']}" in message
    must(task)
