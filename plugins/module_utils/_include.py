# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a main tree its ``.worktreeinclude`` wants in each worktree.

Private to this collection: may change without notice.

The file has the syntax of ``.gitignore``, and of what it matches only files that git ignores count. Both is decided by
git itself.
"""

from __future__ import annotations

import os

from . import _git
from ._git import Repository

DEFAULT = ".worktreeinclude"


def included(main: str, name: str) -> list[str]:
    """Paths, relative to the main tree: of folders that are wanted as a whole, and of files.

    :arg name: the file with the patterns, from the main tree.
    """
    patterns = os.path.join(main, name)
    if not name or not os.path.isfile(patterns):
        return []
    doing = f"asking git what {patterns} means"
    listing = ("ls-files", "-z", "--others", "--ignored", f"--exclude-from={patterns}")
    found = _paths(_git.must(main, *listing, "--directory", doing=doing))
    ignored = _ignored(main, found)
    # A folder that git does not ignore as a whole may have files that it does.
    mixed = [path for path in found if path.endswith("/") and path not in ignored]
    if mixed:
        below = _paths(_git.must(main, "--literal-pathspecs", *listing, "--", *mixed, doing=doing))
        ignored |= _ignored(main, below)
        found += below
    trees = _worktrees(main)
    wanted = [path.rstrip("/") for path in dict.fromkeys(found) if path in ignored]
    return [path for path in wanted if not any(_touch(os.path.join(main, path), tree) for tree in trees)]


def _paths(output: str) -> list[str]:
    return [path for path in output.split("\0") if path]


def _ignored(main: str, paths: list[str]) -> set[str]:
    listed = "\0".join(paths).encode("utf-8", "surrogateescape")
    return set(_paths(_git.git(main, "check-ignore", "-z", "--stdin", stdin=listed).stdout)) if paths else set()


def _worktrees(main: str) -> list[str]:
    repository = Repository.at(main)
    with repository.locked():
        return [one.path for one in repository.worktrees()[1:]]


def _touch(path: str, tree: str) -> bool:
    """Whether one of two places lies in the other."""
    return f"{path}/".startswith(f"{tree}/") or f"{tree}/".startswith(f"{path}/")
