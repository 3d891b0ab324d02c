# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One repository, through the git command line.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import typing as t

from . import _commands, _files
from ._commands import Completed
from ._errors import EnvironmentFailure, UserError

# What git sets for its hooks and would lead our own commands to another repository (git rev-parse --local-env-vars).
_LOCATION = (
    "GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_PREFIX GIT_OBJECT_DIRECTORY "
    "GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_IMPLICIT_WORK_TREE GIT_INTERNAL_SUPER_PREFIX GIT_NAMESPACE"
).split()
_ENVIRONMENT: dict[str, str | None] = {
    **dict.fromkeys(_LOCATION),
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
}

MAKING = "parallel.worktrees is making it"
"""Git's lock reason on a worktree of ours that is not finished: written by git before anything else of it."""


def git(
    folder: str,
    *arguments: str,
    env: t.Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    keep: t.Sequence[int] = (),
) -> Completed:
    """Run git in a folder, whatever its answer."""
    argv = ("git", "-C", folder, *arguments)
    return _commands.run(argv, env={**_ENVIRONMENT, **(env or {})}, stdin=stdin, keep=keep)


def must(folder: str, *arguments: str, doing: str, hint: str | None = None, **options: t.Any) -> str:
    """Run git where it has to succeed and return what it printed.

    :raises EnvironmentFailure: with the command and its last words.
    """
    done = git(folder, *arguments, **options)
    if not done.ok:
        raise done.failure(doing, hint=hint)
    return done.stdout


@dataclasses.dataclass(frozen=True)
class Listed:
    """A worktree as git lists it.

    :ivar branch: without ``refs/heads/``; None where HEAD is detached.
    :ivar lock: the reason of its lock, which may be empty; None where it is not locked.
    :ivar gone: git finds no worktree at its path any more.
    """

    path: str
    head: str | None
    branch: str | None
    lock: str | None
    gone: bool


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository with a working tree.

    :ivar path: its main working tree, as the user named it.
    :ivar common: its common git directory (gitrepository-layout(5)), absolute and without symbolic links.
    """

    path: str
    common: str

    @classmethod
    def at(cls, path: str, name: str | None = None) -> Repository:
        """The repository whose working tree is this folder.

        :raises UserError: there is none, or it is bare, or the folder lies inside of one.
        """
        what = f"repository {name}" if name else "repository"
        hint = "correct its path in worktrees_repos, or clone it there: git clone URL " + path
        if not os.path.isdir(path):
            raise UserError(f"{what}: there is no folder {path}", hint=hint)
        asked = git(path, "rev-parse", "--path-format=absolute", "--git-common-dir", "--is-bare-repository", "--show-cdup")
        if not asked.ok:
            if "dubious ownership" in asked.stderr:
                raise asked.failure(what, hint=f"git config --global --add safe.directory {path}")
            raise UserError(f"{what}: {path} is not a git repository", hint=hint)
        common, bare, up, *_rest = [*asked.stdout.splitlines(), "", ""]
        if bare == "true":
            raise UserError(
                f"{what}: {path} is a bare repository, which has no files to link or copy from",
                hint=f"clone it and name the clone: git clone {path} FOLDER",
            )
        if up:
            top = os.path.normpath(os.path.join(os.path.realpath(path), up))
            raise UserError(f"{what}: {path} is a folder inside the repository {top}, not a repository", hint=hint)
        return cls(path, os.path.realpath(common))

    def git(self, *arguments: str, **options: t.Any) -> Completed:
        return git(self.path, *arguments, **options)

    def locked(self) -> t.AbstractContextManager[int]:
        """The one lock of this repository: held by all of ours that writes or lists its worktrees.

        It lies on the common git directory itself, so it needs no file and serves every user and state folder.
        """
        return _files.locked(self.common)

    def worktrees(self) -> list[Listed]:
        """Its worktrees, the main one first."""
        text = must(self.path, "worktree", "list", "--porcelain", "-z", doing=f"listing the worktrees of {self.path}")
        return [_listed(block.split("\0")) for block in text.split("\0\0") if block]

    def commit(self, revision: str) -> str | None:
        """The commit that a revision names, or None where it names none."""
        found = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
        return found.stdout.strip() if found.ok else None

    def branch_commit(self, branch: str) -> str | None:
        return self.commit(f"refs/heads/{branch}")

    def has_remote(self, remote: str = "origin") -> bool:
        return self.git("config", "--get", f"remote.{remote}.url").ok

    def base_commit(self, base: str | None, *, name: str, check: bool) -> str | None:
        """The commit that new branches start from; fetched where only the remote has it.

        :arg base: a branch, tag or commit; HEAD where it is None.
        :arg check: fetch nothing; the commit is then None where a fetch would bring it.
        :raises UserError: nobody has it.
        """
        if base is None:
            found = self.commit("HEAD")
            if found is None:
                raise UserError(
                    f"repository {name}: {self.path} has no commit yet, so no worktree can be made of it",
                    hint=f"git -C {self.path} commit --allow-empty -m 'first commit'",
                )
            return found
        for revision in (f"refs/heads/{base}", f"refs/remotes/origin/{base}", base):
            found = self.commit(revision)
            if found:
                return found
        fetched = base.removeprefix("origin/")
        if self.has_remote():
            if check:
                if self.git("ls-remote", "--exit-code", "--heads", "origin", f"refs/heads/{fetched}").ok:
                    return None
            elif self.git("fetch", "--no-tags", "origin", f"+refs/heads/{fetched}:refs/remotes/origin/{fetched}").ok:
                return self.commit(f"refs/remotes/origin/{fetched}")
        raise UserError(
            f"repository {name}: {self.path} has no branch, tag or commit {base}"
            + (", and neither has its origin" if self.has_remote() else ""),
            hint=f"see what there is: git -C {self.path} branch --all",
        )

    def remove_unreadable_admin(self) -> None:
        """Remove what a killed run of ours left of a worktree before git could read it.

        One such folder makes every later ``git worktree list`` fail; git's lock file says that it is ours.
        """
        for admin in self.admins():
            if _read(os.path.join(admin, "locked")) == MAKING and not all(
                _read(os.path.join(admin, part)) for part in ("HEAD", "commondir", "gitdir")
            ):
                shutil.rmtree(admin)

    def admin_of(self, path: str) -> str | None:
        """The folder in which git keeps what is private to the worktree at a path."""
        wanted = os.path.join(os.path.realpath(path), ".git")
        for admin in self.admins():
            named = _read(os.path.join(admin, "gitdir"))
            if named and os.path.normpath(os.path.join(admin, named)) == wanted:
                return admin
        return None

    def admins(self) -> list[str]:
        folder = os.path.join(self.common, "worktrees")
        try:
            return sorted(os.path.join(folder, entry) for entry in os.listdir(folder))
        except FileNotFoundError:
            return []

    def unique_commits(self, tips: t.Sequence[str], *, but: str | None = None) -> list[str]:
        """Commits (id and subject) that lead to the tips and to no ref, local or of a remote.

        :arg but: a branch that does not count, as it is about to go.
        :raises EnvironmentFailure: git cannot tell; that is not a no.
        """
        exclude = [f"--exclude=refs/heads/{but}"] if but else []
        text = must(
            self.common,
            "--git-dir=.",
            "log",
            "--format=%h %s",
            *tips,
            "--not",
            *exclude,
            "--glob=refs/*",
            doing=f"looking for unpushed commits in {self.path}",
        )
        return text.splitlines()


def _listed(lines: list[str]) -> Listed:
    fields = dict(line.partition(" ")[::2] for line in lines if line)
    branch = fields.get("branch")
    return Listed(
        path=fields["worktree"],
        head=fields.get("HEAD"),
        branch=None if branch is None else branch.removeprefix("refs/heads/"),
        lock=fields.get("locked"),
        gone="prunable" in fields or not os.path.exists(os.path.join(fields["worktree"], ".git")),
    )


def _read(path: str) -> str | None:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().strip()
    return None


def admin_folder(worktree: str) -> str | None:
    """The git directory that a linked worktree's ``.git`` file names; None where the folder is no linked worktree."""
    text = _read(os.path.join(worktree, ".git"))
    if text is None or not text.startswith("gitdir: "):
        return None
    return os.path.normpath(os.path.join(worktree, text.removeprefix("gitdir: ")))


def enclosing_worktree(path: str) -> str | None:
    """The innermost worktree that a path lies in."""
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(os.path.join(folder, ".git")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder


def check_version() -> None:
    """Refuse a git that lacks what is used here.

    :raises EnvironmentFailure: git is older than 2.36 (``worktree list -z``).
    """
    text = _commands.must(("git", "version"), doing="asking git for its version", hint="install git")
    numbers = [int(part) for part in text.split()[2].split(".")[:2] if part.isdigit()]
    if numbers < [2, 36]:
        raise EnvironmentFailure(f"git {'.'.join(map(str, numbers))} is too old", hint="install git 2.36 or later")
