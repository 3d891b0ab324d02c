# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that are started at the same moment: of different tasks none hurts another, of one task only one is at work."""

from __future__ import annotations

import pytest
from integration import workspaces
from integration.workspaces import REPOSITORIES, docker, git

MANY = 20
"""Of different tasks, each with a PostgreSQL container of its own."""
SAME = 10


@pytest.fixture(scope="module")
def space(tmp_path_factory, postgres_image):
    with workspaces.bautista(tmp_path_factory.mktemp("side-by-side"), image=postgres_image) as made:
        yield made


@pytest.fixture(scope="module")
def tasks(space):
    return [f"side-{number}-{space.name[-6:]}" for number in range(MANY)]


def at_once(space, verb, *tasks):
    """The runs of as many processes, all begun before the first has done anything."""
    started = [space.start(verb, task=task) for task in tasks]
    return [one.end(timeout=300) for one in started]


def test_many_tasks_at_once(space, tasks):
    """The first provision of all, so the registry, the prepared image and every repository are fought for."""
    for run in at_once(space, "provision", *tasks):
        run.must()
    base = space.variables["lease_ports"]["database"]["base"]
    slots = space.slots()
    assert slots.keys() == set(tasks)
    assert sorted(slots.values()) == list(range(1, MANY + 1))
    for name in REPOSITORIES:
        repository = space.repository(name)
        assert workspaces.worktrees(repository) == {space.worktree(name, task): task for task in tasks}
        assert git(repository, "status", "--porcelain") == ""
    for task in tasks:
        trees = [*(space.worktree(name, task) for name in REPOSITORIES), space.worktree("backend", task) / "migrations"]
        for tree in trees:
            assert git(tree, "branch", "--show-current") == task
            assert git(tree, "status", "--porcelain") == ""
        values = workspaces.env_values(trees[-1] / ".env.test")
        assert values["DB_PORT"] == str(base + slots[task])
        # The passwords are different ones, so this is the task's own database.
        assert workspaces.psql("select 1", port=base + slots[task], password=space.password(task)) == "1"
    assert len({space.password(task) for task in tasks}) == MANY
    status = space.status()
    assert {task["name"]: (task["state"], task["drift"]) for task in status["tasks"]} == {
        task: ("ready", []) for task in tasks
    }
    assert status["orphans"] == []


def test_many_teardowns_at_once(space, tasks):
    for run in at_once(space, "teardown", *tasks):
        run.must()
    assert workspaces.wait_for(lambda: [trace for task in tasks for trace in space.traces(task)]) == []
    assert workspaces.wait_for(space.remains) == []
    assert space.records() == []
    assert docker("ps", "--all", "--quiet", "--filter", f"name={space.name[-6:]}") == ""
    for name in REPOSITORIES:
        assert {*tasks} < {*git(space.repository(name), "branch", "--format", "%(refname:short)").split()}


def test_one_task_by_many_at_once(space):
    """One makes it and one removes it; the others find that done, or are told who is at it."""
    task = f"same-{space.name[-6:]}"
    runs = at_once(space, "provision", *[task] * SAME)
    assert sum(run.changed > 0 for run in runs) == 1
    for run in runs:
        assert run.code == 0 or run.refused("user", f"task {task} is being provisioned by process")
    found = space.task(task)
    assert (found["state"], found["drift"], found["slot"]) == ("ready", [], 1)
    port = found["ports"]["database"]
    assert workspaces.psql("select 1", port=port, password=space.password(task)) == "1"

    runs = at_once(space, "teardown", *[task] * SAME)
    assert sum(run.changed > 0 for run in runs) == 1
    for run in runs:
        assert run.code == 0 or run.refused("user", f"task {task} is being torn down by process")
    assert workspaces.wait_for(lambda: space.traces(task)) == []
