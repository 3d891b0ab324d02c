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
import re
import typing as t

from . import _commands, _files, _git_files, _trash
from ._commands import Completed
from ._errors import EnvironmentFailure, UserError
from ._git_files import read as _read

_ENVIRONMENT: dict[str, str | None] = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # What a repository that is made here would be like.
    "GIT_TEMPLATE_DIR": None,
    "GIT_DEFAULT_REF_FORMAT": None,
    "GIT_DEFAULT_HASH": None,
    # What is made here is made now; git ends at a date that it cannot read.
    "GIT_AUTHOR_DATE": None,
    "GIT_COMMITTER_DATE": None,
}

_ENGLISH: dict[str, str | None] = {"LC_ALL": "C.UTF-8", "LANGUAGE": None}
"""Git's words are read here, and what it runs (filters, credential helpers) does not take text for ASCII."""

_SETTINGS = {
    # A file system monitor is a program too, and one that is wrong would hide work.
    "core.fsmonitor": "false",
    "submodule.recurse": "false",
    "clone.defaultRemoteName": "origin",
    "init.templateDir": "",
    "init.defaultRefFormat": "files",
    "fetch.prune": "false",
    "fetch.pruneTags": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.writeCommitGraph": "false",
    "push.followTags": "false",
    "push.recurseSubmodules": "no",
    "branch.autoSetupMerge": "false",
    "merge.autoStash": "false",
    "commit.cleanup": "whitespace",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
    "color.ui": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
"""What users set for their own commands and what would change what is made here: it is the same for all of them.

Not here: what says how files look in a tree (core.autocrlf, core.eol, filters), as a worktree is to be like the main
tree; who makes commits, and whether they are signed; and how remotes are reached."""

_FOR_ALL = tuple(word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}"))
_MISSING = re.compile(
    r"^(?:.*: )?(?P<program>[^\s:]+): (?:command )?not found$"
    r"|cannot run (?P<ran>[^\s:]+): No such file"
    r"|git: '(?P<verb>[^\s']+)' is not a git command",
    re.MULTILINE,
)

THREADS = 2
"""Repositories that are worked on at a time: more gain nothing, as most of it is git's own work on the same disk."""

MAKING = "parallel.worktrees is making it"
"""Git's lock reason on a worktree of ours that is not finished: written by git before anything else of it."""


def git(
    folder: str,
    *arguments: str,
    env: t.Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    keep: t.Sequence[int] = (),
    hooks: bool = False,
) -> Completed:
    """Run git in a folder, whatever its answer.

    :arg hooks: let the repository's hooks run. Without, a stranger's branch cannot run its commands here, and no
        background process of a hook inherits a lock of ours.
    """
    options = (*_FOR_ALL, *(() if hooks else ("-c", "core.hooksPath=/dev/null")))
    done = _commands.run(
        ("git", "-C", folder, *options, *arguments),
        env={**_ENVIRONMENT, **({} if hooks else _ENGLISH), **(env or {})},
        for_task=hooks,
        stdin=stdin,
        keep=keep,
        apart=bool(keep),  # killed in the middle, git leaves locks of its own that stop every git after it
    )
    # What is told of it is what a person would type.
    return dataclasses.replace(done, argv=("git", "-C", folder, *arguments))


def must(folder: str, *arguments: str, doing: str, hint: str | None = None, **options: t.Any) -> str:
    """Run git where it has to succeed and return what it printed.

    :raises EnvironmentFailure: with the command and its last words.
    """
    done = git(folder, *arguments, **options)
    if not done.ok:
        raise done.failure(doing, hint=_program_hint(done) or hint)
    return done.stdout


def _program_hint(done: Completed) -> str | None:
    """What helps where git ended since a program that it runs is missing, such as a filter."""
    found = _MISSING.search(done.stderr)
    if found is None:
        return None
    program = found["program"] or found["ran"] or f"git-{found['verb']}"
    return (
        f"git runs {program} here, which is not on this machine (.gitattributes, git config --get-regexp ^filter): "
        f"install it, such as by apt install {program}, then run this again"
    )


@dataclasses.dataclass(frozen=True)
class Listed:
    """A worktree as git lists it.

    :ivar head: None where there is no commit yet.
    :ivar branch: without ``refs/heads/``; None where HEAD is detached.
    :ivar lock: the reason of its lock, which may be empty; None where it is not locked.
    :ivar gone: git finds no worktree at its path any more.
    """

    path: str
    head: str | None
    branch: str | None
    lock: str | None
    gone: bool


@dataclasses.dataclass
class Repository:
    """A repository with a working tree.

    :ivar path: its main working tree, as the user named it.
    :ivar common: its common git directory (gitrepository-layout(5)), absolute and without symbolic links.
    :ivar fault: why git, started in the main working tree, does not work on it.
    """

    path: str
    common: str
    fault: str | None = None
    _lock: int | None = None
    _bases: dict[str, str | None] = dataclasses.field(default_factory=dict)

    @classmethod
    def at(cls, path: str, name: str | None = None) -> Repository:
        """The repository whose working tree is this folder: a folder with ``.git`` is one, whatever its settings say.

        :raises UserError: there is none, or it is bare, or the folder lies inside of one.
        """
        if plain := _git_files.common_of(path):
            return cls(path, plain)
        what = f"repository {name}" if name else "repository"
        hint = f"correct its path in worktrees_repos, or clone it there: git clone URL {path}"
        if not os.path.isdir(path):
            raise UserError(f"{what}: there is no folder {path}", hint=hint)
        # The common directory comes last, as its name may have more than one line.
        questions = ("--is-bare-repository", "--is-inside-work-tree", "--show-cdup", "--git-common-dir")
        asked = git(path, "rev-parse", *questions)
        if "dubious ownership" in asked.stderr:
            raise asked.failure(what, hint=f"git config --global --add safe.directory {path}")
        if not (asked.ok and asked.stdout.startswith("false\ntrue\n\n")) and (named := cls._named(path, asked)):
            return named
        if not asked.ok:
            raise UserError(f"{what}: {path} is not a git repository", hint=hint)
        bare, has_tree, *rest = asked.stdout.split("\n", 3)
        if bare == "true" or has_tree != "true":
            raise UserError(
                f"{what}: {path} is a bare repository, which has no files to link or copy from",
                hint=f"clone it and name the clone: git clone {path} FOLDER",
            )
        up, common = rest
        if up:
            top = os.path.normpath(os.path.join(os.path.realpath(path), up))
            raise UserError(f"{what}: {path} is a folder inside the repository {top}, not a repository", hint=hint)
        return cls(path, os.path.realpath(os.path.join(path, common.removesuffix("\n"))))

    @classmethod
    def _named(cls, path: str, asked: Completed) -> Repository | None:
        """The repository whose ``.git`` lies in a folder, where its settings lead git elsewhere."""
        dot_git = os.path.join(path, ".git")
        if not os.path.lexists(dot_git):
            return None
        found = git(path, "rev-parse", "--git-common-dir", env={"GIT_DIR": dot_git, "GIT_WORK_TREE": path})
        if not found.ok:
            return None
        common = os.path.realpath(os.path.join(path, found.stdout.removesuffix("\n")))
        setting = "core.bare is true" if asked.stdout.startswith("true\n") else "core.worktree leads elsewhere"
        return cls(path, common, asked.stderr.strip() or setting)

    @classmethod
    def of_admin(cls, admin: str) -> Repository:
        """The repository that a linked worktree's private folder lies in."""
        common = os.path.dirname(os.path.dirname(os.path.realpath(admin)))
        return cls(common, common)

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        """Hold the one lock of this repository: all of ours do that write or list its worktrees.

        It lies on the common git directory itself, so it needs no file and serves every user and state folder. The
        commands that run meanwhile keep it, so that it outlives us with them.
        """
        with _files.locked(self.common) as handle:
            self._lock = handle
            try:
                yield
            finally:
                self._lock = None

    @property
    def kept(self) -> tuple[int, ...]:
        """The lock while it is held, for a command that is to keep it, and to come to its end where we are killed."""
        return () if self._lock is None else (self._lock,)

    def git(self, *arguments: str, worktree: str | None = None, **options: t.Any) -> Completed:
        """Run git on this repository, or on one of its worktrees, and never on another that lies around it.

        Where hooks run in a worktree, git finds it by the folder, as for a person: hooks would inherit what is set. The
        caller has seen that git works on this worktree there.
        """
        options.setdefault("keep", self.kept)
        place = {"GIT_DIR": self.common}
        if worktree is not None and options.get("hooks"):
            place = {}
        elif worktree is not None:
            place = {"GIT_DIR": self.admin_in(worktree), "GIT_WORK_TREE": worktree}
        options["env"] = {**place, **options.get("env", {})}
        return git(worktree or self.common, *arguments, **options)

    def must(self, *arguments: str, doing: str, hint: str | None = None, **options: t.Any) -> str:
        """The same where it has to succeed; returns what git printed."""
        done = self.git(*arguments, **options)
        if not done.ok:
            raise done.failure(doing, hint=_program_hint(done) or hint)
        return done.stdout

    def worktrees(self) -> list[Listed]:
        """Its worktrees, the main one first."""
        if (plain := self._read_worktrees()) is not None:
            return plain
        listed = self.git("worktree", "list", "--porcelain", "-z")
        if listed.ok:
            found = [_listed(self.common, block.split("\0")) for block in listed.stdout.split("\0\0") if block]
            return [self._main(found[0]), *found[1:]]
        if listed.code == 129:
            raise listed.failure("git is too old", hint="install git 2.36 or later")
        unfinished = next((admin for admin in self.admins() if not _is_complete(admin)), None)
        ours = unfinished is not None and _is_begun_by_us(unfinished)
        hint = f"if no git is at work there, remove what a killed one left: rm -r {unfinished}" if unfinished else None
        raise listed.failure(
            f"listing the worktrees of {self.path}",
            hint="a killed run left this; run the same command without --check, it then goes on" if ours else hint,
        )

    def _read_worktrees(self) -> list[Listed] | None:
        """The same without git; None where that is not sure."""
        admins = self.admins()
        heads = [_git_files.head(admin) for admin in (self.common, *admins)]
        branches = [f"refs/heads/{head.branch}" for head in heads if head and head.branch]
        tips = _git_files.refs(self.common, branches)
        if tips is None or _git_files.is_bare(self.common) is not False or not all(map(_is_complete, admins)):
            return None
        found: list[Listed] = []
        for admin, head in zip((self.common, *admins), heads, strict=True):
            if head is None:
                return None
            place = _read(os.path.join(admin, "gitdir")) if found else self.common
            path = os.path.normpath(os.path.join(admin, str(place).removesuffix("/.git")))
            lock = _read(os.path.join(admin, "locked"))
            found.append(
                Listed(
                    path=path,
                    head=head.commit or tips.get(f"refs/heads/{head.branch}"),
                    branch=head.branch,
                    lock=None if lock is None else lock.strip(),
                    gone=not os.path.lexists(os.path.join(path, ".git")),
                )
            )
        return [self._main(found[0]), *sorted(found[1:], key=lambda one: one.path)]

    def _main(self, listed: Listed) -> Listed:
        """The main worktree where it is, first of all where the user says.

        Git takes it for the folder that its git directory lies in, which that of a submodule does not, nor one that was
        made with ``--separate-git-dir``, nor one that a symbolic link leads to.
        """
        if git_dir(self.path) == self.common:
            return dataclasses.replace(listed, path=self.path, gone=False)
        if not listed.gone:
            return listed
        top = self.git("rev-parse", "--show-toplevel").stdout.removesuffix("\n")
        there = bool(top) and os.path.lexists(os.path.join(top, ".git"))
        return dataclasses.replace(listed, path=top, gone=False) if there else listed

    def gitlink(self, commit: str, path: str) -> str | None:
        """The commit of a submodule that a commit names; None where there is no submodule at the path."""
        text = self.must("ls-tree", "-z", commit, "--", path, doing=f"reading submodule {path} of {self.path}")
        return text.split()[2] if text.startswith("160000 ") else None

    def commit(self, revision: str) -> str | None:
        """The commit that a revision names, or None where it names none."""
        found = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}")
        return found.stdout.strip() if found.ok else None

    def last_commit(self, commit: str) -> str:
        """A commit for people: its short name, its subject and its day."""
        doing = f"reading commit {commit} of {self.path}"
        return self.must("log", "-1", "--date=short", "--format=%h %s (%cd)", commit, "--", doing=doing).strip()

    def branches(self, names: t.Iterable[str]) -> dict[str, str]:
        """Of these branches, those that exist, and all that are in their way (a and a/b), each with its commit."""
        prefixes = {"/".join(name.split("/")[: number + 1]) for name in names for number in range(name.count("/") + 1)}
        refs = [f"refs/heads/{prefix}" for prefix in sorted(prefixes)]
        found = _git_files.refs(self.common, refs)
        if found is None:
            doing = f"reading the branches of {self.path}"
            text = self.must("for-each-ref", "--format=%(refname) %(objectname)", *refs, doing=doing)
            found = dict(line.split(" ", 1) for line in text.splitlines())
        return {ref.removeprefix("refs/heads/"): commit for ref, commit in found.items()}

    def base_commit(self, base: str, *, name: str, check: bool) -> str | None:
        """The commit that new branches start from; fetched where only the remote has it.

        :arg base: a branch, tag or commit. ``origin/BRANCH`` is that branch as the remote has it now.
        :arg check: fetch nothing; the commit is then None where a fetch would bring it.
        :raises UserError: nobody has it.
        :raises EnvironmentFailure: the remote cannot be asked.
        """
        if base not in self._bases:
            self._bases[base] = self._base_commit(base, name=name, check=check)
        return self._bases[base]

    def _base_commit(self, base: str, *, name: str, check: bool) -> str | None:
        branch = base.removeprefix("origin/")
        if check or branch == base:
            for revision in (f"refs/heads/{base}", f"refs/remotes/origin/{branch}", base):
                found = self.commit(revision)
                if found:
                    return found
        missing = f"repository {name}: {self.path} has no branch, tag or commit {base}"
        see = f"see what there is: git -C {self.path} branch --all"
        if not self.git("config", "--get", "remote.origin.url").ok:
            raise UserError(missing, hint=see)
        if check:
            done = self.git("ls-remote", "--exit-code", "--heads", "origin", f"refs/heads/{branch}")
            absent = done.code == 2
        else:
            done = self.fetch(f"+refs/heads/{branch}:refs/remotes/origin/{branch}")
            absent = "find remote ref" in done.stderr
        if absent:
            raise UserError(f"{missing}, and neither has its origin", hint=see)
        if not done.ok:
            raise done.failure(
                f"repository {name}: asking origin for {branch}",
                hint=f"to start from what was fetched last, set base: refs/remotes/origin/{branch}",
            )
        return None if check else self.commit(f"refs/remotes/origin/{branch}")

    def fetch(self, *refspecs: str, remote: str = "origin") -> Completed:
        """Fetch. The lock is not kept by it: a credential helper that stays would hold it on."""
        # Of the remote's own settings, these two would do more than what is asked.
        quietly = ("--quiet", "--no-tags", "--no-prune")
        return self.git("fetch", *quietly, remote, *refspecs, keep=())

    def obtain(self, commit: str) -> Completed | None:
        """See to it that a commit is here; where nobody has it, returns what git said last."""
        done = None
        for refspecs in ((commit,), ()):
            if self._has(commit):
                return None
            done = self.fetch(*refspecs)
        return None if self._has(commit) else done

    def _has(self, commit: str) -> bool:
        """Whether a commit is here, as that of a worktree is."""
        return any(one.head == commit for one in self._read_worktrees() or ()) or self.commit(commit) is not None

    def admins(self) -> list[str]:
        """The folders in which git keeps what is private to each linked worktree."""
        folder = os.path.join(self.common, "worktrees")
        if not os.path.isdir(folder):
            return []
        return sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())

    def admin_of(self, path: str) -> str | None:
        """The private folder of the worktree registered at a path, which may be gone."""
        wanted = os.path.join(os.path.realpath(path), ".git")
        for admin in self.admins():
            named = _read(os.path.join(admin, "gitdir"))
            if named and os.path.normpath(os.path.join(admin, named)) == wanted:
                return admin
        return None

    def admin_in(self, worktree: str) -> str:
        """The private folder that a worktree's own ``.git`` file names.

        :raises EnvironmentFailure: it names none of this repository.
        """
        admin = admin_folder(worktree)
        if admin is None or os.path.dirname(os.path.realpath(admin)) != os.path.join(self.common, "worktrees"):
            raise EnvironmentFailure(
                f"{worktree} is not a worktree of {self.path}, although git has it on its list",
                hint=f"look at {worktree}/.git; git worktree repair mends one that was moved",
            )
        return admin

    def sweep_unfinished(self, path: str) -> None:
        """Take away what a killed run of ours left of a worktree at a path before git could use it.

        One of these can make every later ``git worktree list`` fail. The caller holds the lock.
        """
        # The id that git takes: the folder's name, with a number where that is taken.
        ours = re.compile(re.escape(re.sub(r"[^A-Za-z0-9]", "-", os.path.basename(path))) + r"[0-9]*")
        for admin in self.admins():
            name = re.sub(r"[^A-Za-z0-9]", "-", os.path.basename(admin))
            if ours.fullmatch(name) and not _is_complete(admin) and _is_begun_by_us(admin):
                dot_git = os.path.join(path, ".git")
                if os.path.isfile(dot_git) and admin_folder(path) in (None, admin):
                    os.unlink(dot_git)
                self.throw_away(admin)

    def throw_away(self, path: str) -> str:
        """Move a file or folder out of sight in one step, to be deleted later; returns its new place."""
        return _trash.throw_away(self.common, path)


def nobody_has(submodule: str, commit: str, done: Completed) -> EnvironmentFailure:
    """The failure where a commit of a submodule cannot be obtained."""
    reason = "" if done.ok else f": {_commands.last_words(done.stderr)}"
    return EnvironmentFailure(
        f"submodule {submodule}: nobody has its commit {commit}{reason}",
        hint="push it from where it was made: git push origin HEAD",
    )


def _listed(common: str, lines: list[str]) -> Listed:
    fields = dict(line.partition(" ")[::2] for line in lines if line)
    # A git before 2.48 tells a path that a later one wrote as relative (worktree.useRelativePaths) as it stands there.
    path = os.path.normpath(os.path.join(common, "worktrees", "any", fields["worktree"]))
    branch = fields.get("branch")
    head = fields.get("HEAD", "")
    return Listed(
        path=path,
        head=head if head.strip("0") else None,
        branch=None if branch is None else branch.removeprefix("refs/heads/"),
        lock=fields.get("locked"),
        gone=not os.path.lexists(os.path.join(path, ".git")),
    )


def _is_complete(admin: str) -> bool:
    """Whether git got so far with a worktree that it can be used."""
    head, common, place = (_read(os.path.join(admin, part)) for part in ("HEAD", "commondir", "gitdir"))
    return bool(head and head.strip("0") and common and place)


def _is_begun_by_us(admin: str) -> bool:
    """Whether an incomplete worktree is ours: git writes the reason first, and may have been killed doing it."""
    reason = _read(os.path.join(admin, "locked")) or ""
    return reason == MAKING or (set(os.listdir(admin)) <= {"locked"} and MAKING.startswith(reason))


def admin_folder(worktree: str) -> str | None:
    """The git directory that a linked worktree's ``.git`` file names; None where the folder is no linked worktree."""
    text = _read(os.path.join(worktree, ".git"))
    if text is None or not text.startswith("gitdir: "):
        return None
    return os.path.normpath(os.path.join(worktree, text.removeprefix("gitdir: ")))


def git_dir(worktree: str) -> str | None:
    """The git directory that ``.git`` of a worktree is or leads to, without symbolic links."""
    place = os.path.join(worktree, ".git")
    found = place if os.path.isdir(place) else admin_folder(worktree)
    return None if found is None else os.path.realpath(found)


def linked_admin(worktree: str) -> str | None:
    """The same; None as well where it is a whole repository's, such as that of a submodule."""
    admin = admin_folder(worktree)
    return admin if admin and os.path.isfile(os.path.join(admin, "commondir")) else None


def submodule_trees(worktree: str) -> list[str]:
    """The submodules of a worktree that are linked worktrees themselves."""
    doing = f"looking for the submodules of {worktree}"
    env = {"GIT_DIR": str(admin_folder(worktree)), "GIT_WORK_TREE": worktree}
    listed = must(worktree, "ls-files", "-z", "--stage", doing=doing, env=env).split("\0")
    places = (os.path.join(worktree, one.partition("\t")[2]) for one in listed if one.startswith("160000 "))
    return [place for place in places if linked_admin(place)]


def is_attached(worktree: str) -> bool:
    """Whether a worktree is at a branch."""
    return git(worktree, "symbolic-ref", "--quiet", "HEAD").ok


def enclosing_worktree(path: str) -> str | None:
    """The innermost worktree that a path lies in."""
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(os.path.join(folder, ".git")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder
