# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that a removal would lose, and how it is saved first.

Private to this collection: may change without notice.

*Cannot tell* is not *safe*: where git gives no answer, the removal is refused.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import tempfile
import time
import typing as t

from . import _files, _git
from ._git import Repository
from ._manifest import Manifest

UNDER_WAY = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or am",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisect",
}

DISPOSABLE = (
    "node_modules",
    "__pycache__",
    "*.pyc",
    ".venv",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
    ".tox",
    ".gradle",
    ".next",
    ".turbo",
)
"""Ignored files that tools make again: never work. A workspace can name others."""

AT_MOST_SHOWN = 20


@dataclasses.dataclass
class Work:
    """What is in a worktree and nowhere else.

    :ivar uncommitted: tracked files that differ from the commit, and untracked ones.
    :ivar ignored: files that git ignores and that this project did not write, or that were edited since.
    :ivar commits: commits (id and subject) on no other ref and no remote.
    :ivar nested: folders that are repositories of their own; no commit here can save them.
    :ivar under_way: an operation of git that is not finished.
    """

    uncommitted: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    commits: list[str] = dataclasses.field(default_factory=list)
    nested: list[str] = dataclasses.field(default_factory=list)
    under_way: str | None = None

    def __bool__(self) -> bool:
        return bool(self.uncommitted or self.ignored or self.commits or self.nested or self.under_way)

    @property
    def files(self) -> list[str]:
        return [*self.uncommitted, *self.ignored]

    def lines(self) -> list[str]:
        """For people: a line a kind."""
        told = []
        for label, entries in (
            ("uncommitted", self.uncommitted),
            ("ignored by git, not written by this project", self.ignored),
            ("commits on no other branch and no remote", self.commits),
            ("repositories of their own", self.nested),
        ):
            if entries:
                more = len(entries) - AT_MOST_SHOWN
                told.append(f"{label}: {', '.join(entries[:AT_MOST_SHOWN])}{f' and {more} more' if more > 0 else ''}")
        if self.under_way:
            told.append(f"{self.under_way} is under way")
        return told


def look(
    repository: Repository,
    worktree: str,
    *,
    branch_to_delete: str | None,
    disposable: t.Sequence[str],
    members: t.Sequence[str],
    half_made: bool,
) -> Work:
    """What a removal of this worktree would lose.

    :arg branch_to_delete: the branch that would go with it.
    :arg members: paths of submodules that are looked at on their own.
    :arg half_made: the worktree was never finished, so files that are missing in it were not deleted by anyone.
    :raises EnvironmentFailure: git cannot tell.
    """
    work = Work()
    manifest = Manifest.of(worktree)
    text = _git.must(
        worktree,
        "status",
        "--porcelain",
        "-z",
        "--untracked-files=all",
        "--ignored=matching",
        "--ignore-submodules=all" if members else "--ignore-submodules=dirty",
        doing=f"looking for work in {worktree}",
    )
    entries = iter(text.split("\0"))
    for entry in entries:
        if not entry:
            continue
        code, path = entry[:2], entry[3:]
        if "R" in code or "C" in code:
            former = next(entries)
            work.uncommitted.append(former)
        full = os.path.join(worktree, path)
        if _is_ours(manifest, full) or path.rstrip("/") in members or _files.is_temporary(path) or (half_made and "D" in code):
            continue
        if code == "!!":
            work.ignored += _ignored_work(worktree, path, manifest, disposable)
        elif path.endswith("/"):
            work.nested.append(path)
        else:
            work.uncommitted.append(path)
    admin = _git.admin_folder(worktree)
    if admin:
        work.under_way = next((word for name, word in UNDER_WAY.items() if os.path.exists(os.path.join(admin, name))), None)
    head = _git.git(worktree, "rev-parse", "--verify", "--quiet", "HEAD")
    if head.ok:
        tips = [head.stdout.strip()]
        tip = branch_to_delete and repository.branch_commit(branch_to_delete)
        work.commits = repository.unique_commits([*tips, *([tip] if tip else [])], but=branch_to_delete)
    return work


def _is_ours(manifest: Manifest | None, path: str) -> bool:
    return manifest is not None and manifest.is_ours(path.rstrip("/"))


def _ignored_work(worktree: str, path: str, manifest: Manifest | None, disposable: t.Sequence[str]) -> list[str]:
    """Of an ignored path, the files that count as work; git names a folder where it ignores the whole of it."""

    def may_go(relative: str) -> bool:
        parts = relative.rstrip("/").split("/")
        return any(fnmatch.fnmatchcase(part, pattern) for part in parts for pattern in disposable)

    if may_go(path):
        return []
    if not path.endswith("/"):
        return [path]
    found = []
    for folder, folders, files in os.walk(os.path.join(worktree, path)):
        inside = os.path.relpath(folder, worktree)
        folders[:] = [
            name
            for name in folders
            if not may_go(name) and not _is_ours(manifest, os.path.join(folder, name))
        ]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [
            os.path.join(inside, name)
            for name in [*files, *links]
            if not may_go(name) and not _is_ours(manifest, os.path.join(folder, name))
        ]
    return found


def save(repository: Repository, worktree: str, work: Work, *, name: str, branch: str | None) -> str:
    """Save all of it as one commit under ``refs/worktrees-saved/NAME/TIME`` and return that ref.

    The index and the files of the worktree stay as they are.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    ref = f"refs/worktrees-saved/{name}/{stamp}"
    number = 1
    while repository.commit(ref):
        number += 1
        ref = f"refs/worktrees-saved/{name}/{stamp}-{number}"
    doing = f"saving the work in {worktree}"
    head = repository.commit(f"refs/heads/{branch}") if branch else None
    found = _git.git(worktree, "rev-parse", "--verify", "--quiet", "HEAD")
    parent = found.stdout.strip() if found.ok else head
    with tempfile.TemporaryDirectory(prefix="parallel-worktrees-") as folder:
        # git looks for a rename-over place beside the index, hence a folder of its own.
        place = {
            "GIT_INDEX_FILE": os.path.join(folder, "index"),
            "GIT_DIR": repository.common,
            "GIT_WORK_TREE": worktree,
        }
        if parent:
            _git.must(worktree, "read-tree", parent, doing=doing, env=place)
        if work.files:
            arguments = ("add", "--all", "--force", "--pathspec-from-file=-", "--pathspec-file-nul")
            _git.must(
                worktree,
                *arguments,
                doing=doing,
                env={**place, "GIT_LITERAL_PATHSPECS": "1"},
                stdin="\0".join(work.files).encode("utf-8", "surrogateescape"),
            )
        tree = _git.must(worktree, "write-tree", doing=doing, env=place).strip()
    author = {
        "GIT_AUTHOR_NAME": "parallel.worktrees",
        "GIT_AUTHOR_EMAIL": "parallel.worktrees@localhost",
        "GIT_COMMITTER_NAME": "parallel.worktrees",
        "GIT_COMMITTER_EMAIL": "parallel.worktrees@localhost",
    }
    message = f"work of {name} saved before its worktree was removed"
    commit = _git.must(
        repository.common,
        "commit-tree",
        tree,
        *(("-p", parent) if parent else ()),
        "-m",
        message,
        doing=doing,
        env=author,
    ).strip()
    _git.must(repository.common, "update-ref", ref, commit, "", doing=doing)
    return ref
