# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several workspaces and registries over the same repositories and ports: nothing is had twice or taken away."""

from __future__ import annotations

import pathlib
import tempfile

import pytest
from integration import workspaces
from integration.workspaces import REPOSITORIES


@pytest.fixture(scope="module")
def spaces():
    """A workspace, another of the same registry, and the first as a user with a registry of their own has it."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        given = {"database_backend": "embedded", "database_directory": str(folder / "clusters")}
        with workspaces.bautista(folder, **given) as first:
            second = first.varied(workspace_name=f"{first.name}-second")
            third = first.varied()
            third.state = folder / "another state"
            yield first, second, third
            for space in (first, second, third):
                assert space.records() == []
            assert workspaces.wait_for(first.remains) == []


def has(space, task):
    """All that a task has, by which it is seen whether another has taken it away."""
    found = space.task(task)
    assert (found["state"], found["drift"]) == ("ready", [])
    trees = {name: workspaces.worktrees(space.repository(name))[space.worktree(name, task)] for name in REPOSITORIES}
    values = workspaces.env_values(space.worktree("backend", task) / ".env.test")
    assert workspaces.psql("select 1", port=int(values["DB_PORT"]), password=space.password(task)) == "1"
    return found["ports"], trees, values


def test_the_same_task(spaces):
    """One has it; each other is refused by the name of what it would take."""
    first, *others = spaces
    first.provision("same").must()
    before = has(first, "same")
    for other in others:
        other.provision("same").refused("user", "the worktree", "/.worktrees/same")
        assert other.task("same") is None
        other.teardown("same").refused("user", "there is no task same")
        other.run("prune", apply="true").must()
        assert has(first, "same") == before
    for other in others:
        other.provision("own", branch="same").refused("user", "branch same is checked out at")
        assert has(first, "same") == before
    first.teardown("same").must()


def provisioned(runs, tasks):
    """What was registered at the same moment by another registry is refused by its port, and then gets another."""
    for run, (space, task) in zip(runs, tasks, strict=True):
        if run.code:
            message = run.refused(run.failures[-1]["failure"], "port")
            if space.task(task):
                assert "tear the task down" in message
                space.teardown(task).must()
            space.provision(task).must()


def test_other_tasks_get_other_ports(spaces):
    tasks = [(space, f"other-{number}") for number, space in enumerate(spaces)]
    started = [space.start("provision", task=task) for space, task in tasks]
    provisioned([one.end() for one in started], tasks)
    ports = [has(space, task)[0]["database"] for space, task in tasks]
    assert len(set(ports)) == len(tasks), ports
    for space in spaces:
        space.run("prune", apply="true").must()
    for space, task in tasks:
        has(space, task)
        space.teardown(task).must()


@pytest.mark.parametrize("at_once", [False, True])
def test_ports_that_nobody_listens_on(spaces, at_once):
    base = spaces[0].variables["lease_ports"]["database"]["base"] + 100
    given = {"database_backend": "none", "repos": "docs", "env_files": [], "lease_ports": {"web": {"base": base}}}
    tasks = [(space.varied(**given), f"web-{number}") for number, space in enumerate(spaces)]
    if at_once:
        started = [space.start("provision", task=task) for space, task in tasks]
        provisioned([one.end() for one in started], tasks)
    else:
        runs = [space.provision(task).must() for space, task in tasks]
        assert f"leased to {spaces[0].name}/web-0@" in runs[-1].output
    ports = [space.task(task)["ports"]["web"] for space, task in tasks]
    for space, task in tasks:
        space.teardown(task).must()
    assert len(set(ports)) == len(tasks), ports
