# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether commits exist elsewhere: in the repository without a worktree and its branch, or at the remotes of a clone.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import re
import typing as t

from . import _files, _git, _git_files
from ._git import Repository

SAVED = "refs/worktrees-saved"

HOLDERS = ("refs/heads", "refs/tags", "refs/remotes", SAVED)
"""The refs that keep a commit for people. All others may go without a question: a stash that is applied, what a bisect
or a rewrite noted, the refs that a worktree has for itself."""

OWN_REFS = ("refs/worktree", "refs/bisect", "refs/rewritten")
"""Refs of one worktree alone (git-worktree(1)): they go with it."""

OWN_FILES = (
    *("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "MERGE_AUTOSTASH"),
    *("rebase-merge/autostash", "rebase-apply/autostash", "rebase-merge/orig-head", "rebase-apply/orig-head"),
)
"""Files of an unfinished operation in the git directory of a worktree that name commits."""


def unique_commits(
    repository: Repository, tips: t.Iterable[str], *, but: t.Iterable[str] = (), held: t.Iterable[str] = ()
) -> list[str]:
    """Commits (id and subject) that lead to the tips and to no holder.

    :arg but: branches that do not count, as they are about to go.
    :arg held: commits that are known to be elsewhere.
    :raises EnvironmentFailure: git cannot say; that is not a no.
    """
    tips, but, held = list(tips), list(but), list(held)
    for some in (("refs/remotes",), HOLDERS):  # the remotes have few refs, and mostly what it is
        refs = _git_files.refs(repository.common, some) or {}
        if {*tips} <= {*held, *(commit for ref, commit in refs.items() if ref.removeprefix("refs/heads/") not in but)}:
            return []
    heads, *others = HOLDERS
    exclude = [f"--exclude={heads}/{branch}" for branch in but]
    return repository.must(
        *("rev-list", "--no-commit-header", "--format=%h %s", *tips),
        *("--not", *held, *exclude, f"--glob={heads}", *(f"--glob={holder}" for holder in others)),
        doing=f"looking for unpushed commits in {repository.path}",
    ).splitlines()


def own_tips(repository: Repository, admin: str) -> list[str]:
    """Commits that refs and files of one worktree alone name.

    :arg admin: the private folder of the worktree.
    """
    names = [line.split()[0] for name in OWN_FILES for line in _files.read(os.path.join(admin, name)).splitlines()]
    if os.path.isdir(os.path.join(admin, "reftable")) or any(files for _f, _d, files in os.walk(f"{admin}/refs")):
        names += repository.must(
            *("for-each-ref", "--format=%(objectname)", *OWN_REFS),
            doing=f"reading the refs of {admin}",
            env={"GIT_DIR": admin},
        ).split()
    return list(filter(None, (repository.commit(name) for name in dict.fromkeys(names) if is_id(name))))


def is_id(text: str) -> bool:
    """Whether a text looks like the full name of an object."""
    return re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", text) is not None


MADE_BY_PIP = ":(exclude,glob)**/*.egg-info/**"
"""What an editable install writes into a clone, which not every project ignores."""


def has_all(clone: str, *, ignored: bool = True) -> bool:
    """Whether a repository within a worktree has nothing that its remotes lack: no file, no commit, no worktree.

    :arg ignored: whether the files count that this repository ignores.
    """
    itself = (f"--git-dir={os.path.join(clone, '.git')}", f"--work-tree={clone}")
    options = ("--porcelain", "--untracked-files=all", "--ignore-submodules=none")
    status = _git.git(clone, *itself, "status", *options, *(["--ignored"] if ignored else ["--", ".", MADE_BY_PIP]))
    if not status.ok or status.stdout:
        return False
    listed = _git.git(clone, *itself, "ls-files", "-v", "-z").stdout.split("\0")
    unseen = (entry[2:] for entry in listed if entry[:1].islower() or entry[:1] == "S")
    if any(os.path.lexists(os.path.join(clone, path)) for path in unseen):
        return False  # status does not look at these
    if _git.linked_admin(clone):
        return False  # a worktree of another task, or of a person
    own = _git.admin_folder(clone) or os.path.realpath(os.path.join(clone, ".git"))
    return all(is_pushed(folder) for folder in (own, *submodules(own)))


def repositories_below(folder: str) -> t.Iterator[str]:
    """The working trees of all repositories at or below a folder, without a look at any other file.

    A ``.git`` that is no repository, such as test data of a package, holds no commit.

    :raises OSError: a folder cannot be read.
    """
    pending = [folder]
    while pending:
        place = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name == ".git":
                    if os.path.isfile(os.path.join(_git.git_dir(place) or place, "HEAD")):
                        yield place
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def is_pushed(git_directory: str) -> bool:
    """Whether each ref of a repository leads to commits of its remotes, and no other worktree needs it."""
    worktrees = os.path.join(git_directory, "worktrees")
    if os.path.isdir(worktrees) and os.listdir(worktrees):
        return False
    # The work tree that is configured may just lie elsewhere.
    here = (f"--git-dir={git_directory}", f"--work-tree={git_directory}")
    ahead = _git.git(git_directory, *here, "rev-list", "--max-count=1", "HEAD", "--all", "--not", "--remotes")
    return ahead.ok and not ahead.stdout


def submodules(common: str) -> t.Iterator[str]:
    """The git directories of a repository's submodules, whose names may have slashes, and of theirs."""
    for folder, folders, files in os.walk(os.path.join(common, "modules")):
        if "HEAD" in files:
            yield folder
            folders[:] = [name for name in folders if name == "modules"]
