# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/carlo.yml does what its team's own scripts did: a frozen identity, and databases in one shared server.

The tests share a workspace and the server, which the first task starts; each has tasks of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import time

import pytest
import yaml
from integration import workspaces
from integration.workspaces import CLONE, docker, git
from ports import free_port

EXAMPLE = CLONE / "examples" / "carlo.yml"
BRANCH = "feat/oauth_v2"
SLUG = "oauth_v2_" + hashlib.sha1(BRANCH.encode(), usedforsecurity=False).hexdigest()[:6]
NPM = """#!/bin/sh
echo "npm $* in $PWD, database $DATABASE_URL" >>"$NPM_LOG"
"""


class Carlo(workspaces.Workspace):
    """The workspace of examples/carlo.yml, with the server of its tasks."""

    def repository(self, name: str = "carlo") -> pathlib.Path:
        return self.root / name

    def worktree(self, name: str, task: str = "") -> pathlib.Path:  # noqa: ARG002 - of its one repository
        """By the subdomain, as the workspace says."""
        return self.repository() / ".worktrees" / name

    @property
    def server(self) -> str:
        return str(self.variables["database_server_container"])

    def sql(self, text: str, database: str = "postgres") -> str:
        """What the server's own administrator sees."""
        return docker("exec", self.server, "psql", "-qAtX", "-U", "postgres", "-d", database, "-c", text)

    def databases(self) -> set[str]:
        found = self.sql("select datname from pg_database where not datistemplate and datname <> 'postgres'")
        return set(found.splitlines())

    def roles(self) -> set[str]:
        return set(self.sql("select rolname from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres'").split())

    def everything(self) -> dict[str, object]:
        """All that there is of tasks, as the real tools tell it."""
        repository = self.repository()
        return {
            "worktrees": workspaces.worktrees(repository),
            "branches": git(repository, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads"),
            "folders": sorted(str(path) for path in (repository / ".worktrees").glob("*")),
            "marks": sorted(str(path) for path in (repository / ".git").rglob("*parallel-worktrees*")),
            "excluded": (repository / ".git" / "info" / "exclude").read_text(),
            "databases": self.databases(),
            "roles": self.roles(),
            "secrets": sorted(str(path) for path in (self.state / "parallel-worktrees" / "secrets").rglob("*")),
            "tasks": self.rows("select name, branch, slug, subdomain, state, plan from task order by name"),
            "slots": self.slots(),
        }


@pytest.fixture(scope="module")
def space(tmp_path_factory, postgres_image):
    folder = tmp_path_factory.mktemp("carlo")
    root = folder / "work"
    sample = (sys.executable, CLONE / "scripts" / "sample_workspace.py", root, "--shape", "carlo")
    subprocess.run(sample, check=True)
    own = secrets.token_hex(3)
    variables = {
        "workspace_root": str(root),
        "workspace_name": f"carlo-{own}",
        "database_image": postgres_image,
        "database_pull": "never",
        "database_server_container": f"carlo-postgres-{own}",
        "database_server_port": free_port(),
    }
    made = Carlo(root, EXAMPLE, folder / "state", variables)
    made.state.mkdir()
    programs = folder / "bin"
    programs.mkdir()
    (programs / "npm").write_text(NPM)
    (programs / "npm").chmod(0o755)
    paths = f"{programs}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    made.environment = {"PATH": paths, "NPM_LOG": str(folder / "npm.log")}
    try:
        yield made
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", made.server], check=False, capture_output=True)
        subprocess.run(["docker", "volume", "rm", made.server], check=False, capture_output=True)


@pytest.fixture(scope="module")
def npm(space):
    """What npm was asked to do."""
    return pathlib.Path(space.environment["NPM_LOG"])


@pytest.fixture(scope="module")
def task(space):
    """A task that is provisioned once and looked at by several tests."""
    return space.provision(BRANCH).must()


@pytest.fixture
def server(space, task):  # noqa: ARG001 - whoever comes first starts it
    """The server, with the task that started it."""
    return space


def facts(run):
    return run.result("task_record")["tasks"][0]["plan"]["facts"]


# Identity


@pytest.mark.main_job
def test_the_identity_follows_from_the_branch(space, task):
    told = facts(task)
    assert (told["name"], told["branch"]) == (BRANCH, BRANCH)
    assert told["slug"] == SLUG
    assert told["subdomain"] == "oauth-v2"
    assert workspaces.worktrees(space.repository()) == {space.worktree("oauth-v2"): BRANCH}
    values = workspaces.env_values(space.worktree("oauth-v2") / ".env.development.local")
    assert values["APP_URL"] == "https://oauth-v2.carlo.localhost"
    assert values["WORKTREE_BRANCH"] == BRANCH
    assert values["WORKTREE_SLUG"] == SLUG


def test_names_fit_where_they_go(server):
    space = server.varied(database_backend="none", database_databases=[], env_files=[])
    name = "feat/" + "Überlänge-" * 9
    long = name.encode("ascii", "ignore").decode().rstrip("-")
    run = space.provision(long).must()
    told = facts(run)
    assert len(f"carlo_{told['slug']}".encode()) <= 63
    assert len(told["subdomain"]) <= 63
    assert told["branch"] == long
    # Another branch that ends alike has names of its own.
    other = facts(space.provision("fix/oauth_v2").must())
    assert other["slug"] != SLUG
    assert other["subdomain"] != "oauth-v2"
    space.teardown(f"{long},fix/oauth_v2").must()


@pytest.mark.main_job
def test_a_renamed_branch_changes_no_other_name(server):
    name, before = "feat/rename_me", server.databases()
    told = facts(server.provision(name).must())
    worktree = server.worktree("rename-me")
    files = (worktree / ".env.development.local").read_text()
    git(worktree, "branch", "-m", "feat/renamed")
    tip = workspaces.commit(worktree, "work.txt")
    again = facts(server.provision(name).must())
    assert {key: again[key] for key in ("branch", "slug", "subdomain")} == {
        key: told[key] for key in ("branch", "slug", "subdomain")
    }
    assert (worktree / ".env.development.local").read_text() == files
    assert server.databases() - before == {f"carlo_{told['slug']}", f"world_{told['slug']}"}
    found = server.task(name)
    assert found["branch"] == name
    assert found["worktrees"][0]["branch"] == "feat/renamed"
    assert found["drift"] == [f"worktree of carlo is on branch feat/renamed, not {name}"]
    run = server.teardown(name).must()
    assert "feat/renamed stays" in run.stdout
    assert not worktree.exists()
    assert server.databases() == before
    assert git(server.repository(), "rev-parse", "feat/renamed") == tip


# Databases


@pytest.mark.main_job
def test_two_databases_in_the_one_server(server, task):
    assert {f"carlo_{SLUG}", f"world_{SLUG}"} <= server.databases()
    told = facts(task)
    assert told["databases"]["carlo"]["name"] == f"carlo_{SLUG}"
    assert told["databases"]["world"]["name"] == f"world_{SLUG}"
    assert told["database"] == told["databases"]["carlo"]
    settings = server.sql("select current_setting('max_connections'), current_setting('shared_preload_libraries')")
    assert settings == "200|pg_stat_statements"
    assert server.sql("select count(*) >= 0 from pg_stat_statements", f"carlo_{SLUG}") == "t"
    values = workspaces.env_values(server.worktree("oauth-v2") / ".env.development.local")
    for variable, database in (("DATABASE_URL", f"carlo_{SLUG}"), ("WORLD_DATABASE_URL", f"world_{SLUG}")):
        assert ask(values[variable], "select current_database()") == database
    # The next task finds the server as it is.
    started = docker("inspect", "--format", "{{.State.StartedAt}}", server.server)
    server.provision("feat/next").must()
    assert docker("inspect", "--format", "{{.State.StartedAt}}", server.server) == started
    server.teardown("feat/next").must()
    assert docker("inspect", "--format", "{{.State.Running}}", server.server) == "true"


def ask(url, sql):
    done = subprocess.run(["psql", "-qAtX", url, "-c", sql], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_second_run_wipes_no_data(server, task, npm):
    url = workspaces.env_values(server.worktree("oauth-v2") / ".env.development.local")["DATABASE_URL"]
    ask(url, "create table mine as select 42 as answer")
    asked = npm.read_text()
    assert f"npm install in {server.worktree('oauth-v2')}" in asked
    run = server.provision(BRANCH).must()
    assert run.changed == 0
    assert ask(url, "select answer from mine") == "42"
    assert npm.read_text() == asked
    assert facts(run) == facts(task)


def test_an_empty_database_is_pulled_from_production_and_a_full_one_only_when_told(server):
    server.sql("create role production login password 'far-away'")
    server.sql("create database production owner production")
    server.sql("set role production; create table orders as select 1 as number", "production")
    port = server.variables["database_server_port"]
    source = {"CARLO_PRODUCTION_URL": f"postgresql://production:far-away@127.0.0.1:{port}/production"}
    usual, server.environment = server.environment, {**server.environment, **source}
    try:
        first = server.provision("feat/pull").must()
        assert "far-away" not in first.output
        values = workspaces.env_values(server.worktree("pull") / ".env.development.local")
        url = values["DATABASE_URL"]
        assert ask(url, "select number from orders") == "1"
        assert ask(values["WORLD_DATABASE_URL"], "select to_regclass('orders')") == ""

        ask(url, "update orders set number = 2")
        server.sql("update orders set number = 3", "production")
        assert server.provision("feat/pull").must().changed == 0
        assert ask(url, "select number from orders") == "2"
        server.provision("feat/pull", database_pull_again=True).must()
        assert ask(url, "select number from orders") == "3"
    finally:
        server.teardown("feat/pull").must()
        server.environment = usual
        server.sql("drop database production with (force)")
        server.sql("drop role production")


def test_teardown_drops_the_databases_of_the_busy(server):
    server.provision("feat/busy").must()
    before = server.databases()
    url = workspaces.env_values(server.worktree("busy") / ".env.development.local")["DATABASE_URL"]
    with subprocess.Popen(
        ["psql", "-qAtX", url, "-c", "select pg_sleep(300)"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as busy:
        server.teardown("feat/busy").must()
        assert busy.wait(20) != 0
    gone = before - server.databases()
    assert {name.rpartition("_")[0] for name in gone} == {"carlo_busy", "world_busy"}
    assert not any("busy" in role for role in server.roles())


# Tools


@pytest.mark.main_job
def test_db_status(server):
    name, query = "feat/told", "select version from migrations order by version desc"
    told = facts(server.provision(name).must())
    try:
        values = workspaces.env_values(server.worktree("told") / ".env.development.local")
        assert "last migration" not in server.run("db_status", task=name, database_migration_query=query).must().stdout
        ask(values["DATABASE_URL"], "create table migrations as select generate_series(20260101, 20260103) as version")
        ask(values["DATABASE_URL"], "create table other ()")
        git(server.worktree("told"), "branch", "-m", "feat/retold")
        run = server.run("db_status", worktree=str(server.worktree("told")), database_migration_query=query).must()
        rows = [line.split(maxsplit=1) for line in run.stdout.splitlines() if line]
        assert rows[:5] == [
            ["task", name],
            ["worktree", str(server.worktree("told"))],
            ["branch", "feat/retold"],
            ["slug", told["slug"]],
            ["subdomain", "told"],
        ]
        assert f"carlo_{told['slug']} (2 tables, " in run.stdout
        assert f"world_{told['slug']} (0 tables, " in run.stdout
        assert "last migration 20260103" in run.stdout
        assert f":********@127.0.0.1:{server.variables['database_server_port']}/carlo_{told['slug']}\n" in run.stdout
        assert server.password(name) not in run.output + json.dumps(run.results)
        listed = json.loads(server.run("db_status", task=name, format="json").must().stdout)
        assert [one["tables"] for one in listed["databases"]] == [2, 0]
        server.run("db_status", task=name, database_migration_query="nonsense").refused("environment", "nonsense")
        # A dry run of it is the same, and says so of a database that is gone.
        server.sql(f'drop database "world_{told["slug"]}" with (force)')
        run = server.run("db_status", "--check", task=name).must()
        assert f"world_{told['slug']} (cannot be asked: " in run.stdout
    finally:
        server.teardown(name).must()


@pytest.mark.main_job
def test_psql_cannot_mean_another_database(server):
    query = "select current_user || ' in ' || current_database()"
    role = f"{server.name}_{SLUG}"
    elsewhere = {"PGDATABASE": "postgres", "PGUSER": "postgres", "PGHOSTADDR": "127.0.0.2", "PGSERVICE": "nowhere"}
    elsewhere |= {"PGOPTIONS": "-c no_such=1", "PGSSLMODE": "verify-full", "PGPASSWORD": "of another"}
    space = server.varied()
    space.environment = {**space.environment, **elsewhere}
    run = space.run("db_psql", task=BRANCH, command=query).must()
    assert f"{role} in carlo_{SLUG}" in run.stdout
    run = space.run("db_psql", worktree=str(server.worktree("oauth-v2")), command=query, database="world").must()
    assert f"{role} in world_{SLUG}" in run.stdout
    assert server.password(BRANCH) not in run.output + json.dumps(run.results)
    # Without a command it tells the line that lets a person in.
    line = space.run("db_psql", task=BRANCH).must().stdout
    shell = subprocess.run(
        ["sh", "-c", line],
        input=query,
        env={**os.environ, **elsewhere},
        check=False,
        capture_output=True,
        text=True,
    )
    assert f"{role} in carlo_{SLUG}" in shell.stdout, shell.stderr
    assert run.changed == 1, "what SQL does, nobody can tell"
    assert space.run("db_psql", "--check", task=BRANCH, command="select 1/0").must()
    failed = server.run("db_psql", task=BRANCH, command="select nonsense")
    assert failed.code == 2
    assert 'column "nonsense" does not exist' in failed.output
    server.run("db_psql", task=BRANCH, database="main").refused("user", "no database 'main'")
    server.run("db_psql", command=query).refused("user", "no task is named")


# Files


@pytest.mark.main_job
def test_secrets_are_in_one_place(server):
    link = server.worktree("oauth-v2") / ".env.local"
    main = server.repository() / ".env.local"
    assert os.readlink(link) == str(main)
    before = main.read_text()
    main.write_text(before.replace("sk_test_1", "sk_test_2"))
    try:
        assert "sk_test_2" in link.read_text()
    finally:
        main.write_text(before)


@pytest.mark.main_job
def test_copies_and_what_stays_out_of_git(server):
    worktree = server.worktree("oauth-v2")
    assert not (worktree / ".vercel").is_symlink()
    assert (worktree / ".vercel" / "project.json").read_text() == '{"projectId": "carlo"}\n'
    assert json.loads((worktree / "agent-browser.json").read_text()) == {"sessionName": f"carlo-{SLUG}"}
    assert git(worktree, "status", "--porcelain", "--untracked-files=all") == ""
    git(worktree, "add", "--all")
    assert git(worktree, "diff", "--cached", "--name-only") == ""


# Preflight


def test_collisions_are_refused_before_anything_is_made(server):
    repository = server.repository()
    name = "feat/taken"
    told = facts(server.provision(name).must())
    server.teardown(name, delete_branch="true").must()
    before = server.everything()

    elsewhere = server.root / "elsewhere"
    git(repository, "worktree", "add", "--quiet", "-b", name, str(elsewhere))
    held = server.everything()
    server.provision(name).refused("user", "is checked out at", str(elsewhere))
    assert server.everything() == held
    git(repository, "worktree", "remove", str(elsewhere))
    git(repository, "branch", "--quiet", "-D", name)

    folder = server.worktree("taken")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    server.provision(name).refused("user", str(folder), "is not a worktree")
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    folder.rmdir()

    foreign = f"world_{told['slug']}"
    server.sql(f'create database "{foreign}"')
    server.provision(name).refused("user", foreign)
    server.sql(f'drop database "{foreign}"')
    assert server.everything() == before


# Two phases: a worktree that another tool makes


@pytest.fixture
def conductor(server, tmp_path):
    """A worktree as Conductor makes it, and its three scripts as it runs them: inside, by a shell."""
    repository = server.repository()
    # What the variables of these tests are, a team has in its workspace file.
    ours = {key: value for key, value in server.variables.items() if key != "workspace_root"}
    (repository / "carlo.yml").write_text(yaml.safe_dump({**workspaces.load(EXAMPLE), **ours}))
    scripts = json.loads((CLONE / "examples" / "conductor.json").read_text())["scripts"]
    worktree = tmp_path / "conductor" / "lisbon"
    git(repository, "worktree", "add", "--quiet", "-b", "ada/pay_by_card", str(worktree))
    log = tmp_path / "record"

    def script(name):
        return subprocess.run(
            ["sh", "-c", f"{scripts[name]} | cat; echo survived"],
            cwd=worktree,
            env={**server.environ(str(log)), "PWD": str(worktree), "CONDUCTOR_ROOT_PATH": str(repository)},
            check=False,
            capture_output=True,
            text=True,
        )

    yield worktree, script
    (repository / "carlo.yml").unlink()
    if worktree.exists():
        git(repository, "worktree", "remove", "--force", str(worktree))
    git(
        repository, "branch", "--quiet", "-D", git(repository, "branch", "--format=%(refname:short)", "--list", "ada/*")
    )


@pytest.mark.main_job
def test_setup_run_and_archive_in_a_worktree_that_is_there(server, conductor, npm):
    worktree, script = conductor
    before = server.everything()
    dirty = worktree / "idea.txt"
    dirty.write_text("not committed")
    name = "ada/pay_by_card"

    done = script("setup")
    assert f"{name}: ready" in done.stdout, done
    found = server.task(name)
    assert (found["state"], found["drift"]) == ("ready", [])
    assert found["subdomain"] == "pay-by-card"
    assert found["worktrees"][0]["path"] == str(worktree)
    assert server.databases() - before["databases"] == {f"carlo_{found['slug']}", f"world_{found['slug']}"}
    assert (worktree / ".env.local").is_symlink()
    values = workspaces.env_values(worktree / ".env.development.local")
    assert values["APP_URL"] == "https://pay-by-card.carlo.localhost"
    assert git(worktree, "status", "--porcelain") == "?? idea.txt"
    # Neither worktree nor branch was made.
    assert workspaces.worktrees(server.repository()) == before["worktrees"]
    assert (
        git(server.repository(), "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads")
        == (before["branches"])
    )
    # Again by either name, and it is the same task.
    assert server.provision(name).must().changed == 0
    assert server.run("provision", worktree=str(worktree)).must().changed == 0

    script("run")
    assert npm.read_text().splitlines()[-1] == f"npm run dev in {worktree}, database {values['DATABASE_URL']}"

    # Its branch is renamed, and a server left running.
    git(worktree, "branch", "-m", "ada/pay_by_phone")
    assert server.run("provision", worktree=str(worktree)).must().changed == 0
    left = subprocess.Popen(["sleep", "300"], cwd=worktree)

    done = script("archive")
    assert f"{name}: torn down" in done.stdout, done
    assert "survived" in done.stdout, "who calls is spared, and who listens to it"
    assert left.wait(5) == -15
    assert dirty.read_text() == "not committed"
    entries = {path.name for path in worktree.iterdir()}
    assert entries == {".git", ".gitignore", "src", "idea.txt"}
    after = server.everything()
    assert after.pop("worktrees") == {**before.pop("worktrees"), worktree: "ada/pay_by_phone"}
    assert after.pop("branches") == before.pop("branches").replace("pay_by_card", "pay_by_phone")
    assert after == before


def test_what_was_edited_stays_with_the_worktree(server, conductor):
    worktree, _script = conductor
    tool = worktree / ".env.test"
    tool.write_text("PORT=3000\nTOOL=conductor\n")
    given = {"repo": "carlo", "path": ".env.test", "values": {"PORT": 3001}}
    space = server.varied(env_files=[*workspaces.load(EXAMPLE)["env_files"], given])
    (server.repository() / ".env.test").write_text("PORT=1\n")
    try:
        space.run("provision", worktree=str(worktree)).must()
        assert tool.read_text() == "PORT=3001\nTOOL=conductor\n"
        (worktree / "agent-browser.json").write_text('{"sessionName": "mine"}\n')
        space.run("teardown", worktree=str(worktree)).must()
    finally:
        (server.repository() / ".env.test").unlink()
    assert tool.read_text() == "PORT=3001\nTOOL=conductor\n"
    assert "mine" in (worktree / "agent-browser.json").read_text()
    assert not (worktree / ".env.development.local").exists()


def test_a_worktree_that_its_tool_removed_first(server, conductor):
    worktree, _script = conductor
    before = server.everything()
    server.run("provision", worktree=str(worktree)).must()
    git(server.repository(), "worktree", "remove", "--force", str(worktree))
    assert server.task("ada/pay_by_card")["drift"] == ["worktree of carlo: its folder is gone"]
    server.run("teardown", worktree=str(worktree)).must()
    after = server.everything()
    for what in ("databases", "roles", "secrets", "tasks", "slots"):
        assert after[what] == before[what]


def test_an_orphaned_adoption_is_removed_by_prune(server, conductor):
    worktree, _script = conductor
    before = server.everything()["marks"]
    space = server.varied(database_backend="none", env_files=workspaces.load(EXAMPLE)["env_files"][1:])
    space.run("provision", worktree=str(worktree)).must()
    with space.opened_registry() as registry:
        registry.execute("delete from task where name = 'ada/pay_by_card'")
    space.run("prune", apply="true").must()
    assert git(worktree, "branch", "--show-current") == "ada/pay_by_card"
    assert not (worktree / "agent-browser.json").exists()
    assert server.everything()["marks"] == before


def test_what_cannot_be_adopted(server, conductor):
    worktree, _script = conductor
    before = server.everything()
    stranger = server.root / "stranger"
    for path in (server.repository(), worktree / "src", server.root, stranger):
        server.run("provision", worktree=str(path)).refused("user", str(path), "no linked worktree")
    # A worktree that this collection made stands for its task.
    own = server.worktree("oauth-v2")
    assert server.run("provision", worktree=str(own)).must().changed == 0
    server.run("provision", task="feat/other", worktree=str(own)).refused("user", "belongs to", BRANCH)
    server.run("provision", task=BRANCH, worktree=str(worktree)).refused("user", str(own), str(worktree))
    server.run("teardown", worktree=str(worktree)).refused("user", "no task has the worktree")
    git(worktree, "switch", "--quiet", "--detach")
    server.run("provision", worktree=str(worktree)).refused("user", "is on no branch")
    git(worktree, "switch", "--quiet", "ada/pay_by_card")
    assert server.everything() == before


def test_a_dry_run_adopts_nothing(server, conductor):
    worktree, _script = conductor
    before = server.everything(), workspaces.snapshot(worktree)
    run = server.run("provision", "--check", worktree=str(worktree)).must()
    assert f"adopt worktree {worktree} on branch ada/pay_by_card" in run.stdout
    assert (server.everything(), workspaces.snapshot(worktree)) == before
    server.run("provision", worktree=str(worktree)).must()
    before = server.everything(), workspaces.snapshot(worktree)
    run = server.run("teardown", "--check", worktree=str(worktree)).must()
    assert f"leave worktree {worktree}" in run.stdout
    assert (server.everything(), workspaces.snapshot(worktree)) == before
    server.run("teardown", worktree=str(worktree)).must()


# Teardown


@pytest.fixture
def short(server):
    """A task of a test's own."""
    server.provision("feat/short").must()
    yield server.worktree("short")
    server.run("teardown", task="feat/short", force="true", delete_branch="true")


def test_teardown_is_refused_from_inside(server, short):
    for folder in (short, short / "src"):
        message = server.called_from(folder).teardown("feat/short").refused("user", "from inside")
        assert str(short) in message
    assert server.task("feat/short")["state"] == "ready"
    assert server.task("feat/short")["drift"] == []


def test_a_dirty_worktree_is_refused_without_force(server, short):
    (short / "idea.txt").write_text("not committed")
    server.teardown("feat/short").refused("user", "work would be lost", "idea.txt")
    assert server.task("feat/short")["drift"] == []
    run = server.teardown("feat/short", force="true").must()
    assert not short.exists()
    ref = run.result("git_worktree")["saved"][0]["ref"]
    assert git(server.repository(), "show", f"{ref}^3:idea.txt") == "not committed"


def test_an_unmerged_branch_is_kept_without_force(server, short):
    tip = workspaces.commit(short, "work.txt")
    message = server.teardown("feat/short", delete_branch="true").refused("user", "on no other branch")
    assert tip[:7] in message
    assert git(server.repository(), "rev-parse", "feat/short") == tip
    assert server.task("feat/short")["drift"] == []
    git(server.repository(), "branch", "merged", "feat/short")
    try:
        server.teardown("feat/short", delete_branch="true").must()
    finally:
        git(server.repository(), "branch", "-D", "merged")
    assert git(server.repository(), "branch", "--list", "feat/short") == ""


DEV_SERVER = """
import http.server, subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) for _ in range(2)]
print(*(child.pid for child in children), flush=True)
http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
STUBBORN = "trap '' TERM; echo $$; while :; do sleep 1; done"
ORDERLY = 'trap \'echo "ended well" >"$0"; exit 0\' TERM; echo $$; while :; do sleep 0.1; done'
TWICE_FORKED = "(setsid sh -c 'cd src; echo $$; exec sleep 300' &) &"


@pytest.mark.main_job
def test_what_works_inside_is_stopped(server, short, tmp_path):
    def start(*command, folder=short):
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        pids = [int(word) for word in process.stdout.readline().split()]
        return process, pids

    end = tmp_path / "end"
    dev, children = start(sys.executable, "-c", DEV_SERVER)
    stubborn, _pid = start("sh", "-c", STUBBORN)
    orderly, _pid = start("sh", "-c", ORDERLY, str(end))
    twice, orphan = start("sh", "-c", TWICE_FORKED)
    beside = server.worktree("short-lived")
    beside.mkdir()
    neighbour, _pid = start("sh", "-c", "echo $$; exec sleep 300", folder=beside)
    try:
        assert all(map(alive, (*children, *orphan)))
        begun = time.monotonic()
        run = server.teardown("feat/short").must()
        assert time.monotonic() - begun >= 2, "the stubborn one had its time"
        assert dev.wait(1) == -15
        assert orderly.wait(1) == 0
        assert end.read_text() == "ended well\n"
        assert stubborn.wait(1) == -9
        assert twice.wait(1) == 0
        assert not any(map(alive, (*children, *orphan)))
        told = {one["pid"] for one in run.result("worktree_processes", step="Processes")["processes"]}
        assert told >= {dev.pid, stubborn.pid, orderly.pid, *children, *orphan}
        assert os.getpid() not in told
        assert neighbour.poll() is None, "a folder that begins with the same name is another"
    finally:
        for process in (dev, stubborn, orderly, neighbour):
            process.kill()
            process.wait()
        beside.rmdir()


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
