# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""examples/adw.yml does what its team's own scripts did: fifteen deterministic slots, and files made for each task."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys

import pytest
from integration import workspaces
from integration.workspaces import CLONE, commit, git
from ports import free_base

from ansible_collections.parallel.worktrees.plugins.module_utils import _leases

EXAMPLE = CLONE / "examples" / "adw.yml"
SLOTS: _leases.Slots = {"first": 0, "last": 14, "strategy": "hash"}
TOOL = """#!/bin/sh
echo "{name} $* in $(basename "$PWD")" >>"$TOOLS_LOG"
mkdir -p {folder}
"""


class Adw(workspaces.Workspace):
    """The workspace of examples/adw.yml."""

    def repository(self, name: str = "adw") -> pathlib.Path:
        return self.root / name

    def worktree(self, name: str, task: str = "") -> pathlib.Path:  # noqa: ARG002 - of its one repository
        return self.repository() / "trees" / name


def wanted(name: str) -> int:
    """The slot that a name asks for first."""
    return _leases._candidates(name, SLOTS, None)[0]


def namesakes() -> list[str]:
    """Two names that ask for one slot."""
    by_slot: dict[int, list[str]] = collections.defaultdict(list)
    while True:
        name = secrets.token_hex(4)
        names = by_slot[wanted(name)]
        names.append(name)
        if len(names) == 2:
            return names


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adw")
    root = folder / "work"
    sample = (sys.executable, CLONE / "scripts" / "sample_workspace.py", root, "--shape", "adw")
    subprocess.run(sample, check=True)
    base = free_base()
    variables = {
        "workspace_root": str(root),
        "workspace_name": f"adw-{secrets.token_hex(3)}",
        "lease_ports": {"backend": {"base": base, "main": 8000}, "frontend": {"base": base + 50, "main": 5173}},
    }
    space = Adw(root, EXAMPLE, folder / "state", variables)
    space.state.mkdir()
    programs = folder / "bin"
    programs.mkdir()
    for name, made_by_it in (("uv", ".venv"), ("bun", "node_modules")):
        (programs / name).write_text(TOOL.format(name=name, folder=made_by_it))
        (programs / name).chmod(0o755)
    paths = f"{programs}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    space.environment = {"PATH": paths, "TOOLS_LOG": str(folder / "tools.log")}
    return space


@pytest.fixture
def space(made):
    """The workspace, left without tasks."""
    yield made
    made.run("teardown", all_tasks="true", force="true").must()
    assert made.records() == []


def base(space, name="backend"):
    return space.variables["lease_ports"][name]["base"]


# Worktrees


@pytest.mark.main_job
def test_a_task_as_its_scripts_made_one(space):
    run = space.provision("a1b2c3d4", branch="feat/x").must()
    tree = space.worktree("a1b2c3d4")
    slot = wanted("a1b2c3d4")
    backend, frontend = base(space) + slot, base(space, "frontend") + slot
    assert workspaces.worktrees(space.repository()) == {tree: "feat/x"}
    assert (tree / ".ports.env").read_text() == (
        f"BACKEND_PORT={backend}\nFRONTEND_PORT={frontend}\nVITE_BACKEND_URL=http://localhost:{backend}\n"
    )
    main = (space.repository() / ".env").read_text()
    assert (tree / ".env").read_text() == main + (
        f"BACKEND_PORT={backend}\nFRONTEND_PORT={frontend}\nVITE_BACKEND_URL=http://localhost:{backend}\n"
    )
    servers = json.loads((tree / ".mcp.json").read_text())["servers"]
    assert servers["files"]["args"] == ["--root", f"{tree}/app"]
    state = json.loads((tree / "agents" / "a1b2c3d4" / "adw_state.json").read_text())
    assert state["worktree_path"] == str(tree)
    assert (state["branch_name"], state["backend_port"]) == ("feat/x", backend)
    assert git(tree, "status", "--porcelain", "--untracked-files=all") == ""
    assert str(tree) in run.stdout
    again = space.provision("a1b2c3d4", branch="feat/x").must()
    assert again.changed == 0
    assert git(space.repository(), "status", "--porcelain", "--untracked-files=all") == ""


def test_it_starts_from_what_the_origin_has_by_now(space):
    theirs = space.root / "theirs"
    git(space.root, "clone", "--quiet", "origins/adw.git", "theirs")
    tip = commit(theirs, "theirs.txt")
    git(theirs, "push", "--quiet", "origin", "main")
    shutil.rmtree(theirs)
    space.provision("fresh").must()
    assert git(space.worktree("fresh"), "rev-parse", "HEAD") == tip
    assert git(space.repository(), "rev-parse", "main") != tip


# Slots


def test_a_name_asks_for_the_same_slot_each_time(space):
    for _again in range(2):
        space.provision("a1b2c3d4").must()
        assert space.slots() == {"a1b2c3d4": wanted("a1b2c3d4")}
        space.teardown("a1b2c3d4").must()


def test_of_two_that_ask_for_one_slot_the_second_gets_another_and_is_told(space):
    first, second = namesakes()
    space.provision(first).must()
    run = space.provision(second).must()
    slot = wanted(first)
    assert f"{second}: slot {slot} was passed over: the slot is held by {first}" in run.stdout
    assert space.slots() == {first: slot, second: (slot + 1) % 15}
    # It is in the record from then on.
    assert space.task(second)["passed_over"] == [{"slot": slot, "reason": f"the slot is held by {first}"}]
    assert space.task(first)["passed_over"] == []
    ports = workspaces.env_values(space.worktree(second) / ".ports.env")
    assert ports["BACKEND_PORT"] == str(base(space) + (slot + 1) % 15)
    # And stays there when the first is gone.
    space.teardown(first).must()
    space.provision(second).must()
    assert space.slots() == {second: (slot + 1) % 15}


def test_a_port_that_somebody_listens_on_is_passed_over(space):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", base(space, "frontend") + wanted("a1b2c3d4")))
        listener.listen()
        run = space.provision("a1b2c3d4").must()
    assert "is taken by a process that is not ours" in run.stdout
    assert space.slots()["a1b2c3d4"] != wanted("a1b2c3d4")


def test_the_sixteenth_is_refused_with_the_holders(space):
    bare = space.varied(worktrees_repos=[{"name": "adw"}], env_files=[])
    bare.provision("agent", count=15).must()
    assert sorted(bare.slots().values()) == list(range(15))
    before = workspaces.worktrees(bare.repository())
    run = bare.provision("late")
    message = run.refused("user", "no slot for late", "from 0 to 14 are taken")
    for name, slot in bare.slots().items():
        assert f"{slot}: {name}" in message
    assert workspaces.worktrees(bare.repository()) == before
    assert "late" not in bare.slots()


# Dependencies


def test_dependencies_are_installed_and_then_the_database_is_reset(space):
    log = pathlib.Path(space.environment["TOOLS_LOG"])
    log.unlink(missing_ok=True)
    space.provision("a1b2c3d4").must()
    tree = space.worktree("a1b2c3d4")
    assert sorted(log.read_text().splitlines()) == ["bun install in client", "uv sync in server"]
    assert (tree / "app" / "server" / "database").read_text() == "made\n"
    assert (tree / "app" / "server" / ".venv").is_dir()
    assert (tree / "app" / "client" / "node_modules").is_dir()
    # Once each, but for what is installed from another lock file.
    (tree / "app" / "client" / "bun.lock").write_text('{"new": 1}\n')
    (tree / "app" / "server" / "database").unlink()
    space.provision("a1b2c3d4").must()
    assert log.read_text().splitlines()[2:] == ["bun install in client"]
    assert not (tree / "app" / "server" / "database").exists()


def test_a_step_that_fails_says_how_and_goes_on_there(space):
    (space.root / "stop").touch()
    failing = [{"name": "adw", "base": "origin/main", "setup": [f"echo working; test ! -e {space.root}/stop"]}]
    varied = space.varied(worktrees_repos=failing)
    varied.provision("a1b2c3d4").refused("environment", "working", "ended with 1")
    (space.root / "stop").unlink()
    varied.provision("a1b2c3d4").must()


# Validation: the record has the path, the directory exists, git lists the worktree


def test_each_of_three_that_disagree_is_named(space):
    space.provision("good,unlisted,gone").must()
    assert space.task("good")["drift"] == []
    assert space.task("good")["worktrees"][0]["path"] == str(space.worktree("good"))
    shutil.rmtree(space.worktree("gone"))
    shutil.rmtree(space.repository() / ".git" / "worktrees" / "unlisted")
    assert space.task("gone")["drift"] == ["worktree of adw: its folder is gone"]
    assert space.task("unlisted")["drift"] == ["worktree of adw: git does not list it"]
    with space.opened_registry() as connection:
        connection.execute("delete from task where name = 'good'")
    orphans = space.status()["orphans"]
    assert str(space.worktree("good")) in [one["path"] for one in orphans if one["kind"] == "worktree"]
    space.run("prune", apply="true", force="true").must()
    shutil.rmtree(space.worktree("unlisted"), ignore_errors=True)


# Clean-up


def test_a_finished_task_is_merged_into_main_and_pushed(space):
    space.provision("merged1", branch="feat/merge").must()
    tree = space.worktree("merged1")
    (tree / "feature").write_text("done\n")
    git(tree, "add", "feature")
    git(tree, "commit", "--quiet", "--message", "feature")
    tip = git(tree, "rev-parse", "HEAD")
    run = space.run("integrate", task="merged1").must()
    assert "merged1: integrated" in run.stdout
    main = git(space.repository(), "rev-parse", "main")
    assert tip in git(space.repository(), "show", "--no-patch", "--format=%P", main).split()
    assert git(space.repository(), "ls-remote", "origin", "refs/heads/main").split()[0] == main
    assert (space.repository() / "feature").exists(), "the main tree was clean, and has followed"


def test_remove_and_remove_by_force(space):
    space.provision("a1b2c3d4").must()
    tree = space.worktree("a1b2c3d4")
    (tree / "work.txt").write_text("work\n")
    space.teardown("a1b2c3d4").refused("user", "work.txt")
    assert tree.exists()
    space.teardown("a1b2c3d4", force="true").must()
    assert not tree.exists()
    space.provision("b1b2c3d4").must()
    space.teardown("b1b2c3d4").must()
    assert not (space.repository() / "trees").exists()


def test_worktrees_that_are_gone_from_disk_are_pruned(space):
    space.provision("gone,stays").must()
    shutil.rmtree(space.worktree("gone"))
    assert "gone" in space.run("prune").must().stdout
    assert "gone" in space.slots()
    space.run("prune", apply="true").must()
    assert list(space.slots()) == ["stays"]
    left = workspaces.worktrees(space.repository())
    assert space.worktree("gone") not in left
    assert space.worktree("stays") in left
