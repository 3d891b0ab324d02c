# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person has moved since a task got it, and what a removal could not remove."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest
from integration.repos import branches, call, git, refused, saved, status, succeeded, worktrees
from integration.workspaces import differences, snapshot

from ansible_collections.parallel.worktrees.plugins.module_utils import _prune, _records, _status, _summary, _trash

SOMEBODY = 4321


@pytest.fixture
def task(sample):
    """The task fix with its worktrees, in a registry of its own."""
    return Task(sample)


class Task:
    def __init__(self, sample) -> None:
        self.sample = sample
        self.registry = str(sample.root / "registry")
        self.root = str(sample.work)
        (made,) = self.record("provisioning")["tasks"]
        self.owner = made["owner"]
        self.plan = sample.make(owner=self.owner)["plan"]
        self.record("provisioning", plan={"worktrees": self.plan})
        self.record("ready")

    def record(self, state: str, **more: t.Any) -> dict[str, t.Any]:
        return succeeded(self.try_record(state, **more))

    def try_record(self, state: str, **more: t.Any) -> dict[str, t.Any]:
        given = {"registry": self.registry, "workspace": "shop", "root": self.root, "task": "fix", "state": state}
        return call(_records, **{**given, **more})

    @property
    def seen(self) -> dict[str, t.Any]:
        return succeeded(call(_status, registry=self.registry, workspace="shop", repos=self.repos))

    def prune(self, **more: t.Any) -> dict[str, t.Any]:
        return call(_prune, registry=self.registry, workspace="shop", repos=self.repos, **more)

    @property
    def repos(self) -> list[dict[str, str]]:
        return [{"name": one["name"], "repo": one["repo"]} for one in self.plan]


# Worktrees


def test_a_worktree_that_was_moved_is_found_by_its_mark(task, sample):
    place = sample.root / "elsewhere" / "app"
    place.parent.mkdir()
    git(sample.app, "worktree", "move", str(sample.tree("app")), str(place))
    (one,) = (one for one in task.seen["tasks"][0]["worktrees"] if one["name"] == "app")
    assert (one["state"], task.seen["tasks"][0]["drift"][0]) == ("moved", f"worktree of app was moved to {place}")
    assert task.prune()["leftovers"] == []
    refused(sample.run(owner=task.owner), "user", f"moved from {sample.tree('app')} to {place}", "worktree move")
    (place / "mine").write_text("mine\n")
    refused(sample.run(owner=task.owner, state="absent"), "user", str(place), "mine")
    (place / "mine").unlink()
    with subprocess.Popen(["sleep", "600"], cwd=place) as process:
        refused(sample.run(owner=task.owner, state="absent"), "user", str(place), f"kill {process.pid}")
        process.kill()
    result = sample.remove(owner=task.owner, delete_branch=True)
    assert f"remove worktree {place}" in result["actions"]
    assert not place.exists()
    assert sample.traces() == []
    assert branches(sample.app) == ["main"]
    assert status(sample.app) == ""


def test_a_worktree_that_was_moved_by_hand_and_repaired_is_found_with_its_submodule(sample):
    sample.make("backend")
    place = sample.root / "elsewhere"
    sample.tree("backend").rename(place)
    git(sample.backend, "worktree", "repair", str(place))
    (place / "migrations" / "mine").write_text("mine\n")
    text = refused(sample.run("backend", state="absent", force=True), "user", f"{place}/migrations was moved")
    subprocess.run(text.partition("hint: tell git: ")[2], shell=True, check=True, capture_output=True)
    refused(sample.run("backend", state="absent"), "user", "mine")
    sample.remove("backend", force=True)
    assert not place.exists()
    assert sample.traces(work_was_saved=True) == []


def test_a_worktree_that_was_moved_while_something_else_lies_in_its_place_is_refused(sample):
    sample.make("docs")
    git(sample.docs, "worktree", "move", str(sample.tree("docs")), str(sample.root / "elsewhere"))
    sample.tree("docs").mkdir(parents=True)
    (sample.tree("docs") / "other").write_text("")
    refused(sample.run("docs", state="absent", force=True), "user", "not clear", str(sample.root / "elsewhere"))


# Repositories, the workspace, and the registry


def test_a_renamed_repository_is_refused_by_its_new_name(sample):
    sample.make()
    sample.docs.rename(sample.work / "manuals")
    for state in ("present", "absent"):
        text = refused(sample.run(state=state), "user", f"there is no folder {sample.docs}")
        assert ("mv" in text) == (state == "absent")
    back = text.partition("until the task is torn down: ")[2]
    assert back == f"mv {sample.work}/manuals {sample.docs}"
    subprocess.run(back, shell=True, check=True)
    sample.tree("app").rename(sample.root / "moved")
    assert sample.remove()["notes"] == [f"worktree {sample.tree('app')} of app, whose folder was gone before"]
    shutil.rmtree(sample.docs)
    result = sample.remove()
    assert not result["changed"], "a repository that is gone is no reason to refuse"
    assert result["notes"] == [f"repository {sample.docs} of docs, which was gone before"]


@pytest.mark.parametrize("name", ["shop", "moved"])
def test_a_moved_workspace_is_named_with_the_way_back(task, sample, name):
    """The workspace has a name of its own, or is called like its folder."""
    sample.work.rename(sample.root / "moved")
    now = {"workspace": name, "root": str(sample.root / "moved")}
    back = f"mv {sample.root}/moved {sample.work}"
    refused(task.try_record("removing", **now), "user", f"workspace folder {sample.work}, which is gone", back)
    refused(task.try_record("provisioning", **now), "user", f"workspace folder {sample.work}", back)
    subprocess.run(back, shell=True, check=True)
    task.record("removing")


def test_a_lost_state_folder_is_named_with_the_way_out(task, sample):
    for path in sample.root.glob("registry*"):
        path.unlink()
    again = task.record("provisioning")["tasks"][0]["owner"]
    assert again != task.owner
    for state in ("present", "absent"):
        text = refused(sample.run(owner=again, state=state), "user", "the state folder was lost")
        assert "prune -e apply=true -e force=true" in text
    task.record("absent")
    (sample.tree("docs") / "mine").write_text("mine\n")
    assert task.prune(apply=True, force=True)["changed"]
    assert worktrees(sample.docs) == {}
    assert git(sample.docs, "show", f"{saved(sample.docs)[0]}^3:mine") == "mine"


# The trash


@pytest.mark.root
def test_what_cannot_be_removed_is_reported_until_it_is(task, sample, monkeypatch):
    for path in (sample.root, *sample.root.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
    for above in sample.root.parents:
        if above.stat().st_uid == 0:
            above.chmod(above.stat().st_mode | 0o011)
    owned = sample.tree("app") / "build" / "root"
    owned.mkdir(parents=True)
    (owned / "file").write_text("")
    os.chown(owned.parent, SOMEBODY, SOMEBODY)
    # Its program may lie where that user is not let in, so it runs in a fork.
    monkeypatch.setattr(_trash, "discard", lambda commons: _trash.main([f"{one}/{_trash.FOLDER}" for one in commons]))
    result = succeeded(sample.run_as(SOMEBODY, owner=task.owner, state="absent", force=True))
    monkeypatch.undo()
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": "*"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    (left,) = result["trash"]
    assert left.startswith(f"{sample.app}/.git/{_trash.FOLDER}/fix-")
    assert sorted(str(path) for path in pathlib.Path(left).rglob("*")) == [
        f"{left}/build",
        f"{left}/build/root",
        f"{left}/build/root/file",
    ]
    summary = _summary.torn_down(
        {"name": "fix", "removed": result, "written": [], "kept": None}, style="text", check=False
    )
    assert f"{left} cannot be removed by this user; remove it: sudo rm -r {left}" in summary
    task.record("absent")
    assert [(one["kind"], one["name"]) for one in task.seen["orphans"]] == [("trash", left)]
    assert (
        f"orphan trash {left}"
        in succeeded(call(_status, registry=task.registry, workspace="shop", repos=task.repos, format="table"))[
            "report"
        ]
    )
    before = snapshot(sample.root)
    assert [one["name"] for one in task.prune()["leftovers"]] == [left]
    assert task.prune(apply=True, check=True)["changed"]
    assert differences(before, snapshot(sample.root)) == []
    assert task.prune(apply=True)["changed"]
    assert task.seen["orphans"] == []
    assert sample.traces(work_was_saved=True) == []
