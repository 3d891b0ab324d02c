# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/bautista.yml does what its team's own scripts did: four repositories and a PostgreSQL container per task.

The tests share a workspace and a running main tree; each has tasks of its own, and what they did to the main tree is
looked at last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import threading
import time

import pytest
from integration import workspaces
from integration.workspaces import REPOSITORIES, docker, git, snapshot
from ports import free_base

MAIN_PASSWORD = "of-the-main-tree"


@pytest.fixture(scope="module")
def space(tmp_path_factory, postgres_image):
    with workspaces.bautista(tmp_path_factory.mktemp("bautista"), image=postgres_image) as made:
        yield made


@pytest.fixture(scope="module")
def base(space):
    """The main tree's port; its tasks' follow."""
    return space.variables["lease_ports"]["database"]["base"]


@pytest.fixture(scope="module")
def own(space):
    """What makes the names of tasks, and so of containers, this run's own."""
    return space.name.rpartition("-")[2]


@pytest.fixture(scope="module", autouse=True)
def main_tree(space, base, own, postgres_image):
    """The main tree as its team has it: files, and its own container on the first port."""
    name = f"postgres_bautista_testing_main_{own}"
    docker(
        *("run", "--detach", "--name", name, "--env", f"POSTGRES_PASSWORD={MAIN_PASSWORD}"),
        *("--publish", f"127.0.0.1:{base}:5432", postgres_image),
    )
    try:
        _answers(base)
        workspaces.psql("create table mine as select 42 as answer", port=base, password=MAIN_PASSWORD)
        yield {"container": name, "started": _started(name), "files": _main_files(space), "git": _main_git(space)}
    finally:
        docker("rm", "--force", "--volumes", name)


def _answers(port):
    deadline = time.monotonic() + 60
    while True:
        try:
            return workspaces.psql("select 1", port=port, password=MAIN_PASSWORD)
        except AssertionError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def _started(container):
    return docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}", container)


def _main_files(space):
    """All that is the team's own, which git's folders are not."""
    tops = [space.repository(name) for name in REPOSITORIES]
    return snapshot(*tops, times=False, without={".git", ".worktrees"})


def _main_git(space):
    """What git says of each main tree."""
    trees = [*(space.repository(name) for name in REPOSITORIES), space.repository("backend") / "migrations"]
    return {
        str(tree): [
            git(tree, "status", "--porcelain", "--branch"),
            git(tree, "rev-parse", "HEAD", "main"),
            # Worktrees may have settings of their own from the first task on; that stays.
            sorted({*git(tree, "config", "--list").splitlines()} - {"extensions.worktreeconfig=true"}),
            git(tree, "stash", "list"),
        ]
        for tree in trees
    }


@pytest.fixture(scope="module")
def task(space, own):
    """A task that is provisioned once, while nothing can be fetched, and looked at by several tests."""
    name = f"fix-login_{own}"
    origins = space.root / "origins"
    hidden = origins.rename(space.root / "unreachable")
    try:
        with _processes_seen("cmdline", "environ") as seen:
            run = space.provision(name, "-vvv", "--diff").must()
    finally:
        hidden.rename(origins)
    return {"name": name, "run": run, "seen": seen, "time": time.time()}


@contextlib.contextmanager
def _processes_seen(*files):
    """What these files of all processes were meanwhile, such as their command lines, as one text each."""
    seen = set()
    ended = threading.Event()

    def look():
        while not ended.wait(0.01):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for file in files:
                    with contextlib.suppress(OSError), open(f"/proc/{pid}/{file}", "rb") as content:
                        seen.add(content.read())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


# Worktrees


@pytest.mark.main_job
def test_a_worktree_in_each_of_the_four_repositories(space, task):
    for name, folder in REPOSITORIES.items():
        repository = space.root / folder
        assert workspaces.worktrees(repository) == {repository / ".worktrees" / task["name"]: task["name"]}
        worktree = space.worktree(name, task["name"])
        assert git(worktree, "rev-parse", "HEAD") == git(repository, "rev-parse", "main")
        assert git(worktree, "status", "--porcelain") == ""
        assert (worktree / "src").is_dir()
        # Nor does the main tree see it.
        assert git(repository, "status", "--porcelain", "--untracked-files=all") == ""


@pytest.mark.main_job
def test_the_submodule_has_a_branch_of_its_own_and_nothing_was_fetched(space, task):
    backend = space.worktree("backend", task["name"])
    migrations = backend / "migrations"
    assert git(migrations, "branch", "--show-current") == task["name"]
    assert git(migrations, "rev-parse", "HEAD") == git(backend, "rev-parse", "HEAD:migrations")
    assert git(migrations, "status", "--porcelain") == ""
    assert git(backend, "submodule", "status").split()[0] == git(migrations, "rev-parse", "HEAD")
    assert git(space.repository("backend") / "migrations", "branch", "--show-current") == "main"
    origin = git(migrations, "remote", "get-url", "origin")
    assert origin == str(space.root / "origins" / "migrations.git")
    # It is a repository to work in: a commit there is on the task's branch, and on no other.
    workspaces.commit(migrations, "0001.sql", "select 1;\n")
    main = space.repository("backend") / "migrations"
    assert git(main, "rev-list", "--count", f"main..{task['name']}") == "1"


def test_any_subset_by_repos(space, own):
    name = f"subset-{own}"
    without = space.varied(database_backend="none")
    without.provision(name, repos="app,docs").must()
    assert [repo for repo in REPOSITORIES if space.worktree(repo, name).exists()] == ["app", "docs"]
    # A later provision adds to it, and a teardown takes all, whichever was named.
    without.provision(name, repos="informes").must()
    assert [repo for repo in REPOSITORIES if space.worktree(repo, name).exists()] == ["app", "informes", "docs"]
    assert (space.worktree("informes", name) / "constants.php").exists()
    without.teardown(name, repos="docs").must()
    assert space.traces(name) == []
    without.provision(name, repos="all").must()
    assert all(space.worktree(repo, name).exists() for repo in REPOSITORIES)
    without.teardown(name).must()


# Files


@pytest.mark.main_job
def test_backend_config_twice(space, task, base):
    worktree = space.worktree("backend", task["name"])
    main = workspaces.env_values(space.repository("backend") / ".env.test")
    for path in (worktree / ".env.test", worktree / "migrations" / ".env.test"):
        values = workspaces.env_values(path)
        assert values["DB_PORT"] == str(base + space.slots()[task["name"]])
        assert values["DOCKER_COMPOSE_PATH"] == str(worktree / "docker-compose.yml")
        assert values["DB_PASSWORD"] == space.password(task["name"])
        # The rest is the main tree's, to the letter.
        assert {key: value for key, value in values.items() if main.get(key) == value}.keys() >= {"DB_HOST"}
        assert path.read_text().startswith("# test settings\nDB_HOST=127.0.0.1\nDB_PORT=")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (space.repository("backend") / "migrations" / ".env.test").exists()


@pytest.mark.main_job
def test_generated_config(space, task, base):
    name, port = task["name"], base + space.slots()[task["name"]]
    for path in ("app/php/constants.php", "informes/constants.php"):
        repository, _slash, file = path.partition("/")
        lines = (space.worktree(repository, name) / file).read_text().splitlines()
        assert lines[0] == "<?php"
        assert f"const TASK = '{name}';" in lines
        assert f"const DB_PORT = {port};" in lines
        assert f"const DB_PASSWORD = '{space.password(name)}';" in lines
    generated = snapshot(space.worktree("docs", name), times=False, without={".git"})
    committed = git(space.repository("docs"), "ls-tree", "-r", "--name-only", "main").splitlines()
    files = [path for path, about in generated.items() if about[0] != "folder"]
    assert sorted(files) == sorted(str(space.worktree("docs", name) / file) for file in committed)


def test_shared_dependencies_are_links(space, task):
    for path in ("backend/vendor", "informes/vendor", "app/node_modules"):
        repository, _slash, folder = path.partition("/")
        link = space.worktree(repository, task["name"]) / folder
        assert link.is_symlink()
        assert os.path.realpath(link) == os.path.realpath(space.repository(repository) / folder)
    assert git(space.worktree("backend", task["name"]), "ls-files", "--others", "--exclude-standard") == ""


# Ports and the registry


def test_rules_for_agents(space, task, tmp_path):
    name = task["name"]
    for repository in ("backend", "app", "informes"):
        tree = space.worktree(repository, name)
        rules = (tree / "AGENTS.md").read_text()
        assert str(tree) in rules
        for words in (
            "Write only inside",
            "composer install",
            "npm ci",
            "git worktree",
            "Merge into no",
            "last commit",
        ):
            assert words in rules
        assert space.password(name) not in rules
        assert "AGENTS.md" not in git(tree, "status", "--porcelain", "--untracked-files=all")
        assert not (space.repository(repository) / "AGENTS.md").exists()
    # That of dependencies is not left to an agent's good will.
    for program in ("composer", "npm"):
        (tmp_path / program).write_text('#!/bin/sh\necho "$0 $*" >> installed\n')
        (tmp_path / program).chmod(0o755)
    guarded = space.varied()
    guarded.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    for repository, command in (
        ("backend", "composer require a/b"),
        ("app", "npm ci"),
        ("informes", "composer update"),
    ):
        run = guarded.run("exec", task=name, repos=repository, command=command)
        assert run.code != 0
        assert "which other worktrees share" in run.failures[-1]["msg"]
        assert not (space.worktree(repository, name) / "installed").exists()


def test_slots_are_the_lowest_free_and_given_again(space, own):
    space = space.varied(
        workspace_name=f"slots-{own}",
        database_backend="none",
        lease_ports={"database": {"base": free_base()}},
    )
    for name in ("A", "B"):
        space.provision(name, repos="docs").must()
    assert space.slots() == {"A": 1, "B": 2}
    space.teardown("A").must()
    assert space.slots() == {"B": 2}
    before = time.time()
    run = space.provision("C", repos="docs").must()
    assert space.slots() == {"B": 2, "C": 1}
    base = space.variables["lease_ports"]["database"]["base"]
    assert run.result("task_record", step="Register")["leases"][0]["ports"] == {"database": base + 1}
    created = space.rows("select name, created from task where workspace = ? and name = 'C'", space.name)[0]["created"]
    assert before <= created <= time.time()
    space.run("teardown", all_tasks="true").must()
    assert space.slots() == {}


def test_the_registry_has_name_slot_and_time(space, task):
    [row] = space.rows(
        "select task.name, task.state, task.created, lease.slot, port.number from task join lease on owner = task.name "
        "and lease.workspace = task.workspace join port using (workspace, owner) where task.name = ?",
        task["name"],
    )
    base = space.variables["lease_ports"]["database"]["base"]
    assert row["state"] == "ready"
    assert row["number"] == base + row["slot"]
    assert 1 <= row["slot"] <= 99
    assert task["time"] - 120 < row["created"] < task["time"]
    assert stat.S_IMODE(space.registry.stat().st_mode) == 0o600


# The database


@pytest.mark.main_job
def test_the_container(space, task, base):
    port = base + space.slots()[task["name"]]
    name = f"postgres_bautista_testing_{task['name']}"
    assert docker("inspect", "--format", "{{.State.Running}}", name) == "true"
    bindings = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", name))
    assert bindings == {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    password = space.password(task["name"])
    assert workspaces.psql("select split_part(version(), '.', 1)", port=port, password=password) == "PostgreSQL 15"
    workspaces.psql("create table kept as select 1", port=port, password=password)
    with pytest.raises(AssertionError, match="password authentication failed"):
        workspaces.psql("select 1", port=port, password="wrong")
    with pytest.raises(AssertionError, match="password authentication failed"):
        workspaces.psql("select 1", port=base, password=password)


@pytest.mark.main_job
def test_the_password_is_in_its_file_and_the_env_files_and_nowhere_else(space, task):
    password = space.password(task["name"])
    assert len(password) == 32
    secret = next(path for path in space.secrets(task["name"]) if path.name == "database")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    name = f"postgres_bautista_testing_{task['name']}"
    texts = {
        "output": task["run"].output,
        "results": json.dumps(task["run"].results),
        "status": space.run("status", "-vvv", format="json").output,
        "exec": space.run("exec", "-vvv", task=task["name"], command="echo $DATABASE_URL; env").output,
        "inspect": docker("inspect", name),
        "logs": docker("logs", name),
        "history": docker("history", "--no-trunc", docker("inspect", "--format", "{{.Image}}", name)),
        "top": docker("top", name),
    }
    for what, text in texts.items():
        assert text or what == "logs", what
        assert password not in text, what
    assert task["seen"], "processes were looked at"
    assert any(b"ansible-playbook" in text for text in task["seen"])
    assert [text for text in task["seen"] if password.encode() in text] == []
    holders = {
        str(path.relative_to(space.root))
        for path in space.root.rglob("*")
        if path.is_file() and not path.is_symlink() and password.encode() in path.read_bytes()
    }
    assert holders == {
        f"bautista-backend/.worktrees/{task['name']}/.env.test",
        f"bautista-backend/.worktrees/{task['name']}/migrations/.env.test",
        f"bautista-app/.worktrees/{task['name']}/php/constants.php",
        f"informes/.worktrees/{task['name']}/constants.php",
    }
    kept = [path for path in space.state.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert kept == [secret]


def test_no_verb_shows_the_password(space, task, base):
    """Not even where what a person runs prints it, or fails; a command's environment is where it belongs."""
    name = f"postgres_bautista_testing_{task['name']}"
    port, password = base + space.slots()[task["name"]], space.password(task["name"])
    says_it = 'echo "$DATABASE_URL"; env; exit 3'
    gate = [
        {"name": "says it", "command": says_it, "stages": ["gate"]},
        {"name": "leaked", "databases": "test_db_%", "stages": ["gate"]},
    ]
    workspaces.psql("create table noted as select 1", port=port, password=password)
    workspaces.psql("create database test_db_1", port=port, password=password)
    with _processes_seen("cmdline") as seen:
        runs = {
            "gate": space.varied(gate_checks=gate).run("gate", "-vvv", task=task["name"]),
            "status": space.run("status", "-vvv", task=task["name"]),
            "db_psql": space.run(
                "db_psql", "-vvv", task=task["name"], command="'select pg_sleep(0.2), no_such_column'"
            ),
            "db_psql without": space.run("db_psql", "-vvv", task=task["name"]),
            "db_status": space.run("db_status", "-vvv", task=task["name"], format="json"),
            "teardown": space.teardown(task["name"], "-vvv", "--check", "--diff", force="true"),
        }
    assert "says it" in runs["gate"].output
    assert "test_db_1" in runs["gate"].output
    assert "no_such_column" in runs["db_psql"].output
    assert "PGPASSWORD=" in runs["db_psql without"].stdout
    assert '"state": "running"' in runs["db_status"].stdout
    assert "would be gone" in runs["teardown"].output
    texts = {what: run.output + json.dumps(run.results) for what, run in runs.items()}
    texts |= {"inspect": docker("inspect", name), "logs": docker("logs", name), "top": docker("top", name)}
    for what, text in texts.items():
        assert password not in text, what
    assert any(b"pg_sleep" in text for text in seen)
    assert [text for text in seen if password.encode() in text] == []
    workspaces.psql("drop database test_db_1", port=port, password=password)


# List


@pytest.mark.main_job
def test_list(space, task, base, own):
    other = f"other-{own}"
    space.varied(database_backend="none").provision(other, repos="docs").must()
    slots = space.slots()
    run = space.run("status").must()
    header, *rows = run.stdout.splitlines()
    assert header.split() == ["TASK", "STATE", "SLOT", "PORTS", "DATABASE", "AGE", "GIT", "DRIFT"]
    cells = {row.split()[0]: row for row in rows if row.strip()}
    assert cells.keys() == {task["name"], other}
    row = cells[task["name"]].split()
    assert row[1:4] == ["ready", str(slots[task["name"]]), f"database:{base + slots[task['name']]}"]
    assert f"postgres_bautista_testing_{task['name']} (container, running)" in cells[task["name"]]
    listed = {one["name"]: one for one in space.status()["tasks"]}
    assert listed.keys() == {task["name"], other}
    one = listed[task["name"]]
    assert abs(one["created"] - task["time"]) < 120
    assert one["slot"] == slots[task["name"]]
    assert one["ports"] == {"database": base + one["slot"]}
    assert one["database"]["name"] == f"postgres_bautista_testing_{task['name']}"
    assert [worktree["name"] for worktree in one["worktrees"]] == list(REPOSITORIES)
    assert one["drift"] == []
    space.teardown(other).must()


# Teardown


@pytest.mark.main_job
def test_teardown(space, own):
    name = f"short-{own}"
    space.provision(name).must()
    slot = space.slots()[name]
    tip = workspaces.commit(space.worktree("docs", name), "chapter.md")
    run = space.teardown(name).must()
    assert space.traces(name) == []
    assert name not in space.slots()
    assert workspaces.wait_for(lambda: list(space.root.rglob("*parallel-worktrees-trash*"))) == []
    for repository in (*map(space.repository, REPOSITORIES), space.repository("backend") / "migrations"):
        assert git(repository, "branch", "--list", name).strip() == name
    assert git(space.repository("docs"), "rev-parse", name) == tip
    assert "torn down" in run.stdout
    # The slot and the branch are there to be taken again.
    space.varied(database_backend="none").provision(name, repos="docs").must()
    assert space.slots()[name] == slot
    assert git(space.worktree("docs", name), "rev-parse", "HEAD") == tip
    space.teardown(name).must()


def test_a_container_that_is_gone_is_no_error(space, own):
    name = f"lost-{own}"
    space.provision(name).must()
    docker("rm", "--force", "--volumes", f"postgres_bautista_testing_{name}")
    assert f"database postgres_bautista_testing_{name} is missing" in space.task(name)["drift"]
    space.teardown(name).must()
    assert space.traces(name) == []


# Push


@pytest.fixture
def pushes(space):
    """A file in which each origin notes its name when a push arrives."""
    log = space.root / "pushes"
    hooks = {}
    for origin in (space.root / "origins").glob("*.git"):
        hooks[origin.stem] = origin / "hooks" / "pre-receive"
        hooks[origin.stem].write_text(f"#!/bin/sh\necho {origin.stem} >>{log}\n")
        hooks[origin.stem].chmod(0o755)
    yield {"log": log, "hooks": hooks}
    for hook in hooks.values():
        hook.unlink()
    log.unlink(missing_ok=True)


def test_push_goes_first_and_in_order(space, own, pushes):
    space = space.varied(database_backend="none")
    name = f"push-{own}"
    space.provision(name).must()
    tips = {}
    migrations = space.worktree("backend", name) / "migrations"
    tips["migrations"] = workspaces.commit(migrations, "0002.sql")
    git(space.worktree("backend", name), "add", "migrations")
    for repository, folder in REPOSITORIES.items():
        tips[folder] = workspaces.commit(space.worktree(repository, name), "done.txt")
    # All worktrees are still there when the last push arrives.
    hook = pushes["hooks"]["migrations"]
    hook.write_text(hook.read_text() + f"ls -d {space.root}/*/.worktrees/{name} >{space.root}/there\n")
    run = space.teardown(name, push="true").must()
    assert pushes["log"].read_text().split() == ["bautista-backend", "bautista-app", "informes", "docs", "migrations"]
    for origin, tip in tips.items():
        assert git(space.root / "origins" / f"{origin}.git", "rev-parse", name) == tip
    assert len((space.root / "there").read_text().split()) == 4
    (space.root / "there").unlink()
    assert [one["name"] for one in run.result("git_worktree")["pushed"]] == [*REPOSITORIES, "backend/migrations"]
    assert space.traces(name) == []


def test_push_passes_over_repositories_without_a_worktree(space, own, pushes):
    space = space.varied(database_backend="none")
    name = f"few-{own}"
    space.provision(name, repos="app,docs").must()
    workspaces.commit(space.worktree("docs", name), "done.txt")
    space.teardown(name, push="true").must()
    assert pushes["log"].read_text().split() == ["bautista-app", "docs"]


def test_a_push_that_fails_is_partial_and_loses_nothing(space, own, pushes):
    space = space.varied(database_backend="none")
    name = f"partial-{own}"
    space.provision(name).must()
    tips = {folder: workspaces.commit(space.worktree(repo, name), "done.txt") for repo, folder in REPOSITORIES.items()}
    hook = pushes["hooks"]["informes"]
    accepting = hook.read_text()
    hook.write_text("#!/bin/sh\necho closed on Sundays >&2\nexit 1\n")
    space.teardown(name, push="true").refused("partial", "informes", "closed on Sundays")
    assert [repo for repo in REPOSITORIES if space.worktree(repo, name).exists()] == ["informes"]
    assert git(space.worktree("informes", name), "rev-parse", "HEAD") == tips["informes"]
    assert git(space.root / "origins" / "docs.git", "rev-parse", name) == tips["docs"]
    assert name in space.slots()
    assert space.task(name)["state"] == "removing"
    hook.write_text(accepting)
    space.teardown(name, push="true").must()
    assert git(space.root / "origins" / "informes.git", "rev-parse", name) == tips["informes"]
    assert space.traces(name) == []


# Refusals and failures, each told apart


def test_refusals(space, task):
    space.provision("no spaces").refused("user", "no spaces")
    space.provision("née").refused("user", "née")
    message = space.provision(task["name"], workspace_existing="refuse").refused("user", "already registered")
    assert "parallel.worktrees.status" in message
    assert f"parallel.worktrees.teardown -e task={task['name']}" in message
    space.teardown("unknown").refused("user", "there is no task unknown")
    assert space.task(task["name"])["drift"] == []


def test_a_submodule_that_fails_is_an_environment_error(space, own):
    space = space.varied(database_backend="none")
    name = f"submodule-{own}"
    # A commit that names a state of the submodule which neither the main tree nor the remote has.
    backend = space.repository("backend")
    before = git(backend, "rev-parse", "HEAD")
    git(backend, "update-index", "--cacheinfo", f"160000,{'1' * 40},migrations")
    git(backend, "commit", "--quiet", "--message", "names a commit that nobody has")
    try:
        message = space.provision(name, repos="backend").refused("environment", "migrations")
        assert "1" * 40 in message
        space.teardown(name).must()
    finally:
        git(backend, "reset", "--quiet", "--hard", before)
    assert space.traces(name) == []


def test_a_file_that_is_missing_is_an_environment_error(space, own):
    space = space.varied(database_backend="none")
    name = f"missing-{own}"
    vendor = space.repository("informes") / "vendor"
    vendor.rmdir()
    try:
        space.provision(name).refused("environment", str(vendor), "missing")
        assert space.traces(name) == [], "it is refused before anything is made"
    finally:
        vendor.mkdir()
    space.provision(name).must()
    assert (space.worktree("informes", name) / "vendor").is_symlink()
    space.teardown(name).must()


def test_some_done_and_one_failed_is_partial_and_goes_on(space, own):
    space = space.varied(database_backend="none")
    name = f"filter-{own}"
    # A filter that every checkout of this repository needs, such as git-lfs, and that fails.
    informes = space.repository("informes")
    attributes = informes / ".git" / "info" / "attributes"
    attributes.write_text("*.txt filter=broken\n")
    git(informes, "config", "filter.broken.smudge", "echo the filter says no >&2; false")
    git(informes, "config", "filter.broken.required", "true")
    try:
        message = space.provision(name).refused("partial", "informes")
        assert "the filter says no" in message
        done = [repo for repo in ("backend", "app", "docs") if space.worktree(repo, name).exists()]
        assert done == ["backend", "app", "docs"]
        assert space.task(name)["state"] == "provisioning"
    finally:
        attributes.unlink()
        git(informes, "config", "--remove-section", "filter.broken")
    space.provision(name).must()
    assert git(space.worktree("informes", name), "status", "--porcelain") == ""
    assert space.task(name)["drift"] == []
    space.teardown(name).must()
    assert space.traces(name) == []


# Orphans


@pytest.mark.main_job
def test_orphans_of_a_task_that_nobody_registered(space, own):
    name = f"orphan-{own}"
    space.provision(name).must()
    for table, column in (("port", "owner"), ("lease", "owner"), ("task", "name")):
        with space.opened_registry() as registry:
            registry.execute(f"delete from {table} where workspace = ? and {column} = ?", (space.name, name))
    places = [str(space.worktree(repo, name)) for repo in REPOSITORIES]
    container = f"postgres_bautista_testing_{name}"
    found = {orphan["name"] for orphan in space.status()["orphans"]}
    assert found == {*places, container}
    run = space.run("prune").must()
    for orphan in (*places, container):
        assert orphan in run.stdout
    assert run.changed == 0
    assert all(map(os.path.isdir, places))
    assert workspaces.containers(name) == [container]
    run = space.run("prune", apply="true").must()
    assert run.changed
    assert space.traces(name) == []
    for repo in REPOSITORIES:
        assert git(space.repository(repo), "branch", "--list", name).strip() == name
    assert space.run("prune").must().stdout.strip() == "nothing is left over"


def test_work_in_an_orphan_is_not_lost(space, own):
    space = space.varied(database_backend="none")
    name = f"idea-{own}"
    space.provision(name, repos="docs,app").must()
    with space.opened_registry() as registry:
        registry.execute("delete from task where name = ?", (name,))
    idea = space.worktree("docs", name) / "idea.txt"
    idea.write_text("not committed")
    space.run("prune", apply="true").refused("partial", str(space.worktree("docs", name)))
    assert idea.read_text() == "not committed"
    assert not space.worktree("app", name).exists()
    space.run("prune", apply="true", force="true").must()
    assert space.traces(name) == []
    assert git(space.repository("docs"), "for-each-ref", "refs/worktrees-saved")


def test_a_registered_task_whose_worktrees_are_gone(space, own):
    name = f"gone-{own}"
    space.provision(name).must()
    for repo in REPOSITORIES:
        shutil.rmtree(space.worktree(repo, name))
    found = space.task(name)
    assert [f"worktree of {repo}: its folder is gone" for repo in REPOSITORIES] == found["drift"]
    run = space.run("prune").must()
    assert f"task {space.name}/{name}: its worktrees are gone" in run.stdout
    assert space.task(name)["state"] == "ready"
    space.run("prune", apply="true").must()
    assert space.traces(name) == []
    assert space.task(name) is None


# The main tree, last


@pytest.mark.main_job
def test_the_main_tree_is_as_it_was(space, base, main_tree, task):
    space.teardown(task["name"], force="true").must()
    assert space.traces(task["name"]) == []
    assert workspaces.wait_for(space.remains) == []
    assert workspaces.differences(main_tree["files"], _main_files(space)) == []
    assert _main_git(space) == main_tree["git"]
    assert _started(main_tree["container"]) == main_tree["started"]
    assert workspaces.psql("select answer from mine", port=base, password=MAIN_PASSWORD) == "42"


def test_integration_takes_the_submodule_along(tmp_path):
    """The team does without it; whoever has submodules and wants it merges them in one go."""
    with workspaces.bautista(tmp_path) as space:
        for name in ("one", "two"):
            space.provision(name, repos="backend,docs").must()
            tree = space.worktree("backend", name)
            workspaces.commit(tree / "migrations", f"{name}.sql")
            git(tree, "commit", "--quiet", "--all", "--message", f"migrate {name}")
        run = space.run("integrate", task="one,two").must()
        for name in ("one", "two"):
            assert f"backend/migrations  {name} is in integration and main at" in run.stdout
        backend = space.repository("backend")
        assert {"one.sql", "two.sql"} <= {path.name for path in (backend / "migrations").iterdir()}
        assert git(backend, "status", "--porcelain") == ""
        assert git(backend, "rev-parse", "main:migrations") == git(
            space.root / "origins" / "migrations.git", "rev-parse", "integration"
        )
        assert space.run("integrate", all_tasks="true").must().changed == 0
        space.run("teardown", all_tasks="true").must()
        space.run("prune", apply="true").must()
        assert space.remains() == []
