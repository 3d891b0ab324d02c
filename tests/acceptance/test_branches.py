# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of this machine whose databases are branches on a DB host, which Ansible reaches over SSH.

The tests share the host, a machine with systemd, and a workspace on this one; each has tasks of its own.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import secrets
import subprocess

import pytest
from integration import workspaces
from integration.db_hosts import DbHost
from integration.workspaces import CLONE, wait_for
from ports import free_base

DUMP = """
create table orders (id serial primary key, what text not null);
insert into orders (what) select 'order ' || n from generate_series(1, 100) n;
"""
COUNT = "select count(*) from orders"


class Shop(workspaces.Workspace):
    """The workspace of examples/shop.yml, with branches in the place of its clusters."""

    def __init__(self, folder: pathlib.Path, box: DbHost) -> None:
        own = secrets.token_hex(3)
        base = free_base()
        given = {
            "workspace_name": f"shop-{own}",
            "workspace_root": str(folder / "work"),
            "lease_ports": {"api": {"base": base}, "web": {"base": base + 400}},
            "database_backend": "branch",
            "database_branch": {"host": "box"},
        }
        (folder / "state").mkdir()
        super().__init__(folder / "work", CLONE / "examples" / "shop.yml", folder / "state", given)
        self.inventory = box.inventory
        self.box = box
        script = CLONE / "scripts" / "sample_workspace.py"
        subprocess.run(["python3", script, self.root, "--shape", "shop"], check=True)

    def url(self, task: str) -> str:
        """As the env file of the task has it."""
        text = (self.root / "shop-api" / ".worktrees" / task / ".env").read_text()
        return str(re.findall(r"^DATABASE_URL=(.*)$", text, re.MULTILINE)[0])

    def sql(self, task: str, text: str) -> str:
        return query(self.url(task), text)

    def branches(self) -> list[str]:
        """The datasets of branches on the host, by the store's own tool."""
        listed = self.box.on("sh", "-c", "ls -A /srv/parallel-worktrees/branches 2>/dev/null || true").split()
        return sorted(name for name in listed if self.name in name)

    def left(self, task: str) -> list[str]:
        """All that a task has left on the host."""
        slug = task.replace("-", "_")
        places = "/srv/parallel-worktrees /run/parallel-worktrees /var/lib/parallel-worktrees"
        find = f"find {places} -maxdepth 3 -name '*{slug}*' -o -maxdepth 3 -name '*@for_*'"
        names = self.box.on("sh", "-c", f"{find}; grep -l {slug} /var/lib/parallel-worktrees/pgbouncer/*.* || true")
        units = self.box.on("sh", "-c", f"systemctl list-units --all --plain --no-legend | grep {slug} || true")
        return names.split() + units.splitlines() + [str(path) for path in self.secrets(task)]


def query(url: str, text: str) -> str:
    """What psql says on this machine."""
    done = subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, url],
        env={**os.environ, "PGCONNECT_TIMEOUT": "10"},
        check=False,
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr).strip()


def lacks(file: pathlib.Path, words: str) -> bool:
    return words not in file.read_text()


@pytest.fixture(scope="module")
def box(tmp_path_factory, machines):
    """A DB host with a golden of one source; its PostgreSQL is 17."""
    folder = tmp_path_factory.mktemp("box")
    machine = machines(13)
    source = {"kind": "dump", "database": "app", "dump": "/srv/app.sql", "every": "7d"}
    made = DbHost(
        folder,
        machine,
        "btrfs",
        db_host_sources={"app": source},
        db_host_clients=["172.16.0.0/12"],
        db_host_address=machine.address,
    )
    (folder / "state").mkdir()
    made.on("sh", "-c", "cat > /srv/app.sql", stdin=DUMP)
    made.run("db_host").must()
    return made


@pytest.fixture(scope="module")
def shop(tmp_path_factory, box):
    return Shop(tmp_path_factory.mktemp("shop"), box)


def everything(box):
    """All volumes with what is in them, the routes and the servers of the host."""
    find = "find /srv/parallel-worktrees -maxdepth 4 -not -path '*/pg_*' -printf '%p\\n' | sort"
    return box.on(
        "sh", "-c", f"{find}; cat /var/lib/parallel-worktrees/pgbouncer/databases.ini; pgrep -cx postgres || true"
    )


def test_a_dry_run_makes_nothing(shop):
    before = everything(shop.box)
    run = shop.provision("dry", "--check", "--diff").must()
    assert "dry: would be ready" in run.stdout
    assert everything(shop.box) == before
    assert shop.left("dry") == []


def test_three_tasks(shop):
    """Each has all of the data, writes what it likes, and is gone to the last dataset."""
    made = shop.run("provision", task="agent", count=3).must()
    tasks = [f"agent-{number}" for number in (1, 2, 3)]
    assert len(shop.branches()) == 3
    for number, task in enumerate(tasks, 1):
        assert shop.sql(task, COUNT) == "100"
        assert shop.sql(task, f"delete from orders where id > {number * 10}; create table of_{number} ()") == ""
    for number, task in enumerate(tasks, 1):
        assert shop.sql(task, COUNT) == str(number * 10)
        assert shop.sql(task, "select tablename from pg_tables where tablename ~ '^of_'") == f"of_{number}"
    assert shop.run("provision", task="agent", count=3).must().changed == 0
    other = re.sub(r"//[^@]*@", f"//agent:{shop.password(tasks[0])}@", shop.url(tasks[1]))
    assert "FATAL" in query(other, "select 1")
    for task in tasks:
        assert shop.password(task) not in made.output + str(made.results)
    # The source is untouched: a new branch has all of it.
    shop.provision("later").must()
    assert shop.sql("later", COUNT) == "100"
    shop.run("teardown", all_tasks="true").must()
    for task in [*tasks, "later"]:
        assert shop.left(task) == []
    assert shop.branches() == []
    assert shop.box.on("pgrep", "-c", "-x", "postgres", may_fail=True) == "0"
    assert shop.run("teardown", task="later").must().changed == 0


def test_facts_are_those_of_every_back_end(shop):
    run = shop.provision("facts").must()
    facts = run.result("pg_database")["database"]
    assert facts["backend"] == "branch"
    assert facts["host"] == shop.box.machine.address
    assert facts["port"] == 6432
    assert facts["name"] == facts["user"] == run.result("pg_branch")["name"]
    assert set(facts) == {"backend", "host", "port", "user", "name", "password", "password_file", "url"}
    found = shop.task("facts")
    assert (found["database"]["state"], found["drift"]) == ("running", [])
    told = shop.run("db_status", task="facts", format="json").must()
    (database,) = json.loads(told.stdout)["databases"]
    assert (database["state"], database["tables"]) == ("running", 1)
    answer = shop.run("db_psql", task="facts", command=COUNT).must()
    assert "100" in answer.result("task_exec")["stdout"].split()
    line = shop.run("db_psql", task="facts").must().result("pg_database_info")["report"]
    done = subprocess.run(f"{line} -Atc '{COUNT}'", shell=True, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "100"
    shop.teardown("facts").must()
    assert shop.left("facts") == []


def test_a_branch_of_a_task_s_branch(shop):
    shop.provision("elder").must()
    shop.sql("elder", "delete from orders where id > 5")
    parent = shop.task("elder")["database"]["name"]
    young = shop.varied(database_branch={"host": "box", "parent": parent, "expires": "7d"})
    young.provision("junior").must()
    assert shop.sql("junior", COUNT) == "5"
    shop.teardown("elder").refused("user", "stand on it")
    assert shop.sql("elder", COUNT) == "5"
    shop.run("teardown", all_tasks=True).must()
    assert shop.left("junior") + shop.left("elder") == []


def test_what_cannot_be_is_refused_before_anything_is_made(shop):
    for variables, failure, words in (
        ({"database_branch": {"host": "box", "source": "nonsense"}}, "user", "no source 'nonsense'"),
        ({"database_databases": [{"name": "another"}]}, "user", "no others"),
        ({"database_branch": {"host": "box", "expires": "soon"}}, "user", "length of time"),
        ({"database_branch": {"host": "gone.invalid"}}, "environment", "cannot be reached"),
    ):
        shop.varied(**variables).provision("refused").refused(failure, words)
        assert shop.task("refused") is None
        assert shop.left("refused") == []
    shop.varied(database_branch={}).provision("refused").refused("user", "database_branch.host is missing")


def test_two_tasks_that_want_one_name(shop):
    shop.provision("first").must()
    name = shop.task("first")["database"]["name"]
    shop.varied(database_instance=name).provision("second").refused("user", "belongs to")
    assert shop.task("second") is None
    assert shop.sql("first", COUNT) == "100"
    shop.teardown("first").must()


def test_what_was_written_is_told_and_a_kept_branch_is_used_again(shop):
    shop.provision("kept").must()
    name = shop.task("kept")["database"]["name"]
    assert "would be gone" not in shop.teardown("kept", "--check").must().stdout
    assert shop.sql("kept", "delete from orders where id > 90") == ""
    words = "10 rows written in orders since it was made"
    assert wait_for(lambda: words not in shop.teardown("kept", "--check").must().stdout) is False
    shop.teardown("kept", keep_database="true").must()
    assert shop.branches() == [name]
    (orphan,) = shop.status()["orphans"]
    assert (orphan["kind"], orphan["name"], orphan["kept"]) == ("branch", name, True)
    assert f"branch {name} stays: it was kept" in shop.run("prune", apply="true").must().stdout
    assert shop.branches() == [name]
    shop.provision("kept").must()
    assert shop.sql("kept", COUNT) == "90"
    assert shop.status()["orphans"] == []
    run = shop.teardown("kept").must()
    assert f"{name}, gone: {words}" in run.stdout
    assert shop.branches() == []

    shop.provision("kept").must()
    shop.teardown("kept", keep_database="true").must()
    shop.run("prune", "--check", apply="true", force="true").must()
    assert shop.branches() == [name]
    shop.run("prune", apply="true", force="true").must()
    assert shop.branches() == []
    assert shop.left("kept") == []


def test_a_branch_that_is_gone_is_drift_and_made_anew(shop):
    shop.provision("drifting").must()
    name = shop.task("drifting")["database"]["name"]
    shop.box.on("systemctl", "stop", f"parallel-worktrees-branch@{name}")
    assert shop.task("drifting")["database"]["state"] == "stopped"
    shop.provision("drifting").must()
    found = shop.task("drifting")
    assert (found["database"]["state"], found["drift"]) == ("running", [])
    assert shop.sql("drifting", COUNT) == "100"
    shop.teardown("drifting").must()


def test_killed_runs_are_taken_up(shop):
    """The play is killed on this machine, with SSH to the host cut in the middle, and begun again, or torn down."""
    for verb in ("provision", "teardown"):
        started = shop.start("provision", task="killed")
        out = pathlib.Path(f"{started.place}.out")
        assert not wait_for(functools.partial(lacks, out, "Env files"))
        started.kill(group=True)
        shop.run(verb, task="killed").must()
        if verb == "provision":
            assert shop.sql("killed", COUNT) == "100"
    assert shop.left("killed") == []


def test_rebooted(shop):
    """Branches come back under their names, with their data."""
    shop.provision("rebooted").must()
    shop.sql("rebooted", "delete from orders where id > 77")
    shop.box.machine.reboot()
    # Docker may have given the machine another address by now.
    url = shop.url("rebooted").replace(shop.box.host_file()["address"], "127.0.0.1")
    assert wait_for(lambda: shop.box.on("psql", url, "-Atc", COUNT, may_fail=True) != "77", seconds=60) is False
    shop.teardown("rebooted").must()
    assert shop.left("rebooted") == []
