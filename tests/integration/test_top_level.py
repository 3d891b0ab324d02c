# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Git, started by anybody in a worktree or a main tree, works on that tree, whatever is configured for others."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing as t

import pytest
from integration.repos import FILE_PROTOCOL, Sample, branches, call, commit, git, refused, status, succeeded, worktrees

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _analysis,
    _env_files,
    _exec,
    _gates,
    _integration,
    _records,
    _status,
    _top_level,
)


def top(tree: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(git(tree, "rev-parse", "--show-toplevel"))


def keep_out(sample: Sample, name: str, tree: pathlib.Path) -> None:
    """Have a file kept out of git in a worktree, which gives it a configuration of its own."""
    given = [{"name": name, "path": str(tree), "source": str(sample / "backend")}]
    files = [{"repo": name, "path": "mine", "content": "mine\n"}]
    succeeded(call(_env_files, worktrees=given, files=files))


@pytest.fixture
def inner(sample: Sample) -> pathlib.Path:
    """A task's submodule."""
    sample.make("backend")
    return sample.tree("backend") / "migrations"


def test_a_submodule_stays_itself_when_the_main_tree_is_updated(sample, inner):
    environment = {**os.environ, **FILE_PROTOCOL}
    shared = sample.backend / ".git" / "modules" / "migrations" / "config"
    git(sample.backend, "submodule", "--quiet", "deinit", "--force", "migrations")
    git(sample.backend, "submodule", "--quiet", "update", "--init", env=environment)
    assert "worktree = " in shared.read_text(), "git does not write what this is about"
    assert top(inner) == inner
    commit(inner)
    assert git(inner, "show", "--format=", "--name-only").split() == ["work"]
    assert top(sample.backend / "migrations") == sample.backend / "migrations"
    assert not sample.make("backend")["changed"]


@pytest.mark.parametrize("command", ["update --init --recursive", "sync --recursive", "absorbgitdirs", "init"])
def test_submodules_are_updated_in_a_task_as_anywhere(sample, inner, command):
    """As set-up commands do it."""
    git(sample.tree("backend"), "submodule", "--quiet", *command.split(), env={**os.environ, **FILE_PROTOCOL})
    main = sample.backend / "migrations"
    assert (top(inner), top(main), top(sample.backend)) == (inner, main, sample.backend)
    assert (git(inner, "branch", "--show-current"), status(inner), status(main)) == ("fix", "", "")
    assert not sample.make("backend")["changed"]


@pytest.mark.parametrize("before", [True, False], ids=["before", "afterwards"])
def test_a_shared_core_bare_fails_no_worktree(sample, before):
    git(sample.docs, "config", "extensions.worktreeConfig", "true")
    git(sample.docs, "config", "--worktree", "core.bare", "false")
    if before:
        git(sample.docs, "config", "core.bare", "true")
    sample.make("docs")
    git(sample.docs, "config", "core.bare", "true")
    tree = sample.tree("docs")
    assert top(tree) == tree
    assert status(tree) == ""
    # One that is moved stays usable: nothing names the place that it had.
    git(sample.docs, "worktree", "move", str(tree), str(sample.root / "moved"))
    assert top(sample.root / "moved") == sample.root / "moved"


def test_a_shared_core_worktree_leads_no_worktree_away(sample):
    git(sample.docs, "config", "extensions.worktreeConfig", "true")
    git(sample.docs, "config", "--worktree", "core.worktree", str(sample.docs))
    git(sample.docs, "config", "core.worktree", str(sample.app))
    sample.make("docs")
    assert top(sample.tree("docs")) == sample.tree("docs")
    assert not sample.make("docs")["changed"]


def test_what_was_led_away_is_seen_and_repaired(sample, inner):
    """As a worktree of an earlier version is, or one whose configuration somebody has edited."""
    tree = sample.tree("backend")
    keep_out(sample, "backend", tree)
    for one in (tree, inner):
        config = pathlib.Path(git(one, "rev-parse", "--absolute-git-dir")) / "config.worktree"
        config.write_text(config.read_text().replace("bare = false", "bare = true"))
    one = {"name": "backend", "path": str(tree)}
    check = {"name": "any", "command": "true"}
    told = f"git does not work in the worktree {tree}"
    refused(call(_exec, command="true", folder=str(tree / "src")), "environment", told)
    refused(call(_gates, worktrees=[one], checks=[check]), "environment", told)
    refused(call(_analysis, task="fix", worktrees=[one], checks=[check]), "environment", told)
    refused(call(_integration, workspace="shop", task="fix", worktrees=[one]), "environment", told)
    assert _top_level.fault(str(inner))
    planned = succeeded(sample.run("backend", check=True))
    assert planned["changed"]
    assert status_of(inner) is None
    assert sample.make("backend")["actions"] == planned["actions"]
    assert (top(tree), top(inner)) == (tree, inner)
    keep_out(sample, "migrations", inner)
    assert status(inner) == ""
    assert not sample.make("backend")["changed"]


def status_of(tree: pathlib.Path) -> str | None:
    return None if _top_level.fault(str(tree)) else status(tree)


# Tasks


@pytest.fixture
def task(sample: Sample, tmp_path: pathlib.Path):
    """What the registry does with a task that has worktrees: move its record to a state, or look at it."""
    space: dict[str, t.Any] = {"registry": str(tmp_path / "registry.sqlite3"), "workspace": "shop"}

    def act(state: str | None = None, **given: t.Any) -> t.Any:
        if state:
            return call(_records, state=state, task="fix", **space, **given)
        return succeeded(call(_status, **space))["tasks"][0]

    plan = {"worktrees": sample.make("backend", "docs")["plan"]}
    succeeded(act("provisioning", root=str(sample.work)))
    succeeded(act("provisioning", plan=plan))
    return act


def test_ready_is_said_when_git_works_in_every_worktree(sample, task):
    inner = sample.tree("backend") / "migrations"
    dot_git = (inner / ".git").read_text()
    (inner / ".git").unlink()
    refused(task("ready"), "environment", f"git in the worktree {inner} works on {sample.tree('backend')}")
    (inner / ".git").write_text(dot_git)
    assert succeeded(task("ready"))["tasks"][0]["state"] == "ready"
    (inner / ".git").unlink()
    assert any("migrations" in text for text in task()["drift"])


def test_the_state_of_a_task_is_that_of_all_its_worktrees(sample, task):
    succeeded(task("ready"))
    inner = sample.tree("backend") / "migrations"

    def states():
        return [(one["state"], one["ahead"]) for one in task()["worktrees"]]

    assert states() == [("clean", 0), ("clean", 0)]
    (inner / "new").write_text("work")
    assert states() == [("dirty", 0), ("clean", 0)]
    commit(inner, "new")
    assert states() == [("clean", 1), ("clean", 0)]
    assert task()["worktrees"][0]["submodules"] == [
        {"name": "backend/migrations", "path": str(inner), "branch": "fix", "state": "clean", "ahead": 1}
    ]
    git(inner, "switch", "--quiet", "--detach")
    check = {"name": "attached", "git": "attached"}
    given = [{"name": "backend", "path": str(sample.tree("backend"))}]
    refused(call(_gates, worktrees=given, checks=[check]), "user", f"{inner} is at no branch")
    git(inner, "switch", "--quiet", "--create", "other")
    assert task()["drift"][:1] == ["worktree of backend/migrations is on branch other, not fix"]


# Main trees


def lay_apart(main: pathlib.Path, how: str, store: pathlib.Path) -> None:
    if how == "separate":
        git(main, "init", "--quiet", "--separate-git-dir", str(store))
        return
    if how == "link to one of another tree":
        store = store / ".git"
        store.parent.mkdir()
    shutil.move(main / ".git", store)
    (main / ".git").symlink_to(store)


@pytest.mark.parametrize("how", ["separate", "link", "link to one of another tree"])
def test_the_git_directory_may_lie_apart(sample, how, tmp_path):
    lay_apart(sample.docs, how, tmp_path / "store")
    sample.make("docs")
    tree = sample.tree("docs")
    assert worktrees(sample.docs) == {str(tree): "fix"}
    assert (top(tree), status(tree), status(sample.docs)) == (tree, "", "")
    assert not sample.make("docs")["changed"]
    refused(sample.run("docs", task="again", worktrees=[sample.member("docs", "again", branch="main")]), "user",
            f"branch main is checked out at {sample.docs}")  # fmt: skip
    work = commit(tree)
    integrated = call(
        _integration,
        workspace="shop",
        task="fix",
        worktrees=[{"name": "docs", "path": str(tree)}],
        target="main",
        directory=str(tmp_path / "integration"),
    )
    assert succeeded(integrated)["notes"] == []
    assert git(sample.docs, "merge-base", "main", work) == work
    assert (sample.docs / "work").exists(), "the main tree has not followed"
    assert status(sample.docs) == ""
    sample.remove("docs", delete_branch=True)
    assert branches(sample.docs) == ["integration", "main"]
    assert worktrees(sample.docs).keys() <= {str(path) for path in (tmp_path / "integration").iterdir()}


def test_an_analysis_cannot_write_to_a_main_tree_that_lies_apart(sample, tmp_path):
    lay_apart(sample.docs, "separate", tmp_path / "store")
    sample.make("docs")
    check = {"name": "write", "command": f"touch {sample.docs}/written"}
    one = {"name": "docs", "path": str(sample.tree("docs"))}
    report = succeeded(call(_analysis, task="fix", worktrees=[one], checks=[check], wait=True))["reports"][0]
    assert report["verdict"] == "failed"
    assert not (sample.docs / "written").exists()


def test_a_main_tree_in_which_git_fails(sample):
    """A provision needs it; a teardown does not."""
    sample.make("docs")
    git(sample.docs, "config", "core.bare", "true")
    refused(sample.run("docs", task="other"), "user", "git does not work in the main tree", "core.bare is true")
    sample.remove("docs", delete_branch=True)
    git(sample.docs, "config", "core.bare", "false")
    assert branches(sample.docs) == ["main"]
    git(sample.docs, "config", "core.worktree", str(sample.app))
    refused(sample.run("docs"), "user", "core.worktree leads elsewhere")
