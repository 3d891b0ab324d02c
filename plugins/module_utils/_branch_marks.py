# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Branches that are made for a task, and how they are told from those that were there before.

Private to this collection: may change without notice.

The first entry of a branch's reflog says which task it was made for. Git writes, renames and deletes it together with
the branch. Where the entry has expired, the branch counts as not made for the task.
"""

from __future__ import annotations

import contextlib
import os

from . import _files
from ._git import Repository
from ._registry import task_of

MESSAGE = "parallel.worktrees: made for "


def make(repository: Repository, branch: str, commit: str, owner: str, *, doing: str) -> None:
    """Make a branch for a task, in no worktree."""
    nothing = "0" * len(commit)
    ref = f"refs/heads/{branch}"
    repository.must("update-ref", "--create-reflog", "-m", MESSAGE + owner, ref, commit, nothing, doing=doing)


def is_made_for(repository: Repository, branch: str, owner: str) -> bool:
    """Whether a branch was made for a task, whatever registry the task was in then."""
    made_for = _first_entry(repository, branch).partition(MESSAGE)[2]
    return bool(made_for) and task_of(made_for)[1:] == task_of(owner)[1:]


def _first_entry(repository: Repository, branch: str) -> str:
    if os.path.isdir(os.path.join(repository.common, "reftable")):
        entries = repository.git("reflog", "show", "--format=%gs", f"refs/heads/{branch}", "--").stdout.splitlines()
        return entries[-1] if entries else ""
    with contextlib.suppress(IsADirectoryError, NotADirectoryError):  # as of a branch a beside a/b
        entries = _files.read(os.path.join(repository.common, "logs", "refs", "heads", branch)).splitlines()
        return entries[0] if entries else ""
    return ""
