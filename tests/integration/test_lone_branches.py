# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Branches of a task without worktrees, on real repositories: made in no working tree, released as those with one."""

from __future__ import annotations

import contextlib

import pytest
from integration.repos import SPACE, branches, call, commit, git, refused, saved, succeeded, worktrees
from integration.test_integration import GREEN, tips

from ansible_collections.parallel.worktrees.plugins.module_utils import _integration, _lone_branches, _worktrees

OWNER = f"{SPACE}/fix"
MARK = "branch.fix.parallel-worktrees"


def lone(sample, *names, task="fix", check=False, member=None, **more):
    given = [
        {"name": name, "repo": str(sample / name), "branch": task, "checkout": False, **(member or {})}
        for name in names or ("docs",)
    ]
    return call(_worktrees, check=check, **{"worktrees": given, "owner": f"{SPACE}/{task}", **more})


def absent(sample, *names, **more):
    return lone(sample, *names, state="absent", **more)


def everything(sample, name="docs"):
    """All of a main tree and its repository."""
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in (sample / name).rglob("*")
    }


def test_a_branch_from_the_base_in_nobodys_tree(sample):
    tip = commit(sample.docs)
    git(sample.docs, "branch", "old", "HEAD~1")
    before = everything(sample)
    planned = lone(sample, check=True, member={"base": "old"})
    assert everything(sample) == before
    result = succeeded(lone(sample, member={"base": "old"}))
    assert result["actions"] == planned["actions"] == ["make branch fix of docs"]
    assert git(sample.docs, "rev-parse", "fix") == git(sample.docs, "rev-parse", "old") != tip
    assert worktrees(sample.docs) == {}
    assert git(sample.docs, "status", "--porcelain") == ""
    assert git(sample.docs, "symbolic-ref", "--short", "HEAD") == "main"
    assert git(sample.docs, "config", MARK) == OWNER
    [facts] = result["plan"]
    assert facts == {
        "name": "docs",
        "repo": str(sample.docs),
        "path": None,
        "branch": "fix",
        "checkout": False,
        "submodules": [],
        "adopt": False,
    }
    after = everything(sample)
    assert not succeeded(lone(sample, member={"base": "old"}))["changed"]
    assert not succeeded(lone(sample, check=True))["changed"]
    assert everything(sample) == after


def test_beside_worktrees_in_one_set(sample):
    given = [sample.member("app"), {**sample.member("docs"), "checkout": False}]
    result = succeeded(call(_worktrees, worktrees=given, owner=OWNER))
    assert [one["path"] for one in result["worktrees"]] == [str(sample.tree("app")), None]
    assert branches(sample.docs) == ["fix", "main"]
    # Checked as a whole before the first is made.
    given = [sample.member("app", "two"), {**sample.member("docs", "two"), "checkout": False, "base": "missing"}]
    refused(call(_worktrees, worktrees=given, owner=f"{SPACE}/two"), "user", "no branch, tag or commit missing")
    assert "two" not in branches(sample.app)
    given = [sample.member("app"), {**sample.member("docs"), "checkout": False}]
    succeeded(call(_worktrees, worktrees=given, owner=OWNER, state="absent", delete_branch=True))
    assert branches(sample.docs) == branches(sample.app) == ["main"]
    assert sample.traces() == []


def test_a_branch_of_somebody_else_is_refused(sample):
    succeeded(lone(sample))
    text = refused(lone(sample, task="other", member={"branch": "fix"}), "user", f"branch fix belongs to {OWNER}")
    assert "config --unset branch.fix.parallel-worktrees" in text
    taken = {**sample.member("docs", "other"), "branch": "fix"}
    refused(call(_worktrees, worktrees=[taken], owner=f"{SPACE}/other"), "user", f"belongs to {OWNER}")
    sample.make("app", task="tree")
    refused(lone(sample, "app", member={"branch": "tree"}), "user", f"branch tree belongs to {SPACE}/tree")
    refused(lone(sample, task="fix/more"), "user", "git cannot make branch fix/more beside fix")
    git(sample.docs, "branch", "there")
    refused(lone(sample, task="there", member={"existing_branch": "refuse"}), "user", "has a branch there already")
    assert succeeded(lone(sample, task="there"))["actions"] == ["take branch there of docs"]


def test_branches_stay_unless_they_are_to_go(sample):
    succeeded(lone(sample))
    planned = succeeded(absent(sample, check=True))
    result = succeeded(absent(sample))
    assert result["actions"] == planned["actions"] == ["release branch fix of docs"]
    assert result["branches"] == ["fix"]
    assert "parallel-worktrees" not in (sample.docs / ".git" / "config").read_text()
    assert not succeeded(absent(sample))["changed"]
    assert "fix" in branches(sample.docs)
    succeeded(lone(sample))
    assert succeeded(absent(sample, delete_branch=True))["actions"] == ["delete branch fix of docs"]
    assert branches(sample.docs) == ["main"]
    assert '"fix"' not in (sample.docs / ".git" / "config").read_text()


def worked(sample, task="fix", file="work"):
    """A commit on the branch of a task, made where somebody checked it out, who has left again."""
    git(sample.docs, "switch", "--quiet", task)
    tip = commit(sample.docs, file)
    git(sample.docs, "switch", "--quiet", "main")
    return tip


def test_commits_that_are_nowhere_else(sample):
    succeeded(lone(sample))
    tip = worked(sample)
    for check in (True, False):
        text = refused(absent(sample, delete_branch=True, check=check), "user", "work would be lost")
        assert "commits on no other branch" in text
    assert git(sample.docs, "rev-parse", "fix") == tip
    result = succeeded(absent(sample, delete_branch=True, force=True))
    assert [git(sample.docs, "rev-parse", ref) for ref in saved(sample.docs)] == [tip]
    git(sample.docs, *result["saved"][0]["restore"].split()[3:])
    assert git(sample.docs, "rev-parse", "fix") == tip


def test_pushed_and_deleted(sample):
    succeeded(lone(sample))
    tip = worked(sample)
    result = succeeded(absent(sample, delete_branch=True, push=True))
    assert result["pushed"] == [{"name": "docs", "branch": "fix", "remote": "origin"}]
    assert git(sample.remotes / "docs.git", "rev-parse", "fix") == tip
    assert branches(sample.docs) == ["main"]
    succeeded(lone(sample, task="two"))
    git(sample.docs, "remote", "set-url", "origin", str(sample.root / "away"))
    result = absent(sample, task="two", delete_branch=True, push=True)
    refused(result, "environment", "pushing two to origin")
    assert "two" in branches(sample.docs)
    assert git(sample.docs, "config", "branch.two.parallel-worktrees") == f"{SPACE}/two", "it can be run again"


def test_a_branch_that_is_checked_out_is_not_deleted_and_that_is_told(sample):
    succeeded(lone(sample))
    git(sample.docs, "switch", "--quiet", "fix")
    commit(sample.docs)
    assert not succeeded(lone(sample))["changed"]
    result = succeeded(absent(sample, delete_branch=True))
    assert result["notes"] == [f"branch fix of docs, which is checked out at {sample.docs}"]
    assert result["branches"] == ["fix"]
    assert git(sample.docs, "symbolic-ref", "--short", "HEAD") == "fix"
    assert git(sample.docs, "config", "--get-regexp", "branch").find("parallel-worktrees") == -1


def test_a_branch_that_was_renamed_is_known(sample):
    succeeded(lone(sample))
    git(sample.docs, "branch", "--move", "fix", "better")
    result = succeeded(lone(sample))
    assert not result["changed"]
    assert result["worktrees"][0]["branch"] == "better"
    assert succeeded(absent(sample, delete_branch=True))["actions"] == ["delete branch better of docs"]
    assert branches(sample.docs) == ["main"]


@pytest.mark.parametrize("act", ["config", "branch", "update-ref"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_anywhere(sample, monkeypatch, act, after):
    really = _lone_branches.Repository.git

    def until(repository, *arguments, **options):
        is_it = arguments[0] == act and "--get-regexp" not in arguments
        if is_it and not after:
            raise KeyboardInterrupt
        done = really(repository, *arguments, **options)
        if is_it:
            raise KeyboardInterrupt
        return done

    for begin in (lone, absent):
        if begin is absent:
            succeeded(lone(sample))
        with monkeypatch.context() as patch:
            patch.setattr(_lone_branches.Repository, "git", until)
            with contextlib.suppress(KeyboardInterrupt):
                begin(sample, delete_branch=True)
        if begin is lone:
            succeeded(lone(sample))
            assert git(sample.docs, "config", MARK) == OWNER
        succeeded(absent(sample, delete_branch=True))
        assert branches(sample.docs) == ["main"]
        assert "parallel-worktrees" not in (sample.docs / ".git" / "config").read_text()


# Integrated


def integrate(sample, task="fix", check=False, **more):
    given = {"name": "docs", "repo": str(sample.docs), "path": None, "branch": task, "submodules": []}
    return call(
        _integration,
        check=check,
        workspace=SPACE,
        task=task,
        worktrees=[given],
        target="main",
        directory=str(sample.root / "integration"),
        checks=[dict(GREEN)],
        **more,
    )


def test_a_branch_is_integrated_as_a_worktree_is(sample):
    succeeded(lone(sample))
    tip = worked(sample)
    planned = succeeded(integrate(sample, check=True))
    result = succeeded(integrate(sample))
    assert planned["actions"] == result["actions"]
    found = tips(sample)
    assert len({found[f"{where} {name}"] for where in ("docs", "docs.git") for name in ("main", "integration")}) == 1
    assert found["docs.git fix"] == tip
    assert (sample.docs / "work").exists(), "the main tree was clean, and has followed"
    assert not succeeded(integrate(sample))["changed"]
    git(sample.docs, "branch", "--move", "fix", "better")
    worked(sample, "better", "more")
    succeeded(integrate(sample))
    assert (sample.docs / "more").exists()


def test_a_branch_in_conflict(sample):
    succeeded(lone(sample))
    worked(sample, file="README")
    commit(sample.docs, "README", "theirs\n")
    git(sample.docs, "push", "--quiet", "origin", "main")
    before = tips(sample)
    result = integrate(sample)
    refused(result, "user", "task fix (fix) conflicts with integration in README")
    assert result["hint"].endswith(f"git -C {sample.docs} switch fix && git -C {sample.docs} merge main")
    assert tips(sample) == before


def test_a_branch_is_not_finished_where_somebody_works_on_it(sample):
    succeeded(lone(sample))
    git(sample.docs, "switch", "--quiet", "fix")
    (sample.docs / "more").write_text("")
    refused(integrate(sample), "user", "branch fix of task fix has work that is not committed: more")
    (sample.docs / "more").unlink()
    succeeded(integrate(sample))
    git(sample.docs, "switch", "--quiet", "main")
    git(sample.docs, "branch", "--quiet", "--delete", "--force", "fix")
    refused(integrate(sample), "user", "branch fix of task fix is gone")
