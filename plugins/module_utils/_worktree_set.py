# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of a worktree set, and what they have in common when they are made and removed.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import shlex
import typing as t

from . import (
    _aside,
    _branch_marks,
    _exclude,
    _files,
    _git,
    _whereabouts,
    _work,
)
from ._door import Params
from ._errors import EnvironmentFailure, PartialFailure, UserError, WorktreesError
from ._git import Listed, Repository
from ._identity import check_branch
from ._lone_branches import LoneBranch
from ._manifest import Manifest
from ._registry import task_of

T = t.TypeVar("T")


@dataclasses.dataclass
class Member:
    """One worktree of the set: of a repository, or of a submodule within another member.

    :ivar path: absolute.
    :ivar branch: the one asked for, or the one that is checked out where the worktree stands.
    :ivar inside: the member whose worktree this submodule lies in.
    :ivar adopt: another tool made it, and keeps it.
    :ivar former: where it was made, if a person moved it.
    :ivar stuck: what stays in the trash, as this user cannot remove it.
    """

    name: str
    repository: Repository
    path: str
    branch: str
    base: str | None = None
    existing_branch: str = "use"
    inside: Member | None = None
    adopt: bool = False
    switched: bool = False
    former: str | None = None
    stuck: list[str] = dataclasses.field(default_factory=list)
    submodules: list[Member] = dataclasses.field(default_factory=list)

    @property
    def everyone(self) -> list[Member]:
        return [self, *self.submodules]

    @property
    def within(self) -> str:
        """The path of a submodule, relative to the worktree that it lies in."""
        return os.path.relpath(self.path, self.inside.path) if self.inside else ""

    def move_to(self, path: str) -> None:
        """Follow a worktree that was moved, with its submodules."""
        places = [(submodule, submodule.within) for submodule in self.submodules]
        self.former, self.path = self.path, path
        for submodule, within in places:
            submodule.path = os.path.normpath(os.path.join(path, within))

    @property
    def made_at(self) -> str:
        return self.former or self.path

    def below(self, top: str) -> str:
        """The folder where that of the whole worktree lies elsewhere."""
        return os.path.normpath(os.path.join(top, self.within))

    @property
    def folder(self) -> str:
        """Where the folder is: at its path, or where a killed removal left it."""
        return self.below(_aside.folder_of((self.inside or self).path))

    @property
    def manifest(self) -> Manifest | None:
        """The mark in the worktree's git directory, which is there even where the folder is gone."""
        admin = self.repository.admin_of(self.path)
        return Manifest.in_admin(self.path, admin) if admin else None

    @property
    def exclusion(self) -> str | None:
        """What keeps a worktree's folder of ours out of the repository that it lies in."""
        if self.adopt:
            return None
        inside = os.path.relpath(os.path.realpath(self.made_at), os.path.realpath(self.repository.path))
        return None if self.inside or inside.split("/", maxsplit=1)[0] == ".." else _exclude.pattern_of(inside) + "/"


@dataclasses.dataclass
class View:
    """What a repository has, read once for all of its members while its lock is held.

    :ivar made: the branches that were made for the task.
    :ivar known: the real paths at which the members are expected.
    """

    listed: list[Listed]
    branches: dict[str, str]
    made: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()

    def standing(self, path: str) -> Listed | None:
        """The worktree registered at a path."""
        real = os.path.realpath(path)
        return next((one for one in self.listed if os.path.realpath(one.path) == real), None)


def members_of(params: Params, errors: list[WorktreesError]) -> list[Member | LoneBranch]:
    """The set that is asked for; what cannot be a member goes to the errors."""
    absent = params["state"] == "absent"
    wanted = []
    for given in params["worktrees"]:
        with collected(errors):
            if not (absent and _is_away(given, params)):
                wanted.append(given)
    names = {given["repo"]: given["name"] for given in reversed(wanted)}
    outcomes = in_turn(lambda path: Repository.at(path, names[path]), list(names), str)
    opened = dict(zip(names, outcomes, strict=True))
    errors += [outcome for outcome in opened.values() if isinstance(outcome, WorktreesError)]
    # One object a repository, as it carries the lock.
    repositories: dict[str, Repository] = {}
    members: list[Member | LoneBranch] = []
    for given in wanted:
        repository = opened[given["repo"]]
        if isinstance(repository, Repository):
            with collected(errors):
                if not absent:
                    _refuse_fault(repository, given["name"])
                repository = repositories.setdefault(repository.common, repository)
                check_branch(given["branch"])
                if given["checkout"]:
                    members.append(_member(given, repository, repositories, absent=absent))
                else:
                    more = (given["base"], given["existing_branch"])
                    members.append(LoneBranch(given["name"], repository, given["branch"], *more))
    return members


def kinds(members: t.Sequence[Member | LoneBranch]) -> tuple[list[Member], list[LoneBranch]]:
    """Those with a worktree, and those without."""
    return (
        [member for member in members if isinstance(member, Member)],
        [member for member in members if isinstance(member, LoneBranch)],
    )


def _refuse_fault(repository: Repository, name: str) -> None:
    """Refuse a main tree in which plain git would fail or work elsewhere, as it is asked for files there."""
    if repository.fault:
        raise UserError(
            f"repository {name}: git does not work in the main tree {repository.path}: {repository.fault}",
            hint=f"correct core.bare and core.worktree in {os.path.join(repository.common, 'config')}",
        )


def _is_away(given: Params, params: Params) -> bool:
    """Whether the whole repository of a member is gone, and not only renamed."""
    if os.path.isdir(given["repo"]) or (given["checkout"] and os.path.lexists(_place(given))):
        return False
    others = [one["repo"] for one in params["worktrees"]]
    _whereabouts.refuse_renamed(given["name"], given["repo"], params["owner"], others)
    return True


def _place(given: Params) -> str:
    return os.path.normpath(os.path.join(os.path.abspath(str(given["repo"])), given["path"]))


def _member(given: Params, repository: Repository, repositories: dict[str, Repository], *, absent: bool) -> Member:
    path = _place(given)
    if not absent:
        refuse_escape(repository, path)
    member = Member(
        given["name"],
        repository,
        path,
        given["branch"],
        given["base"],
        given["existing_branch"],
        adopt=given["adopt"],
    )
    for submodule in given["submodules"]:
        try:
            member.submodules.append(_submodule(member, submodule, repositories))
        except UserError:
            if not absent:
                raise
    return member


def _without_link(path: str) -> str:
    """What helps where a symbolic link lies in the place of a worktree: it may lead to the worktree itself, moved."""
    link, target = shlex.quote(path), os.path.realpath(path)
    gitdir = _files.read(os.path.join(_git.linked_admin(path) or target, "gitdir")).strip()
    if gitdir == os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path), ".git"):
        return f"put the worktree back in its place: rm {link} && mv {shlex.quote(target)} {link}"
    return f"remove the link, then run this again: rm {link}"


def refuse_escape(repository: Repository, path: str) -> None:
    """Refuse a place that a symbolic link leads elsewhere."""
    if path == os.path.abspath(repository.path):
        raise UserError(f"the worktree folder {path} is the repository itself", hint="name a folder: .worktrees/NAME")
    if os.path.islink(path):
        raise UserError(
            f"the worktree folder {path} is a symbolic link to {os.readlink(path)}",
            hint=_without_link(path),
        )
    ancestor = os.path.dirname(path)
    while not os.path.lexists(ancestor):
        ancestor = os.path.dirname(ancestor)
    real, top = os.path.realpath(ancestor), os.path.realpath(repository.path)
    if not os.path.isdir(real):
        raise UserError(f"the worktree folder {path} cannot be made: {ancestor} is not a folder")
    named_inside = os.path.commonpath([os.path.abspath(repository.path), path]) == os.path.abspath(repository.path)
    if named_inside and os.path.commonpath([top, real]) != top:
        raise UserError(
            f"the worktree folder {path} leads out of {repository.path}: {ancestor} is really {real}",
            hint="remove the symbolic link, or name the real place in worktrees_repos (folder)",
        )


def _submodule(parent: Member, path: str, repositories: dict[str, Repository]) -> Member:
    """The member for a submodule: a worktree of the very repository that the main tree's submodule has."""
    main = parent.repository
    name = f"{parent.name}/{path}"
    place = os.path.join(main.path, path)
    if os.path.lexists(os.path.join(place, ".git")):
        repository = Repository.at(place, name)
    else:
        # The main tree has not initialised it; git keeps, or will keep, its repository here all the same.
        modules = os.path.join(main.common, "modules")
        common = os.path.normpath(os.path.join(modules, _submodule_name(main, path, name)))
        if os.path.commonpath([modules, common]) != modules or common == modules:
            raise UserError(f"repository {name}: the submodule's name in .gitmodules leads out of {modules}")
        repository = Repository(place, common)
    repository = repositories.setdefault(repository.common, repository)
    return Member(name, repository, os.path.normpath(os.path.join(parent.path, path)), parent.branch, inside=parent)


def _submodule_name(main: Repository, path: str, name: str) -> str:
    listed = _git.git(main.path, "config", "--file", ".gitmodules", "-z", "--get-regexp", r"^submodule\..*\.path$")
    for entry in listed.stdout.split("\0"):
        key, _newline, value = entry.partition("\n")
        if value == os.path.normpath(path):
            return key.removeprefix("submodule.").removesuffix(".path")
    raise UserError(
        f"repository {name}: {main.path} has no submodule {path}", hint=f"see them: git -C {main.path} submodule status"
    )


def hold(held: contextlib.ExitStack, members: t.Iterable[Member | LoneBranch]) -> None:
    """Take the locks of all repositories of the set, in the one order that everybody takes them in."""
    repositories = {one.repository.common: one.repository for member in members for one in member.everyone}
    for common in sorted(repositories):
        # That of a submodule which is not there yet comes with the repository that will hold it.
        if os.path.isdir(common):
            held.enter_context(repositories[common].locked())


def survey(
    members: t.Sequence[Member],
    look: t.Callable[[Member, View], T],
    views: dict[str, View],
    errors: list[WorktreesError],
    owner: str,
    *,
    check: bool,
) -> dict[int, T]:
    """Look at each member; by its id, as what went wrong goes to the errors."""

    def one(member: Member) -> T:
        repository = member.repository
        if repository.common not in views:
            views[repository.common] = _view(repository, members, owner, check=check)
        return look(member, views[repository.common])

    outcomes = in_turn(one, members, lambda member: member.repository.common)
    found = {}
    for member, outcome in zip(members, outcomes, strict=True):
        if isinstance(outcome, WorktreesError):
            errors.append(outcome)
        else:
            found[id(member)] = outcome
    return found


def _view(repository: Repository, members: t.Iterable[Member], owner: str, *, check: bool) -> View:
    if not os.path.isdir(repository.common):
        return View([], {})
    ours = [member for member in members if member.repository is repository]
    if not check:
        for member in ours:
            repository.sweep_unfinished(member.path)
            _aside.put_back(member.path)
    listed = repository.worktrees()
    branches = {one.branch for one in listed if one.branch} | {member.branch for member in ours}
    made = frozenset(branch for branch in branches if _branch_marks.is_made_for(repository, branch, owner))
    known = frozenset(os.path.realpath(member.path) for member in ours)
    return View(listed, repository.branches(member.branch for member in ours), made, known)


def diff(before: t.Iterable[Member | LoneBranch], after: t.Iterable[Member | LoneBranch]) -> list[dict[str, str]]:
    texts = ["".join(f"{one.path} ({one.branch})\n" for one in members) for members in (before, after)]
    header = {"before_header": "worktrees", "after_header": "worktrees"}
    return [{**header, "before": texts[0], "after": texts[1]}] if texts[0] != texts[1] else []


def is_locked(member: Member, reason: str) -> UserError:
    return UserError(
        f"repository {member.name}: the worktree {member.path} is locked ({reason or 'no reason given'})",
        hint=f"git -C {member.repository.path} worktree unlock {member.path}",
    )


def break_locks(member: Member) -> None:
    """Remove git's own locks that a killed run left. That of the repository is ours, so no git of ours is at work."""
    admin = member.repository.admin_of(member.path)
    for left in (f"{admin}/index", f"{admin}/HEAD", f"{member.repository.common}/refs/heads/{member.branch}"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(left + ".lock")


def forget(member: Member) -> None:
    """Let git forget a worktree whose folder is away: in one step, so that none is ever half-known to git."""
    admin = member.repository.admin_of(member.path)
    if admin:
        member.repository.throw_away(admin)


def save(member: Member, tree: _work.Tree, work: _work.Work, owner: str) -> list[dict[str, str]]:
    saved = _work.save(tree, work, name=task_in(owner))
    return [{"name": member.name, **dataclasses.asdict(one)} for one in saved]


def task_in(owner: str) -> str:
    """The task in a mark of ownership such as ``bautista/fix-login@5f3a09c1``, or the mark as it is."""
    return task_of(owner)[2] or owner


@contextlib.contextmanager
def collected(errors: list[WorktreesError]) -> t.Iterator[None]:
    """Go on after an expected error, which is told with the others."""
    try:
        yield
    except WorktreesError as error:
        errors.append(error)


def raise_all(errors: t.Sequence[WorktreesError], doing: str) -> None:
    """Raise what went wrong, all of it as one."""
    if not errors:
        return
    first, messages = errors[0], list(dict.fromkeys(error.message for error in errors))
    if len(messages) == 1:
        raise first
    kind = UserError if all(isinstance(error, UserError) for error in errors) else EnvironmentFailure
    raise kind(f"{doing}:\n  " + "\n  ".join(messages), hint=first.hint, **first.details)


def raise_partial(
    doing: str,
    members: t.Sequence[Member | LoneBranch],
    outcomes: t.Sequence[t.Any],
    *,
    changed: bool,
    **details: t.Any,
) -> None:
    """Raise what went wrong; where some members are done and some are not, say which."""
    pairs = list(zip((member.name for member in members), outcomes, strict=True))
    failed = [(name, outcome) for name, outcome in pairs if isinstance(outcome, WorktreesError)]
    done = [name for name, outcome in pairs if not isinstance(outcome, WorktreesError)]
    if not failed:
        return
    if not done:
        raise_all([error for _name, error in failed], f"{doing} failed")
    raise PartialFailure(
        f"{doing} failed for {len(failed)} of {len(pairs)} (done: {', '.join(done)}):\n  "
        + "\n  ".join(f"{name}: {error.message}" for name, error in failed),
        hint=failed[0][1].hint or "mend it and run the same command again: it goes on where it stopped",
        changed=changed,
        done=done,
        failed_members=[name for name, _error in failed],
        **details,
    )


def in_turn(
    act: t.Callable[[t.Any], T], items: t.Sequence[t.Any], key: t.Callable[[t.Any], str]
) -> list[T | WorktreesError]:
    """What came of each item, or its expected error; those with one key in turn, and two keys at a time."""
    outcomes: list[t.Any] = [None] * len(items)
    groups: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(key(item), []).append(number)

    def run(numbers: list[int]) -> None:
        for number in numbers:
            try:
                outcomes[number] = act(items[number])
            except WorktreesError as error:
                outcomes[number] = error

    with concurrent.futures.ThreadPoolExecutor(_git.THREADS) as pool:
        list(pool.map(run, groups.values()))
    return outcomes
