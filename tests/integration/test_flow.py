# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as Ansible shows and runs them: their flow, the modules that a task costs, and Ansible's options."""

from __future__ import annotations

import re

import pytest
from integration import workspaces

MOST_FOR_PROVISION = 6
MOST_FOR_TEARDOWN = 5
OPTIONAL = {"Env files", "Agent rules", "Set-up commands", "Hooks", "Gate"}
"""One module more for each that is in use."""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    with workspaces.bautista(tmp_path_factory.mktemp("flow")) as made:
        yield made


def calls(run, task: str) -> list[str]:
    """The Ansible tasks that called a module for a task of the workspace."""
    return [
        result["step"]
        for result in run.must().results
        if result.get("host") == task and result["outcome"] == "ok" and "parallel.worktrees" in result["action"]
    ]


@pytest.mark.parametrize(
    ("verb", "flow"),
    [
        (
            "provision",
            "Check, Register, Plan, Start the database, Worktrees, Env files, Agent rules, Database, Ready, Result",
        ),
        ("teardown", "Check, Look up, Verdict, Gate, Processes, Worktrees, Database, Record, Result"),
    ],
)
def test_list_tasks_reads_as_the_flow(space, verb, flow):
    shown = space.run(verb, "--list-tasks", task="x").must().stdout
    listed = re.findall(r"^      (?:\S+ : )?(.*)\tTAGS:", shown, re.MULTILINE)
    wanted = flow.split(", ")
    assert [name for name in listed if name in wanted] == wanted, listed


def test_a_task_costs_few_modules(space):
    space = space.varied(database_backend="embedded")
    made = calls(space.provision("few"), "few")
    assert len([name for name in made if name not in OPTIONAL]) <= MOST_FOR_PROVISION, made
    removed = calls(space.teardown("few"), "few")
    assert len([name for name in removed if name not in OPTIONAL]) <= MOST_FOR_TEARDOWN, removed


def test_tags_choose_a_part(space):
    space.provision("part").must()
    file = space.worktree("backend", "part") / ".env.test"
    wanted = file.read_text()
    file.write_text(wanted.replace("DB_PORT=", "DB_PORT=1"))
    run = space.provision("part", "--tags", "env")
    assert calls(run, "part") == ["Env files"]
    assert file.read_text() == wanted
    space.teardown("part").must()


def test_start_at_task_applies_from_the_play_of_the_tasks_on(space):
    space.provision("late").must()
    file = space.worktree("backend", "late") / ".env.test"
    wanted = file.read_text()
    file.write_text(wanted.replace("DB_PORT=", "DB_PORT=1"))
    made = calls(space.provision("late", "--start-at-task", "Env files"), "late")
    assert made[0] == "Env files"
    assert made[-1] == "Ready"
    assert file.read_text() == wanted
    space.teardown("late").must()


def test_variables_of_roles_may_be_private(space):
    private = space.varied()
    private.environment = {"ANSIBLE_PRIVATE_ROLE_VARS": "true"}
    private.provision("private").must()
    assert private.provision("private").must().changed == 0
    private.teardown("private").must()
    assert space.traces("private") == []
