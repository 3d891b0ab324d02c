# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin: every task is a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from integration import workspaces

FILE = "plugin: parallel.worktrees.tasks\n"


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A workspace without databases that has two tasks."""
    with workspaces.bautista(tmp_path_factory.mktemp("inventory")) as made:
        made.provision("one,two").must()
        (made.state / "tasks.yml").write_text(FILE)
        (made.state / "ansible.cfg").write_text("")
        yield made


def ask(space, program: str, *arguments: str, inventory: str = "tasks.yml", **environ: str):
    command = [os.path.join(os.path.dirname(sys.executable), program), *arguments, "-i", space.state / inventory]
    environment = {**space.environ("/dev/null"), "ANSIBLE_CONFIG": str(space.state / "ansible.cfg"), **environ}
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def listed(space, **options: str):
    done = ask(space, "ansible-inventory", "--list", **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def plain(value):
    """What ansible-inventory prints, without its marks on strings that are no templates."""
    if isinstance(value, dict):
        return value.get("__ansible_unsafe") or {key: plain(inner) for key, inner in value.items()}
    return value


def test_hosts_groups_and_facts(space):
    found = listed(space)
    for group in ("worktree_tasks", "backend_none", "state_ready", "machine_localhost"):
        assert found[group]["hosts"] == ["one", "two"], group
    assert found[f"workspace_{space.name}".replace("-", "_")]["hosts"] == ["one", "two"]
    facts = plain(found["_meta"]["hostvars"]["one"]["task_facts"])
    assert facts["worktrees"]["docs"] == str(space.worktree("docs", "one"))
    assert facts["ports"] == space.task("one")["ports"]
    assert "parallel_worktrees_tasks" not in found, "a playbook works on the tasks that a call names, and no others"


def test_a_command_runs_in_the_worktree_of_its_task(space):
    space.worktree("backend", "two").joinpath("new.txt").write_text("")
    done = ask(space, "ansible", "two", "-m", "command", "-a", "git status --short")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "?? new.txt" in done.stdout
    assert "new.txt" not in ask(space, "ansible", "one", "-m", "command", "-a", "git status --short").stdout


def test_a_workspace_that_no_task_is_of(space):
    (space.state / "other.tasks.yml").write_text(FILE + "workspaces: [other]\n")
    done = ask(space, "ansible-inventory", "--list", inventory="other.tasks.yml")
    assert "no task is of a workspace other" in done.stderr
    assert f"choose from: {space.name}" in done.stderr


def test_a_damaged_registry_is_a_clear_error(space, tmp_path):
    (tmp_path / "broken.sqlite3").write_bytes(b"this is no database" * 100)
    (space.state / "broken.tasks.yml").write_text(FILE + f"registry: {tmp_path}/broken.sqlite3\n")
    done = ask(space, "ansible-inventory", "--list", inventory="broken.tasks.yml")
    assert str(tmp_path / "broken.sqlite3") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cached_inventory_is_that_of_before(space, tmp_path):
    cache = {"ANSIBLE_INVENTORY_CACHE": "true", "ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile"}
    cache["ANSIBLE_INVENTORY_CACHE_CONNECTION"] = str(tmp_path)
    assert listed(space, **cache)["worktree_tasks"]["hosts"] == ["one", "two"]
    space.provision("three").must()
    assert listed(space, **cache)["worktree_tasks"]["hosts"] == ["one", "two"]
    assert listed(space)["worktree_tasks"]["hosts"] == ["one", "two", "three"]
    space.teardown("three").must()
