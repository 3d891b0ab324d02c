# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that are killed at any moment: the same call completes the task, or a teardown removes it to the last trace.

PARALLEL_WORKTREES_KILLS says how many provisions are killed; PARALLEL_WORKTREES_SEED repeats a run's moments.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time

import pytest
from integration import workspaces
from integration.workspaces import REPOSITORIES, docker, git

KILLS = int(os.environ.get("PARALLEL_WORKTREES_KILLS", "8"))
SEED = int(os.environ.get("PARALLEL_WORKTREES_SEED", random.randrange(10**6)))
START_UP = 0.3
"""Before this many seconds Ansible itself is not there yet."""


@pytest.fixture(scope="module")
def space(tmp_path_factory, postgres_image):
    with workspaces.bautista(tmp_path_factory.mktemp("interrupted"), image=postgres_image) as made:
        yield made
        # The killed, completed and removed tasks of all tests left nothing but their branches.
        assert workspaces.wait_for(made.remains) == []
        assert made.records() == []
        assert saved(made) == []
        assert workspaces.wait_for(half_made_images) == ""


@pytest.fixture(scope="module")
def usual(space):
    """How long a provision and a teardown take that nobody interrupts."""
    name = f"first-{space.name[-6:]}"
    space.provision(name).must()  # prepares the image
    space.teardown(name).must()
    times = {}
    for verb in ("provision", "teardown"):
        begin = time.monotonic()
        space.run(verb, task=name).must()
        times[verb] = time.monotonic() - begin
    return times


def half_made_images():
    """Docker images that a killed preparation left; for a moment those that another test prepares."""
    return docker("images", "--quiet", "--filter", "dangling=true", "--filter", "label=parallel-worktrees.kind")


def saved(space):
    """Refs to work that somebody might miss: here nobody had any."""
    commons = [*map(space.repository, REPOSITORIES), space.repository("backend") / "migrations"]
    return [ref for common in commons for ref in git(common, "for-each-ref", "refs/worktrees-saved").splitlines()]


def kill(space, verb, task, after, *, group):
    """Begin a run and kill it; returns what it had said by then."""
    started = space.start(verb, task=task)
    try:
        started.process.wait(after)
    except subprocess.TimeoutExpired:
        started.kill(group=group)
    return started.end()


def complete(space, task):
    """A second provision completes what the killed one began."""
    space.provision(task).must()
    found = space.task(task)
    assert (found["state"], found["drift"]) == ("ready", [])
    for name in REPOSITORIES:
        worktree = space.worktree(name, task)
        assert workspaces.worktrees(space.repository(name))[worktree] == task
        assert git(worktree, "status", "--porcelain") == ""
        assert not (space.repository(name) / ".git" / "worktrees" / task / "locked").exists()
    migrations = space.worktree("backend", task) / "migrations"
    assert git(migrations, "branch", "--show-current") == task
    assert git(migrations, "status", "--porcelain") == ""
    values = workspaces.env_values(migrations / ".env.test")
    assert values["DB_PASSWORD"] == space.password(task)
    assert workspaces.psql("select 1", port=int(values["DB_PORT"]), password=values["DB_PASSWORD"]) == "1"
    assert found["ports"] == {"database": int(values["DB_PORT"])}


def remove(space, task):
    """A teardown removes all that the killed run began; there may be nothing yet to remove, or any more."""
    run = space.teardown(task)
    if run.code != 0:
        run.refused("user", f"there is no task {task}")
    assert workspaces.wait_for(lambda: space.traces(task)) == []


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_provision(space, usual, number):
    chance = random.Random(f"{SEED} {number}")
    task = f"killed-{number}-{space.name[-6:]}"
    after = chance.uniform(START_UP, usual["provision"])
    group = bool(number % 2)
    print(f"PARALLEL_WORKTREES_SEED={SEED}: killed after {after:.2f} s, {'group' if group else 'main process'}")
    run = kill(space, "provision", task, after, group=group)
    print(run)
    found = space.task(task)
    if run.code:
        assert found is None or found["state"] in ("provisioning", "ready"), found
        assert found is None or found["busy"] is None
    if number // 2 % 2:
        remove(space, task)
        return
    complete(space, task)
    after = chance.uniform(START_UP, usual["teardown"])
    print(f"teardown killed after {after:.2f} s")
    run = kill(space, "teardown", task, after, group=not group)
    print(run)
    found = space.task(task)
    if run.code:
        assert found is None or found["state"] in ("ready", "removing"), found
    remove(space, task)


def test_a_provision_killed_again_and_again(space, usual):
    """What one killed run leaves is what the next one finds, and is killed over."""
    chance = random.Random(SEED)
    task = f"often-{space.name[-6:]}"
    for number in range(4):
        kill(space, "provision", task, chance.uniform(START_UP, usual["provision"]), group=bool(number % 2))
    complete(space, task)
    for number in range(2):
        kill(space, "teardown", task, chance.uniform(START_UP, usual["teardown"]), group=bool(number % 2))
    remove(space, task)


def test_a_registry_that_was_killed_inside_a_commit(space):
    """What SQLite had half written is undone by whoever looks next, even if only to look."""
    task = f"torn-{space.name[-6:]}"
    space.varied(database_backend="none").provision(task, repos="docs").must()
    code = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma cache_size = 1")
connection.execute("begin immediate")
connection.execute("delete from task")
for number in range(5000):
    connection.execute("insert into past values ('w', ?, 1)", (f"{number:0100}",))
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code, space.registry], check=False)
    journal = space.registry.with_name(space.registry.name + "-journal")
    assert journal.stat().st_size
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        sqlite3.connect(f"file:{space.registry}?mode=ro", uri=True).execute("select * from task")
    assert space.task(task)["state"] == "ready"
    space.teardown(task).must()
    assert space.traces(task) == []
