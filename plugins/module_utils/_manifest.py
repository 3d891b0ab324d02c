# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this project wrote into a worktree, kept in that worktree's own git directory.

Private to this collection: may change without notice.

It tells our own files from work: a file whose content is the one noted here is ours and may go; one that was
edited since is somebody's work. The note goes with the worktree, and its owner is the mark that the worktree
is ours: made by us or, where that is noted too, adopted from another tool, to which it is left in the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import typing as t

from . import _files, _git

FILE_NAME = "parallel-worktrees.json"
LOGS = "parallel-worktrees-logs"
"""The folder beside it with what set-up commands printed."""


class Manifest:
    """The paths (relative to the worktree) of what was written there, with the signature of its content.

    :ivar main: the main tree of its repository, as the workspace names it.
    :ivar mount: the mount point that the worktree lies below, where its repository does not.
    :ivar ports: those of the task, by name.
    :ivar blocks: paths of somebody's own files that have a block of ours.
    :ivar env_files: paths of the files with the task's environment.
    :ivar ran: the set-up commands that have succeeded, each with what it was run on.
    """

    def __init__(self, worktree: str, admin: str, data: dict[str, t.Any]) -> None:
        self.worktree = worktree
        self._path = os.path.join(admin, FILE_NAME)
        self.owner: str | None = data.get("owner")
        self.adopted: bool = data.get("adopted", False)
        self.main: str | None = data.get("main")
        self.mount: str | None = data.get("mount")
        self.written: dict[str, str] = data.get("written", {})
        self.ran: list[str] = data.get("ran", [])
        self.blocks: list[str] = data.get("blocks", [])
        self.env_files: list[str] = data.get("env_files", [])
        self.ports: dict[str, int] = data.get("ports", {})

    @classmethod
    def of(cls, worktree: str) -> Manifest | None:
        """The manifest of a worktree, empty where there is none yet; None where the folder is no linked worktree."""
        admin = _git.admin_folder(worktree)
        if admin is None or not os.path.isdir(admin):
            return None
        return cls.in_admin(worktree, admin)

    @classmethod
    def in_admin(cls, worktree: str, admin: str) -> Manifest:
        """The manifest in the private folder of a worktree, whose own folder may be gone."""
        return cls(worktree, admin, _load(os.path.join(admin, FILE_NAME)))

    @classmethod
    def around(cls, path: str) -> Manifest | None:
        """The manifest of the innermost linked worktree that a path lies in."""
        worktree = _git.enclosing_worktree(path)
        return None if worktree is None else cls.of(worktree)

    @property
    def exists(self) -> bool:
        return os.path.exists(self._path)

    def save(self) -> None:
        kept = ("owner", "adopted", "main", "mount", "written", "blocks", "env_files", "ran", "ports")
        data = {name: getattr(self, name) for name in kept}
        _files.write(self._path, json.dumps(data, indent=1, sort_keys=True).encode(), mode=0o644)

    def forget(self) -> None:
        """Take the mark off."""
        _files.remove(self._path)

    def note(self, path: str, value: str) -> None:
        """Note a path whose content is about to become what the signature says.

        Until the next call the former signature counts as well: the run may end between note and write.
        """
        key = self._key(path)
        former = self.written.get(key, "").split()[-1:]
        self.written[key] = " ".join(dict.fromkeys([*former, value]))

    def is_ours(self, path: str, *, at: str | None = None) -> bool:
        """Whether a path still has a content that was written here.

        :arg at: where it lies now.
        """
        noted = self.written.get(self._key(path), "")
        return bool(noted) and signature(at or path) in noted.split()

    def knows(self, path: str) -> bool:
        return self._key(path) in self.written

    def note_block(self, path: str) -> None:
        """Note that somebody's own file is about to have a block of ours."""
        self.blocks = sorted({*self.blocks, self._key(path)})

    def note_env_file(self, path: str) -> bool:
        """Note that a file has the task's environment, and return whether that is new."""
        is_new = self._key(path) not in self.env_files
        self.env_files = sorted({*self.env_files, self._key(path)})
        return is_new

    def _key(self, path: str) -> str:
        return os.path.relpath(path, self.worktree)


def repository_of(worktree: str) -> _git.Repository | None:
    """The repository of a worktree, with its main tree as far as that is known; None where it is no linked worktree.

    Where that tree is cannot be told from a git directory that lies apart, so it is noted.
    """
    admin = _git.admin_folder(worktree)
    if admin is None or not os.path.isdir(admin):
        return None
    found = _git.Repository.of_admin(admin)
    for main in (Manifest.in_admin(worktree, admin).main, os.path.dirname(found.common)):
        if main and _git.git_dir(main) == found.common:
            return _git.Repository(main, found.common)
    return found


def _load(path: str) -> dict[str, t.Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return t.cast("dict[str, t.Any]", json.load(file))
    except (FileNotFoundError, ValueError):
        return {}


def text_signature(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def signature(path: str) -> str | None:
    """What tells one content from another: of a file its bytes, of a link its target, of a folder its tree."""
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return link_signature(os.readlink(path))
        if stat.S_ISDIR(mode):
            return _tree_signature(path)
        with open(path, "rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def link_signature(target: str) -> str:
    return "link:" + hashlib.sha256(os.fsencode(target)).hexdigest()


def _tree_signature(top: str) -> str:
    """Names, sizes, times and targets in a tree: a copied folder may be too large to read at every look."""
    digest = hashlib.sha256()
    pending = [top]
    while pending:
        for entry in sorted(os.scandir(pending.pop()), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                content = "folder"
            elif entry.is_symlink():
                content = os.readlink(entry.path)
            else:
                about = entry.stat(follow_symlinks=False)
                content = f"{about.st_size} {about.st_mtime_ns}"
            digest.update(f"{os.path.relpath(entry.path, top)}\0{content}\0".encode("utf-8", "surrogateescape"))
    return "tree:" + digest.hexdigest()
