# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that git tracks and that this project has written for one task: they stay out of the task's commits.

Private to this collection: may change without notice.

Git is told not to look at such a file in the worktree (``git update-index --skip-worktree``): ``git add --all`` and
``git commit --all`` leave it out, stash, reset and switch keep it, and git refuses a merge that would overwrite it.
An edit that somebody makes in it afterwards is work, which git does not show either, so it is looked for here.

Where a sparse checkout is on, git takes the mark off a file that is there. It then looks changed, and is told from work
by its content alone.
"""

from __future__ import annotations

import os
import shlex
import typing as t

from . import _git
from ._errors import EnvironmentFailure
from ._git import Repository
from ._manifest import Manifest, repository_of

HIDDEN = "S"
"""The tag of such a file in ``git ls-files -v``."""


def is_to_hide(place: str) -> bool:
    """Whether git looks at a file that it tracks, and can be told not to."""
    folder, name = os.path.split(place)
    if _git.git(folder, "--literal-pathspecs", "ls-files", "-v", "--", name).stdout[:1].upper() == HIDDEN:
        return False
    return _git.git(folder, "config", "--type=bool", "--get", "core.sparseCheckout").stdout.strip() != "true"


def hide(places: t.Iterable[str]) -> None:
    """Have git not look at files that it tracks, each in the innermost worktree around it."""
    by_tree: dict[str, list[str]] = {}
    for place in places:
        tree = _git.enclosing_worktree(place)
        by_tree.setdefault(str(tree), []).append(os.path.relpath(place, tree))
    for tree, paths in by_tree.items():
        repository = repository_of(tree)
        if repository is None:
            hint = "run provision again: it makes what is missing"
            raise EnvironmentFailure(f"{tree} is no linked worktree", hint=hint)
        with repository.locked():
            _mark(repository, tree, paths, "--skip-worktree")


def show(repository: Repository, worktree: str, path: str) -> None:
    """Have git look at a file again. The caller holds the lock."""
    _mark(repository, worktree, [path], "--no-skip-worktree")


def way_back(worktree: str, paths: t.Sequence[str]) -> str:
    """The command after which git shows what was edited in such files."""
    return shlex.join(("git", "-C", worktree, "update-index", "--no-skip-worktree", "--", *paths))


def edited(worktree: str) -> list[str]:
    """Of the files that this project has written, those that git does not look at and that somebody has edited."""
    manifest = Manifest.of(worktree)
    places = [path for path in manifest.written if os.path.lexists(os.path.join(worktree, path))] if manifest else []
    foreign = [path for path in places if manifest and not manifest.is_ours(os.path.join(worktree, path))]
    if not foreign:
        return []
    doing = f"looking for work in {worktree}"
    listed = _git.must(worktree, "--literal-pathspecs", "ls-files", "-v", "-z", "--", *foreign, doing=doing)
    return [entry[2:] for entry in listed.split("\0") if entry[:1].upper() == HIDDEN]


def is_ours(worktree: str, path: str) -> bool:
    """Whether a file that looks changed has the content that this project gave it."""
    manifest = Manifest.of(worktree)
    return manifest is not None and manifest.is_ours(os.path.join(worktree, path))


def _mark(repository: Repository, worktree: str, paths: t.Sequence[str], mark: str) -> None:
    repository.must(
        *("update-index", mark, "-z", "--stdin"),
        doing=f"keeping {', '.join(paths)} out of the commits of {worktree}",
        hint="if no git is at work there, remove the lock that it names, then run this again",
        worktree=worktree,
        stdin="".join(path + "\0" for path in paths).encode("utf-8", "surrogateescape"),
    )
