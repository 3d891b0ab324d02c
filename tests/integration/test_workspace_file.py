# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a run takes its workspace from, and the commands that it suggests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import yaml
from integration import workspaces
from integration.workspaces import CLONE, Workspace


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A workspace without databases, whose file lies in its root and has all of its variables."""
    with workspaces.bautista(tmp_path_factory.mktemp("found")) as made:
        given = {name: value for name, value in made.variables.items() if name != "workspace_root"}
        said = {**yaml.safe_load(workspaces.EXAMPLE.read_text()), **given}
        said["env_files"].append({"repo": "docs", "path": "root.txt", "content": "{{ workspace_root }}"})
        (made.root / "workspace.yml").write_text(yaml.safe_dump(said))
        yield made


def typed(space, folder, **variables) -> Workspace:
    """The runs of a person in this folder who types only these variables."""
    person = Workspace(space.root, None, space.state, variables)
    person.folder = folder
    return person


def test_the_file_above_the_current_folder(space):
    run = typed(space, space.root / "docs" / "src").provision("fix").must()
    assert re.search(rf"  workspace +{re.escape(str(space.root))}/workspace\.yml\n", run.stdout)
    assert "ansible-playbook parallel.worktrees.teardown -e task=fix\n" in run.stdout
    assert (space.worktree("docs", "fix") / "root.txt").read_text() == str(space.root)
    inside = typed(space, space.worktree("docs", "fix"))
    assert "registered before" in inside.provision("fix").must().stdout
    assert [task["name"] for task in inside.status()["tasks"]] == ["fix"]
    typed(space, space.root).teardown("fix").must()


def test_a_file_that_is_named(space, tmp_path):
    there = typed(space, tmp_path, workspace_file=str(space.root / "workspace.yml"))
    run = there.provision("named").must()
    assert f"teardown -e workspace_file={space.root}/workspace.yml -e task=named\n" in run.stdout
    there.teardown("named").must()


def test_variables_of_the_inventory(space, tmp_path):
    said = {**yaml.safe_load((space.root / "workspace.yml").read_text()), "workspace_root": str(space.root)}
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text(yaml.safe_dump(said))
    (tmp_path / "hosts").write_text("localhost ansible_connection=local\n")
    there = typed(space, tmp_path)
    there.inventory = tmp_path / "hosts"
    there.provision("grouped").must()
    there.teardown("grouped").must()


@pytest.mark.parametrize("verb", ["provision", "teardown", "exec", "gate", "integrate"])
def test_without_a_file(space, tmp_path, verb):
    run = typed(space, tmp_path).run(verb, task="fix")
    run.refused("user", f"no workspace.yml in {tmp_path}, {tmp_path.parent}, ", "-e workspace_file=PATH")


def test_a_file_without_its_at_sign(space, tmp_path):
    run = typed(space, tmp_path).run("provision", "-e", "workspace.yml", task="fix")
    run.refused("user", "read a file with -e @workspace.yml")


@pytest.fixture
def bound(monkeypatch):
    """Runs that the rights of files hold for, as they do not for root."""
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = Workspace.command
    monkeypatch.setattr(Workspace, "command", lambda *args, **more: [*without, *command(*args, **more)])


def unreadable(path):
    path.write_text("worktrees_repos: []\n")
    path.chmod(0)


def behind_a_closed_folder(path):
    path.parent.mkdir()
    path.write_text("worktrees_repos: []\n")
    path.parent.chmod(0)


FAULTS = [
    ("none.yml", lambda _path: None, "there is no such file", "find ~ -name workspace.yml"),
    ("folder", lambda path: path.mkdir(), "it is a folder", "give the path of a workspace.yml"),
    ("pipe", os.mkfifo, "it is not a file", "give the path of a workspace.yml"),
    ("closed.yml", unreadable, "permission denied", "chmod u+r {}"),
    ("closed/space.yml", behind_a_closed_folder, "Permission denied", "namei -l {}"),
]


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(("name", "make", "why", "hint"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_named_file_that_cannot_be_read(space, tmp_path, name, make, why, hint):
    make(tmp_path / name)
    try:
        run = typed(space, tmp_path, workspace_file=name).run("provision", task="fix")
    finally:
        (tmp_path / "closed").exists() and (tmp_path / "closed").chmod(0o700)
    said = f"cannot read the workspace file {tmp_path}/{name}, which workspace_file={name} names: {why}\n"
    assert run.code != 0
    assert run.output.count(said) == 1, run
    assert re.search(f"\nhint: .*{re.escape(hint.format(tmp_path / name))}", run.output), run
    assert "Traceback" not in run.output


def test_a_named_file_is_missing_where_there_is_another(space):
    run = typed(space, space.root / "docs", workspace_file="none.yml").run("provision", task="fix")
    assert f"such as -e workspace_file={space.root}/workspace.yml\n" in run.output


@pytest.mark.usefixtures("bound")
def test_a_file_that_is_found_and_cannot_be_read(space, tmp_path):
    unreadable(tmp_path / "workspace.yml")
    run = typed(space, tmp_path).run("provision", task="fix")
    assert run.output.count(f"cannot read the workspace file {tmp_path}/workspace.yml: permission denied\n") == 1, run
    assert f"hint: make it readable: chmod u+r {tmp_path}/workspace.yml\n" in run.output


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two users")
def test_a_file_of_another_user_that_is_found(space, tmp_path):
    (tmp_path / "workspace.yml").write_text("worktrees_repos: []\n")
    os.chown(tmp_path / "workspace.yml", 12345, -1)
    person = typed(space, tmp_path)
    person.environment = {"SUDO_UID": "0"}
    run = person.run("provision", task="fix")
    assert run.output.count("belongs to another user (uid 12345), and a workspace file names commands to run\n") == 1
    assert f"hint: if you trust it, name it: -e workspace_file={tmp_path}/workspace.yml\n" in run.output


def test_a_misspelt_option_of_a_verb_draws_a_warning(space):
    run = typed(space, space.root).run("teardown", "-e", "forse=true taks=x mine=1", task="never")
    plain = " ".join(run.output.split())
    assert "forse is no variable of this collection; did you mean force?" in plain, run
    assert "taks is no variable of this collection; did you mean task?" in plain, run
    assert "mine is no variable" not in plain, run


@pytest.mark.parametrize("verb", ["teardown", "exec"])
def test_a_task_beside_all_tasks_is_refused(space, verb):
    run = typed(space, space.root).run(verb, task="fix", all_tasks=True)
    run.refused("user", "task=fix and all_tasks=true are given together", "leave out one of both")


def test_the_playbooks_of_a_clone(space, tmp_path):
    """A clone uses its own roles once it is linked, and no others before."""
    clone = tmp_path / "clone"
    for part in ("meta", "playbooks", "plugins", "roles", "scripts"):
        shutil.copytree(CLONE / part, clone / part, ignore=shutil.ignore_patterns("collections", "__pycache__"))
    shutil.copy(CLONE / "galaxy.yml", clone)
    person = typed(space, space.root)
    person.playbook = f"{clone}/playbooks/{{}}.yml"
    person.provision("cloned").refused("user", str(clone), "scripts/link")
    subprocess.run([clone / "scripts" / "link"], check=True)
    run = person.provision("cloned", "-vv").must()
    assert f"{clone}/playbooks/teardown.yml -e task=cloned\n" in run.stdout
    person.teardown("cloned").must()
