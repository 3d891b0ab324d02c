# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports that tasks of other registries have, as their worktrees in the same repositories say.

Private to this collection: may change without notice.

A registry keeps ports unique among its own tasks. Users with a registry each who share repositories see each other's
ports here: the mark of a worktree names those of its task.
"""

from __future__ import annotations

import contextlib
import typing as t

from ._errors import UserError, WorktreesError
from ._git import Repository
from ._manifest import Manifest
from ._registry import task_of


def noted(repositories: t.Iterable[Repository]) -> dict[int, tuple[str, str]]:
    """The ports of all tasks with a worktree in these repositories: the mark of the task, and the repository."""
    return {
        number: (mark.owner, repository.path)
        for repository in repositories
        for admin in repository.admins()
        if (mark := Manifest.in_admin("", admin)).owner
        for number in mark.ports.values()
    }


def within(repos: t.Sequence[dict[str, t.Any]]) -> dict[int, tuple[str, str]]:
    """The same of the repositories that a workspace names; one that cannot be opened is refused elsewhere."""
    opened = []
    for one in repos:
        with contextlib.suppress(WorktreesError):
            opened.append(Repository.at(one["repo"], one["name"]))
    return noted(opened)


def of_others(ports: t.Mapping[int, tuple[str, str]], registry: str) -> dict[int, str]:
    """Those that are of other registries, each with what is said of it."""
    return {
        number: f"leased to {owner} of another registry, which has a worktree of {repository}"
        for number, (owner, repository) in ports.items()
        if task_of(owner)[0] not in ("", registry)
    }


def check(repositories: t.Iterable[Repository], owner: str, ports: t.Mapping[str, int]) -> None:
    """Refuse ports that the task of another registry has, which was registered at the same moment.

    :raises UserError: it has one.
    """
    taken = of_others(noted(repositories), task_of(owner)[0])
    for name, number in ports.items():
        if number in taken:
            raise UserError(
                f"port {number} ({name}) is {taken[number]}",
                hint="run provision again; where it says the same, tear the task down first. Users who share "
                "repositories can share a registry: workspace_registry",
            )


def note(mark: Manifest | None, ports: t.Mapping[str, int]) -> None:
    """Write the ports of a task into the mark of its worktree."""
    if mark and mark.owner and mark.ports != ports:
        mark.ports = dict(ports)
        mark.save()
