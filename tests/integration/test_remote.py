# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that live on another machine, reached over SSH: the same files and commands, and nothing is made here.

What is there is asked of git, psql and the shell over SSH.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import subprocess
import sys

import pytest
import yaml
from integration import workspaces
from integration.workspaces import CLONE, REPOSITORIES

from ansible_collections.parallel.worktrees.plugins.module_utils import _secrets

STATE = "/home/worker/.local/state/parallel-worktrees"
HOST_PASSWORD = "of-the-machine"


class Remote(workspaces.Workspace):
    """A workspace on the machine ``box`` of an inventory; in ``root`` no more than a person types commands here."""

    def __init__(self, folder, ssh_host, shape, **variables):
        name = f"{shape}-{secrets.token_hex(3)}"
        self.there = f"/home/worker/{name}"
        given = {"workspace_machine": "box", "workspace_root": self.there, "workspace_name": name, **variables}
        super().__init__(folder / "here", CLONE / "examples" / f"{shape}.yml", folder / "state", given)
        self.root.mkdir()
        self.ssh_host = ssh_host
        self.inventory = folder / "inventory.yml"
        box = {**ssh_host.inventory(), "ansible_become_password": HOST_PASSWORD}
        hosts = {"box": box, "gone": {**box, "ansible_port": 1}}
        self.inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        script = (CLONE / "scripts" / "sample_workspace.py").read_text()
        self.on("python3", "-", self.there, "--shape", shape, stdin=script)

    def on(self, *command, stdin=None):
        """What a command prints there."""
        line = self.ssh_host.command(shlex.join(command))
        done = subprocess.run(line, input=stdin, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def git(self, repository, *arguments):
        return self.on("git", "-C", f"{self.there}/{repository}", *arguments)

    def listed(self, repository):
        """Folders and branches of a repository's linked worktrees, as git lists them."""
        blocks = self.git(repository, "worktree", "list", "--porcelain").split("\n\n")[1:]
        return dict(re.findall(r"worktree (.*)\n.*\nbranch refs/heads/(.*)", block)[0] for block in blocks)

    def everything(self):
        """All files there that a run could touch, with their times, and the servers."""
        places = f"{self.there} {STATE} /home/worker/.ansible /tmp/*"
        find = f"find {places} -printf '%p %m %T@ %s %l\\n' 2>/dev/null | sort"
        return self.on("sh", "-c", f"{find}; pgrep -a postgres || true").splitlines()

    def left(self, task):
        """What a task has left there, branches and saved work aside."""
        places = f"{self.there} {STATE}/clusters {STATE}/secrets /tmp/parallel-worktrees-1000"
        found = self.on("sh", "-c", f"find {places} -path '*/.templates' -prune -o -print 2>/dev/null || true")
        branches = re.compile(r"/(refs/heads|logs/refs/heads|refs/worktrees-saved)/")
        mine = [line for line in found.splitlines() if task in line and not branches.search(line)]
        tables = ("task", "lease", "port")
        rows = f"sqlite3.connect('{STATE}/registry.sqlite3').execute('select * from ' + table)"
        code = f"import json, sqlite3; print(json.dumps([[*row] for table in {tables} for row in {rows}]))"
        return mine + [row for row in json.loads(self.on("python3", "-c", code)) if task in row]


@contextlib.contextmanager
def remote(folder, ssh_host, shape, **variables):
    made = Remote(folder, ssh_host, shape, **variables)
    try:
        yield made
    finally:
        # Nothing at all is on this machine.
        assert not made.state.exists()
        assert list(made.root.iterdir()) == []
        assert workspaces.containers(made.name) == []


@pytest.fixture(scope="module")
def shop(tmp_path_factory, ssh_host):
    with remote(tmp_path_factory.mktemp("remote"), ssh_host, "shop") as made:
        yield made


@pytest.fixture(scope="module")
def planned(shop):
    """A dry run on a machine where nothing was ever done, and what it changed there."""
    before = shop.everything()
    run = shop.provision("first", "--check", "--diff").must()
    return run, before, shop.everything()


@pytest.fixture(scope="module")
def task(shop, planned):  # noqa: ARG001 - which comes before all
    """A task that is ready, and the run that made it."""
    return "first", shop.provision("first", "--diff", "-vvv").must()


def test_a_dry_run_leaves_no_trace(planned):
    run, before, after = planned
    assert "first: would be ready" in run.stdout
    assert after == before


def test_worktrees_files_and_database(shop, task):
    name, run = task
    for repository in ("shop-api", "shop-web"):
        worktree = f"{shop.there}/{repository}/.worktrees/{name}"
        assert shop.listed(repository) == {worktree: name}
        assert shop.on("git", "-C", worktree, "status", "--porcelain") == ""
    assert shop.git(f"shop-api/.worktrees/{name}/migrations", "branch", "--show-current") == name
    ports = run.result("task_record", step="Register")["leases"][0]["ports"]
    password = shop.on("cat", run.result("pg_database")["database"]["password_file"])
    url = f"postgresql://postgres:{password}@127.0.0.1:{ports['database']}/shop"
    assert shop.on("cat", f"{shop.there}/shop-api/.worktrees/{name}/.env").splitlines() == [
        "# settings of the main tree",
        "LOG_LEVEL=debug",
        f"PORT={ports['api']}",
        f"DATABASE_URL={url}",
    ]
    assert f"API_URL=http://localhost:{ports['api']}" in shop.on("cat", f"{shop.there}/shop-web/.worktrees/{name}/.env")
    assert shop.on("readlink", f"{shop.there}/shop-web/.worktrees/{name}/node_modules").endswith(
        "shop-web/node_modules"
    )
    assert shop.on("psql", url, "-Atc", "select current_database()") == "shop"
    for secret in (password, HOST_PASSWORD):
        assert secret not in run.output + str(run.results)


def test_a_second_provision_changes_nothing(shop, task):
    run = shop.provision(task[0]).must()
    assert run.changed == 0
    assert "first: ready, registered before" in run.stdout


def test_status_and_exec(shop, task):
    found = shop.task(task[0])
    assert (found["state"], found["drift"], found["database"]["state"]) == ("ready", [], "running")
    run = shop.run("exec", task=task[0], command="pwd; hostname; psql $DATABASE_URL -Atc 'select 6*7'").must()
    folder = f"{shop.there}/shop-api/.worktrees/{task[0]}"
    assert run.result("task_exec")["stdout"].split() == [folder, shop.on("hostname"), "42"]


def test_a_teardown_keeps_work_and_what_the_summary_suggests_is_enough(shop, task):
    name, run = task
    work = f"{shop.there}/shop-web/.worktrees/{name}/work.txt"
    shop.on("tee", work, stdin="not committed\n")
    shop.teardown(name).refused("user", work.rpartition("/")[0], "uncommitted: work.txt")
    assert shop.on("cat", work) == "not committed"
    assert shop.task(name)["state"] == "ready"
    # As a person does it: copied from the screen.
    suggested = re.findall(r"^  tear down +ansible-playbook (.*)", run.stdout, re.MULTILINE)[0]
    command = [f"{sys.prefix}/bin/ansible-playbook", *shlex.split(suggested), "-e", "force=true"]
    environment = shop.environ(str(shop.state.parent / "suggested.json"))
    subprocess.run(command, cwd=shop.root, env=environment, check=True, stdout=subprocess.DEVNULL)
    saved = shop.git("shop-web", "for-each-ref", "--format=%(refname)", "refs/worktrees-saved")
    assert shop.git("shop-web", "show", f"{saved}^3:work.txt") == "not committed"
    assert workspaces.wait_for(lambda: shop.left(name)) == []
    assert shop.on("sh", "-c", "pgrep -a postgres || true") == ""
    for repository in ("shop-api", "shop-web"):
        assert shop.listed(repository) == {}
        assert shop.git(repository, "branch", "--format=%(refname:short)").split() == [name, "main"]
        assert shop.git(repository, "status", "--porcelain", "--ignored=no") == ""
    assert f"{name}: nothing to tear down" in shop.teardown(name).must().stdout


def test_several_tasks_of_another_workspace(tmp_path, ssh_host):
    """Four repositories and a submodule; this machine has no Docker, so the databases are embedded."""
    with remote(tmp_path, ssh_host, "bautista", database_backend="embedded") as space:
        space.run("provision", task="agent", count=2).must()
        for repository in REPOSITORIES.values():
            assert sorted(space.listed(repository).values()) == ["agent-1", "agent-2"]
        for number in (1, 2):
            migrations = f"{space.there}/bautista-backend/.worktrees/agent-{number}/migrations"
            assert space.on("git", "-C", migrations, "branch", "--show-current") == f"agent-{number}"
            assert f"DB_PORT={65432 + number}\n" in space.on("cat", f"{migrations}/.env.test")
            space.on("pg_isready", "-h", "127.0.0.1", "-p", str(65432 + number))
        space.run("teardown", all_tasks="true").must()
        assert workspaces.wait_for(lambda: space.left("agent-1") + space.left("agent-2")) == []


def test_debian_13(tmp_path, debian_13):
    """Its Python is 3.13, and its PostgreSQL 17."""
    golden = {"folder": "{{ workspace_root }}/shop-api", "commands": ["psql -c 'create table t as select 13 n'"]}
    databases = [{"name": "shop", "golden": golden}]
    with remote(tmp_path, debian_13, "shop", database_databases=databases) as space:
        run = space.provision("task").must()
        url = run.result("pg_database")["database"]["url"].replace(
            _secrets.DATABASE_PASSWORD,
            space.on("cat", run.result("pg_database")["database"]["password_file"]),
        )
        asked = "select n || ' ' || current_setting('server_version_num')::int / 10000 from t"
        assert space.on("psql", url, "-Atc", asked) == "13 17"
        assert space.on("python3", "-c", "import sys; print(sys.version_info[:2])") == "(3, 13)"
        assert space.provision("task").must().changed == 0
        found = space.task("task")
        assert (found["state"], found["drift"], found["database"]["state"]) == ("ready", [], "running")
        space.on("psql", url, "-c", "insert into t values (1)")
        gone = space.teardown("task").must()
        assert "shop, gone: 1 row written in t since it was made" in gone.stdout
        assert workspaces.wait_for(lambda: space.left("task")) == []


def test_a_shared_server_of_debian_13(tmp_path, debian_13):
    """Golden databases and pulls of PostgreSQL 17, in a server of several tasks."""
    port, word, home = 15499, secrets.token_hex(8), "/home/worker/server"
    production = f"postgresql://postgres:{word}@127.0.0.1:{port}/production"
    golden = {"folder": "{{ workspace_root }}/shop-api", "commands": ["psql -c 'create table t as select 17 n'"]}
    pull = {"url_command": f"cat {home}/url", "mask": f"{home}/mask.sql"}
    given = {
        "database_backend": "shared",
        "database_server_port": port,
        "database_admin_password_file": f"{home}/password",
        "database_databases": [
            {"key": "shop", "name": "shop_{{ task_facts.slug }}", "golden": golden},
            {"key": "people", "name": "people_{{ task_facts.slug }}", "pull": pull},
        ],
    }
    with remote(tmp_path, debian_13, "shop", **given) as space:
        space.on("mkdir", "-m", "700", home)
        for name, text in (("password", word), ("url", production), ("mask.sql", "update people set name = 'masked'")):
            space.on("sh", "-c", f"cat >{home}/{name}", stdin=text)
        programs = "/usr/lib/postgresql/17/bin"
        space.on(
            f"{programs}/initdb", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={home}/password", f"{home}/data"
        )
        start = f"-p {port} -k /tmp -c fsync=off"
        space.on(f"{programs}/pg_ctl", "-w", "-D", f"{home}/data", "-l", f"{home}/log", "-o", start, "start")
        try:
            space.on("psql", production.replace("/production", "/postgres"), "-c", "create database production")
            space.on("psql", production, "-c", "create table people as select 'a person' as name")
            run = space.provision("task").must()
            databases = run.result("pg_database")["databases"]
            password = space.on("cat", databases["shop"]["password_file"])
            urls = {key: one["url"].replace(_secrets.DATABASE_PASSWORD, password) for key, one in databases.items()}
            assert space.on("psql", urls["shop"], "-Atc", "select n from t") == "17"
            assert space.on("psql", urls["people"], "-Atc", "select name from people") == "masked"
            assert space.provision("task").must().changed == 0
            space.teardown("task").must()
            there = "select count(*) from pg_database where datname like '%task%'"
            assert space.on("psql", production, "-Atc", there) == "0"
        finally:
            space.on(f"{programs}/pg_ctl", "-D", f"{home}/data", "-m", "immediate", "stop")
            space.on("rm", "-r", home)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("/usr/bin/git", "git is not on this machine"),
        pytest.param("/usr/lib/python3/dist-packages/psycopg2", "no psycopg2"),
        pytest.param("/usr/lib/postgresql", "PostgreSQL is not on this machine"),
    ],
    ids=["git", "psycopg2", "postgresql"],
)
def test_what_the_machine_lacks_is_told(shop, path, words, request):
    """Before anything is made."""
    name = f"lacks-{request.node.callspec.id}"
    shop.on("sudo", "mv", path, f"{path}.away")
    try:
        run = shop.provision(name)
    finally:
        shop.on("sudo", "mv", f"{path}.away", path)
    run.refused("environment", words)
    assert shop.left(name) == []


@pytest.mark.parametrize("verb", ["provision", "status", "teardown", "exec"])
def test_a_machine_that_cannot_be_reached(shop, verb):
    run = shop.varied(workspace_machine="gone").run(verb, task="any", command="true")
    assert run.code == 4, str(run)
    assert re.search(r"UNREACHABLE  gone  .*Connection refused", run.output)
    assert "traceback" not in run.output.lower()


def test_a_machine_that_is_not_in_the_inventory(shop):
    run = shop.varied(workspace_machine="bxo").provision("any")
    assert run.code != 0, str(run)
    assert "bxo" in run.output


def test_a_killed_run_is_taken_up_at_once(shop):
    """That its process has ended is known where it ran, which is not where the task lives."""
    for verb in ("provision", "teardown"):
        started = shop.start("provision", task="killed")
        out = f"{started.place}.out"
        with open(out) as seen:
            assert not workspaces.wait_for(lambda: "Start the database" not in seen.read())
        started.kill(group=True)
        shop.run(verb, task="killed").must()
    assert workspaces.wait_for(lambda: shop.left("killed")) == []
