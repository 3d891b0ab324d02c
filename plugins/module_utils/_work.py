# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that a removal would lose, and how it is saved first.

Private to this collection: may change without notice.

*Cannot tell* is not *safe*: where git gives no answer, the removal is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import shlex
import shutil
import stat
import tempfile
import time
import typing as t

from . import _files, _git
from ._errors import EnvironmentFailure
from ._git import Repository
from ._manifest import Manifest

UNDER_WAY = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase or am",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "sequencer": "a series of cherry-picks or reverts",
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
    ".husky/_",
)
"""Ignored files that tools make again: never work. A workspace can name others, a path of several names too."""

AT_MOST_SHOWN = 20
SAVED = "refs/worktrees-saved"

_AUTHOR = {
    "GIT_AUTHOR_NAME": "parallel.worktrees",
    "GIT_AUTHOR_EMAIL": "parallel.worktrees@localhost",
    "GIT_COMMITTER_NAME": "parallel.worktrees",
    "GIT_COMMITTER_EMAIL": "parallel.worktrees@localhost",
}
# What a user set against surprises in his own commits must not stop or thin out a rescue.
_AS_IT_IS = ("-c", "core.safecrlf=false", "-c", "core.autocrlf=false", "-c", "core.sparseCheckout=false")


@dataclasses.dataclass
class Work:
    """What is in a worktree and nowhere else.

    :ivar changed: tracked files that differ from the commit, in the index or on disk.
    :ivar untracked: files that git neither tracks nor ignores.
    :ivar ignored: files that git ignores and that this project did not write, or that were edited since.
    :ivar hidden: those of the changed ones that git was told not to look at.
    :ivar commits: commits (id and subject) on no other ref and no remote.
    :ivar nested: folders that are repositories of their own; no commit here can save them.
    :ivar under_way: an operation of git that is not finished.
    """

    changed: list[str] = dataclasses.field(default_factory=list)
    untracked: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    commits: list[str] = dataclasses.field(default_factory=list)
    nested: list[str] = dataclasses.field(default_factory=list)
    under_way: str | None = None

    def __bool__(self) -> bool:
        return bool(self.files or self.commits or self.nested or self.under_way)

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys([*self.changed, *self.untracked, *self.ignored]))

    def lines(self) -> list[str]:
        """For people: a line a kind."""
        told = []
        for label, entries in (
            ("uncommitted", list(dict.fromkeys([*self.changed, *self.untracked]))),
            ("of these not shown by git until git update-index --no-skip-worktree", self.hidden),
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


# --- looking ----------------------------------------------------------------------------------------------------


def look(
    repository: Repository,
    worktree: str,
    *,
    branch_to_delete: str | None,
    disposable: t.Sequence[str],
    members: t.Sequence[str],
    half_made: bool,
    held: t.Sequence[str] = (),
) -> Work:
    """What a removal of this worktree would lose.

    :arg branch_to_delete: the branch that would go with it.
    :arg members: paths of submodules that are looked at on their own.
    :arg half_made: the worktree was never finished, so files that are missing or empty in it are no one's doing.
    :arg held: commits that are known to be elsewhere.
    :raises EnvironmentFailure: git cannot tell.
    """
    admin = repository.admin_in(worktree)
    with contextlib.ExitStack() as stack:
        env = {}
        if half_made:
            # Its index may be missing, so what was checked out would look untracked.
            env["GIT_INDEX_FILE"] = os.path.join(stack.enter_context(_folder()), "index")
            repository.must("read-tree", "HEAD", doing=f"looking at {worktree}", worktree=worktree, env=env)
        status = _Status.of(repository, worktree, env)
        flagged, gitlinks = _index_of(repository, worktree, env)
    manifest = Manifest.of(worktree)

    def is_ours(path: str) -> bool:
        return _files.is_temporary(path) or (manifest is not None and manifest.is_ours(os.path.join(worktree, path)))

    work = Work(under_way=next((word for name, word in UNDER_WAY.items() if os.path.exists(f"{admin}/{name}")), None))
    for path in gitlinks:
        full = os.path.join(worktree, path)
        if path not in members and os.path.lexists(os.path.join(full, ".git")) and not _is_elsewhere(full):
            work.nested.append(path)
    edited = _edited(repository, worktree, flagged)
    for path, is_staged in {**dict.fromkeys(edited, False), **status.changed}.items():
        unfinished = half_made and not _has_content(os.path.join(worktree, path))
        if not (unfinished or path in work.nested or (path in members and not is_staged) or is_ours(path)):
            work.changed.append(path)
            work.hidden += [path] if path in edited else []
    for path in status.untracked:
        if path.endswith("/"):
            if path.rstrip("/") not in members and not _is_elsewhere(os.path.join(worktree, path)):
                work.nested.append(path.rstrip("/"))
        elif not is_ours(path):
            work.untracked.append(path)
    for path in status.ignored:
        files, nested = _files_below(worktree, path.rstrip("/"), is_ours, disposable)
        work.ignored += files
        work.nested += nested
    work.commits = lost_commits(repository, status.head, status.branch, branch_to_delete=branch_to_delete, held=held)
    return work


def look_at_leftover(folder: str, disposable: t.Sequence[str]) -> Work:
    """What is in a folder that git does not know as a worktree: all of it counts."""
    dot_git = os.path.join(folder, ".git")
    former = _git.admin_folder(folder)
    if os.path.lexists(dot_git) and (former is None or os.path.exists(former)):
        return Work(nested=["."])
    files, nested = _files_below(folder, "", lambda path: path == ".git", disposable)
    return Work(untracked=files, nested=nested)


def lost_commits(
    repository: Repository,
    head: str | None,
    branch: str | None,
    *,
    branch_to_delete: str | None,
    held: t.Sequence[str] = (),
) -> list[str]:
    """Commits that no ref leads to any more when a worktree with this HEAD is gone."""
    # The branch that stays keeps what is on it.
    tips = [head] if head and branch in (None, branch_to_delete) else []
    if branch_to_delete and branch_to_delete != branch:
        tips += repository.branches([branch_to_delete]).get(branch_to_delete, "").split()
    return repository.unique_commits(tips, but=branch_to_delete, held=held) if tips else []


@dataclasses.dataclass
class _Status:
    """What git says about a worktree.

    :ivar changed: tracked paths that differ from the commit, and whether they do so in the index.
    :ivar untracked: a folder, with a slash at its end, is a repository of its own.
    :ivar ignored: a folder, with a slash at its end, is ignored as a whole.
    """

    head: str | None = None
    branch: str | None = None
    changed: dict[str, bool] = dataclasses.field(default_factory=dict)
    untracked: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, repository: Repository, worktree: str, env: t.Mapping[str, str]) -> _Status:
        doing = f"looking for work in {worktree}"
        # Each of these options keeps a setting of the user's from hiding something.
        all_of_it = ("--untracked-files=all", "--ignored=matching", "--ignore-submodules=none", "--no-renames")
        done = repository.git(
            *("status", "--porcelain=v2", "-z", "--branch", "--no-ahead-behind", *all_of_it), worktree=worktree, env=env
        )
        if not done.ok or "could not open directory" in done.stderr:
            raise done.failure(doing, hint="mend it, then run this again; nothing was removed")
        status = cls()
        for entry in done.stdout.split("\0"):
            kind, _space, rest = entry.partition(" ")
            if kind in ("1", "u"):
                *fields, path = rest.split(" ", {"1": 7, "u": 9}[kind])
                status.changed[path] = fields[0][0] != "."
            elif kind == "?":
                status.untracked.append(rest)
            elif kind == "!":
                status.ignored.append(rest)
            elif rest.startswith("branch.oid ") and not rest.endswith("(initial)"):
                status.head = rest.partition(" ")[2]
            elif rest.startswith("branch.head ") and not rest.endswith(" (detached)"):
                status.branch = rest.partition(" ")[2]
        return status


def _index_of(repository: Repository, worktree: str, env: t.Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Files that git was told not to look at (assume-unchanged, skip-worktree), by path; and paths of submodules."""
    text = repository.must(
        "ls-files", "-v", "-z", "--stage", doing=f"reading the index of {worktree}", worktree=worktree, env=env
    )
    flagged, gitlinks = {}, []
    for entry in filter(None, text.split("\0")):
        about, _tab, path = entry.partition("\t")
        tag, mode, blob, _stage = about.split(" ")
        if mode == "160000":
            gitlinks.append(path)
        elif tag.islower() or tag == "S":
            flagged[path] = blob
    return flagged, list(dict.fromkeys(gitlinks))


def _edited(repository: Repository, worktree: str, flagged: t.Mapping[str, str]) -> list[str]:
    """Of the files that git does not look at, those that are there with another content."""
    there = [path for path in flagged if os.path.lexists(os.path.join(worktree, path))]
    plain = [path for path in there if "\n" not in path and not os.path.islink(os.path.join(worktree, path))]
    if not plain:
        return there
    blobs = repository.must(
        *("hash-object", "--stdin-paths"),
        doing=f"looking for work in {worktree}",
        worktree=worktree,
        stdin="".join(path + "\n" for path in plain).encode("utf-8", "surrogateescape"),
    ).split()
    same = {path for path, blob in zip(plain, blobs, strict=True) if flagged[path] == blob}
    return [path for path in there if path not in same]


def _has_content(path: str) -> bool:
    """Whether something is there: git makes a file before it fills it."""
    try:
        about = os.lstat(path)
    except OSError:
        return False
    return about.st_size > 0


def _files_below(
    worktree: str, path: str, is_ours: t.Callable[[str], bool], disposable: t.Sequence[str]
) -> tuple[list[str], list[str]]:
    """The files at or below a path that count as work, and the repositories among them that hold something."""
    files: list[str] = []
    nested: list[str] = []
    pending = [path]
    while pending:
        path = pending.pop()
        if _is_disposable(path, disposable) or is_ours(path):
            continue
        full = os.path.join(worktree, path)
        mode = os.lstat(full).st_mode
        if stat.S_ISDIR(mode):
            try:
                entries = os.listdir(full)
            except OSError as error:
                raise EnvironmentFailure(
                    f"cannot look for work in {full}: {error.strerror}", hint=f"make it readable: chmod u+rx {full}"
                ) from error
            if path and ".git" in entries:
                nested += [] if _is_elsewhere(full) else [path]
            else:
                pending += [os.path.join(path, entry) for entry in sorted(entries, reverse=True)]
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            files.append(path)
    return files, nested


def _is_disposable(path: str, patterns: t.Iterable[str]) -> bool:
    """Whether a pattern means one of the folders in a path, or the path, from wherever it begins."""
    parts = path.split("/")
    starts = range(len(parts))
    return any(
        fnmatch.fnmatchcase("/".join(parts[start : start + pattern.count("/") + 1]), pattern)
        for pattern in patterns
        for start in starts
    )


def _is_elsewhere(folder: str) -> bool:
    """Whether a repository within a worktree has nothing that its remotes lack."""
    itself = (f"--git-dir={os.path.join(folder, '.git')}", f"--work-tree={folder}")
    options = ("--porcelain", "--untracked-files=all", "--ignored", "--ignore-submodules=none")
    status = _git.git(folder, *itself, "status", *options)
    refs = ("HEAD", "--branches", "--glob=refs/stash", "--not", "--remotes")
    ahead = _git.git(folder, *itself, "rev-list", "--max-count=1", *refs)
    return status.ok and ahead.ok and not status.stdout and not ahead.stdout


# --- saving -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Saved:
    """Work that was saved.

    :ivar ref: a commit as ``git stash`` makes them where there were files.
    :ivar restore: the command that brings it back.
    """

    ref: str
    restore: str


def save(repository: Repository, worktree: str, work: Work, *, head: str | None, name: str) -> Saved | None:
    """Save the files of a worktree, and commits, under ``refs/worktrees-saved/NAME/TIME``.

    The index and the files of the worktree stay as they are. The caller holds the lock.

    :arg head: the commit that is checked out.
    """
    if not (work.files or (work.commits and head)):
        return None
    commit = _snapshot(repository, worktree, work, head, name) if work.files else str(head)
    ref = keep(repository, commit, name)
    there = ("git", "-C", repository.path, "worktree", "add", "--detach", worktree)
    if not work.files:
        return Saved(ref, shlex.join((*there, ref)))
    back = shlex.join(("git", "-C", worktree, "stash", "apply", "--index", ref))
    return Saved(ref, f"{shlex.join((*there, ref + '^1'))} && {back}")


def keep(repository: Repository, commit: str, name: str) -> str:
    """Point a ref of our own at a commit."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    ref, number = f"{SAVED}/{name}/{stamp}", 1
    while repository.commit(ref):
        number += 1
        ref = f"{SAVED}/{name}/{stamp}-{number}"
    repository.must("update-ref", ref, commit, "", doing=f"saving work as {ref}")
    return ref


def _snapshot(repository: Repository, worktree: str, work: Work, head: str | None, name: str) -> str:
    """A commit in the shape of ``git stash push --all``: on HEAD, one for the index, one for untracked files."""
    doing = f"saving the work in {worktree}"
    message = f"work of {name}, saved before its worktree was removed"

    def git(*arguments: str, index: str, stdin: bytes | None = None) -> str:
        # The repository itself, as the folder may be no worktree, with an index of its own.
        env = {**_AUTHOR, "GIT_INDEX_FILE": index, "GIT_WORK_TREE": worktree}
        return repository.must(*_AS_IT_IS, *arguments, doing=doing, env=env, stdin=stdin).strip()

    def commit(tree: str, *parents: str) -> str:
        onto = [word for parent in parents for word in ("-p", parent)]
        return git("commit-tree", tree, *onto, "-m", message, index=os.devnull)

    def tree(index: str, paths: t.Iterable[str]) -> str:
        listed = "".join(path + "\0" for path in paths).encode("utf-8", "surrogateescape")
        git("update-index", "--add", "--remove", "-z", "--stdin", index=index, stdin=listed)
        return git("write-tree", index=index)

    with _folder() as folder:
        staged, found, others = (os.path.join(folder, index) for index in ("staged", "found", "others"))
        base = head or commit(tree(others, []))
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(os.path.join(_git.admin_folder(worktree) or folder, "index"), staged)
        try:
            index_tree = git("write-tree", index=staged) if os.path.exists(staged) else f"{base}^{{tree}}"
        except EnvironmentFailure:
            index_tree = f"{base}^{{tree}}"  # a conflict is under way, which no commit can hold
        git("read-tree", index_tree, index=found)
        aside = [*work.untracked, *work.ignored]
        found_tree = tree(found, (path for path in work.changed if path not in aside))
        return commit(found_tree, base, commit(index_tree, base), commit(tree(others, aside)))


def _folder() -> tempfile.TemporaryDirectory[str]:
    """For an index of our own: git looks for a place beside it to write the next one."""
    return tempfile.TemporaryDirectory(prefix="parallel-worktrees-")
