# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removals of worktrees that are broken, written to meanwhile, or hold commits in unusual places."""

from __future__ import annotations

import collections.abc as c
import os
import pathlib
import shutil
import typing as t

import pytest
from integration.repos import branches, call, commit, git, refused, restore, saved, succeeded, worktrees
from integration.workspaces import differences, snapshot

from ansible_collections.parallel.worktrees.plugins.module_utils import _agents, _aside, _trash


def admin_of(tree: pathlib.Path) -> pathlib.Path:
    return tree.parents[1] / ".git" / "worktrees" / tree.name


# Broken worktrees


def dot_git_gone(tree):
    (tree / ".git").unlink()


def dot_git_of_no_worktree(tree):
    (tree / ".git").write_text("nonsense\n")


def dot_git_that_leads_elsewhere(tree):
    (tree / ".git").write_text("gitdir: /nowhere\n")


def index_broken(tree):
    (admin_of(tree) / "index").write_text("nonsense")


def index_gone(tree):
    (admin_of(tree) / "index").unlink()


def head_broken(tree):
    (admin_of(tree) / "HEAD").write_text("nonsense\n")


def head_empty(tree):
    (admin_of(tree) / "HEAD").write_text("")


def head_gone(tree):
    (admin_of(tree) / "HEAD").unlink()


def head_of_no_commit(tree):
    (admin_of(tree) / "HEAD").write_text("1" * 40 + "\n")


def all_of_it(tree):
    dot_git_gone(tree)
    index_broken(tree)
    head_broken(tree)


BREAKERS = [
    *(dot_git_gone, dot_git_of_no_worktree, dot_git_that_leads_elsewhere, index_broken, index_gone),
    *(head_broken, head_empty, head_gone, head_of_no_commit, all_of_it),
]


def work_in(tree: pathlib.Path) -> dict[str, str]:
    """A commit on no branch, and files of each kind; what must be there after a rescue."""
    git(tree, "switch", "--quiet", "--detach")
    commit(tree, "committed")
    texts = {"committed": "work\n", "src/file1": "edited\n", "src/file2": "staged\n", "new": "new\n", "my.log": "log\n"}
    for name, text in texts.items():
        (tree / name).write_text(text)
    (tree / "src" / "file3").unlink()
    git(tree, "add", "src/file2")
    return texts


@pytest.mark.parametrize("spoil", BREAKERS)
def test_a_broken_worktree_is_refused_and_its_work_is_saved_with_force(sample, spoil):
    sample.make("docs")
    tree = sample.tree("docs")
    texts = work_in(tree)
    spoil(tree)
    before = snapshot(sample.root)
    for check in (True, False):
        result = sample.run("docs", state="absent", delete_branch=True, check=check)
        refused(result, "environment", str(tree), "-e force=true: all that git does not have is then saved first")
        assert differences(before, snapshot(sample.root)) == []
    would = sample.remove("docs", check=True, force=True)
    assert differences(before, snapshot(sample.root)) == []
    result = sample.remove("docs", force=True)
    assert would["actions"] == result["actions"]
    assert not tree.exists()
    assert worktrees(sample.docs) == {}
    restore(result)
    assert {name: (tree / name).read_text() for name in texts} == texts
    assert not (tree / "src" / "file3").exists()
    assert (tree / "src" / "file4").read_text() == (sample.docs / "src" / "file4").read_text()


@pytest.mark.parametrize("spoil", [dot_git_gone, index_broken, head_broken])
def test_so_is_a_broken_worktree_of_a_submodule(sample, spoil):
    sample.make("backend")
    tree = sample.tree("backend") / "migrations"
    (tree / "new").write_text("new\n")
    if spoil is dot_git_gone:
        spoil(tree)
    else:
        admin = next((sample.backend / ".git" / "modules" / "migrations" / "worktrees").iterdir())
        (admin / ("index" if spoil is index_broken else "HEAD")).write_text("nonsense")
    before = snapshot(sample.root)
    assert sample.run("backend", state="absent").get("failed")
    assert differences(before, snapshot(sample.root)) == []
    result = sample.remove("backend", force=True)
    assert not tree.exists()
    texts = [
        git(sample.root, "--git-dir", sample.backend / ".git" / part, "show", f"{one['ref']}^3:{path}")
        for one in result["saved"]
        for part, path in [
            ("modules/migrations", "new") if one["name"].endswith("migrations") else ("", "migrations/new")
        ]
    ]
    assert set(texts) == {"new"}


def test_files_in_the_folder_of_a_submodule_that_is_not_there_are_work(sample):
    given = {**sample.member("backend"), "submodules": []}
    sample.make(worktrees=[given])
    tree = sample.tree("backend")
    (tree / "migrations" / "notes").write_text("mine\n")
    refused(sample.run(worktrees=[given], state="absent"), "user", "migrations/notes")
    result = sample.remove(worktrees=[given], force=True)
    restore(result)
    assert (tree / "migrations" / "notes").read_text() == "mine\n"


# Written meanwhile


@pytest.fixture
def meanwhile(monkeypatch):
    """Have something done between the look and the rename."""
    taken = _aside.taken

    def arrange(tree: pathlib.Path, act: c.Callable[[], t.Any]) -> None:
        def with_more(path):
            if path == str(tree):
                act()
            return taken(path)

        monkeypatch.setattr(_aside, "taken", with_more)

    return arrange


def test_a_worktree_that_is_written_to_after_the_look_is_put_back(sample, meanwhile):
    sample.make()
    late = sample.tree("app") / "late"
    meanwhile(late.parent, lambda: late.write_text("late\n"))
    result = sample.run(state="absent")
    refused(result, "partial", str(sample.tree("app")), "written to while it was being removed", "late")
    assert late.read_text() == "late\n"
    assert git(late.parent, "status", "--porcelain") == "?? late"
    assert [bool(worktrees(sample / name)) for name in ("backend", "app", "informes", "docs")] == [
        False,
        True,
        False,
        False,
    ]
    refused(sample.run(state="absent"), "user", "late")
    late.unlink()
    meanwhile(late.parent, late.parent.joinpath("src", "file1").touch)
    sample.remove()
    assert sample.traces() == []


def test_what_is_written_after_the_look_is_saved_with_force(sample, meanwhile):
    sample.make("backend")
    tree = sample.tree("backend")
    (tree / "early").write_text("early\n")

    def act() -> None:
        (tree / "early").write_text("changed\n")
        (tree / "migrations" / "late").write_text("late\n")
        commit(tree, "committed")
        git(tree, "switch", "--quiet", "--detach")
        commit(tree, "detached")

    meanwhile(tree, act)
    result = sample.remove("backend", force=True, delete_branch=True)
    assert not tree.exists()
    outer, inner = sorted(result["saved"], key=lambda one: one["name"])
    assert git(sample.backend, "show", f"{outer['ref']}^3:early") == "changed"
    assert git(sample.backend, "show", f"{outer['ref']}^1:detached") == "work"
    assert git(sample.backend / "migrations", "show", f"{inner['ref']}^3:late") == "late"


def test_a_removal_that_was_killed_after_the_rename_loses_nothing(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    (tree / "late").write_text("late\n")
    os.rename(tree, _aside._place(str(tree)))
    before = snapshot(sample.root)
    refused(sample.run("docs", state="absent", check=True), "user", "late")
    assert differences(before, snapshot(sample.root)) == []
    refused(sample.run("docs", state="absent"), "user", "late")
    assert (tree / "late").read_text() == "late\n"
    os.rename(tree, _aside._place(str(tree)))
    sample.make("docs")
    assert (tree / "late").read_text() == "late\n"
    # Some program has made the folder again: neither of the two is lost.
    os.rename(tree, _aside._place(str(tree)))
    tree.mkdir()
    (tree / "other").write_text("")
    refused(sample.run("docs", state="absent", force=True), "environment", "both exist", "diff -r")
    (tree / "other").unlink()
    refused(sample.run("docs", state="absent"), "user", "late")


def test_removed_is_not_said_of_a_folder_that_is_there_again(sample, monkeypatch):
    sample.make("docs")
    tree = sample.tree("docs")
    throw_away = _trash.throw_away

    def and_again(common, path, **options):
        place = throw_away(common, path, **options)
        tree.mkdir(exist_ok=True)
        return place

    monkeypatch.setattr(_trash, "throw_away", and_again)
    refused(sample.run("docs", state="absent"), "environment", f"{tree} is there again", "fuser")
    monkeypatch.undo()
    sample.remove("docs")
    assert sample.traces() == []


def test_a_file_of_ours_that_is_edited_while_it_is_taken_back_stays(sample, monkeypatch):
    """In a worktree of another tool, which stays itself."""
    tree = sample.root / "theirs"
    git(sample.docs, "worktree", "add", "--quiet", "-b", "theirs", str(tree))
    given = [sample.member("docs", path=str(tree), branch="theirs", adopt=True)]
    sample.make(worktrees=given)
    succeeded(
        call(_agents, worktrees=[{"name": "docs", "path": str(tree)}], files=[{"path": "AGENTS.md"}], text="Rule.")
    )
    throw_away = _trash.throw_away

    def edited(common, path, **options):
        pathlib.Path(path).write_text("mine\n")
        return throw_away(common, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(_trash, "throw_away", edited)
        sample.remove(worktrees=given)
    assert (tree / "AGENTS.md").read_text() == "mine\n"


@pytest.mark.parametrize("is_itself", [True, False])
def test_a_link_in_the_place_of_a_worktree_is_refused_with_the_way_back(sample, is_itself):
    sample.make("docs")
    tree, moved = sample.tree("docs"), sample.root / "moved"
    tree.rename(moved)
    tree.symlink_to(moved if is_itself else sample.remotes)
    back = f"rm {tree} && mv {moved} {tree}" if is_itself else f"rm {tree}"
    for force in (False, True):
        refused(sample.run("docs", state="absent", force=force), "user", f"symbolic link to {tree.readlink()}", back)
    assert moved.exists()
    assert tree.is_symlink()


@pytest.mark.parametrize("count", ["nope", "-1", "1", "99999999999", "\u0663"])
def test_settings_that_git_cannot_read_from_the_environment_are_refused(sample, monkeypatch, count):
    monkeypatch.setenv("GIT_CONFIG_COUNT", count)
    for name in ("GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0"):
        monkeypatch.delenv(name, raising=False)
    refused(sample.run("docs"), "user", f"GIT_CONFIG_COUNT is {count}, ", "unset GIT_CONFIG_COUNT")


@pytest.mark.parametrize("name", ["GIT_COMMITTER_DATE", "GIT_AUTHOR_DATE"])
def test_a_date_of_the_callers_does_not_stop_a_rescue(sample, monkeypatch, name):
    monkeypatch.setenv(name, "one of these days")
    sample.make("docs")
    (sample.tree("docs") / "new").write_text("work\n")
    sample.remove("docs", force=True)
    assert saved(sample.docs)


# Commits in unusual places


def nested_clone(sample) -> pathlib.Path:
    """A clone in the worktree of docs that has nothing of its own."""
    sample.make("docs")
    clone: pathlib.Path = sample.tree("docs") / "vendor" / "clone"
    git(sample.root, "clone", "--quiet", str(sample.remotes / "app.git"), str(clone))
    sample.remove("docs", check=True)
    return clone


def hold_by_tag(clone):
    git(clone, "switch", "--quiet", "--detach")
    git(clone, "tag", "mine", commit(clone))
    git(clone, "switch", "--quiet", "main")


def hold_by_stash(clone):
    (clone / "README").write_text("changed\n")
    git(clone, "stash")


def hold_by_a_ref_of_its_own(clone):
    git(clone, "switch", "--quiet", "--detach")
    git(clone, "update-ref", "refs/anything/mine", commit(clone))
    git(clone, "switch", "--quiet", "main")


def hold_by_a_worktree_elsewhere(clone):
    git(clone, "worktree", "add", "--quiet", "--detach", str(clone.parents[3] / "elsewhere"))


def hold_in_a_submodule(clone):
    git(clone, "init", "--quiet", "--bare", ".git/modules/lib")
    tree = git(clone, "--git-dir=.git/modules/lib", "mktree", input=b"")
    made = git(clone, "--git-dir=.git/modules/lib", "commit-tree", tree, "-m", "mine")
    git(clone, "--git-dir=.git/modules/lib", "update-ref", "refs/heads/main", made)


def hold_in_a_file_that_git_does_not_look_at(clone):
    git(clone, "update-index", "--assume-unchanged", "README")
    (clone / "README").write_text("changed\n")


@pytest.mark.parametrize(
    "hold",
    [
        *(hold_by_tag, hold_by_stash, hold_by_a_ref_of_its_own, hold_by_a_worktree_elsewhere, hold_in_a_submodule),
        hold_in_a_file_that_git_does_not_look_at,
    ],
)
def test_a_nested_clone_with_commits_that_its_remote_lacks_is_refused(sample, hold):
    clone = nested_clone(sample)
    hold(clone)
    refused(sample.run("docs", state="absent", force=True), "user", str(clone), "repositories of their own")
    assert clone.exists()


@pytest.mark.parametrize("place", [".venv/src/pkg", "node_modules/x", "build/lib/node_modules/@a/x"])
@pytest.mark.parametrize("is_leftover", [False, True])
def test_a_clone_in_a_folder_that_is_never_work_is_refused_for_its_commits(sample, place, is_leftover):
    sample.make("docs")
    tree = sample.tree("docs")
    clone = tree / place
    git(sample.root, "clone", "--quiet", str(sample.remotes / "app.git"), str(clone))
    (tree / ".venv").mkdir(exist_ok=True)
    (tree / ".venv" / ".gitignore").write_text("*\n")
    # What an install makes there, and test data of a package: an empty folder of that name is no repository.
    for made in ("pkg.egg-info", "node_modules", "vendor"):
        (clone / made).mkdir()
        (clone / made / "file").write_text("made by a tool\n")
    (clone / "node_modules" / "data" / ".git").mkdir(parents=True)
    if is_leftover:
        for path in (".git", ".gitignore", "README", "src"):
            shutil.rmtree(tree / path) if (tree / path).is_dir() else (tree / path).unlink()
        git(sample.docs, "worktree", "prune")
    sample.remove("docs", check=True, **({"force": True} if is_leftover else {}))
    commit(clone)
    refused(sample.run("docs", state="absent", force=True), "user", str(clone), "repositories of their own")
    git(clone, "push", "--quiet", "origin", "main")
    sample.remove("docs", force=True)


@pytest.mark.parametrize("spoil", [None, head_broken])
def test_the_repository_of_a_submodule_that_was_removed_again_is_work(sample, spoil):
    sample.make("docs")
    tree = sample.tree("docs")
    git(tree, "-c", "protocol.file.allow=always", "submodule", "add", str(sample.remotes / "app.git"), "added")
    sample.remove("docs", check=True, force=True)
    git(tree / "added", "switch", "--quiet", "--create", "mine")
    commit(tree / "added")
    git(tree, "rm", "--quiet", "--force", "added", ".gitmodules")
    place = admin_of(tree) / "modules" / "added"
    if spoil:
        spoil(tree)
    refused(sample.run("docs", state="absent", force=True), "user", str(place), "repositories of their own")
    assert place.exists()


def test_what_a_split_index_alone_has_is_saved(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    git(tree, "update-index", "--split-index")
    (tree / "staged").write_text("work\n")
    git(tree, "add", "staged")
    (tree / "staged").unlink()
    (kept,) = sample.remove("docs", force=True)["saved"]
    assert git(sample.docs, "show", f"{kept['ref']}^2:staged") == "work"


def test_files_behind_a_link_and_in_place_of_special_files_do_not_stop_a_rescue(sample, tmp_path):
    sample.make("docs")
    tree = sample.tree("docs")
    (tree / "src").rename(tmp_path / "src")
    (tree / "src").symlink_to(tmp_path / "src")
    (tree / "README").unlink()
    os.mkfifo(tree / "README")
    (tree / "new").write_text("new\n")
    restore(sample.remove("docs", force=True))
    assert (tree / "src").readlink() == tmp_path / "src"
    assert (tree / "new").read_text() == "new\n"
    assert not (tree / "README").exists()


def test_the_worktree_of_another_task_within_is_not_removed(sample):
    sample.make("docs")
    given = {**sample.member("app", "other"), "path": str(sample.tree("docs") / "vendor" / "app")}
    succeeded(sample.run(worktrees=[given], task="other"))
    refused(sample.run("docs", state="absent", force=True), "user", str(sample.tree("docs") / "vendor" / "app"))


@pytest.mark.parametrize("ref", ["refs/worktree/mine", "refs/bisect/good-1", "refs/rewritten/onto"])
def test_commits_that_a_ref_of_the_worktree_alone_holds_are_work(sample, ref):
    sample.make("docs")
    tree = sample.tree("docs")
    git(tree, "switch", "--quiet", "--detach")
    tip = commit(tree)
    git(tree, "update-ref", ref, tip)
    git(tree, "switch", "--quiet", "fix")
    refused(sample.run("docs", state="absent"), "user", "work changed")
    result = sample.remove("docs", force=True)
    (one,) = result["saved"]
    restore(result)
    assert git(sample.docs, "rev-parse", one["ref"]) == tip
    assert tip in git(sample.docs, "for-each-ref", "--format=%(objectname)", "refs/heads").split()


@pytest.mark.parametrize("holder", ["refs/stash", "refs/bisect/bad", "refs/original/refs/heads/fix"])
def test_a_branch_whose_commits_only_a_passing_ref_has_is_not_deleted(sample, holder):
    sample.make("docs")
    tip = commit(sample.tree("docs"))
    git(sample.docs, "update-ref", holder, tip)
    refused(sample.run("docs", state="absent", delete_branch=True), "user", "work changed")
    git(sample.docs, "tag", "kept", tip)
    sample.remove("docs", delete_branch=True)
    assert branches(sample.docs) == ["main"]


def test_two_branches_that_go_together_do_not_hold_each_others_commits(sample):
    given = [sample.member("docs"), {**sample.member("docs", "second"), "name": "docs again"}]
    sample.make(worktrees=given)
    tip = commit(sample.tree("docs"))
    git(sample.tree("docs", "second"), "reset", "--quiet", "--hard", "fix")
    refused(sample.run(worktrees=given, state="absent", delete_branch=True), "user", "work changed")
    sample.remove(worktrees=given, delete_branch=True, force=True)
    assert tip in [git(sample.docs, "rev-parse", ref) for ref in saved(sample.docs)]


def test_uncommitted_work_that_a_rebase_has_put_aside_is_saved(sample):
    sample.make("docs")
    tree = sample.tree("docs")
    (tree / "src" / "file1").write_text("on the branch\n")
    git(tree, "commit", "--quiet", "--all", "--message", "mine")
    (sample.docs / "src" / "file1").write_text("on main\n")
    git(sample.docs, "commit", "--quiet", "--all", "--message", "theirs")
    (tree / "src" / "file2").write_text("uncommitted\n")
    with pytest.raises(AssertionError, match="rebase"):
        git(tree, "rebase", "--quiet", "--autostash", "main")
    refused(sample.run("docs", state="absent"), "user", "a rebase is under way")
    sample.remove("docs", force=True)
    texts = [git(sample.docs, "show", f"{ref}:src/file2") for ref in saved(sample.docs)]
    assert "uncommitted" in texts


# Branches that were there before the task


def test_a_branch_that_was_there_before_the_task_is_never_deleted(sample):
    git(sample.app, "branch", "fix")
    made = sample.make("app", "docs")
    assert [one["existing_branch"] for one in made["worktrees"]] == [True, False]
    assert [" on the existing branch fix" in action for action in made["actions"]] == [True, False]
    again = sample.make("app", "docs")
    assert again["worktrees"] == [{**one, "taken_up": None} for one in made["worktrees"]]
    would = sample.remove("app", "docs", delete_branch=True, force=True, check=True)
    result = sample.remove("app", "docs", delete_branch=True, force=True)
    assert result["actions"] == would["actions"]
    assert result["notes"] == ["branch fix of app, which was not made for the task"]
    assert result["branches"] == ["fix"]
    assert (branches(sample.app), branches(sample.docs)) == (["fix", "main"], ["main"])


def test_a_branch_that_was_made_for_the_task_stays_its_own(sample):
    sample.make("docs")
    git(sample.docs, "branch", "--move", "fix", "renamed")
    sample.remove("docs")
    # Later on, even with another registry.
    made = sample.make(worktrees=[{**sample.member("docs"), "branch": "renamed"}], owner="shop/fix@another")
    assert not made["worktrees"][0]["existing_branch"]
    shutil.rmtree(sample.tree("docs"))
    sample.make(worktrees=[{**sample.member("docs"), "branch": "renamed"}], owner="shop/fix@another")
    sample.remove("docs", delete_branch=True, owner="shop/fix@another")
    assert branches(sample.docs) == ["main"]


def test_the_branch_that_another_task_left_is_not_deleted(sample):
    sample.make("docs")
    sample.remove("docs")
    sample.make(worktrees=[{**sample.member("docs", "other"), "branch": "fix"}], task="other")
    sample.remove(worktrees=[{**sample.member("docs", "other"), "branch": "fix"}], task="other", delete_branch=True)
    assert branches(sample.docs) == ["fix", "main"]


def test_a_branch_that_a_person_switched_to_is_not_deleted(sample):
    sample.make("docs")
    git(sample.tree("docs"), "switch", "--quiet", "--create", "own")
    git(sample.docs, "branch", "--delete", "fix")
    assert sample.remove("docs", delete_branch=True)["notes"]
    assert branches(sample.docs) == ["main", "own"]


def test_so_is_a_branch_without_a_worktree(sample):
    git(sample.app, "branch", "fix")
    given = [{**sample.member(name), "checkout": False} for name in ("app", "docs")]
    made = sample.make(worktrees=given)
    assert [one["existing_branch"] for one in made["worktrees"]] == [True, False]
    result = sample.remove(worktrees=given, delete_branch=True)
    assert result["notes"] == ["branch fix of app, which was not made for the task"]
    assert (branches(sample.app), branches(sample.docs)) == (["fix", "main"], ["main"])
