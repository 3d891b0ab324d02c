# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worktrees of tasks as they are: what the record names, what is there, and where the two disagree.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import threading
import typing as t

from . import _elsewhere, _top_level, _whereabouts, _work
from ._errors import WorktreesError
from ._git import MAKING, Listed, Repository
from ._lone_branches import LoneBranch
from ._manifest import Manifest, repository_of
from ._registry import Record


class Repositories:
    """The repositories that tasks share: each is found, and its worktrees are listed, once for all tasks."""

    def __init__(self) -> None:
        self._found: dict[str, Repository] = {}
        self._listed: dict[str, dict[str, Listed]] = {}
        self._lock = threading.Lock()

    def at(self, path: str, name: str) -> Repository:
        """The repository whose main tree is a folder.

        :raises WorktreesError: there is none.
        """
        with self._lock:
            if path not in self._found:
                self._found[path] = Repository.at(path, name)
            # The lock of a repository is held by one object at a time.
            return Repository(path, self._found[path].common, self._found[path].fault)

    def worktrees(self, repository: Repository) -> list[Listed]:
        """Its worktrees, the main one first."""
        return list(self._by_place(repository).values())

    def listed_at(self, repository: Repository, path: str) -> Listed | None:
        return self._by_place(repository).get(os.path.realpath(path))

    def _by_place(self, repository: Repository) -> dict[str, Listed]:
        with self._lock:
            if repository.common not in self._listed:
                with repository.locked():
                    listed = repository.worktrees()
                self._listed[repository.common] = {os.path.realpath(one.path): one for one in listed}
            return self._listed[repository.common]


def look_at(record: Record, repositories: Repositories, disposable: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """The worktrees of a task, each with what has drifted."""
    planned = record.plan.get("worktrees", [])
    return [_worktree(one, record, repositories, disposable) for one in planned]


def _worktree(
    planned: dict[str, t.Any], record: Record, repositories: Repositories, disposable: t.Sequence[str]
) -> dict[str, t.Any]:
    """One worktree in three ways: the record names it, its folder is there, git lists it."""
    path = planned["path"]
    about: dict[str, t.Any] = {"name": planned["name"], "path": path, "branch": None, "state": "clean", "drift": []}
    if path is None:
        return _lone_branch(planned, record, repositories, about)
    exists = os.path.isdir(path)
    try:
        repository = repositories.at(planned["repo"], planned["name"])
        listed = repositories.listed_at(repository, path)
        if moved := None if listed else _moved(repositories.worktrees(repository), repository, planned, record):
            about["state"] = "moved"
            about["drift"].append(f"worktree of {planned['name']} was moved to {moved}")
            return about
        if not exists and listed and (admin := repository.admin_of(path)):
            _whereabouts.refuse_unmounted(planned["name"], path, Manifest.in_admin(path, admin))
        if not exists or listed is None:
            about["state"] = "missing"
            if record.state == "ready" or exists or listed:
                where = "its folder is gone" if not exists else "git does not list it"
                about["drift"].append(f"worktree of {planned['name']}: {where}")
            return about
        about["branch"] = listed.branch
        if listed.lock == MAKING:
            about["state"] = "half-made"
            return about
        _look(about, repository, listed, planned["branch"], disposable, planned.get("submodules", []))
        if planned.get("submodules"):
            _add_submodules(about, planned, repositories, disposable)
    except WorktreesError as error:
        about["state"] = "unknown"
        about["drift"].append(error.message)
    return about


def _look(
    about: dict[str, t.Any],
    repository: Repository,
    listed: Listed,
    branch: str,
    disposable: t.Sequence[str],
    members: t.Sequence[str],
) -> None:
    """What is in a worktree and nowhere else, and whether it is as it was made."""
    path = about["path"]
    options: dict[str, t.Any] = {"disposable": disposable, "half_made": False}
    work = _work.look(_work.Tree.at(repository, path), _work.Going(), members=members, **options)
    about["state"] = "dirty" if work.files or work.under_way else "clean"
    about["ahead"] = len(
        _elsewhere.unique_commits(repository, [listed.head or "HEAD"], but=filter(None, [listed.branch]))
    )
    if listed.branch and listed.branch != branch:
        about["drift"].append(f"worktree of {about['name']} is on branch {listed.branch}, not {branch}")
    if found := _top_level.fault(path):
        about["drift"].append(found)


def _add_submodules(
    about: dict[str, t.Any], planned: dict[str, t.Any], repositories: Repositories, disposable: t.Sequence[str]
) -> None:
    """Look at the submodules of a worktree too: what is in one of them is in the worktree."""
    about["submodules"] = []
    for within in planned["submodules"]:
        name, path = f"{planned['name']}/{within}", os.path.join(planned["path"], within)
        one: dict[str, t.Any] = {"name": name, "path": path, "branch": None, "state": "missing", "ahead": 0}
        one["drift"] = []
        repository = repository_of(path)
        listed = repositories.listed_at(repository, path) if repository else None
        if repository is None or listed is None:
            one["drift"].append(f"submodule {name}: it has no worktree of its own any more")
        else:
            one["branch"] = listed.branch
            _look(one, repository, listed, planned["branch"], disposable, [])
        about["drift"] += one.pop("drift")
        about["submodules"].append(one)
        about["ahead"] += one["ahead"]
        if one["state"] == "dirty":
            about["state"] = "dirty"


def _moved(listed: t.Sequence[Listed], repository: Repository, planned: dict[str, t.Any], record: Record) -> str | None:
    """Where a worktree is now that git does not list at its place."""
    known = {os.path.realpath(one["path"]) for one in record.plan["worktrees"] if one["path"]}
    moved = _whereabouts.moved_worktrees(repository, listed, record.owner, known)
    return next((one.path for one in moved if one.branch == planned["branch"] or len(moved) == 1), None)


def _lone_branch(
    planned: dict[str, t.Any], record: Record, repositories: Repositories, about: dict[str, t.Any]
) -> dict[str, t.Any]:
    """The branch that a task has without a worktree."""
    try:
        repository = repositories.at(planned["repo"], planned["name"])
        lone = LoneBranch(planned["name"], repository, planned["branch"])
        with repository.locked():
            lone.read(record.owner)
        if lone.tip is None or not lone.is_ours:
            about["state"] = "missing"
            if record.state == "ready":
                where = "is gone" if lone.tip is None else "is not marked as the task's any more"
                about["drift"].append(f"branch of {planned['name']}: {lone.branch} {where}")
            return about
        about |= {"branch": lone.branch, "state": "branch only"}
        about["ahead"] = len(_elsewhere.unique_commits(repository, [lone.tip], but=[lone.branch]))
        if lone.branch != planned["branch"]:
            about["drift"].append(f"branch of {planned['name']} is {lone.branch}, not {planned['branch']}")
    except WorktreesError as error:
        about["state"] = "unknown"
        about["drift"].append(error.message)
    return about
