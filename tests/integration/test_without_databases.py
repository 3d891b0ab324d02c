# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks get that have no database: answers in JSON, an environment, commands before they are ready."""

from __future__ import annotations

import json
import pathlib

import pytest
from integration import workspaces
from integration.workspaces import commit, git

from ansible_collections.parallel.worktrees.plugins.module_utils import _records
from ansible_collections.parallel.worktrees.plugins.module_utils._door import filled


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    with workspaces.bautista(tmp_path_factory.mktemp("without"), repos="backend", env_files=[]) as made:
        yield made


def test_several_tasks_answer_in_one_document(space):
    """Those that are refused among them."""
    space.provision("json-1").must()
    commit(space.worktree("backend", "json-1"), "work.txt")
    (space.worktree("backend", "json-1") / "more.txt").write_text("more\n")
    run = space.provision("json-1,json-2", format="json").must()
    assert [(one["name"], one["state"]) for one in json.loads(run.stdout)["tasks"]] == [
        ("json-1", "ready"),
        ("json-2", "ready"),
    ]
    run = space.run("teardown", all_tasks=True, format="json")
    assert run.code != 0
    refused, removed = json.loads(run.stdout)["tasks"]
    assert (refused["name"], refused["failed"], refused["failure"]) == ("json-1", True, "user")
    assert "more.txt" in refused["msg"]
    assert "force=true" in refused["hint"]
    assert (removed["name"], removed["state"]) == ("json-2", "absent")
    run = space.teardown("json-1,json-2", force=True, format="json").must()
    told = {one["name"]: one["state"] for one in json.loads(run.stdout)["tasks"]}
    assert told == {"json-1": "absent", "json-2": "absent"}
    assert json.loads(space.run("teardown", all_tasks=True, format="json").must().stdout) == {"tasks": []}
    run = space.provision("json-3,no good", format="json")
    assert json.loads(run.stdout)["tasks"] == []
    assert json.loads(run.stdout)["failure"] == "user"


def environment(space, task, command, **variables):
    run = space.run("exec", task=task, command=command, **variables).must()
    return run.result("task_exec")["stdout"].splitlines(), run


SHOW = 'echo "${DATABASE_URL-none} ${TASK_NAME-none} ${TASK_SLOT-none} ${MODE-none}"'


def test_a_variable_without_a_value_is_not_exported(space):
    """In set-up commands, gates, exec and what shells load; the project's own env file is what a program finds."""
    check = {"name": "look", "command": f"{SHOW} >.git-look; mv .git-look $(git rev-parse --git-dir)/look"}
    given = {
        "env_shell": ["file", "direnv", "mise"],
        "worktrees_repos": [
            {"name": "backend", "path": "bautista-backend", "setup": [f"{SHOW} >$(git rev-parse --git-dir)/setup"]}
        ],
        "gate_checks": [check],
    }
    space.varied(**given).provision("plain").must()
    tree = space.worktree("backend", "plain")
    wanted = "none plain 1 none"
    assert environment(space, "plain", SHOW)[0] == [wanted]
    space.varied(**given).run("gate", task="plain").must()
    admin = pathlib.Path(git(tree, "rev-parse", "--absolute-git-dir"))
    assert [(admin / name).read_text().strip() for name in ("setup", "look")] == [wanted] * 2
    assert "DATABASE_URL" not in (tree / ".task.env").read_text()


def test_each_port_is_a_variable_and_more_variables_are_added(space):
    number = str(space.task("plain")["ports"]["database"])
    more = space.varied(task_variables={"MODE": "test", "TASK_SLOT": None})
    assert environment(more, "plain", f'echo "$PORT_DATABASE"; {SHOW}')[0] == [number, "none plain none test"]


def test_what_an_env_file_says_counts(space):
    """And what is said elsewhere is not hidden without a word."""
    (space.repository("backend") / ".env").write_text("DATABASE_URL=own\nMODE=main\n")
    (space.repository("backend") / ".env.test").write_text("OTHER=1\n")
    files = [{"repo": "backend", "path": ".env", "values": {"TASK_NAME": "file", "DATABASE_URL": "x://y"}}]
    variables = {"TASK_NAME": "variable", "TASK_SLOT": None, "DATABASE_URL": "x://z", "MODE": "task"}
    given = {"env_files": files, "task_variables": variables, "env_shell": ["file"]}
    other = space.varied(**given)
    run = other.provision("said").must()
    assert "another" not in run.output
    assert environment(other, "said", SHOW)[0] == ["x://y file none main"]
    assert workspaces.env_values(other.worktree("backend", "said") / ".task.env")["MODE"] == "main"
    # Two files that differ: each program finds what its file says.
    files.append({"repo": "backend", "path": ".env.test", "values": {"DATABASE_URL": "x://test"}})
    other.provision("said").must()
    assert environment(other, "said", SHOW)[0] == ["none file none main"]
    # A file that the workspace does not name.
    run = space.varied(**{**given, "env_files": [], "worktrees_repos": INCLUDING}).provision("hidden").must()
    told = " ".join(run.output.split())
    assert "another DATABASE_URL and MODE than this file says" in told
    assert str(space.worktree("backend", "hidden") / ".env") in told


INCLUDING = [{"name": "backend", "path": "bautista-backend", "copies": [".env"]}]


def test_a_command_in_a_task_whose_set_up_failed(space):
    setup = [{"name": "backend", "path": "bautista-backend", "setup": ["test -e fixed"]}]
    other = space.varied(worktrees_repos=setup)
    other.provision("unready").refused("environment", "test -e fixed")
    (answer,), run = environment(other, "unready", "pwd; touch fixed")
    assert answer == str(space.worktree("backend", "unready"))
    assert "unready is not ready" in " ".join(run.output.split())
    other.provision("unready").must()
    assert "not ready" not in environment(other, "unready", "pwd")[1].output
    # Killed before anything was planned.
    begun = {"workspace": space.name, "root": str(space.root), "task": "begun", "state": "provisioning"}
    _records.operation(filled(_records.ARGUMENT_SPEC, {**begun, "registry": str(space.registry)}), check=False)
    for verb in ("exec", "gate"):
        space.run(verb, task="begun", command="true").refused("user", "task begun is not ready", "provision")
    space.provision("begun").must()
