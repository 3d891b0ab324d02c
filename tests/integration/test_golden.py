# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden databases in each back end: what tasks' databases begin with; checked with psql and docker."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import secrets
import signal
import time
import typing as t

import psycopg2
import pytest
from integration.servers import (
    Shared,
    docker,
    fork,
    must,
    outcome,
    packaged,
    prune,
    psql,
    reachable,
    read,
    recorded,
    refused,
    run,
    shared_server,
    task_parameters,
)

from ansible_collections.parallel.worktrees.plugins.module_utils import _containers, _golden

BACKENDS = {"shared": "server", "shared by the newest": "newest", "embedded": "folder", "container": "image"}
"""Each back end, and the fixture that has what it works in."""
FACTS = {"backend", "host", "port", "user", "name", "password", "password_file", "url"}
BUILT = {"shared": "build golden", "embedded": "create cluster", "container": "with the golden databases"}
"""What an action says that builds one; with the embedded back end it is part of making the cluster."""


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder / "parallel-worktrees"


@pytest.fixture(scope="module")
def folder(pg_binaries):  # noqa: ARG001 - it fails where there is no PostgreSQL
    with reachable() as folder:
        yield folder


@pytest.fixture(scope="module")
def server(folder, pg_binaries):
    return shared_server(folder, pg_binaries, max_connections=60)


@pytest.fixture(scope="module")
def newest():
    """A server of the newest PostgreSQL that there is."""
    with reachable() as folder:
        yield shared_server(folder, packaged(folder), max_connections=60)


@pytest.fixture(scope="module")
def image(docker_client, postgres_image):
    """The image under a name of our own, which tells our prepared images from those of others."""
    name = f"golden-test-{secrets.token_hex(4)}:15"
    docker("tag", postgres_image, name)
    yield name
    for prepared in _containers.prepared_images(docker_client):
        if prepared["base"] == name:
            _containers.remove_prepared(docker_client, prepared["key"])
    docker("rmi", name)


@dataclasses.dataclass
class Workspace:
    """What a golden database is built from, and the tasks that begin with it.

    :ivar own: what the back end alone takes.
    :ivar server: the one that tasks share.
    :ivar key: a name of its own, which keeps its golden databases apart from those of other tests.
    """

    backend: str
    own: dict[str, t.Any]
    server: Shared | None
    folder: pathlib.Path
    key: str = dataclasses.field(default_factory=lambda: secrets.token_hex(4))
    tasks: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.write("1.sql", "create table shop (n int);")
        self.write("2.sql", "insert into shop values (1), (2);")
        self.golden: dict[str, t.Any] = {"folder": str(self.folder), "files": ["*.sql"]}

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text(encoding="utf-8").splitlines()

    def task(self) -> dict[str, t.Any]:
        task = task_parameters(self.backend)
        task[self.backend] = self.own
        if self.server:
            task |= {"user": task["name"], "port": self.server.port}
        task["databases"] = [{"key": self.key, "name": f"db_{task['name']}", "golden": self.golden}]
        self.tasks.append(task)
        return task

    def left(self) -> list[str]:
        """All that building leaves in the back end, golden or half made."""
        if self.server:
            return self.server.psql(
                "select datname from pg_database where datname ~ '^golden_'"
                " union all select 'role ' || rolname from pg_roles where rolname ~ '^golden_' and rolcanlogin"
            ).splitlines()
        if self.backend == "embedded":
            return sorted(path.name for path in pathlib.Path(self.own["directory"], ".templates").glob("*golden-*"))
        label = f"label=parallel-worktrees.base={self.own['image']}"
        images = docker("images", "--all", "--quiet", "--filter", label).split()
        preparing = ("--filter", "label=parallel-worktrees.kind=preparing")
        return images + docker("ps", "--all", "--quiet", "--filter", label, *preparing).split()


@pytest.fixture(params=BACKENDS)
def workspace(request, tmp_path, monkeypatch):
    got = request.getfixturevalue(BACKENDS[request.param])
    backend = request.param.partition(" ")[0]
    if backend == "shared":
        monkeypatch.setenv("PATH", f"{got.programs}:{os.environ['PATH']}")  # psql is as new as the server
    own = {
        "shared": lambda: {"admin_password_file": got.password_file},
        "embedded": lambda: {"directory": str(got / "clusters")},
        "container": lambda: {"image": got, "pull": "never"},
    }[backend]()
    made = Workspace(backend, own, got if backend == "shared" else None, tmp_path / "folder")
    yield made
    for task in made.tasks:
        must(task, state="absent")


shared = pytest.mark.parametrize("workspace", ["shared"], indirect=True)
quick = pytest.mark.parametrize("workspace", ["shared", "embedded"], indirect=True)
embedded = pytest.mark.parametrize("workspace", ["embedded"], indirect=True)


def shop(facts: dict[str, t.Any]) -> str:
    return psql(facts, "select string_agg(n::text, ',' order by n) from shop")


def connected(server: Shared, database: str) -> t.Any:
    password = read(server.password_file)
    return psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres", password=password, dbname=database)


# What it gives


def test_is_built_once_and_copied(workspace, state):
    before = workspace.left()
    planned = must(workspace.task(), check=True)
    assert workspace.left() == before

    first, second = must(workspace.tasks[0]), must(workspace.task())
    assert planned["database"] == first["database"]
    for made, builds in ((planned, True), (first, True), (second, workspace.backend == "embedded")):
        assert any(BUILT[workspace.backend] in action for action in made["actions"]) == builds
    assert len(workspace.left()) == len(before) + 1
    for made, task in ((first, workspace.tasks[0]), (second, workspace.tasks[1])):
        assert made["databases"] == {workspace.key: made["database"]}
        assert {*made["database"]} - {"container", "cluster"} == FACTS
        assert shop(made["database"]) == "1,2"
        assert psql(made["database"], "select tableowner = current_user from pg_tables where tablename = 'shop'") == "t"
        assert psql(made["database"], "select reltuples from pg_class where relname = 'shop'") == "2"
        for check in (True, False):
            again = must(task, check=check)
            assert (again["changed"], again["actions"], again["databases"]) == (False, [], made["databases"])
    assert psql(first["database"], "insert into shop values (3)") == ""
    assert (shop(first["database"]), shop(second["database"])) == ("1,2,3", "1,2")
    assert not (state / "golden").exists() or not os.listdir(state / "golden")


def told(task: dict[str, t.Any], expected: list[dict[str, t.Any]]) -> bool:
    """Whether a teardown would tell this of the task's databases, once the sessions that wrote have been counted."""
    until = time.monotonic() + 10
    while (written := must(task, state="absent", check=True)["written"]) != expected and time.monotonic() < until:
        time.sleep(0.05)
    assert written == expected
    return True


def test_what_is_written_beyond_it_is_told(workspace):
    task = workspace.task()
    database = task["databases"][0]["name"]
    facts = must(task)["database"]
    assert told(task, [])
    must(task)  # once more changes nothing of that
    nothing = {"database": database, "rows": 0, "tables": [], "definitions": False, "unknown": None}

    passing = "create temp table passing (n int); insert into passing values (1); select count(*) from shop"
    assert psql(facts, passing) == "2"
    assert told(task, [])
    assert psql(facts, "insert into shop values (3); update shop set n = 4 where n = 3") == ""
    assert told(task, [{**nothing, "rows": 2, "tables": ["shop"]}])
    assert psql(facts, "create schema own; create table own.notes as select generate_series(1, 3) n") == ""
    expected = {**nothing, "rows": 5, "tables": ["own.notes", "shop"], "definitions": True}
    assert told(task, [expected])
    if workspace.backend != "shared":
        assert psql(facts, "create database test_db_1") == ""
        assert told(task, [expected])
        other = {**facts, "url": facts["url"].replace(database, "test_db_1")}
        assert psql(other, "create table t as select 1") == ""
        assert told(task, [expected, {**nothing, "database": "test_db_1", "rows": 1, "tables": ["t"]}])
    gone = must(task, state="absent")["written"]
    assert gone[0] == expected
    assert must(task, state="absent")["written"] == []


def test_begins_with_a_pull(workspace, server, monkeypatch):
    """It is masked before anybody has it, and pulled once for all tasks."""
    source = f"source_{workspace.key}"
    server.psql(f"create database {source}")
    server.psql("create table shop (n int); insert into shop values (1), (2)", source)
    url = f"postgresql://postgres:{read(server.password_file)}@127.0.0.1:{server.port}/{source}"
    monkeypatch.setenv("SOURCE_URL", url)
    workspace.write("mask.sql", "update shop set n = n + 10")
    pull = {"url_variable": "SOURCE_URL", "mask": str(workspace.folder / "mask.sql")}
    workspace.golden = {"folder": str(workspace.folder), "pull": pull}
    assert shop(must(workspace.task())["database"]) == "11,12"
    server.psql("insert into shop values (3)", source)
    assert shop(must(workspace.task())["database"]) == "11,12"
    workspace.write("mask.sql", "update shop set n = n + 20")
    assert shop(must(workspace.task())["database"]) == "21,22,23"
    server.psql(f"drop database {source}")


@quick
def test_what_a_killed_pull_has_dumped_goes(workspace, server, state, monkeypatch):
    """Nobody has masked it. Whoever is at work meanwhile is left alone."""
    source = f"slow_{workspace.key}"
    server.psql(f"create database {source}")
    server.psql("create table shop (n int check (pg_sleep(0.4) is not null)); insert into shop values (1), (2)", source)
    url = f"postgresql://postgres:{read(server.password_file)}@127.0.0.1:{server.port}/{source}"
    monkeypatch.setenv("SOURCE_URL", url)
    workspace.golden = {"folder": str(workspace.folder), "pull": {"url_variable": "SOURCE_URL"}}

    def dumps() -> list[pathlib.Path]:
        return list((state / "golden").glob("*.pull"))

    pid, answers = fork(lambda: run(workspace.task()))
    with answers:
        until = time.monotonic() + 20
        while not dumps() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert dumps()
    time.sleep(2)  # a program outlives it
    workspace.golden["commands"] = ["true"]
    assert shop(must(workspace.task())["database"]) == "1,2"
    assert not dumps()
    with _golden._new_pull() as (folder, _lock):
        os.mkdir(folder)
        _golden.forget_pulls()
        assert os.path.isdir(folder)
    assert not dumps()
    server.psql(f"drop database {source} with (force)")


@quick
def test_what_it_is_built_from_tells_one_from_another(workspace):
    workspace.golden |= {"inputs": ["seed.txt"], "commands": ['psql -qc "insert into shop values ($(cat seed.txt))"']}
    workspace.write("seed.txt", "5")
    first = must(workspace.task())
    assert shop(first["database"]) == "1,2,5"

    def changes() -> t.Iterator[str]:
        workspace.write("2.sql", "insert into shop values (3)")
        yield "3,5"
        if workspace.server:  # what else makes the difference is the same for all
            workspace.write("seed.txt", "6")
            yield "3,6"
            workspace.golden["commands"] = ["psql -qc 'insert into shop values (7)'"]
            yield "3,7"

    for content in changes():
        before = workspace.left()
        assert shop(must(workspace.task())["database"]) == content
        assert {*before} < {*workspace.left()}
    workspace.tasks[0]["databases"][0]["golden"] = workspace.golden
    for check in (True, False):
        assert not must(workspace.tasks[0], check=check)["changed"]
    assert shop(first["database"]) == "1,2,5"


def test_two_databases_with_a_golden_one_each(workspace):
    task = workspace.task()
    other = {
        "folder": str(workspace.folder),
        "files": ["1.sql"],
        "commands": ["psql -qc 'insert into shop values (9)'"],
    }
    task["databases"].append({"key": "world", "name": f"world_{task['name']}", "golden": other})
    task["databases"].append({"key": "plain", "name": f"plain_{task['name']}"})
    made = must(task)["databases"]
    assert [*made] == [workspace.key, "world", "plain"]
    assert (shop(made[workspace.key]), shop(made["world"])) == ("1,2", "9")
    assert psql(made["plain"], "select count(*) from pg_tables where schemaname = 'public'") == "0"
    assert not must(task)["changed"]


@embedded
def test_a_database_that_is_added_later_is_built_in_its_place(workspace):
    task = workspace.task()
    wishes = task["databases"]
    must({**task, "databases": [{"name": "first"}]})
    made = must({**task, "databases": [{"name": "first"}, *wishes]})
    assert shop(made["databases"][workspace.key]) == "1,2"


def test_two_who_race_build_it_once(workspace):
    workspace.golden["commands"] = ["echo built >>log; sleep 0.5"]
    before = workspace.left()
    tasks = [workspace.task(), workspace.task()]
    made = [outcome(one) for one in [fork(functools.partial(run, task)) for task in tasks]]
    assert not [one["msg"] for one in made if one.get("failed")]
    assert [shop(one["database"]) for one in made] == ["1,2", "1,2"]
    assert workspace.lines("log") == ["built"]
    assert len(workspace.left()) == len(before) + 1


@shared
def test_nobody_is_disconnected_and_nobody_gets_in(workspace, server):
    server.psql("create database live")
    try:
        with contextlib.ExitStack() as stack:
            people = [stack.enter_context(contextlib.closing(connected(server, name))) for name in ("live", "postgres")]
            workspace.golden["commands"] = ["psql -c 'select pg_sleep(60)' >/dev/null 2>&1 & sleep 0.5"]
            must(workspace.task())  # although a command left somebody in it
            for person in people:
                with person.cursor() as cursor:
                    cursor.execute("select 1")
            golden = server.psql("select max(datname) from pg_database where datistemplate and datname ~ '^golden_'")
            assert "not currently accepting connections" in server.psql("select 1", golden, may_fail=True)
    finally:
        server.psql("drop database live with (force)")


def forget_registry(state: pathlib.Path) -> None:
    """Begin with no tasks, whatever other tests had."""
    for file in state.glob("registry.sqlite3*"):
        file.unlink()


@shared
def test_files_bring_others_with_them_and_may_need_no_transaction(workspace):
    workspace.write("data.csv", "7")
    workspace.write("rows.inc", "insert into shop values (8);")
    workspace.write("2.sql", "\\copy shop from data.csv\n\\ir rows.inc\n\ncreate index concurrently on shop (n);\n")
    before = workspace.left()
    for check in (True, False):
        said = refused(workspace.task(), "user", check=check)
        assert "migration 2.sql, line 4: create index concurrently cannot run in a transaction" in said
        assert "hint: golden.transaction: false" in said
    assert workspace.left() == before
    workspace.golden["transaction"] = False
    assert shop(must(workspace.task())["database"]) == "7,8"
    workspace.write("data.csv", "6")
    assert shop(must(workspace.task())["database"]) == "6,8"
    workspace.write("rows.inc", "insert into shop values (9);")
    assert shop(must(workspace.task())["database"]) == "6,9"
    workspace.write("2.sql", "\\i nowhere.inc")
    assert f"there is no file {workspace.folder}/nowhere.inc" in refused(workspace.task(), "user", check=True)


KEPT = """
create extension pg_trgm; create publication all_of_it for table shop; alter default privileges grant select on tables
to public; alter table shop enable row level security; create policy own on shop to current_user using (true);
create schema apart; grant all on schema apart to current_user;
"""


@shared
@pytest.mark.parametrize("admin", ["postgres", "creator"])
def test_its_role_can_go_while_copies_of_it_stay(workspace, server, state, tmp_path, admin):
    forget_registry(state)
    before = {*workspace.left()}
    task = workspace.task()
    if admin != "postgres":
        server.psql(f"create role {admin} login createdb createrole password 'made'")
        (tmp_path / "admin").write_text("made", encoding="utf-8")
        task["shared"] = {"admin_user": admin, "admin_password_file": str(tmp_path / "admin")}
    workspace.write("3.sql", KEPT)
    workspace.golden["files"] = ["[123].sql"]
    workspace.tasks[0] = old = recorded(task)
    (golden,) = {*workspace.left()} - before
    facts = must(old)["database"]
    owners = (
        "select extowner::regrole from pg_extension where extname = 'pg_trgm' union all"
        " select pubowner::regrole from pg_publication union all select unnest(polroles)::regrole from pg_policy"
    )
    assert psql(facts, owners).splitlines() == [facts["user"]] * 3
    workspace.write("3.sql", f"{KEPT} -- another")
    workspace.tasks.append(recorded({**workspace.task(), "shared": task["shared"]}))
    del workspace.tasks[-2]
    assert prune(backend="shared", apply=True)["changed"]
    assert golden not in workspace.left()
    assert server.psql(f"select from pg_roles where rolname = '{golden}'") == ""
    assert shop(facts) == "1,2"


@shared
def test_an_admin_who_is_no_superuser_builds_it(workspace, server, tmp_path):
    server.psql("create role maker login createdb createrole password 'made'")
    (tmp_path / "maker").write_text("made", encoding="utf-8")
    task = workspace.task()
    task["shared"] = {"admin_user": "maker", "admin_password_file": str(tmp_path / "maker")}
    made = must(task)["database"]
    assert shop(made) == "1,2"
    assert psql(made, "insert into shop values (3)") == ""


# What goes wrong


A_COMMAND = {"commands": ["echo told; printenv PGPASSWORD DATABASE_URL | tee seen; exit 3"]}, ["ended with 3", "told"]
FAILING: list[tuple[dict[str, t.Any], list[str]]] = [
    ({"files": ["bad.sql"]}, ['migration bad.sql, line 3: relation "nowhere" does not exist\nhint: correct it: ']),
    ({"files": ["role.sql"]}, ['line 1: role "web" does not exist\nhint: make the role in the server']),
    ({"files": ["right.sql"]}, ["line 1: permission denied", "\nhint: name the extension in extensions"]),
    A_COMMAND,
    ({"commands": ["echo '-- more' >>2.sql"]}, ["has changed"]),
]


@pytest.mark.parametrize(
    ("workspace", "broken", "words"),
    # With a container each takes seconds, and what fails is the same for all.
    [
        *(("shared", *one) for one in FAILING),
        *(("embedded", *one) for one in FAILING if "right.sql" not in one[0].get("files", ())),
        ("container", *A_COMMAND),
    ],
    indirect=["workspace"],
)
def test_a_build_that_fails_leaves_nothing(workspace, broken, words):
    workspace.write("bad.sql", "select 1;\n\nselect * from nowhere;")
    workspace.write("role.sql", "grant select on pg_class to web;")
    workspace.write("right.sql", "create extension file_fdw;")
    before = workspace.left()
    task = workspace.task()
    good = dict(workspace.golden)
    task["databases"][0]["golden"] = {**good, "files": ["[12].sql"], **broken}
    said = refused(task, "environment")
    for word in words:
        assert word in said
    if (workspace.folder / "seen").exists():
        assert not [line for line in workspace.lines("seen") if line in said]
        assert workspace.lines("seen")[0] not in said
    assert workspace.left() == before
    task["databases"][0]["golden"] = {**good, "files": ["[12].sql"]}
    assert shop(must(task)["database"]) == "1,2"


def kill_while_it_builds(workspace: Workspace, task: dict[str, t.Any]) -> None:
    under_way = workspace.folder / "under-way"
    pid, answers = fork(lambda: run(task))
    with answers:
        until = time.monotonic() + 20
        while not under_way.exists() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    under_way.unlink()


def test_killed_while_it_is_built_it_is_built_anew(workspace):
    before = workspace.left()
    workspace.golden["commands"] = ["touch under-way; sleep 0.7"]
    task = workspace.task()
    kill_while_it_builds(workspace, task)
    assert shop(must(task)["database"]) == "1,2"
    assert len(workspace.left()) == len(before) + 1


@pytest.mark.parametrize(
    ("golden", "words"),
    [
        ({"folder": "/nowhere"}, "there is no folder /nowhere"),
        ({"files": ["*.nothing"]}, "no file matches '*.nothing'"),
        ({"inputs": ["*.nothing"]}, "no file matches '*.nothing'"),
        ({"dump": "nothing"}, "cannot read"),
        ({"files": []}, "it says not what it is built from"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_done(workspace, golden, words):
    task = workspace.task()
    task["databases"][0]["golden"] = {**workspace.golden, **golden}
    before = workspace.left()
    for check in (True, False):
        assert words in refused(task, "user", check=check)
    assert workspace.left() == before


def test_one_beginning_is_enough(workspace):
    task = workspace.task()
    wish = task["databases"][0]
    for other in ("template", "dump"):
        said = refused(task, "user", check=True, databases=[{**wish, other: "/some"}])
        assert f"cannot begin both as a golden database and from a {other}" in said
    if not workspace.server:
        assert "is the server's own" in refused(task, "user", check=True, databases=[{**wish, "name": "postgres"}])


# What is left over


def test_prune_takes_what_a_newer_one_has_replaced(workspace, state):
    before, files = {*workspace.left()}, {*(state / "golden").glob("*")}
    forget_registry(state)
    task = workspace.task()
    old = recorded(task)
    workspace.tasks[0] = old
    (kept,) = {*workspace.left()} - before
    if workspace.backend != "container":  # where it takes seconds
        workspace.golden["commands"] = ["touch under-way; sleep 0.7"]
        kill_while_it_builds(workspace, {**workspace.task(), "owner": old["owner"]})
        del workspace.golden["commands"], workspace.tasks[-1]
    about = {"backend": workspace.backend, "directory": workspace.own.get("directory")}
    assert not prune(**about)["leftovers"]

    workspace.write("2.sql", "insert into shop values (3)")
    new = recorded(workspace.task())
    workspace.tasks[-1] = new
    assert shop(must(new)["database"]) == "3"
    if workspace.backend == "container":
        assert not prune(**about, workspace="test")["leftovers"]  # a container is made from it
        must(old, state="absent")

    trace = workspace.left()
    found = prune(**about)["leftovers"]
    assert {one["kind"] for one in found} == {"golden"}
    assert not prune(**about, workspace="other")["leftovers"]
    assert workspace.left() == trace
    assert prune(**about, apply=True)["changed"]
    (newest,) = {*workspace.left()} - before
    assert newest != kept
    assert {*(state / "golden").glob("*")} == files
    assert not prune(**about, apply=True)["changed"]
    if workspace.backend != "container":
        assert shop(must(old)["database"]) == "1,2"
    assert shop(must(new)["database"]) == "3"
