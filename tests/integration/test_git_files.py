# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from git's own files is what git says of them, and nothing is read where that is in doubt."""

from __future__ import annotations

import collections.abc as c
import os
import pathlib
import subprocess
import typing as t

import pytest
from integration.repos import git

from ansible_collections.parallel.worktrees.plugins.module_utils import _git_files
from ansible_collections.parallel.worktrees.plugins.module_utils._elsewhere import HOLDERS
from ansible_collections.parallel.worktrees.plugins.module_utils._git import Repository


@pytest.fixture
def tree(sample):
    """A main tree with two linked worktrees."""
    git(sample.app, "worktree", "add", "--quiet", "-b", "feature/one", str(sample.root / "one"))
    git(sample.app, "worktree", "add", "--quiet", "--detach", str(sample.root / "two"))
    return sample.app


def append(path: pathlib.Path, text: str) -> int:
    return path.write_text(path.read_text() + text)


def link(path: pathlib.Path, target: str) -> pathlib.Path:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


def failing(tree: pathlib.Path, *arguments: str) -> bytes:
    """What a command of git says that stops in the middle."""
    done = subprocess.run(["git", "-C", tree, *arguments], check=False, capture_output=True)
    assert done.returncode == 1
    return done.stderr


Way = c.Callable[[pathlib.Path], t.Any]

PLAIN: dict[str, Way] = {
    "as it is": str,
    "packed refs": lambda tree: git(tree, "pack-refs", "--all"),
    "a packed ref that was changed": lambda tree: (
        git(tree, "pack-refs", "--all"),
        git(tree, "commit", "--quiet", "--allow-empty", "--message", "more"),
    ),
    "a tag with a text, packed": lambda tree: (git(tree, "tag", "-m", "one", "v1"), git(tree, "pack-refs", "--all")),
    "a branch that was deleted": lambda tree: (
        git(tree, "branch", "feature/two"),
        git(tree, "pack-refs", "--all"),
        git(tree, "branch", "-D", "feature/two"),
    ),
    "the branch that the remote has checked out": lambda tree: git(tree, "remote", "set-head", "origin", "main"),
    "a name that is no text": lambda tree: git(tree, "branch", os.fsdecode(b"feature/\xff")),
    "no commit yet": lambda tree: git(tree, "checkout", "--quiet", "--orphan", "new"),
    "a rebase": lambda tree: failing(tree, "rebase", "--exec", "exit 1", "--root"),
    "a lock": lambda tree: git(tree, "worktree", "lock", "../../one"),
    "a lock with a reason": lambda tree: git(tree, "worktree", "lock", "--reason", "kept\nfor long ", "../../one"),
    "a folder that is gone": lambda tree: (tree.parent.parent / "one").rename(tree.parent / "elsewhere"),
    "a worktree that was moved": lambda tree: git(tree, "worktree", "move", "../../one", "../../three"),
    "settings of single worktrees": lambda tree: (
        git(tree, "config", "extensions.worktreeConfig", "true"),
        git(tree, "config", "--worktree", "core.sparseCheckout", "false"),
    ),
    "settings that are quoted": lambda tree: append(
        tree / ".git" / "config", '[alias]\n\tx = "a \\"b\\" # c" ; d\n[a "b \\"c\\" \\\\"]\n\td = e f # g\n\th\n'
    ),
}
DOUBTFUL: dict[str, Way] = {
    "a bare repository": lambda tree: git(tree, "config", "core.bare", "true"),
    "a branch that leads to another": lambda tree: git(
        tree, "symbolic-ref", "refs/heads/feature/two", "refs/heads/main"
    ),
    "a setting beside its section": lambda tree: append(tree / ".git" / "config", "[alias] x = a\n"),
    "a setting on two lines": lambda tree: append(tree / ".git" / "config", "[alias]\n\tx = a \\\nb\n"),
    "another format": lambda tree: (
        git(tree, "config", "core.repositoryFormatVersion", "1")
        + git(tree, "config", "extensions.objectFormat", "sha1")
    ),
    "HEAD that is a link": lambda tree: link(tree / ".git" / "HEAD", "refs/heads/main"),
    "HEAD at something else": lambda tree: (tree / ".git" / "HEAD").write_text("ref: refs/remotes/origin/main\n"),
    "a worktree without HEAD": lambda tree: (tree / ".git" / "worktrees" / "one" / "HEAD").unlink(),
}


def asked(repository, monkeypatch):
    """What git says itself."""
    with monkeypatch.context() as patch:
        patch.setattr(_git_files, "refs", lambda *_: None)
        return repository.worktrees(), repository.branches(["feature", "feature/one"])


@pytest.mark.parametrize("way", PLAIN)
def test_plain_repositories_are_read_as_git_does(tree, monkeypatch, way):
    PLAIN[way](tree)
    repository = Repository.at(str(tree))
    assert _git_files.common_of(str(tree)) == repository.common == str(tree / ".git")
    read = repository._read_worktrees()
    assert read is not None
    assert (repository.worktrees(), repository.branches(["feature", "feature/one"])) == asked(repository, monkeypatch)
    assert len(read) == 3
    listed = git(tree, "for-each-ref", "--format=%(refname) %(objectname)", *HOLDERS).splitlines()
    assert _git_files.refs(repository.common, HOLDERS) == dict(line.split(" ") for line in listed)


@pytest.mark.parametrize("way", DOUBTFUL)
def test_what_is_in_doubt_is_left_to_git(tree, way):
    DOUBTFUL[way](tree)
    common = str(tree / ".git")
    repository = Repository(str(tree), common)
    assert None in (_git_files.common_of(str(tree)), repository._read_worktrees(), _git_files.refs(common, ["refs"]))


@pytest.mark.parametrize("name", ["bare", "worktree"])
@pytest.mark.parametrize("value", ["true", "/elsewhere"])
@pytest.mark.parametrize("own", [False, True])
def test_the_top_of_a_worktree_is_where_git_finds_it(tree, name, value, own):
    """As git decides it, whatever is set for all worktrees or for one of them."""
    git(tree, "config", "extensions.worktreeConfig", str(own).lower())
    git(tree, "config", f"core.{name}", value)
    for place in (tree, tree.parent.parent / "one", tree / "src"):
        command = ["git", "-C", place, "rev-parse", "--is-inside-work-tree", "--show-toplevel"]
        found = subprocess.run(command, check=False, capture_output=True, text=True)
        is_top = found.stdout == f"true\n{place}\n"
        assert is_top >= (_git_files.common_of(str(place)) is not None)


def test_the_top_of_a_submodule_and_of_its_worktree(sample):
    assert sample.run()["changed"]
    for place in (sample.backend / "migrations", sample.tree("backend") / "migrations"):
        assert _git_files.common_of(str(place)) == str(sample.backend / ".git" / "modules" / "migrations")


def test_settings_that_are_left_to_git_change_nothing_the_second_time(sample):
    append(sample.backend / ".git" / "modules" / "migrations" / "config", "[alias]\n\tx = a \\\nb\n")
    assert sample.run()["changed"]
    assert not sample.run()["changed"]


def mark(tree: pathlib.Path, *words: str) -> str:
    return git(tree, "update-index", *words, "src/file1")


UNMARKED: dict[str, Way] = {
    "as it is": str,
    "a link and a program": lambda tree: (
        link(tree / "link", "README"),
        git(tree, "add", "--all"),
        git(tree, "update-index", "--chmod=+x", "README"),
    ),
    "a conflict": lambda tree: (
        git(tree, "checkout", "--quiet", "-b", "other"),
        append(tree / "README", "other\n"),
        git(tree, "commit", "--quiet", "--all", "--message", "other"),
        git(tree, "checkout", "--quiet", "main"),
        append(tree / "README", "main\n"),
        git(tree, "commit", "--quiet", "--all", "--message", "main"),
        failing(tree, "merge", "--quiet", "other"),
    ),
    "a submodule": lambda tree: git(tree, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub"),
    "a submodule whose name is no text": lambda tree: git(
        tree, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{os.fsdecode(bytes([255]))}/sub"
    ),
    "no file": lambda tree: git(tree, "rm", "--quiet", "-r", "--cached", "."),
    "what else git keeps there": lambda tree: (
        git(tree, "update-index", "--untracked-cache"),
        git(tree, "status"),
    ),
}
MARKED: dict[str, Way] = {
    "a file that is taken for unchanged": lambda tree: mark(tree, "--assume-unchanged"),
    "a file to skip": lambda tree: mark(tree, "--skip-worktree"),
    "a file that is to be added": lambda tree: (
        (tree / "new").write_text("new\n"),
        git(tree, "add", "--intent-to-add", "new"),
    ),
    "a split index": lambda tree: (mark(tree, "--skip-worktree"), git(tree, "update-index", "--split-index")),
    "another version": lambda tree: git(tree, "update-index", "--index-version", "4"),
    "a sparse index": lambda tree: git(tree, "sparse-checkout", "set", "--cone", "--sparse-index", "none"),
    "no index": lambda tree: (tree / ".git" / "index").unlink(),
    "half an index": lambda tree: (tree / ".git" / "index").write_bytes((tree / ".git" / "index").read_bytes()[:99]),
    "other ids": lambda tree: (
        git(tree, "init", "--quiet", "--object-format=sha256", "other"),
        (tree / "other" / "file").write_text("text\n"),
        git(tree / "other", "add", "file"),
        (tree / "other" / ".git" / "index").rename(tree / ".git" / "index"),
    ),
}


@pytest.mark.parametrize("way", UNMARKED)
def test_an_index_without_marks(sample, way):
    UNMARKED[way](sample.app)
    listed = git(sample.app, "ls-files", "-z", "--stage").split("\0")
    submodules = [entry.partition("\t")[2] for entry in listed if entry.startswith("160000 ")]
    assert _git_files.submodules_in(str(sample.app / ".git" / "index")) == submodules


@pytest.mark.parametrize("way", MARKED)
def test_an_index_with_marks_or_in_doubt(sample, way):
    MARKED[way](sample.app)
    assert _git_files.submodules_in(str(sample.app / ".git" / "index")) is None
