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
import pathlib
import shlex
import shutil
import stat
import tempfile
import time
import typing as t

from . import _elsewhere, _files, _git, _git_files
from ._commands import Completed
from ._errors import EnvironmentFailure, UserError
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

_AUTHOR = {
    "GIT_AUTHOR_NAME": "parallel.worktrees",
    "GIT_AUTHOR_EMAIL": "parallel.worktrees@localhost",
    "GIT_COMMITTER_NAME": "parallel.worktrees",
    "GIT_COMMITTER_EMAIL": "parallel.worktrees@localhost",
}
# What a user set against surprises in his own commits must not stop or thin out a rescue.
_AS_IT_IS = (
    *("-c", "core.safecrlf=false", "-c", "core.autocrlf=false"),
    *("-c", "core.sparseCheckout=false", "-c", "core.splitIndex=false"),
)


@dataclasses.dataclass
class Work:
    """What is in a worktree and nowhere else.

    :ivar changed: tracked files that differ from the commit, in the index or on disk.
    :ivar untracked: files that git neither tracks nor ignores.
    :ivar ignored: files that git ignores and that this project did not write, or that were edited since.
    :ivar hidden: those of the changed ones that git was told not to look at.
    :ivar commits: commits (id and subject) on no other branch, no tag and no remote.
    :ivar head: the commit that is checked out.
    :ivar tips: what leads to them: a commit, and the branch that it is the tip of, if any.
    :ivar going: the branches of the repository that go, too.
    :ivar nested: folders that are repositories of their own; no commit here can save them.
    :ivar under_way: an operation of git that is not finished.
    """

    changed: list[str] = dataclasses.field(default_factory=list)
    untracked: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)
    hidden: list[str] = dataclasses.field(default_factory=list)
    commits: list[str] = dataclasses.field(default_factory=list)
    head: str | None = None
    tips: dict[str, str | None] = dataclasses.field(default_factory=dict)
    going: t.Collection[str] = ()
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


@dataclasses.dataclass(frozen=True)
class Tree:
    """A worktree: its folder, wherever that lies now, and its private git directory, which need not name each other.

    :ivar place: where the folder belongs.
    :ivar manifest: what this project wrote there.
    """

    repository: Repository
    place: str
    folder: str
    admin: str
    manifest: Manifest

    @classmethod
    def at(cls, repository: Repository, place: str) -> Tree:
        """A worktree in its place.

        :raises EnvironmentFailure: its ``.git`` file names none of this repository.
        """
        return cls.of(repository, place, place, repository.admin_in(place))

    @classmethod
    def of(cls, repository: Repository, place: str, folder: str, admin: str) -> Tree:
        return cls(repository, place, folder, admin, Manifest.in_admin(folder, admin))

    def git(self, *arguments: str, env: t.Mapping[str, str], stdin: bytes | None = None) -> Completed:
        there = {"GIT_DIR": self.admin, "GIT_WORK_TREE": self.folder, **env}
        done = _git.git(self.folder, *arguments, env=there, stdin=stdin, keep=self.repository.kept)
        # A message shows the command that a person would type.
        return dataclasses.replace(done, argv=("git", "-C", self.place, *arguments))

    def must(self, *arguments: str, **options: t.Any) -> str:
        done = self.git(*arguments, **options)
        if not done.ok:
            raise done.failure(f"looking for work in {self.place}")
        return done.stdout

    def is_ours(self, path: str) -> bool:
        return _files.is_temporary(path) or self.manifest.is_ours(os.path.join(self.folder, path))

    def check(self) -> None:
        """
        :raises EnvironmentFailure: the folder has no ``.git`` file, or that of another worktree.
        :raises UserError: it is a repository of its own.
        """
        dot_git, named = os.path.join(self.folder, ".git"), _git.admin_folder(self.folder)
        if named and os.path.realpath(named) == os.path.realpath(self.admin):
            return
        if os.path.isdir(dot_git):
            raise UserError(
                f"{self.place} is a repository of its own, although {self.repository.path} has it on its list",
                hint=f"move it elsewhere first: mv {self.place} {self.place}.old",
            )
        what = "its .git file leads elsewhere" if os.path.lexists(dot_git) else "its .git file is gone"
        raise EnvironmentFailure(
            f"{self.place} exists, but {what}, so git cannot say what would be lost",
            hint=f"mend it: git -C {self.repository.path} worktree repair {self.place}",
        )


@dataclasses.dataclass(frozen=True)
class Going:
    """What goes together with a worktree.

    :ivar branch: its own branch, or that of the task.
    :ivar branches: all branches of the repository that go, this among them.
    :ivar held: commits that are known to be elsewhere.
    """

    branch: str | None = None
    branches: t.Collection[str] = ()
    held: t.Collection[str] = ()


def look(
    tree: Tree,
    going: Going,
    *,
    disposable: t.Sequence[str],
    members: t.Sequence[str],
    half_made: bool,
) -> Work:
    """What a removal of this worktree would lose.

    :arg members: paths of submodules that are looked at on their own.
    :arg half_made: the worktree was never finished, so files that are missing or empty in it are no one's doing.
    :raises EnvironmentFailure: git cannot tell.
    """
    with contextlib.ExitStack() as stack:
        env = {}
        if half_made:
            # Its index may be missing, so what was checked out would look untracked.
            env["GIT_INDEX_FILE"] = os.path.join(stack.enter_context(_folder()), "index")
            tree.must("read-tree", "HEAD", env=env)
        elif not os.path.exists(os.path.join(tree.admin, "index")):
            raise EnvironmentFailure(
                f"the index of {tree.place} is gone, so git cannot say what would be lost",
                hint=f"make it again: git -C {tree.place} reset",
            )
        status = _Status.of(tree, env)
        flagged, gitlinks = _index_of(tree, env)
    work = Work(head=status.head, under_way=_under_way(tree.admin))
    edited = _edited(tree, flagged)
    _note_other_files(work, tree, status, [path for path in gitlinks if path not in members], members, disposable)
    for path, is_staged in {**dict.fromkeys(edited, False), **status.changed}.items():
        unfinished = half_made and not has_content(os.path.join(tree.folder, path))
        # A submodule whose folder is away was never made, or had nothing in it.
        unfinished |= path in gitlinks and not is_staged and not os.path.lexists(os.path.join(tree.folder, path))
        if not (unfinished or path in work.nested or (path in members and not is_staged) or tree.is_ours(path)):
            work.changed.append(path)
            work.hidden += [path] if path in edited else []
    note_commits(work, tree, status.branch, going)
    return work


def _note_other_files(
    work: Work,
    tree: Tree,
    status: _Status,
    gitlinks: t.Sequence[str],
    members: t.Sequence[str],
    disposable: t.Sequence[str],
) -> None:
    """Note the files that git does not track, and the repositories of their own."""
    for path in gitlinks:
        full = os.path.join(tree.folder, path)
        if os.path.lexists(os.path.join(full, ".git")):
            work.nested += [] if _elsewhere.has_all(full) else [path]
        elif os.path.isdir(full):
            # Git does not look into the folder of a submodule that is not there.
            files, nested = _files_below(tree.folder, path, tree.is_ours, disposable)
            work.untracked += files
            work.nested += nested
    for path in status.untracked:
        if path.endswith("/"):
            if path.rstrip("/") not in members and not _elsewhere.has_all(os.path.join(tree.folder, path)):
                work.nested.append(path.rstrip("/"))
        elif not tree.is_ours(path):
            work.untracked.append(path)
    for path in status.ignored:
        files, nested = _files_below(tree.folder, path.rstrip("/"), tree.is_ours, disposable)
        work.ignored += files
        work.nested += nested


def look_at_leftover(folder: str, disposable: t.Sequence[str]) -> Work:
    """What is in a folder that git does not know as a worktree: all of it counts."""
    dot_git = os.path.join(folder, ".git")
    former = _git.admin_folder(folder)
    if os.path.lexists(dot_git) and (former is None or os.path.exists(former)):
        return Work(nested=["."])
    files, nested = _files_below(folder, "", lambda path: path == ".git", disposable)
    return Work(untracked=files, nested=nested)


@contextlib.contextmanager
def mended(tree: Tree) -> t.Iterator[Tree]:
    """A worktree whose HEAD or index is broken, with a git directory of our own in the place of its own.

    Its HEAD is the commit that the reflog names last, and its index is made of that.
    """
    log = _files.read(os.path.join(tree.admin, "logs", "HEAD")).splitlines()
    named = [_files.read(os.path.join(tree.admin, "HEAD")).strip(), *(line.split()[1] for line in log[-1:])]
    commits = filter(None, (tree.repository.commit(name) for name in named if _elsewhere.is_id(name)))
    head = next(commits, None)
    with _folder() as admin:
        broken = shutil.ignore_patterns("HEAD*", "index*", "modules")
        shutil.copytree(tree.admin, admin, ignore=broken, dirs_exist_ok=True)
        os.symlink(os.path.join(tree.admin, "modules"), os.path.join(admin, "modules"))
        contents = {"HEAD": head or "ref: refs/heads/none", "commondir": tree.repository.common}
        for name, content in contents.items():
            _files.rewrite(os.path.join(admin, name), content + "\n")
        stand_in = dataclasses.replace(tree, admin=admin, manifest=tree.manifest)
        if head:
            stand_in.must("read-tree", head, env={})
        yield stand_in


def _under_way(admin: str) -> str | None:
    return next((word for name, word in UNDER_WAY.items() if os.path.exists(f"{admin}/{name}")), None)


def look_at_commits(tree: Tree, head: str | None, branch: str | None, going: Going) -> Work:
    """What is lost with a worktree whose folder is gone."""
    work = Work(head=head)
    note_commits(work, tree, branch, going)
    return work


def note_commits(work: Work, tree: Tree, branch: str | None, going: Going) -> None:
    """Note the commits that nothing leads to any more when a worktree on this branch is gone."""
    tips: dict[str, str | None] = {}
    # The branch that stays keeps what is on it.
    if work.head and branch in (None, going.branch):
        tips[work.head] = branch
    if going.branch and going.branch != branch:
        tip = tree.repository.branches([going.branch]).get(going.branch)
        tips |= {tip: going.branch} if tip else {}
    tips = {**dict.fromkeys(_elsewhere.own_tips(tree.repository, tree.admin)), **tips}
    if tips:
        work.commits = _elsewhere.unique_commits(tree.repository, tips, but=going.branches, held=going.held)
    work.tips, work.going = (tips, going.branches) if work.commits else ({}, ())
    # The repositories of submodules that were added in the worktree go with it, also where none is checked out.
    known = {_git.git_dir(os.path.join(tree.folder, path)) for path in work.nested}
    own = map(os.path.realpath, _elsewhere.submodules(tree.admin))
    work.nested += [folder for folder in own if folder not in known and not _elsewhere.is_pushed(folder)]


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
    def of(cls, tree: Tree, env: t.Mapping[str, str]) -> _Status:
        # Each of these options keeps a setting of the user's from hiding something. What lies in submodules is looked
        # at on its own.
        all_of_it = ("--untracked-files=all", "--ignored=matching", "--ignore-submodules=dirty", "--no-renames")
        done = tree.git("status", "--porcelain=v2", "-z", "--branch", "--no-ahead-behind", *all_of_it, env=env)
        if not done.ok or "could not open directory" in done.stderr:
            hint = "mend it, then run this again; nothing was removed"
            raise done.failure(f"looking for work in {tree.place}", hint=hint)
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


def _index_of(tree: Tree, env: t.Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Files that git was told not to look at (assume-unchanged, skip-worktree), by path; and paths of submodules."""
    if not env and (plain := _git_files.submodules_in(os.path.join(tree.admin, "index"))) is not None:
        return {}, plain
    text = tree.must("ls-files", "-v", "-z", "--stage", env=env)
    flagged, gitlinks = {}, []
    for entry in filter(None, text.split("\0")):
        about, _tab, path = entry.partition("\t")
        tag, mode, blob, _stage = about.split(" ")
        if mode == "160000":
            gitlinks.append(path)
        elif tag.islower() or tag == "S":
            flagged[path] = blob
    return flagged, list(dict.fromkeys(gitlinks))


def _edited(tree: Tree, flagged: t.Mapping[str, str]) -> list[str]:
    """Of the files that git does not look at, those that are there with another content."""
    there = [path for path in flagged if os.path.lexists(os.path.join(tree.folder, path))]
    plain = [path for path in there if "\n" not in path and not os.path.islink(os.path.join(tree.folder, path))]
    if not plain:
        return there
    names = "".join(path + "\n" for path in plain).encode("utf-8", "surrogateescape")
    blobs = tree.must("hash-object", "--stdin-paths", env={}, stdin=names).split()
    same = {path for path, blob in zip(plain, blobs, strict=True) if flagged[path] == blob}
    return [path for path in there if path not in same]


def has_content(path: str) -> bool:
    """Whether something is there: git makes a file before it fills it, and a folder too."""
    try:
        about = os.lstat(path)
        return bool(os.listdir(path)) if stat.S_ISDIR(about.st_mode) else about.st_size > 0
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EnvironmentFailure(f"cannot look at {path}: {error.strerror}") from error


def _files_below(
    worktree: str, path: str, is_ours: t.Callable[[str], bool], disposable: t.Sequence[str]
) -> tuple[list[str], list[str]]:
    """The files at or below a path that count as work, and the repositories among them that hold something.

    In a folder that is disposable or ours, nothing but a repository counts, and of that not what it ignores.
    """
    files: list[str] = []
    nested: list[str] = []
    pending = [path]
    while pending:
        path = pending.pop()
        full = os.path.join(worktree, path)
        mode = os.lstat(full).st_mode
        if _is_disposable(path, disposable) or is_ours(path):
            if stat.S_ISDIR(mode):
                with _readable(full):
                    within = list(_elsewhere.repositories_below(full))
                losses = (one for one in within if not _elsewhere.has_all(one, ignored=False))
                nested += [os.path.relpath(one, worktree) for one in losses]
            continue
        if stat.S_ISDIR(mode):
            with _readable(full):
                entries = os.listdir(full)
            if path and ".git" in entries:
                nested += [] if _elsewhere.has_all(full) else [path]
            else:
                pending += [os.path.join(path, entry) for entry in sorted(entries, reverse=True)]
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            files.append(path)
    return files, nested


@contextlib.contextmanager
def _readable(folder: str) -> t.Iterator[None]:
    """
    :raises EnvironmentFailure: something at or below a folder cannot be read.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        raise EnvironmentFailure(
            f"cannot look for work in {place}: {error.strerror}", hint=f"make it readable: chmod u+rx {place}"
        ) from error


def _is_disposable(path: str, patterns: t.Iterable[str]) -> bool:
    """Whether a pattern means one of the folders in a path, or the path, from wherever it begins."""
    parts = path.split("/")
    starts = range(len(parts))
    return any(
        fnmatch.fnmatchcase("/".join(parts[start : start + pattern.count("/") + 1]), pattern)
        for pattern in patterns
        for start in starts
    )


# --- saving -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Saved:
    """Work that was saved.

    :ivar ref: a commit as ``git stash`` makes them where there were files.
    :ivar restore: the command that brings it back.
    """

    ref: str
    restore: str


def save(tree: Tree, work: Work, *, name: str) -> list[Saved]:
    """Save the files of a worktree, and commits, under ``refs/worktrees-saved/NAME/TIME``.

    The index and the files of the worktree stay as they are. The caller holds the lock.
    """
    saved: list[Saved] = []
    repository, kept = tree.repository, []
    add = ("git", "-C", repository.path, "worktree", "add", "--detach", tree.place)
    if work.files:
        kept.append(_snapshot(tree, work, name))
        ref = keep(repository, kept[0], name)
        back = shlex.join(("git", "-C", tree.place, "stash", "apply", "--index", ref))
        saved.append(Saved(ref, f"{shlex.join((*add, ref + '^1'))} && {back}"))
    for tip, branch in sorted(work.tips.items(), key=lambda pair: pair[0] != work.head):
        if _elsewhere.unique_commits(repository, [tip], but=work.going, held=kept):
            kept.append(tip)
            ref = keep(repository, tip, name)
            back_to = ("git", "-C", repository.path, "branch", branch or f"{name}-{tip[:7]}", ref)
            again = (*add, ref) if tip == work.head else back_to
            saved.append(Saved(ref, shlex.join(again)))
    return saved


def keep(repository: Repository, commit: str, name: str) -> str:
    """Point a ref of our own at a commit."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    ref, number = f"{_elsewhere.SAVED}/{name}/{stamp}", 1
    while repository.commit(ref):
        number += 1
        ref = f"{_elsewhere.SAVED}/{name}/{stamp}-{number}"
    repository.must("update-ref", ref, commit, "", doing=f"saving work as {ref}")
    return ref


def _snapshot(tree: Tree, work: Work, name: str) -> str:
    """A commit in the shape of ``git stash push --all``: on HEAD, one for the index, one for untracked files."""
    doing = f"saving the work in {tree.place}"
    message = f"work of {name}, saved before its worktree was removed"

    def git(*arguments: str, index: str, stdin: bytes | None = None, **env: str) -> str:
        # The repository itself, as the folder may be no worktree, with an index of its own.
        env = {**_AUTHOR, "GIT_INDEX_FILE": index, "GIT_WORK_TREE": tree.folder, **env}
        return tree.repository.must(*_AS_IT_IS, *arguments, doing=doing, env=env, stdin=stdin).strip()

    def commit(content: str, *parents: str) -> str:
        onto = [word for parent in parents for word in ("-p", parent)]
        return git("commit-tree", content, *onto, "-m", message, index=os.devnull)

    def write(index: str, paths: t.Iterable[str]) -> str:
        found: dict[bool, list[str]] = {False: [], True: []}
        for path in paths:
            found[_can_be_added(tree.folder, path)].append(path)
        for option, some in (("--force-remove", found[False]), ("--add", found[True])):
            listed = "".join(path + "\0" for path in some).encode("utf-8", "surrogateescape")
            git("update-index", option, "--remove", "-z", "--stdin", index=index, stdin=listed)
        return git("write-tree", index=index)

    with _folder() as folder:
        staged, found, others = (os.path.join(folder, index) for index in ("staged", "found", "others"))
        base = work.head or commit(write(others, []))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            shutil.copyfile(os.path.join(tree.admin, "index"), staged)
        try:
            # In its own git directory lies what a split index shares.
            index_tree = (
                git("write-tree", index=staged, GIT_DIR=tree.admin) if os.path.exists(staged) else f"{base}^{{tree}}"
            )
        except EnvironmentFailure:
            index_tree = f"{base}^{{tree}}"  # a conflict is under way, or the index is broken
        git("read-tree", index_tree, index=found)
        aside = [*work.untracked, *work.ignored]
        found_tree = write(found, (path for path in work.changed if path not in aside))
        return commit(found_tree, base, commit(index_tree, base), commit(write(others, aside)))


def _can_be_added(folder: str, path: str) -> bool:
    """Whether git takes what is at a path: no special file, nothing behind a link in the place of a folder."""
    full = os.path.join(folder, path)
    if any(os.path.islink(os.path.join(folder, part)) for part in pathlib.PurePath(path).parents):
        return False
    return os.path.islink(full) or os.path.isfile(full) or os.path.lexists(os.path.join(full, ".git"))


def _folder() -> tempfile.TemporaryDirectory[str]:
    """For an index of our own: git looks for a place beside it to write the next one."""
    return tempfile.TemporaryDirectory(prefix="parallel-worktrees-")
