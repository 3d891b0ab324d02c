# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Worktree sets on real repositories; what is there is read with git."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
from integration import repos
from integration.repos import NAMES, branches, commit, git, refused, restore, saved, status, worktrees
from integration.workspaces import differences, snapshot

# Making


def test_a_set_is_made_without_the_network(sample):
    sample.cut_off()
    result = sample.make()
    assert result["changed"]
    for name in NAMES:
        tree = sample.tree(name)
        assert worktrees(sample / name) == {str(tree): "fix"}
        assert status(tree) == ""
        assert status(sample / name) == ""
        assert git(tree, "rev-parse", "HEAD") == git(sample / name, "rev-parse", "main")
        assert (tree / "src" / "file3").read_text() == f"{name} 3\n" * 20
        assert "branch.fix" not in git(tree, "config", "--list")
    migrations = sample.tree("backend") / "migrations"
    assert git(migrations, "branch", "--show-current") == "fix"
    assert git(migrations, "rev-parse", "HEAD") == git(sample.backend / "migrations", "rev-parse", "HEAD")
    assert worktrees(sample.backend / "migrations") == {str(migrations): "fix"}
    assert git(sample.tree("backend"), "submodule", "status").startswith(" ")


def test_the_result_tells_what_is_there(sample):
    result = sample.make("backend", "docs")
    assert result["worktrees"] == [
        {
            "name": name,
            "repo": str(sample / name),
            "path": str(sample.tree(name)),
            "branch": "fix",
            "commit": git(sample / name, "rev-parse", "HEAD"),
            "submodules": submodules,
            "checkout": True,
            "adopt": False,
            "existing_branch": False,
            "taken_up": None,
        }
        for name, submodules in (("backend", ["migrations"]), ("docs", []))
    ]
    assert result["actions"] == [
        f"make worktree {sample.tree('backend')} on branch fix",
        f"make worktree {sample.tree('backend')}/migrations on branch fix",
        f"make worktree {sample.tree('docs')} on branch fix",
    ]
    assert len(result["diff"][0]["after"].splitlines()) == 3
    assert result["saved"] == []


def test_a_second_run_changes_nothing(sample):
    sample.make()
    before = snapshot(sample.root)
    result = sample.make()
    assert not result["changed"]
    assert result["actions"] == result["diff"] == []
    assert [one["commit"] for one in result["worktrees"]] == [git(sample / name, "rev-parse", "HEAD") for name in NAMES]
    assert differences(before, snapshot(sample.root)) == []


def test_a_subset_and_then_the_rest(sample):
    sample.make("docs")
    assert worktrees(sample.backend) == {}
    result = sample.make()
    inner = sample.tree("backend") / "migrations"
    made = [sample.tree("backend"), inner, sample.tree("app"), sample.tree("informes")]
    assert [action.split()[2] for action in result["actions"]] == [str(path) for path in made]
    assert all(worktrees(sample / name) for name in NAMES)


def test_check_mode_touches_nothing(sample):
    before = snapshot(sample.root)
    planned = sample.make(check=True)
    assert differences(before, snapshot(sample.root)) == []
    real = sample.make()
    assert planned == real
    before = snapshot(sample.root)
    planned = sample.remove(check=True)
    assert differences(before, snapshot(sample.root)) == []
    assert planned == sample.remove()


def test_a_branch_that_exists_is_used(sample):
    git(sample.docs, "switch", "--quiet", "--create", "fix")
    tip = commit(sample.docs)
    git(sample.docs, "switch", "--quiet", "main")
    sample.make("docs")
    assert git(sample.tree("docs"), "rev-parse", "HEAD") == tip


def test_a_base_of_its_own(sample):
    git(sample.docs, "switch", "--quiet", "--create", "develop")
    tip = commit(sample.docs)
    git(sample.docs, "tag", "--annotate", "--message", "one", "v1")
    git(sample.docs, "switch", "--quiet", "main")
    for number, base in enumerate(("develop", "v1", tip, tip[:12])):
        sample.make(worktrees=[sample.member("docs", f"t{number}", base=base)], task=f"t{number}")
        assert git(sample.tree("docs", f"t{number}"), "rev-parse", "HEAD") == tip


@pytest.fixture
def ahead(sample):
    """The origin of docs has a commit on main, and a branch, that the clone has not; returns the branch's commit."""
    other = sample.root / "other"
    git(sample.root, "clone", "--quiet", str(sample.remotes / "docs.git"), str(other))
    git(other, "config", "user.email", "other@example.invalid")
    git(other, "config", "user.name", "Other")
    tip = commit(other)
    git(other, "push", "--quiet", "origin", "main", "main:develop")
    return tip


def with_base(sample, base):
    return {"worktrees": [sample.member("docs", base=base)]}


@pytest.mark.parametrize("base", ["develop", "origin/develop", "origin/main"])
def test_a_base_that_only_the_origin_has_is_fetched(sample, ahead, base):
    before = snapshot(sample.root)
    planned = sample.make(**with_base(sample, base), check=True)
    assert differences(before, snapshot(sample.root)) == []
    made = sample.make(**with_base(sample, base))
    assert git(sample.tree("docs"), "rev-parse", "HEAD") == ahead == made["worktrees"][0]["commit"]
    assert planned["actions"] == made["actions"]
    assert branches(sample.docs) == ["fix", "main"]


@pytest.mark.usefixtures("ahead")
def test_an_origin_that_cannot_be_reached_is_told_when_it_is_needed(sample):
    sample.cut_off()
    refused(
        sample.run(**with_base(sample, "develop")), "environment", "docs", "origin", "develop", "does not appear to be"
    )
    refused(sample.run(**with_base(sample, "origin/main")), "environment", "base: refs/remotes/origin/main")
    sample.make(**with_base(sample, "refs/remotes/origin/main"))


def test_a_submodule_that_the_main_tree_never_initialised(sample, monkeypatch):
    for name, value in repos.FILE_PROTOCOL.items():
        monkeypatch.setenv(name, value)
    sample.forget_submodule()
    before = snapshot(sample.work, without=[".git", ".worktrees"])
    sample.make("backend", task="one")
    sample.cut_off()
    sample.make("backend", task="two")
    after = snapshot(sample.work, without=[".git", ".worktrees"])
    assert [line for line in differences(before, after) if "folder" not in line] == []
    modules = sample.backend / ".git" / "modules" / "migrations"
    assert set(worktrees(modules)) == {str(sample.tree("backend", task) / "migrations") for task in ("one", "two")}
    git(sample.backend, "submodule", "--quiet", "update", "--init")
    assert (sample.backend / "migrations" / "README").read_text() == "migrations\n"
    assert git(sample.tree("backend", "one") / "migrations", "branch", "--show-current") == "one"
    for task in ("one", "two"):
        sample.remove("backend", task=task)
    assert sample.traces() == []
    assert git(sample.backend, "submodule", "status").startswith(" ")


def test_a_submodule_from_a_path_is_trusted_no_more_than_git_does(sample):
    sample.forget_submodule()
    refused(sample.run("backend"), "environment", "submodule backend/migrations", "transport 'file' not allowed")
    assert sample.make("docs")


def test_a_submodule_commit_that_only_its_origin_has(sample):
    other = sample.root / "other"
    git(sample.root, "clone", "--quiet", str(sample.remotes / "migrations.git"), str(other))
    git(other, "config", "user.email", "other@example.invalid")
    git(other, "config", "user.name", "Other")
    tip = commit(other)
    git(sample.backend, "update-index", "--cacheinfo", f"160000,{tip},migrations")
    git(sample.backend, "commit", "--quiet", "--message", "newer migrations")
    refused(sample.run("backend"), "environment", "backend/migrations", "nobody has its commit", tip)
    git(other, "push", "--quiet", "origin", "main")
    sample.make("backend")
    assert git(sample.tree("backend") / "migrations", "rev-parse", "HEAD") == tip


def test_a_submodule_that_was_deleted_comes_back(sample):
    sample.make("backend")
    shutil.rmtree(sample.tree("backend") / "migrations")
    assert len(sample.make("backend")["actions"]) == 1
    assert status(sample.tree("backend")) == ""


def test_a_folder_that_was_deleted_comes_back_with_its_branch(sample):
    sample.make("docs")
    tip = commit(sample.tree("docs"))
    git(sample.tree("docs"), "branch", "--move", "renamed")
    shutil.rmtree(sample.tree("docs"))
    result = sample.make("docs")
    assert result["worktrees"][0]["branch"] == "renamed"
    assert git(sample.tree("docs"), "rev-parse", "HEAD") == tip


def test_commits_without_a_branch_outlive_their_folder(sample):
    sample.make("docs")
    git(sample.tree("docs"), "checkout", "--quiet", "--detach")
    tip = commit(sample.tree("docs"))
    shutil.rmtree(sample.tree("docs"))
    refused(sample.run("docs", state="absent"), "user", "commits on no other branch", "work changed")
    result = sample.make("docs")
    assert [git(sample.docs, "rev-parse", one["ref"]) for one in result["saved"]] == [tip]


def test_a_renamed_branch_is_still_ours(sample):
    sample.make()
    git(sample.tree("docs"), "branch", "--move", "better")
    result = sample.make()
    assert not result["changed"]
    assert [one["branch"] for one in result["worktrees"]] == ["fix", "fix", "fix", "better"]
    sample.remove(delete_branch=True)
    assert branches(sample.docs) == ["main"]
    assert sample.traces() == []


def test_hooks_do_not_run(sample):
    ran = sample.root / "ran"
    hooks = sample.docs / ".hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {ran}\n")
        (hooks / name).chmod(0o755)
    git(sample.docs, "config", "core.hooksPath", ".hooks")
    git(sample.docs, "config", "core.fsmonitor", str(hooks / "post-checkout"))
    git(sample.docs, "add", "--all")
    git(sample.docs, "commit", "--quiet", "--message", "hooks")
    ran.unlink()
    sample.make("docs")
    sample.remove("docs", delete_branch=True)
    assert not ran.exists()


def test_a_sparse_checkout_stays_sparse(sample):
    git(sample.docs, "sparse-checkout", "set", "--no-cone", "/README")
    sample.make("docs")
    assert sorted(path.name for path in sample.tree("docs").iterdir()) == [".git", "README"]
    assert status(sample.tree("docs")) == ""
    (sample.tree("docs") / "src").mkdir()
    (sample.tree("docs") / "src" / "file1").write_text("mine\n")
    result = sample.run("docs", state="absent")
    refused(result, "user", "src/file1")
    restore(sample.remove("docs", force=True))
    assert (sample.tree("docs") / "src" / "file1").read_text() == "mine\n"


def test_a_set_called_from_a_hook_means_its_own_repositories(sample, monkeypatch):
    elsewhere = sample.root / "elsewhere"
    git(sample.root, "init", "--quiet", str(elsewhere))
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(elsewhere))
    monkeypatch.setenv("GIT_INDEX_FILE", str(elsewhere / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(elsewhere / ".git" / "objects"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    sample.make()
    (sample.tree("docs") / "mine").write_text("mine\n")
    refused(sample.run(state="absent"), "user", "mine")
    sample.remove(force=True, delete_branch=True)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_LITERAL_PATHSPECS"):
        monkeypatch.delenv(name)
    assert branches(sample.docs) == ["main"]
    assert len(saved(sample.docs)) == 1


@pytest.mark.parametrize("name", ["with space", "ünï ☃", "two\nlines", "-rf", "#hash", "a[b]*?", "back\\slash"])
def test_names_that_are_hard(sample, name):
    (sample / name).mkdir()
    repository = sample / name / "repo"
    sample.docs.rename(repository)
    given = {**sample.member("docs"), "repo": str(repository), "path": f".worktrees/{name}"}
    sample.make(worktrees=[given])
    tree = repository / ".worktrees" / name
    assert worktrees(repository) == {str(tree): "fix"}
    assert status(repository) == ""
    assert not sample.make(worktrees=[given])["changed"]
    (tree / name).write_text("untracked\n")
    (tree / f"{name}.log").write_text("ignored\n")
    (tree / "src" / "file1").rename(tree / "src" / name)
    result = sample.run(worktrees=[given], state="absent")
    refused(result, "user")
    files = result["files"]["docs"]
    assert sorted(files) == sorted([name, f"{name}.log", "src/file1", f"src/{name}"])
    result = sample.remove(worktrees=[given], force=True)
    assert worktrees(repository) == {}
    restore(result)
    assert (tree / name).read_text() == "untracked\n"
    assert (tree / f"{name}.log").read_text() == "ignored\n"
    assert (tree / "src" / name).exists()
    assert not (tree / "src" / "file1").exists()


def test_worktrees_with_relative_links(sample):
    """As git makes them with worktree.useRelativePaths (2.48)."""
    sample.make("backend")
    for tree in (sample.tree("backend"), sample.tree("backend") / "migrations"):
        admin = pathlib.Path(git(tree, "rev-parse", "--absolute-git-dir"))
        (tree / ".git").write_text(f"gitdir: {os.path.relpath(admin, tree)}\n")
        (admin / "gitdir").write_text(f"{os.path.relpath(tree / '.git', admin)}\n")
    assert status(sample.tree("backend")) == ""
    assert not sample.make("backend")["changed"]
    (sample.tree("backend") / "mine").write_text("")
    refused(sample.run("backend", state="absent"), "user", "mine")
    sample.remove("backend", force=True)
    assert not (sample.backend / ".git" / "worktrees").exists()


def test_a_folder_outside_of_the_repository(sample):
    given = {**sample.member("docs"), "path": "../../trees/fix"}
    sample.make(worktrees=[given])
    assert worktrees(sample.docs) == {str(sample.root / "trees" / "fix"): "fix"}
    sample.remove(worktrees=[given])
    assert not (sample.root / "trees").exists()


def test_a_root_that_is_reached_through_a_link(sample):
    (sample.root / "link").symlink_to(sample.work)
    given = {**sample.member("docs"), "repo": str(sample.root / "link" / "docs")}
    sample.make(worktrees=[given])
    assert not sample.make("docs")["changed"]
    sample.remove(worktrees=[given])
    assert sample.traces() == []


# Refusals


def test_everything_that_is_wrong_is_told_at_once(sample):
    git(sample.app, "switch", "--quiet", "--create", "fix")
    sample.tree("informes").mkdir(parents=True)
    (sample.tree("informes") / "notes").write_text("mine\n")
    shutil.rmtree(sample.docs / ".git")
    before = snapshot(sample.root)
    text = refused(sample.run(), "user", str(sample.app), str(sample.tree("informes")), f"{sample.docs} is not a git")
    assert len(text.splitlines()) == 5  # a heading, three errors, the hint
    assert differences(before, snapshot(sample.root)) == []


def test_paths_that_are_no_repository(sample):
    bare = sample.remotes / "docs.git"
    empty = sample.root / "empty"
    git(sample.root, "init", "--quiet", str(empty))
    for path, words in (
        (sample.root / "nothing", ("no folder", "git clone")),
        (sample.work, ("not a git repository",)),
        (sample.docs / "src", ("inside the repository", str(sample.docs))),
        (sample.docs / ".git", ("bare",)),
        (bare, ("bare",)),
        (empty, ("no commit yet", "git -C")),
    ):
        given = {**sample.member("docs"), "repo": str(path)}
        refused(sample.run(worktrees=[given]), "user", "docs", str(path), *words)


def test_a_base_that_nobody_has(sample):
    for check in (True, False):
        refused(sample.run(**with_base(sample, "nope"), check=check), "user", "docs", "nope", "neither has its origin")
    git(sample.docs, "remote", "remove", "origin")
    refused(sample.run(**with_base(sample, "nope")), "user", "no branch, tag or commit nope", "branch --all")


def test_a_branch_that_is_taken_up_is_reported_with_its_last_commit(sample):
    git(sample.docs, "branch", "again")
    made = sample.make("docs", task="again")
    assert made["worktrees"][0]["taken_up"] == git(sample.docs, "log", "-1", "--date=short", "--format=%h %s (%cd)")
    assert "taken_up" not in made["plan"][0]
    assert sample.make("docs", task="again")["worktrees"][0]["taken_up"] is None


def test_a_branch_that_is_checked_out_elsewhere(sample):
    other = sample.root / "elsewhere"
    git(sample.docs, "worktree", "add", "--quiet", "-b", "fix", str(other))
    refused(sample.run("docs"), "user", f"branch fix is checked out at {other}", f"git -C {other} switch --detach")
    shutil.rmtree(other)
    refused(sample.run("docs"), "user", f"{other}, a folder that is gone", "worktree prune")
    git(sample.backend / "migrations", "switch", "--quiet", "--create", "fix")
    refused(sample.run("backend"), "user", "backend/migrations", "checked out at")
    assert worktrees(sample.backend) == {}


def test_a_branch_that_must_not_exist(sample):
    git(sample.docs, "branch", "fix")
    given = sample.member("docs", existing_branch="refuse")
    refused(sample.run(worktrees=[given]), "user", "has a branch fix already", "branch -d fix")
    git(sample.docs, "branch", "--delete", "fix")
    sample.make(worktrees=[given])
    assert not sample.make(worktrees=[given])["changed"]


@pytest.mark.parametrize(("there", "wanted"), [("fix", "fix/more"), ("fix/more", "fix")])
def test_a_branch_that_would_be_the_folder_of_another(sample, there, wanted):
    git(sample.docs, "branch", there)
    given = sample.member("docs", branch=wanted)
    refused(sample.run(worktrees=[given]), "user", f"cannot make branch {wanted} beside {there}")


def test_a_name_that_git_would_not_take(sample):
    result = sample.run(worktrees=[sample.member("docs", branch="a..b")])
    assert result["failure"] == "user"
    assert "a..b" in result["msg"]


def test_two_worktrees_that_would_be_one(sample):
    result = sample.run(worktrees=[sample.member("docs"), {**sample.member("docs"), "name": "again"}])
    assert result["failure"] == "user"
    assert "docs and again" in result["msg"]
    result = sample.run(worktrees=[sample.member("docs"), sample.member("docs", path=".worktrees/other")])
    assert "branch fix" in result["msg"]


def test_folders_that_are_not_ours(sample):
    sample.tree("docs").mkdir(parents=True)
    sample.make("docs")  # an empty one is in nobody's way
    sample.tree("app").parent.mkdir()
    sample.tree("app").write_text("a file\n")
    refused(sample.run("app"), "user", str(sample.tree("app")), "is not a worktree")
    git(sample.informes, "worktree", "add", "--quiet", "-b", "theirs", str(sample.tree("informes")))
    refused(sample.run("informes"), "user", "not made by this collection", "branch theirs")
    given = sample.member("docs", path=".")
    refused(sample.run(worktrees=[given]), "user", "is the repository itself")
    refused(sample.run(worktrees=[given], state="absent", force=True), "user", "not made by this collection")
    result = sample.run("docs", owner="other/fix")
    refused(result, "user", f"belongs to {repos.SPACE}/fix")


def test_folders_that_lead_out(sample):
    outside = sample.root / "outside"
    outside.mkdir()
    (sample.docs / ".worktrees").symlink_to(outside)
    refused(sample.run("docs"), "user", "leads out of", str(outside))
    (sample.docs / ".worktrees").unlink()
    (sample.docs / ".worktrees").mkdir()
    sample.tree("docs").symlink_to(outside)
    refused(sample.run("docs"), "user", "symbolic link", str(outside))
    sample.tree("docs").unlink()
    shutil.rmtree(sample.docs / ".worktrees")
    (sample.docs / ".worktrees").write_text("")
    result = sample.run("docs")
    assert "is not a folder" in result["msg"]
    assert list(outside.iterdir()) == []


def test_a_submodule_that_is_none(sample):
    given = {**sample.member("docs"), "submodules": ["migrations"]}
    refused(sample.run(worktrees=[given]), "user", "has no submodule migrations", "submodule status")
    given = {**sample.member("backend"), "submodules": ["src"]}
    refused(sample.run(worktrees=[given]), "user", "no submodule src")


def test_a_repository_of_another_user(sample):
    for folder, _folders, files in os.walk(sample.docs):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, 12345, 12345, follow_symlinks=False)
    if os.geteuid() != 0:
        pytest.skip("needs another user's files")
    refused(sample.run("docs"), "environment", "dubious ownership", f"safe.directory {sample.docs}")


# Sets that are done in part


def test_what_could_not_be_made_is_told_and_resumed(sample):
    obstacle = sample.docs / ".git" / "worktrees"
    obstacle.write_text("in the way\n")
    result = sample.run()
    refused(result, "partial", "docs", "done: backend, app, informes")
    assert result["changed"]
    assert (result["done"], result["failed_members"]) == (["backend", "app", "informes"], ["docs"])
    assert branches(sample.docs) == ["main"]
    obstacle.unlink()
    assert len(sample.make()["actions"]) == 1
