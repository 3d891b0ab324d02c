# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The branch of a task in a repository of which it has no worktree.

Private to this collection: may change without notice.

Whose it is says a line of the repository's configuration, in the section that git renames and deletes with the branch.
The line is written before the branch is made, and goes last. The caller holds the repository's lock.
"""

from __future__ import annotations

import dataclasses
import os
import time
import typing as t

from . import _branch_marks, _elsewhere, _files, _work
from ._commands import Completed
from ._errors import UserError
from ._git import Repository
from ._manifest import Manifest
from ._registry import task_of

MARK = "parallel-worktrees"
TRIES = 10


@dataclasses.dataclass
class LoneBranch:
    """The branch of a task, wherever it is checked out, if it is at all.

    :ivar branch: the one asked for, or what somebody has renamed it to.
    :ivar tip: its commit; None where there is no such branch.
    :ivar start: what it begins with; None where only a fetch would tell, in check mode.
    :ivar is_ours: our line says so.
    :ivar is_made: it was made for this task, or it is to be.
    :ivar trees: where it is checked out.
    :ivar work: what would be lost with it.
    """

    name: str
    repository: Repository
    branch: str
    base: str | None = None
    existing_branch: str = "use"
    tip: str | None = None
    start: str | None = None
    is_ours: bool = False
    is_made: bool = False
    trees: list[str] = dataclasses.field(default_factory=list)
    work: _work.Work = dataclasses.field(default_factory=_work.Work)

    @property
    def everyone(self) -> list[t.Self]:
        return [self]

    @property
    def path(self) -> str:
        """In the place of a folder, where one is told."""
        return f"{self.repository.path} without a worktree"

    @property
    def is_ready(self) -> bool:
        return self.is_ours and self.tip is not None

    def goes(self, delete: bool) -> bool:
        """Whether it is deleted where that is asked for: not where it is checked out, or was there before the task."""
        return delete and self.tip is not None and not self.trees and self.is_made

    def read(self, owner: str) -> str | None:
        """Read what there is; returns whose it is by the line, or by the worktree that has it checked out."""
        marks = _marks(self.repository)
        mine = [branch for branch, mark in marks.items() if mark == owner]
        if self.branch not in mine and len(mine) == 1:
            self.branch = mine[0]
        self.is_ours = self.branch in mine
        self.tip = self.repository.commit(f"refs/heads/{self.branch}")
        self.is_made = self.tip is None or _branch_marks.is_made_for(self.repository, self.branch, owner)
        listed = [one for one in self.repository.worktrees() if one.branch == self.branch]
        self.trees = [one.path for one in listed if not one.gone]
        admins = filter(None, (self.repository.admin_of(one.path) for one in listed))
        marked = [Manifest.in_admin("", admin).owner for admin in admins]
        return next(filter(None, (*marked, marks.get(self.branch))), None)


def find(lone: LoneBranch, owner: str) -> None:
    """Look at what there is, and refuse what is somebody else's."""
    whose = lone.read(owner)
    if whose is not None and not (whose == owner and lone.is_ours):
        raise _taken(lone.name, lone.repository, lone.branch, whose)


def refuse_marked(name: str, repository: Repository, branch: str) -> None:
    """Refuse a branch that a task has without a worktree."""
    if whose := _marks(repository).get(branch):
        raise _taken(name, repository, branch, whose)


def _taken(name: str, repository: Repository, branch: str, whose: str) -> UserError:
    return UserError(
        f"repository {name}: branch {branch} belongs to {whose}",
        hint="choose another task name, or tear that task down first; if there is none any more: "
        f"git -C {repository.path} config --unset branch.{branch}.{MARK}",
    )


def make(lone: LoneBranch, owner: str) -> None:
    """Make it ours, and where it is missing make it; in nobody's tree."""
    key, doing = f"branch.{lone.branch}.{MARK}", f"repository {lone.name}: making branch {lone.branch}"
    if not lone.is_ours:
        _configure(lone, key, owner, doing=doing)
    if lone.tip is None:
        _branch_marks.make(lone.repository, lone.branch, str(lone.start), owner, doing=doing)
        lone.tip = lone.start


def look(lone: LoneBranch, owner: str, *, delete: bool, pushed: bool) -> bool:
    """Look at it before the task releases it; returns whether there is something to release.

    :arg delete: it is to be deleted, unless it is checked out.
    :arg pushed: its commits are, or are about to be, at the remote.
    """
    lone.read(owner)
    if lone.tip and lone.is_ours and lone.goes(delete):
        held = [lone.tip] if pushed else []
        lone.work.commits = _elsewhere.unique_commits(lone.repository, [lone.tip], but=[lone.branch], held=held)
    return lone.is_ours


def remove(lone: LoneBranch, *, delete: bool, task: str) -> list[dict[str, str]]:
    """Give it back; returns what was saved."""
    repository, saved = lone.repository, []
    if lone.work.commits and lone.tip:
        ref = _work.keep(repository, lone.tip, task)
        restore = f"git -C {repository.path} branch {lone.branch} {ref}"
        saved.append({"name": lone.name, "ref": ref, "restore": restore})
    if lone.tip and lone.goes(delete):
        doing = f"deleting branch {lone.branch} of {lone.name}"
        repository.must("update-ref", "-d", f"refs/heads/{lone.branch}", lone.tip, doing=doing)
        repository.git("config", "--remove-section", f"branch.{lone.branch}")
    else:
        doing = f"repository {lone.name}: releasing branch {lone.branch}"
        _configure(lone, "--unset", f"branch.{lone.branch}.{MARK}", doing=doing)
    return saved


def of(repository: Repository, workspace: str, task: str) -> str | None:
    """The branch of a task, by whatever name it goes now."""
    marks = _marks(repository).items()
    return next((branch for branch, mark in marks if task_of(mark)[1:] == (workspace, task)), None)


def _marks(repository: Repository) -> dict[str, str]:
    """Owners by their branches."""
    if MARK not in _files.read(os.path.join(repository.common, "config")):
        return {}  # as nearly always, without a command for it
    found = repository.git("config", "-z", "--get-regexp", rf"^branch\..*\.{MARK}$").stdout.split("\0")
    pairs = (entry.split("\n", 1) for entry in found if entry)
    return {key.removeprefix("branch.").removesuffix(f".{MARK}"): owner for key, owner in pairs}


def _configure(lone: LoneBranch, *arguments: str, doing: str) -> None:
    """Change the configuration, for which somebody's own git may just have a lock."""
    done: Completed
    for attempt in range(1, TRIES + 1):
        done = lone.repository.git("config", *arguments)
        if done.ok:
            return
        time.sleep(0.02 * attempt)
    raise done.failure(doing)
