# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provision and teardown of one task at the same time: at the end it is there completely, or gone completely.

PARALLEL_WORKTREES_OPPOSITES says how many rounds; PARALLEL_WORKTREES_SEED repeats their moments.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import tempfile
import time

import pytest
from integration import workspaces
from integration.workspaces import REPOSITORIES, git

ROUNDS = int(os.environ.get("PARALLEL_WORKTREES_OPPOSITES", "3"))
SEED = int(os.environ.get("PARALLEL_WORKTREES_SEED", random.randrange(10**6)))
VERBS = ("provision", "teardown")
LONGEST = 2.5
"""Seconds within which the second run begins, and a killed run ends."""


@pytest.fixture(scope="module")
def space():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)  # root's clusters are those of the user postgres
        with made(folder) as space:
            yield space


@contextlib.contextmanager
def made(folder):
    given = {"database_backend": "embedded", "database_directory": str(folder / "clusters")}
    with workspaces.bautista(folder, **given) as space:
        try:
            yield space
        finally:
            assert workspaces.wait_for(space.remains) == []
            assert space.records() == []


def check(run):
    """A run that did not do its work says so in words for people."""
    assert "Traceback" not in run.output, str(run)
    assert "unexpected" not in run.output.lower(), str(run)
    for failed in run.failures:
        assert failed.get("failure") in ("user", "environment", "partial"), str(run)
        assert failed.get("hint"), str(run)


def settled(space, task):
    """Whether the task is there; completely so, or not a trace of it."""
    found = space.task(task)
    if found is None:
        assert workspaces.wait_for(lambda: space.traces(task)) == []
        return False
    assert (found["state"], found["drift"]) == ("ready", [])
    for name in REPOSITORIES:
        worktree = space.worktree(name, task)
        assert git(worktree, "branch", "--show-current") == task
        assert git(worktree, "status", "--porcelain") == ""
    values = workspaces.env_values(space.worktree("backend", task) / ".env.test")
    assert values["DB_PASSWORD"] == space.password(task)
    assert workspaces.psql("select 1", port=int(values["DB_PORT"]), password=values["DB_PASSWORD"]) == "1"
    return True


@pytest.mark.parametrize("number", range(ROUNDS))
def test_provision_and_teardown_at_the_same_time(space, number):
    """With sets that overlap, in both orders, of tasks that are there and that are not, with and without a kill."""
    chance = random.Random(f"{SEED} {number}")
    tasks = [f"{letter}-{number}-{space.name[-6:]}" for letter in "abc"]
    if chance.random() < 0.5:
        space.provision(",".join(tasks[:2])).must()
    first, second = chance.sample(VERBS, 2)
    pause, killed = chance.uniform(0, LONGEST), chance.choice((None, None, first, second))
    sets = dict(zip((first, second), chance.sample([tasks[:1], tasks[:2], tasks[1:], tasks[1::-1]], 2), strict=True))
    print(f"PARALLEL_WORKTREES_SEED={SEED}: {first}, after {pause:.2f} s {second}, of {sets}, killed: {killed}")
    runs = {first: space.start(first, task=",".join(sets[first]))}
    time.sleep(pause)
    runs[second] = space.start(second, task=",".join(sets[second]))
    if killed:
        time.sleep(chance.uniform(0.3, LONGEST))
        runs[killed].kill(group=chance.random() < 0.5)
    ended = [run.end() for run in runs.values()]
    for run in ended:
        print(run)
        check(run)
    there = {task["name"]: task["state"] for task in space.status()["tasks"]}
    if killed and (cut := [task for task in sets[killed] if there.get(task, "ready") != "ready"]):
        runs[killed].kill(group=True)  # a worker of a run that is gone may wait for it for ever
        space.run(chance.choice(VERBS), task=",".join(cut)).must()
    if left := [task for task in tasks if settled(space, task)]:
        space.teardown(",".join(left)).must()
    assert not any(settled(space, task) for task in left)


def test_two_provisions_with_different_variables_at_the_same_time(space):
    """One is refused by the other, or what it asks for is there as well; what cannot be both is refused."""
    task = f"varied-{space.name[-6:]}"
    runs = [space.start("provision", task=task, repos=repos) for repos in ("docs", "app")]
    runs.append(space.start("provision", task=task, branch="another"))
    done = [run.end() for run in runs]
    for run in done:
        check(run)
    assert any(run.code == 0 for run in done)
    (found,) = space.status()["tasks"]
    assert (found["state"], found["drift"]) == ("ready", [])
    assert all(tree["branch"] == found["branch"] for tree in found["worktrees"])
    if found["branch"] == "another":
        space.provision(task, branch=task).refused("user", "was provisioned for branch another")
    else:
        space.provision(task).must()
        assert settled(space, task)
    space.teardown(task).must()
    assert not settled(space, task)
