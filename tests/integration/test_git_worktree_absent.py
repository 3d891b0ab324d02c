# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing worktree sets: what is work, what is saved, what is pushed; what is there is read with git."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest
from integration import repos
from integration.repos import NAMES, branches, commit, git, refused, restore, saved, status, worktrees
from integration.workspaces import differences, snapshot

from ansible_collections.parallel.worktrees.plugins.module_utils import _trash
from ansible_collections.parallel.worktrees.plugins.module_utils._manifest import (
    Manifest,
    link_signature,
    text_signature,
)

# Removing


def test_a_set_is_removed_and_its_branches_stay(sample):
    sample.make()
    result = sample.remove()
    assert result["changed"]
    assert [action.split()[0] for action in result["actions"]] == ["remove"] * 5
    assert result["saved"] == result["pushed"] == []
    assert sample.traces() == []
    for name in NAMES:
        assert branches(sample / name) == ["fix", "main"]
        assert status(sample / name) == ""
    assert not sample.remove()["changed"]


def test_a_set_that_was_never_made_is_absent(sample):
    before = snapshot(sample.root)
    result = sample.remove()
    assert (result["changed"], result["actions"], result["diff"]) == (False, [], [])
    shutil.rmtree(sample.docs)
    sample.remove()
    assert [
        line for line in differences(before, snapshot(sample.root)) if "docs" not in line and "folder" not in line
    ] == []


def test_what_was_excluded_before_stays_as_it_was(sample):
    exclude = sample.docs / ".git" / "info" / "exclude"
    for before in (b"*.tmp", b"*.tmp\r\n\r\n# \xff\n"):
        exclude.write_bytes(before)
        exclude.chmod(0o664)
        sample.make("docs")
        sample.make("docs", task="other")
        assert "/.worktrees/fix/" in exclude.read_bytes().decode(errors="replace")
        sample.remove("docs")
        assert b"/.worktrees/fix/" not in exclude.read_bytes()
        assert b"/.worktrees/other/" in exclude.read_bytes()
        sample.remove("docs", task="other")
        assert exclude.read_bytes().removesuffix(b"\n") == before.removesuffix(b"\n")
        assert exclude.stat().st_mode & 0o777 == 0o664


def delete(tree):
    (tree / "src" / "file1").unlink()


def stage_deletion(tree):
    git(tree, "rm", "--quiet", "src/file1")


def keep_out_of_the_index(tree):
    git(tree, "rm", "--quiet", "--cached", "src/file1")


def edit(tree):
    (tree / "src" / "file1").write_text("edited\n")


def stage(tree):
    edit(tree)
    git(tree, "add", "src/file1")


def stage_and_edit(tree):
    stage(tree)
    (tree / "src" / "file1").write_text("edited again\n")


def stage_a_new_file_and_delete_it(tree):
    (tree / "new").write_text("new\n")
    git(tree, "add", "new")
    (tree / "new").unlink()


def rename(tree):
    git(tree, "mv", "src/file1", "src/renamed")


def add(tree):
    (tree / "new").write_text("new\n")


def intend_to_add(tree):
    add(tree)
    git(tree, "add", "--intent-to-add", "new")


def make_executable(tree):
    (tree / "src" / "file1").chmod(0o755)


def add_a_link(tree):
    (tree / "link").symlink_to("nowhere")
    (tree / "script.log").write_text("#!/bin/sh\n")
    (tree / "script.log").chmod(0o755)


def become_a_link(tree):
    (tree / "src" / "file1").unlink()
    (tree / "src" / "file1").symlink_to("file2")


def become_a_folder(tree):
    (tree / "src" / "file1").unlink()
    (tree / "src" / "file1").mkdir()
    (tree / "src" / "file1" / "inner").write_text("inner\n")


def become_a_file(tree):
    shutil.rmtree(tree / "src")
    (tree / "src").write_text("a file now\n")


def ignore(tree):
    (tree / ".env.local").write_text("SECRET=1\n")


def ignore_in_a_folder(tree):
    (tree / "build" / "deep").mkdir(parents=True)
    (tree / "build" / "deep" / "notes").write_text("notes\n")


def edit_in_secret(tree):
    git(tree, "update-index", "--assume-unchanged", "src/file1")
    git(tree, "update-index", "--skip-worktree", "src/file2")
    edit(tree)
    (tree / "src" / "file2").write_text("edited too\n")


def conflict(tree):
    git(tree, "switch", "--quiet", "--create", "other")
    commit(tree, "src/file1", "theirs\n")
    git(tree, "switch", "--quiet", "fix")
    commit(tree, "src/file1", "ours\n")
    subprocess.run(["git", "-C", tree, "merge", "other"], check=False, capture_output=True)
    (tree / "new").write_text("new\n")


WAYS = [
    *(
        delete,
        stage_deletion,
        keep_out_of_the_index,
        edit,
        stage,
        stage_and_edit,
        stage_a_new_file_and_delete_it,
        rename,
    ),
    *(add, intend_to_add, make_executable, add_a_link, become_a_link, become_a_folder, become_a_file),
    *(ignore, ignore_in_a_folder, edit_in_secret, conflict),
]


def content(tree):
    """Every file of a worktree, with what it is and holds."""
    seen = snapshot(tree, times=False, without=[".git"])
    return {path: about for path, about in seen.items() if about[0] != "folder"}


@pytest.mark.parametrize("way", WAYS)
def test_work_is_refused_and_force_saves_all_of_it(sample, way):
    sample.make("docs")
    tree = sample.tree("docs")
    way(tree)
    before, state, staged = content(tree), status(tree), git(tree, "diff", "--cached") if way is not conflict else None
    result = sample.run("docs", state="absent")
    text = refused(result, "user", "work would be lost, so nothing was removed", str(tree), "force=true")
    assert result["files"]["docs"]
    assert all(path in text for path in result["files"]["docs"])
    assert (content(tree), status(tree)) == (before, state)
    assert refused(sample.run("docs", state="absent", check=True), "user") == text
    result = sample.remove("docs", force=True)
    assert not tree.exists()
    assert worktrees(sample.docs) == {}
    assert [one["ref"] for one in result["saved"]] == saved(sample.docs)
    assert saved(sample.docs)[0].startswith("refs/worktrees-saved/fix/")
    restore(result)
    assert content(tree) == before
    if way not in (conflict, intend_to_add, edit_in_secret):
        assert status(tree) == state
        assert git(tree, "diff", "--cached") == staged


def test_work_in_a_submodule(sample):
    sample.make("backend")
    inner = sample.tree("backend") / "migrations"
    (inner / "new.sql").write_text("create\n")
    tip = commit(inner, "committed.sql")
    result = sample.run("backend", state="absent")
    refused(result, "user", "backend/migrations", "new.sql")
    assert result["files"] == {"backend/migrations": ["new.sql"]}
    result = sample.remove("backend", force=True)
    assert git(sample.backend / "migrations", "rev-parse", "fix") == tip
    (ref,) = saved(sample.backend / "migrations")
    assert result["saved"][0]["name"] == "backend/migrations"
    assert git(sample.backend / "migrations", "show", f"{ref}^3:new.sql") == "create"
    assert sample.traces(work_was_saved=True) == []
    sample.make("backend")
    git(inner, "stash", "apply", "--index", ref)
    assert (inner / "new.sql").read_text() == "create\n"


def test_a_staged_submodule_commit_is_work_of_the_repository(sample):
    sample.make("backend")
    inner = sample.tree("backend") / "migrations"
    commit(inner)
    git(sample.tree("backend"), "add", "migrations")
    result = sample.run("backend", state="absent")
    refused(result, "user")
    assert result["files"] == {"backend": ["migrations"]}


def test_a_submodule_whose_folder_is_away_is_no_work(sample):
    """A disk that got full may have kept git from making it."""
    sample.make(worktrees=[{**sample.member("backend"), "submodules": []}])
    (sample.tree("backend") / "migrations").rmdir()
    assert status(sample.tree("backend")).strip() == "D migrations"
    sample.remove("backend")
    assert not sample.tree("backend").exists()


def test_what_this_project_wrote_is_no_work_until_it_is_edited(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    manifest = Manifest.of(str(tree))
    assert manifest
    for path, text in ((".env.test", "A=1\n"), ("constants.php", "<?php\n"), ("src/file1", "generated\n")):
        manifest.note(str(tree / path), text_signature(text.encode()))
        (tree / path).write_text(text)
    manifest.note(str(tree / "vendor"), link_signature("/srv/vendor"))
    (tree / "vendor").symlink_to("/srv/vendor")
    manifest.save()
    (tree / ".half-written.parallel-worktrees").write_text("ha")
    sample.remove("docs", check=True)
    (tree / ".env.test").write_text("A=2\n")
    result = sample.run("docs", state="absent")
    refused(result, "user", ".env.test")
    assert result["files"]["docs"] == [".env.test"]
    (tree / ".env.test").unlink()
    sample.remove("docs")


def test_what_tools_make_again_is_no_work(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    for path in ("node_modules/a/index.js", "src/node_modules/b.log", "build/__pycache__/x.pyc"):
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_text("made\n")
    (tree / "build" / "cache").mkdir()
    (tree / "build" / "cache" / "x").write_text("made\n")
    result = sample.run("docs", state="absent")
    refused(result, "user")
    assert result["files"]["docs"] == ["build/cache/x"]
    sample.remove("docs", disposable=["node_modules", "__pycache__", "cache"])
    assert sample.traces() == []


@pytest.mark.parametrize("place", ["nested", "build/nested", "src/deep/nested"])
def test_a_repository_inside_is_never_removed(sample, place):
    sample.make("docs")
    nested = sample.tree("docs") / place
    git(sample.root, "init", "--quiet", str(nested))
    for force in (False, True):
        refused(sample.run("docs", state="absent", force=force), "user", f"{nested}", "move them elsewhere")
    commit(nested)
    refused(sample.run("docs", state="absent", force=True), "user", f"{nested}")
    remote = sample.root / "nested.git"
    git(sample.root, "clone", "--quiet", "--bare", str(nested), str(remote))
    git(nested, "remote", "add", "origin", str(remote))
    git(nested, "fetch", "--quiet", "origin")
    (nested / ".git" / "info" / "exclude").write_text("*.log\n")
    (nested / "x.log").write_text("")
    refused(sample.run("docs", state="absent"), "user", f"{nested}")
    (nested / "x.log").unlink()
    sample.remove("docs")  # a clone that has nothing of its own, as package managers make them


def test_a_submodule_that_somebody_else_initialised(sample, monkeypatch):
    for name, value in repos.FILE_PROTOCOL.items():
        monkeypatch.setenv(name, value)
    given = {**sample.member("backend"), "submodules": []}
    sample.make(worktrees=[given])
    tree = sample.tree("backend")
    git(tree, "submodule", "--quiet", "update", "--init")
    sample.remove(worktrees=[given], check=True)
    (tree / "migrations" / "new").write_text("")
    refused(sample.run(worktrees=[given], state="absent", force=True), "user", str(tree / "migrations"))
    git(tree / "migrations", "switch", "--quiet", "--create", "mine")
    commit(tree / "migrations", "new")
    refused(sample.run("backend", state="absent", force=True), "user", str(tree / "migrations"))
    git(tree / "migrations", "push", "--quiet", "origin", "mine")
    result = sample.run(worktrees=[given], state="absent")
    refused(result, "user")
    assert result["files"] == {"backend": ["migrations"]}
    git(tree, "submodule", "--quiet", "update")
    sample.remove(worktrees=[given])
    assert sample.traces() == []


def test_what_is_under_way_is_refused(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    commit(tree, "one")
    commit(tree, "two")
    git(tree, "-c", "sequence.editor=sed -i 1s/pick/edit/", "rebase", "--quiet", "--interactive", "HEAD~2")
    refused(sample.run("docs", state="absent"), "user", "a rebase is under way")
    git(tree, "rebase", "--abort")
    sample.remove("docs", check=True)
    git(tree, "bisect", "start")
    refused(sample.run("docs", state="absent"), "user", "a bisect is under way")
    sample.remove("docs", force=True)
    assert saved(sample.docs) == []


def test_commits_that_no_branch_has(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    git(tree, "switch", "--quiet", "--detach")
    tip = commit(tree)
    result = sample.run("docs", state="absent")
    refused(result, "user", "commits on no other branch and no remote", "work changed")
    assert [line.split(" ", 1)[1] for line in result["commits"]["docs"]] == ["work changed"]
    git(sample.docs, "branch", "keep", tip)
    sample.remove("docs", check=True)
    git(sample.docs, "branch", "--quiet", "-D", "keep")
    result = sample.remove("docs", force=True)
    assert git(sample.docs, "rev-parse", result["saved"][0]["ref"]) == tip
    restore(result)
    assert git(tree, "rev-parse", "HEAD") == tip


def test_a_branch_goes_only_with_nothing_lost(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    tip = commit(tree)
    refused(sample.run("docs", state="absent", delete_branch=True), "user", "work changed")
    assert sample.run("docs", state="absent", check=True)["actions"]  # with its branch kept, nothing is lost

    git(sample.docs, "branch", "other-task", tip)
    sample.remove("docs", delete_branch=True, check=True)
    git(sample.docs, "branch", "--quiet", "-D", "other-task")

    git(sample.docs, "merge", "--quiet", "--no-ff", "--message", "merged", "fix")
    sample.remove("docs", delete_branch=True, check=True)
    git(sample.docs, "reset", "--quiet", "--hard", "HEAD^")

    git(tree, "push", "--quiet", "origin", "fix")
    git(sample.docs, "config", "branch.fix.description", "mine")
    result = sample.remove("docs", delete_branch=True)
    assert "delete branch fix of docs" in result["actions"]
    assert branches(sample.docs) == ["main"]
    assert "branch.fix" not in git(sample.docs, "config", "--list")
    assert sample.traces() == []


def test_a_branch_that_a_worktree_was_switched_to_stays(sample):
    sample.make("docs")
    git(sample.docs, "branch", "develop")
    git(sample.tree("docs"), "switch", "--quiet", "develop")
    refused(sample.run("docs", state="absent", push=True), "user", "is on develop, and the task's branch is fix")
    planned = sample.remove("docs", delete_branch=True, check=True)
    assert planned["actions"] == [f"remove worktree {sample.tree('docs')}"]
    sample.remove("docs", delete_branch=True)
    assert branches(sample.docs) == ["develop", "fix", "main"]


def test_force_saves_the_commits_of_a_branch_that_goes(sample):
    sample.make("backend")
    tip = commit(sample.tree("backend"))
    inner = commit(sample.tree("backend") / "migrations")
    git(sample.tree("backend"), "switch", "--quiet", "--detach", "main")
    result = sample.remove("backend", delete_branch=True, force=True)
    assert branches(sample.backend) == branches(sample.backend / "migrations") == ["main"]
    tips = [git(sample.backend, "rev-parse", ref) for ref in saved(sample.backend)]
    assert tip in tips
    assert [git(sample.backend / "migrations", "rev-parse", ref) for ref in saved(sample.backend / "migrations")] == [
        inner
    ]
    assert {one["name"] for one in result["saved"]} == {"backend", "backend/migrations"}


def test_worktrees_that_are_not_ours_stay(sample):
    sample.make("docs")
    for force in (False, True):
        result = sample.run("docs", state="absent", owner="other/fix", force=force)
        refused(result, "user", f"belongs to {repos.SPACE}/fix, not to other/fix")
    git(sample.app, "worktree", "add", "--quiet", "-b", "fix", str(sample.tree("app")))
    for force in (False, True):
        refused(
            sample.run("app", state="absent", force=force), "user", "not made by this collection", "worktree remove"
        )
    git(sample.docs, "worktree", "lock", "--reason", "on a drive", str(sample.tree("docs")))
    refused(sample.run("docs", state="absent"), "user", "locked (on a drive)", "worktree unlock")
    sample.remove("docs", force=True)
    assert worktrees(sample.docs) == {}


def test_a_folder_that_git_does_not_know(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    shutil.rmtree(sample.docs / ".git" / "worktrees")
    refused(sample.run("docs", state="absent"), "user", "git does not know it as a worktree", "README")
    before = content(tree)
    result = sample.remove("docs", force=True)
    assert not tree.exists()
    restore(result)
    assert content(tree) == before
    git(sample.docs, "worktree", "remove", "--force", str(tree))

    tree.mkdir(parents=True)
    sample.remove("docs")
    assert not tree.parent.exists()
    git(sample.root, "clone", "--quiet", str(sample.docs), str(tree))
    refused(sample.run("docs", state="absent", force=True), "user", "repositories of their own", str(tree))
    shutil.rmtree(tree)
    outside = sample.root / "outside"
    outside.mkdir()
    tree.symlink_to(outside)
    refused(sample.run("docs", state="absent", force=True), "user", "symbolic link")
    tree.unlink()
    tree.write_text("")
    refused(sample.run("docs", state="absent", force=True), "user", "is not a folder")


def test_where_git_cannot_tell_nothing_is_removed(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    (tree / ".git").unlink()
    git(sample.root, "init", "--quiet", str(tree))
    refused(sample.run("docs", state="absent", force=True), "user", "is a repository of its own")
    assert (tree / "README").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two users")
def test_folders_that_cannot_be_read_are_not_taken_for_empty(sample, tmp_path):
    """Only root can make what another user cannot read, so the look is done as that other user."""
    sample.make("docs")
    for place in ("build/secret", "untracked"):
        hidden = sample.tree("docs") / place
        hidden.mkdir(parents=True)
        (hidden / "notes").write_text("mine\n")
        hidden.chmod(0)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and str(folder) not in ("/", "/tmp"):
                folder.chmod(0o755)
        refused(
            sample.run_as(65534, "docs", state="absent"), "environment", "Permission denied", place.rpartition("/")[2]
        )
        shutil.rmtree(hidden)


# Settings of the user's


SETTINGS = [
    "status.showUntrackedFiles=no",
    "status.relativePaths=false",
    "status.renames=copies",
    "status.branch=true",
    "status.short=true",
    "core.quotePath=true",
    "color.ui=always",
    "core.safecrlf=true",
    "core.autocrlf=input",
    "diff.ignoreSubmodules=all",
    "submodule.recurse=true",
    "advice.detachedHead=true",
    "core.untrackedCache=true",
    "index.sparse=true",
    "checkout.guess=false",
    "branch.autoSetupMerge=always",
    "log.showSignature=true",
    "commit.gpgSign=true",
    "push.recurseSubmodules=on-demand",
    "push.default=nothing",
    "fetch.prune=true",
    "clean.requireForce=false",
]


def test_settings_of_the_user_change_nothing(sample):
    for repository in (sample.backend, sample.backend / "migrations"):
        for setting in SETTINGS:
            git(repository, "config", *setting.split("="))
    sample.make("backend")
    tree = sample.tree("backend")
    assert status(tree) == status(sample.backend) == ""
    (tree / "ü new").write_bytes(b"a\r\nb\n")
    (tree / "src" / "file1").write_bytes(b"a\r\nb\n")
    (tree / ".env.local").write_text("mine\n")
    git(tree, "mv", "src/file2", "src/renamed")
    (tree / "migrations" / "new").write_text("mine\n")
    result = sample.run("backend", state="absent")
    refused(result, "user")
    assert sorted(result["files"]["backend"]) == [".env.local", "src/file1", "src/file2", "src/renamed", "ü new"]
    assert result["files"]["backend/migrations"] == ["new"]
    result = sample.remove("backend", force=True, push=True)
    assert [one["name"] for one in result["pushed"]] == ["backend", "backend/migrations"]
    assert len(result["saved"]) == 2
    assert git(sample.remotes / "backend.git", "rev-parse", "fix") == git(sample.backend, "rev-parse", "fix")


def test_settings_of_single_worktrees(sample):
    """As git-worktree(1) has them set up: what is the main tree's alone lies in its own file."""
    modules = sample.backend / ".git" / "modules" / "migrations"
    place = git(modules, "config", "core.worktree")
    git(modules, "config", "--unset", "core.worktree")
    git(modules, "config", "extensions.worktreeConfig", "true")
    git(modules, "config", "--worktree", "core.worktree", place)
    sample.make("backend")
    assert status(sample.tree("backend")) == status(sample.backend) == ""
    sample.remove("backend")
    assert sample.traces() == []


# Pushing


def pushes(sample):
    """The origins write down what reaches them, and whether the worktrees were all there then."""
    told = sample.root / "pushed"
    for name in (*NAMES, "migrations"):
        hook = sample.remotes / f"{name}.git" / "hooks" / "update"
        count = f"ls -d {sample.work}/*/.worktrees/fix | wc -l"
        hook.write_text(f'#!/bin/sh\necho "{name} $1 $({count})" >> {told}\n')
        hook.chmod(0o755)
    return told


def test_all_is_pushed_before_anything_is_removed(sample):
    told = pushes(sample)
    sample.make()
    tips = {name: commit(sample.tree(name)) for name in NAMES}
    result = sample.remove(push=True, delete_branch=True)
    order = ["backend", "app", "informes", "docs", "migrations"]
    assert told.read_text().splitlines() == [f"{name} refs/heads/fix 4" for name in order]
    names = ["backend", "app", "informes", "docs", "backend/migrations"]
    assert [one["name"] for one in result["pushed"]] == names
    assert [action for action in result["actions"] if action.startswith("push")] == [
        f"push fix of {name} to origin" for name in names
    ]
    for name, tip in tips.items():
        assert git(sample.remotes / f"{name}.git", "rev-parse", "fix") == tip
        assert branches(sample / name) == ["main"]
    assert sample.traces() == []


def test_a_push_that_fails_keeps_its_repository_only(sample):
    sample.make()
    commit(sample.tree("app"))
    (sample.remotes / "app.git").rename(sample.root / "away")
    (sample.remotes / "migrations.git").rename(sample.root / "away-too")
    git(sample.docs, "remote", "remove", "origin")
    before = content(sample.tree("app"))
    result = sample.run(state="absent", push=True)
    refused(result, "partial", "app", "backend/migrations", "docs", "pushing fix to origin", "done: informes")
    assert result["changed"]
    assert [one["name"] for one in result["pushed"]] == ["backend", "informes"]
    assert result["failed_pushes"] == ["app", "docs", "backend/migrations"]
    assert [bool(worktrees(sample / name)) for name in NAMES] == [True, True, False, True]
    assert content(sample.tree("app")) == before
    assert (sample.tree("backend") / "migrations" / "README").exists()
    (sample.root / "away").rename(sample.remotes / "app.git")
    (sample.root / "away-too").rename(sample.remotes / "migrations.git")
    sample.remove(*NAMES[:3], push=True)
    assert worktrees(sample.app) == worktrees(sample.backend) == {}


def test_work_is_refused_before_the_first_push(sample):
    told = pushes(sample)
    sample.make()
    (sample.tree("docs") / "mine").write_text("")
    refused(sample.run(state="absent", push=True), "user", "mine")
    assert not told.exists()


def test_commits_that_a_push_does_not_carry_are_refused(sample):
    sample.make("docs")
    commit(sample.tree("docs"))
    git(sample.tree("docs"), "switch", "--quiet", "--detach")
    commit(sample.tree("docs"), "detached")
    refused(sample.run("docs", state="absent", push=True, delete_branch=True), "user", "detached changed")


def test_a_remote_that_git_does_not_follow_has_the_commits_all_the_same(sample):
    git(sample.docs, "config", "--unset-all", "remote.origin.fetch")
    sample.make("docs")
    tip = commit(sample.tree("docs"))
    sample.remove("docs", push=True, delete_branch=True)
    assert git(sample.remotes / "docs.git", "rev-parse", "fix") == tip


def test_the_trash_that_another_run_takes_away_is_made_again(sample, monkeypatch):
    makedirs = os.makedirs
    taken: list[str] = []

    def just_gone(path, *arguments, **options):
        if _trash.FOLDER in path and not taken:
            taken.append(path)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        makedirs(path, *arguments, **options)

    sample.make("docs")
    monkeypatch.setattr(os, "makedirs", just_gone)
    sample.remove("docs")
    assert taken
    assert not sample.tree("docs").exists()
