# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where files go inside a task's worktrees, and what may not be replaced there.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import concurrent.futures
import os
import typing as t

from . import _exclude, _git
from ._errors import UserError
from ._git import Repository
from ._manifest import Manifest


def inside(worktree: str, path: str) -> str:
    """The absolute place of a path in a worktree.

    :raises UserError: the path leads out, lexically or through a symbolic link in one of its folders.
    """
    place = os.path.normpath(os.path.join(worktree, path))
    if os.path.isabs(path) or os.path.relpath(place, worktree).partition("/")[0] == "..":
        raise UserError(f"the path {path!r} leads out of the worktree {worktree}", hint="name a path within it")
    folder = os.path.dirname(place) if os.path.normpath(worktree) != place else place
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    top, real = os.path.realpath(worktree), os.path.realpath(folder)
    # A worktree that is not made yet (check mode) has no links that could lead out.
    if os.path.isdir(top) and os.path.commonpath([top, real]) != top:
        raise UserError(
            f"the path {path!r} leads out of the worktree {worktree}: {folder} is really {real}",
            hint="remove that symbolic link, or name another path",
        )
    return place


def keep_out_of_git(places: t.Iterable[tuple[str, str]]) -> None:
    """See to it that paths are not seen as untracked in their worktrees, nor committed by ``git add --all``.

    They need not be there yet; kept out first, a killed run leaves nothing that git would see.

    :arg places: worktrees, and absolute paths in them; the innermost worktree around a path is what counts.
    """
    by_tree: dict[str, list[str]] = {}
    for worktree, path in places:
        tree = _git.enclosing_worktree(path) or worktree
        by_tree.setdefault(tree, []).append(os.path.relpath(path, tree))
    with concurrent.futures.ThreadPoolExecutor(_git.THREADS) as pool:
        list(pool.map(_keep_out, by_tree.keys(), by_tree.values()))


def _keep_out(tree: str, paths: list[str]) -> None:
    """The same for one worktree, with paths relative to it."""
    admin = _git.linked_admin(tree)
    # Where a worktree has patterns of ours, one more costs less than to ask git whether it is needed.
    seen = paths if admin and _exclude.has_own(admin) else _seen(tree, paths)
    if not seen:
        return
    patterns = [_exclude.pattern_of(path) for path in seen]
    repository = Repository.at(tree) if admin is None else Repository.of_admin(admin)
    with repository.locked():
        if admin is None:
            _exclude.add(repository.common, patterns)
        else:
            _exclude.add_own(repository, tree, patterns)


def _seen(tree: str, paths: list[str]) -> list[str]:
    """Of these paths, those that git neither ignores nor tracks."""
    listed = "\0".join(paths).encode("utf-8", "surrogateescape")
    ignored = _git.git(tree, "check-ignore", "-z", "--stdin", stdin=listed).stdout.split("\0")
    seen = [path for path in paths if path not in ignored]
    there = [path for path in seen if os.path.lexists(os.path.join(tree, path))]
    if not there:
        return seen
    doing = f"asking git for its files in {tree}"
    known = _git.must(tree, "--literal-pathspecs", "ls-files", "-z", "--", *there, doing=doing).split("\0")
    return [path for path in seen if path not in known]


def refuse_foreign(place: str, manifest: Manifest | None, what: str) -> None:
    """Refuse to replace what this project did not write."""
    if os.path.lexists(place) and not (manifest and manifest.is_ours(place)):
        raise UserError(
            f"cannot {what} {place}: something is there that this project did not write",
            hint=f"look at it, then move it away: mv {place} {place}.old",
        )
