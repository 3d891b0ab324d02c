# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person has moved since a task got it: a worktree, a repository, the workspace folder, the state folder.

Private to this collection: may change without notice.

The mark in the private folder of a worktree goes where git and the file system take it, so it says whose a worktree is
at any place.
"""

from __future__ import annotations

import glob
import os
import shlex
import typing as t

from . import _git, _mounts
from ._errors import EnvironmentFailure, UserError
from ._git import Listed, Repository
from ._manifest import FILE_NAME, Manifest
from ._registry import task_of


def moved_worktrees(
    repository: Repository, listed: t.Iterable[Listed], owner: str, known: t.Container[str]
) -> list[Listed]:
    """The worktrees of a task that lie at none of the known places, by their marks.

    :arg known: real paths.
    """
    found = []
    for one in listed:
        admin = None if one.gone or os.path.realpath(one.path) in known else repository.admin_of(one.path)
        if admin and Manifest.in_admin(one.path, admin).owner == owner:
            found.append(one)
    return found


def refuse_unlisted(name: str, repository: Repository, path: str) -> None:
    """Refuse a worktree that was moved with the folder around it, so that git looks for it at its old place."""
    admin = _git.linked_admin(path)
    if admin and os.path.dirname(os.path.realpath(admin)) == os.path.join(repository.common, "worktrees"):
        where = ("-C", repository.path) if os.path.isdir(repository.path) else (f"--git-dir={repository.common}",)
        raise UserError(
            f"repository {name}: {path} was moved, and git does not know its new place",
            hint=f"tell git: {shlex.join(('git', *where, 'worktree', 'repair', path))}",
        )


def own_mount(repository: Repository, path: str) -> str | None:
    """The mount point that a worktree lies below, where its repository does not."""
    point = _mounts.point_above(path)
    return None if point == _mounts.point_above(repository.common) else point


def refuse_unmounted(name: str, path: str, mark: Manifest | None) -> None:
    """Refuse to take a worktree for gone whose disk is not mounted."""
    point = mark.mount if mark else None
    if point and _mounts.point_above(point) != point:
        raise EnvironmentFailure(
            f"repository {name}: {path} lies on {point}, where nothing is mounted now",
            hint=f"mount it first: mount {shlex.quote(point)}",
        )


def refuse_renamed(name: str, path: str, owner: str, others: t.Container[str]) -> None:
    """Refuse a repository that is not there, where a folder beside it has a worktree of the task.

    :arg others: the other repositories of the task.
    """
    marks = os.path.join(glob.escape(os.path.dirname(path)), "*", ".git", "worktrees", "*", FILE_NAME)
    for mark in sorted(glob.glob(marks)):
        admin = os.path.dirname(mark)
        place = os.path.dirname(os.path.dirname(os.path.dirname(admin)))
        if place not in others and Manifest.in_admin("", admin).owner == owner:
            raise UserError(
                f"repository {name}: there is no folder {path}, and {place} has a worktree of this task, so the "
                "repository was renamed",
                hint=f"rename it back until the task is torn down: mv {shlex.join((place, path))}",
            )


def has_marks(planned: t.Iterable[t.Mapping[str, t.Any]], owner: str, former: str, now: str) -> bool:
    """Whether repositories of a workspace folder that is gone lie in this one, with worktrees of this task."""
    repositories = {os.path.join(now, os.path.relpath(one["repo"], former)) for one in planned}
    pattern = (".git", "worktrees", "*", FILE_NAME)
    marks = [mark for place in repositories for mark in glob.glob(os.path.join(glob.escape(place), *pattern))]
    return any(Manifest.in_admin("", os.path.dirname(mark)).owner == owner for mark in marks)


def moved_workspace(task: str, former: str, now: str) -> UserError:
    """The refusal of a task whose workspace folder was moved: all that was noted for it names the former place."""
    return UserError(
        f"task {task} was provisioned in the workspace folder {former}, which is gone, and this call says {now}",
        hint=f"if the folder was moved, move it back until the task is torn down: mv {shlex.join((now, former))}",
    )


def whose(found: str | None, owner: str) -> tuple[str, str | None]:
    """Whose a worktree is that was expected to be a task's, and what helps where a registry was lost."""
    if found is None:
        return "was not made by this collection", None
    if task_of(found)[1:] == task_of(owner)[1:]:
        lost = "is this task's in another registry: the state folder was lost, or XDG_STATE_HOME named another"
        prune = "ansible-playbook parallel.worktrees.prune -e apply=true -e force=true"
        return lost, f"use that state folder again; if it is lost, save the work and remove the worktree: {prune}"
    return f"belongs to {found}, not to {owner}", None
