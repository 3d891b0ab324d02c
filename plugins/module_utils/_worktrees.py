# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worktree set of a task: checked as a whole, then made or taken back repository by repository.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import shlex
import time
import typing as t

from . import (
    _aside,
    _blocks,
    _branch_marks,
    _elsewhere,
    _exclude,
    _files,
    _git,
    _guard,
    _hooks,
    _kept_out,
    _lone_branches,
    _mounts,
    _processes,
    _top_level,
    _trash,
    _whereabouts,
    _work,
)
from ._door import Params, Result
from ._errors import EnvironmentFailure, PartialFailure, UserError, WorktreesError
from ._git import MAKING, Listed, Repository
from ._identity import check_branch
from ._lone_branches import LoneBranch
from ._manifest import LOGS, Manifest
from ._registry import task_of

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "repo": {"type": "path", "required": True},
            "path": {"type": "str"},
            "branch": {"type": "str", "required": True},
            "checkout": {"type": "bool", "default": True},
            "base": {"type": "str"},
            "submodules": {"type": "list", "elements": "str", "default": []},
            "existing_branch": {"type": "str", "choices": ["use", "refuse"], "default": "use"},
            "adopt": {"type": "bool", "default": False},
        },
        "required_if": [("checkout", True, ("path",))],
    },
    "owner": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force": {"type": "bool", "default": False},
    "delete_branch": {"type": "bool", "default": False},
    "push": {"type": "bool", "default": False},
    "remote": {"type": "str", "default": "origin"},
    "disposable": {"type": "list", "elements": "str", "default": list(_work.DISPOSABLE)},
}

TRIES = 3
SETTINGS = "give it settings of its own: git -C {} config --worktree core.bare false"

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


def operation(params: Params, *, check: bool) -> Result:
    """Make or remove a worktree set."""
    if params["state"] == "absent":
        return _remove_set(params, check=check)
    return _make_set(params, check=check)


# --- the set ----------------------------------------------------------------------------------------------------


def _members(params: Params, errors: list[WorktreesError]) -> list[Member | LoneBranch]:
    """The set that is asked for; what cannot be a member goes to the errors."""
    absent = params["state"] == "absent"
    wanted = []
    for given in params["worktrees"]:
        with _collected(errors):
            if not (absent and _is_away(given, params)):
                wanted.append(given)
    names = {given["repo"]: given["name"] for given in reversed(wanted)}
    outcomes = _map(lambda path: Repository.at(path, names[path]), list(names), str)
    opened = dict(zip(names, outcomes, strict=True))
    errors += [outcome for outcome in opened.values() if isinstance(outcome, WorktreesError)]
    # One object a repository, as it carries the lock.
    repositories: dict[str, Repository] = {}
    members: list[Member | LoneBranch] = []
    for given in wanted:
        repository = opened[given["repo"]]
        if isinstance(repository, Repository):
            with _collected(errors):
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


def _kinds(members: t.Sequence[Member | LoneBranch]) -> tuple[list[Member], list[LoneBranch]]:
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
        _refuse_escape(repository, path)
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


def _refuse_escape(repository: Repository, path: str) -> None:
    """Refuse a place that a symbolic link leads elsewhere."""
    if path == os.path.abspath(repository.path):
        raise UserError(f"the worktree folder {path} is the repository itself", hint="name a folder: .worktrees/NAME")
    if os.path.islink(path):
        raise UserError(
            f"the worktree folder {path} is a symbolic link to {os.readlink(path)}",
            hint=f"remove it if it is not needed: rm {path}",
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


def _hold(held: contextlib.ExitStack, members: t.Iterable[Member | LoneBranch]) -> None:
    """Take the locks of all repositories of the set, in the one order that everybody takes them in."""
    repositories = {one.repository.common: one.repository for member in members for one in member.everyone}
    for common in sorted(repositories):
        # That of a submodule which is not there yet comes with the repository that will hold it.
        if os.path.isdir(common):
            held.enter_context(repositories[common].locked())


def _survey(
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

    outcomes = _map(one, members, lambda member: member.repository.common)
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


def _diff(before: t.Iterable[Member | LoneBranch], after: t.Iterable[Member | LoneBranch]) -> list[dict[str, str]]:
    texts = ["".join(f"{one.path} ({one.branch})\n" for one in members) for members in (before, after)]
    header = {"before_header": "worktrees", "after_header": "worktrees"}
    return [{**header, "before": texts[0], "after": texts[1]}] if texts[0] != texts[1] else []


# --- making -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Finding:
    """What stands where a member is wanted, and what it will begin with.

    :ivar state: ``ready``, ``half`` (a killed run began it), ``gone`` (git knows it, the folder is away), ``none``, or
        ``adopt`` (another tool made it, and it is to be marked).
    :ivar standing: as git lists it.
    :ivar start: its commit; None where only a fetch would tell, in check mode.
    :ivar is_new: its branch is to be made.
    :ivar is_used: its branch was there before the task.
    :ivar renewal: what git ignores there, where that is to be something else.
    :ivar is_unsettled: it is ready, but for settings of its own.
    """

    member: Member
    state: str
    standing: Listed | None
    start: str | None
    is_new: bool
    renewal: _exclude.Renewal | None = None
    is_unsettled: bool = False
    is_used: bool = False


def _make_set(params: Params, *, check: bool) -> Result:
    owner = params["owner"]
    errors: list[WorktreesError] = []
    members = _members(params, errors)
    tops, lone = _kinds(members)
    with contextlib.ExitStack() as held:
        _hold(held, members)
        with _collected(errors):
            _refuse_twins(members)
        views: dict[str, View] = {}

        def find(member: Member, view: View) -> Finding:
            return _find(member, view, owner, found.get(id(member.inside)), check=check)

        found: dict[int, Finding] = {}
        found |= _survey(tops, find, views, errors, owner, check=check)
        inner = [submodule for member in tops if id(member) in found for submodule in member.submodules]
        found |= _survey(inner, find, views, errors, owner, check=check)
        for one in lone:
            with _collected(errors):
                _find_lone(one, owner, check=check)
        _tell_all(errors, "cannot make the worktrees")
        findings = [found[id(one)] for member in tops for one in member.everyone]
        for finding in findings:
            known = views[finding.member.repository.common].made
            finding.is_used = not (finding.is_new or finding.member.branch in known)
        to_make = [finding for finding in findings if finding.state != "ready"]
        to_renew = [finding for finding in findings if finding.renewal]
        to_settle = [finding for finding in findings if finding.is_unsettled]
        ready = [one for one in lone if one.is_ready]
        actions = [
            f"{'adopt' if one.state == 'adopt' else 'make'} worktree {one.member.path} on "
            f"{'the existing ' if one.is_used else ''}branch {one.member.branch}"
            for one in to_make
        ]
        actions += [f"give worktree {one.member.path} its own settings of git" for one in to_settle]
        actions += [f"take over what git ignores elsewhere into worktree {one.member.path}" for one in to_renew]
        actions += [
            f"{'take' if one.tip else 'make'} branch {one.branch} of {one.name}" for one in lone if not one.is_ready
        ]
        saved: list[dict[str, str]] = []
        if not check:
            outcomes = _map(
                lambda member: _make_all([found[id(one)] for one in member.everyone], owner),
                tops,
                lambda member: member.repository.common,
            )
            saved = [one for outcome in outcomes if isinstance(outcome, list) for one in outcome]
            made = _map(lambda one: _lone_branches.make(one, owner), lone, lambda one: one.repository.common)
            _tell_partial("making the worktree", [*tops, *lone], [*outcomes, *made], changed=True, saved=saved)
    facts = [_lone_facts(one) if isinstance(one, LoneBranch) else _facts(found[id(one)]) for one in members]
    return {
        "changed": bool(actions),
        "worktrees": facts,
        # What a later removal needs to know, in the terms of this module's parameters: nothing that changes with work.
        "plan": [
            {key: value for key, value in one.items() if key not in ("commit", "existing_branch")} for one in facts
        ],
        "actions": actions,
        "saved": saved,
        "diff": [
            *_diff(
                [*(one.member for one in findings if one.state == "ready"), *ready],
                [*(one.member for one in findings), *lone],
            ),
            *(one.renewal.diff for one in to_renew if one.renewal),
        ],
    }


def _find_lone(lone: LoneBranch, owner: str, *, check: bool) -> None:
    _lone_branches.find(lone, owner)
    _refuse_branch_clash(lone, lone.repository.branches([lone.branch]))
    if lone.tip and not lone.is_ours and lone.existing_branch == "refuse":
        raise _exists(lone)
    lone.start = lone.tip or _base_of(lone, lone.repository.commit("HEAD"), check=check)


def _lone_facts(lone: LoneBranch) -> dict[str, t.Any]:
    return {
        "name": lone.name,
        "repo": lone.repository.path,
        "path": None,
        "branch": lone.branch,
        "checkout": False,
        "commit": lone.start,
        "submodules": [],
        "adopt": False,
        "existing_branch": not lone.is_made,
    }


def _facts(finding: Finding) -> dict[str, t.Any]:
    member = finding.member
    return {
        "name": member.name,
        "repo": member.repository.path,
        "path": member.path,
        "branch": member.branch,
        "checkout": True,
        "commit": finding.start,
        "submodules": [submodule.within for submodule in member.submodules],
        "adopt": member.adopt,
        "existing_branch": finding.is_used,
    }


def _refuse_twins(members: t.Iterable[Member | LoneBranch]) -> None:
    seen: dict[tuple[str, str], Member | LoneBranch] = {}
    for member in (one for top in members for one in top.everyone):
        for kind, key in (("folder", member.path), ("branch", f"{member.branch} of {member.repository.path}")):
            twin = seen.setdefault((kind, key), member)
            if twin is not member:
                raise UserError(f"the worktrees of {twin.name} and {member.name} would both have the {kind} {key}")


def _find(member: Member, view: View, owner: str, inside: Finding | None, *, check: bool) -> Finding:
    """Look at what stands where a member is wanted, and refuse every collision.

    :arg inside: what was found of the member that a submodule lies in.
    """
    standing = view.standing(member.path)
    mark = member.manifest if standing else None
    found = mark.owner if mark else None
    if member.adopt and (standing is None or standing.gone or standing.lock == MAKING):
        raise UserError(
            f"repository {member.name}: {member.path} is no worktree that could be adopted",
            hint=f"see what there is: git -C {member.repository.path} worktree list",
        )
    if standing and standing.lock != MAKING and not standing.gone:
        if member.adopt and found is None:
            _top_level.check([member.path], hint=SETTINGS.format(member.path))
            member.branch = standing.branch or member.branch
            return Finding(member, "adopt", standing, standing.head, is_new=False)
        if found != owner:
            whose, way_out = _whereabouts.whose(found, owner)
            raise UserError(
                f"repository {member.name}: the worktree {member.path} (branch {standing.branch}) {whose}",
                hint=way_out or f"remove it: git -C {member.repository.path} worktree remove {member.path}",
            )
        member.branch = standing.branch or member.branch
        member.adopt = bool(mark and mark.adopted)
        finding = Finding(member, "ready", standing, standing.head, is_new=False)
        finding.renewal = _exclude.renewal(member.repository, member.path)
        finding.is_unsettled = _is_unsettled(member)
        return finding
    if standing and standing.gone and standing.lock not in (None, MAKING):
        raise _is_locked(member, standing.lock)
    if standing is None and not member.inside:
        _refuse_moved(member, view, owner)
    if standing is None or standing.gone:
        _refuse_foreign_folder(member, is_ours=found == owner)
    tip = view.branches.get(member.branch)
    if standing and standing.gone and found == owner and standing.branch and standing.head:
        member.branch, tip = standing.branch, standing.head
    _refuse_branch_elsewhere(member, [one for one in view.listed if one is not standing])
    _refuse_branch_clash(member, view.branches)
    if tip and standing is None:
        if member.existing_branch == "refuse":
            raise _exists(member)
        _lone_branches.refuse_marked(member.name, member.repository, member.branch)
    state = "none" if standing is None else "gone" if standing.gone else "half"
    start = tip or _start(member, view, inside, check=check)
    return Finding(member, state, standing, start, is_new=tip is None)


def _exists(member: Member | LoneBranch) -> UserError:
    return UserError(
        f"repository {member.name}: {member.repository.path} has a branch {member.branch} already",
        hint=f"choose another name, or delete it: git -C {member.repository.path} branch -d {member.branch}",
    )


def _is_locked(member: Member, reason: str) -> UserError:
    return UserError(
        f"repository {member.name}: the worktree {member.path} is locked ({reason or 'no reason given'})",
        hint=f"git -C {member.repository.path} worktree unlock {member.path}",
    )


def _refuse_moved(member: Member, view: View, owner: str) -> None:
    """Refuse to make a worktree that the task has elsewhere."""
    for one in _whereabouts.moved_worktrees(member.repository, view.listed, owner, view.known):
        if one.branch == member.branch:
            back = ("git", "-C", member.repository.path, "worktree", "move", one.path, member.path)
            raise UserError(
                f"repository {member.name}: the worktree of the task was moved from {member.path} to {one.path}",
                hint=f"move it back: {shlex.join(back)}; a teardown finds it where it is",
            )


def _refuse_foreign_folder(member: Member, *, is_ours: bool) -> None:
    if is_ours and os.path.isdir(member.path) and os.listdir(member.path):
        raise UserError(
            f"repository {member.name}: {member.path} is the worktree of the task, but its .git file is gone",
            hint=f"mend it: git -C {member.repository.path} worktree repair {member.path}",
        )
    if os.path.lexists(member.path) and (not os.path.isdir(member.path) or os.listdir(member.path)):
        raise UserError(
            f"repository {member.name}: {member.path} exists and is not a worktree of {member.repository.path}",
            hint=f"look at it, then move it away: mv {member.path} {member.path}.old",
        )


def _refuse_branch_elsewhere(member: Member, others: t.Iterable[Listed]) -> None:
    for one in others:
        if one.branch == member.branch:
            away, way_out = "", f"git -C {one.path} switch --detach"
            if one.gone:
                away, way_out = ", a folder that is gone", f"git -C {member.repository.path} worktree prune"
            raise UserError(
                f"repository {member.name}: branch {member.branch} is checked out at {one.path}{away}",
                hint=f"{way_out}, or choose another task name",
            )


def _refuse_branch_clash(member: Member | LoneBranch, branches: t.Iterable[str]) -> None:
    """Refuse a branch that git could not make beside another (a and a/b)."""
    for other in branches:
        if other.startswith(member.branch + "/") or member.branch.startswith(other + "/"):
            raise UserError(
                f"repository {member.name}: git cannot make branch {member.branch} beside {other}",
                hint="choose another name: a branch cannot be a folder of another",
            )


def _start(member: Member, view: View, inside: Finding | None, *, check: bool) -> str | None:
    """The commit that a new branch begins with."""
    if inside:
        return _submodule_commit(member, inside)
    main = view.standing(member.repository.path)
    return _base_of(member, main.head if main else None, check=check)


def _base_of(member: Member | LoneBranch, head: str | None, *, check: bool) -> str | None:
    """The commit of the base; that of the main tree where none is named."""
    repository = member.repository
    if member.base is not None:
        return repository.base_commit(member.base, name=member.name, check=check)
    if head is None:
        raise UserError(
            f"repository {member.name}: {repository.path} has no commit yet, so no worktree can be made of it",
            hint=f"git -C {repository.path} commit --allow-empty -m 'first commit'",
        )
    return head


def _submodule_commit(member: Member, inside: Finding) -> str | None:
    """The commit of a submodule that the worktree around it names."""
    if inside.start is None:
        return None
    commit = inside.member.repository.gitlink(inside.start, member.within)
    if commit is None:
        raise UserError(
            f"repository {inside.member.name}: {member.within} is not a submodule at {inside.member.branch}",
            hint=f"see them: git -C {inside.member.repository.path} submodule status",
        )
    return commit


def _make_all(findings: t.Sequence[Finding], owner: str) -> list[dict[str, str]]:
    """Make what is missing of a worktree and its submodules; returns what was saved on the way."""
    for finding in findings:
        if finding.is_unsettled:
            _settle(finding.member)
        if finding.renewal:
            _exclude.renew(finding.member.repository, finding.renewal)
    return [saved for finding in findings if finding.state != "ready" for saved in _make(finding, owner)]


def _make(finding: Finding, owner: str) -> list[dict[str, str]]:
    member, repository = finding.member, finding.member.repository
    if finding.state == "adopt":
        _mark(member, owner)
        return []
    if member.inside and finding.is_new:
        _provide(member, str(finding.start))
    if member.exclusion:
        _exclude.add(repository.common, [member.exclusion])
    saved = _save_found(finding, owner)
    if finding.state == "gone":
        _forget(member)
    if finding.state != "half":
        _register(member, str(finding.start))
    _check_out(finding, owner)
    _mark(member, owner)
    _settle(member)
    os.unlink(os.path.join(repository.admin_in(member.path), "locked"))
    return saved


def _mark(member: Member, owner: str) -> None:
    """Write into the worktree's git directory whose it is."""
    manifest = Manifest.in_admin(member.path, member.repository.admin_in(member.path))
    manifest.owner, manifest.adopted, manifest.main = owner, member.adopt, member.repository.path
    manifest.save()


def _is_unsettled(member: Member) -> bool:
    """Whether a worktree of ours lacks its own settings; one that another tool made is left as it is, and works."""
    if member.adopt:
        _top_level.check([member.path], hint=SETTINGS.format(member.path))
        return False
    admin = member.repository.admin_in(member.path)
    return not _top_level.is_settled(member.path, admin, is_submodule=member.inside is not None)


def _settle(member: Member) -> None:
    _top_level.settle(member.repository, member.path, is_submodule=member.inside is not None)


def _save_found(finding: Finding, owner: str) -> list[dict[str, str]]:
    """Save what somebody put where a killed run of ours left off."""
    member, standing = finding.member, finding.standing
    if standing is None:
        return []
    tree = _work.Tree.of(member.repository, member.path, member.path, str(member.repository.admin_of(member.path)))
    if finding.state == "half":
        members = [submodule.within for submodule in member.submodules]
        more: dict[str, t.Any] = {"disposable": _work.DISPOSABLE, "members": members, "half_made": True}
        work = _work.look(tree, _work.Going(), **more)
    else:
        work = _work.look_at_commits(tree, standing.head, standing.branch, _work.Going())
    return _save(member, tree, work, owner)


def _register(member: Member, start: str) -> None:
    """Have git register a worktree, without files yet; its lock marks it as ours and unfinished from then on.

    Only then is the branch made, so no killed run leaves a branch that nobody knows the origin of.
    """
    for attempt in range(1, TRIES + 1):
        done = member.repository.git(
            *("worktree", "add", "--quiet", "--no-checkout", "--detach", "--lock", "--reason", MAKING),
            *("--", member.path, start),
        )
        if done.ok:
            return
        # Somebody's own git may have been at work in the repository.
        time.sleep(0.05 * attempt)
    raise done.failure(f"repository {member.name}: making the worktree {member.path}")


def _check_out(finding: Finding, owner: str) -> None:
    member, repository = finding.member, finding.member.repository
    if finding.standing:
        _break_locks(member)
    doing = f"repository {member.name}: checking out {member.branch} in {member.path}"
    if finding.is_new:
        _branch_marks.make(repository, member.branch, str(finding.start), owner, doing=doing)
    repository.must(
        *("checkout", "--quiet", "--force", member.branch, "--"),
        doing=doing,
        worktree=member.path,
    )


def _break_locks(member: Member) -> None:
    """Remove git's own locks that a killed run left. That of the repository is ours, so no git of ours is at work."""
    admin = member.repository.admin_of(member.path)
    for left in (f"{admin}/index", f"{admin}/HEAD", f"{member.repository.common}/refs/heads/{member.branch}"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(left + ".lock")


def _provide(submodule: Member, commit: str) -> None:
    """See to it that the repository of a submodule has a commit."""
    repository = submodule.repository
    if not os.path.isdir(repository.common):
        _clone(submodule)
    if done := repository.obtain(commit):
        raise _git.nobody_has(submodule.name, commit, done)


def _clone(submodule: Member) -> None:
    """Clone a submodule that the main tree never initialised, to where the main tree's own would be."""
    parent, common = t.cast(Member, submodule.inside), submodule.repository.common
    doing = f"fetching submodule {submodule.name}"
    _git.must(parent.path, "submodule", "--quiet", "init", "--", submodule.within, doing=doing)
    name = os.path.relpath(common, os.path.join(parent.repository.common, "modules"))
    url = parent.repository.must("config", "-z", "--get", f"submodule.{name}.url", doing=doing).rstrip("\0")
    # In the private folder of the worktree, with which it goes if this run is killed and nobody resumes it.
    partial = os.path.join(parent.repository.admin_in(parent.path), "parallel-worktrees-clone")
    _mounts.remove(partial)
    # The address comes from a file of the repository, so git is to trust it as little as it does itself.
    _git.must(
        parent.path,
        *("clone", "--quiet", "--no-checkout", "--", url, partial),
        doing=doing,
        hint=f"see whether it can be reached: git ls-remote {url}",
        env={"GIT_PROTOCOL_FROM_USER": "0"},
    )
    place = os.path.relpath(submodule.repository.path, common)
    _git.must(partial, "config", "core.worktree", place, doing=doing)
    # Of git's own template, which is not used as a user may have another, people count on this file.
    os.makedirs(os.path.join(partial, ".git", "info"), exist_ok=True)
    _files.write(os.path.join(partial, ".git", "info", "exclude"), b"", mode=0o644)
    os.makedirs(os.path.dirname(common), exist_ok=True)
    os.rename(os.path.join(partial, ".git"), common)
    os.rmdir(partial)


# --- removing ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Look:
    """What a removal found at a member.

    :ivar standing: as git lists it; None where there only is a folder.
    :ivar tip: the commit of the member's branch.
    :ivar has_branch: there is one of its name, which a run that was killed may not have made.
    :ivar made: its branch was made for the task.
    :ivar going: what goes with it.
    :ivar submodules: paths of submodules that are looked at on their own.
    """

    member: Member
    standing: Listed | None = None
    tip: str | None = None
    has_branch: bool = True
    made: bool = False
    going: _work.Going = dataclasses.field(default_factory=_work.Going)
    submodules: list[str] = dataclasses.field(default_factory=list)
    work: _work.Work = dataclasses.field(default_factory=_work.Work)

    @property
    def half_made(self) -> bool:
        """Whether a killed run of ours left off there: nobody was told that it was ready."""
        return self.standing is not None and self.standing.lock == MAKING

    def tree(self, folder: str) -> _work.Tree:
        """The member with its folder where that lies now."""
        member = self.member
        admin = member.repository.admin_of(member.path) if self.standing else _git.admin_folder(folder)
        return _work.Tree.of(member.repository, member.path, folder, admin or os.path.join(folder, ".git"))


def _remove_set(params: Params, *, check: bool) -> Result:
    errors: list[WorktreesError] = []
    members = _members(params, errors)
    tops, lone = _kinds(members)
    failed: list[tuple[Member | LoneBranch, WorktreesError]] = []
    with contextlib.ExitStack() as held:
        _hold(held, members)
        groups, lone = _look_at_all(tops, lone, params, errors, None, check=check)
        looks = [look for group in groups for look in group]
        result: Result = {
            "changed": bool(looks or lone),
            "actions": [*_planned(looks, params), *_lone_planned(lone, params)],
            "saved": [],
            "pushed": [],
            "left": [look.member.path for look in looks if look.member.adopt],
            "branches": list(
                dict.fromkeys(
                    [look.member.branch for look in looks if look.has_branch and not _goes(look, params)]
                    + [one.branch for one in lone if one.tip and not one.goes(params["delete_branch"])]
                )
            ),
            "notes": [*_gone(params, looks), *(_notes(looks, lone) if params["delete_branch"] else [])],
            "trash": [],
            "diff": _diff([*(look.member for look in looks), *lone], []),
        }
        if check:
            return result
        if params["push"]:
            # Nobody waits for the network while the locks are held; what happens meanwhile must not be lost.
            held.close()
            failed = _push([*_push_order(looks), *lone], params["remote"], result["pushed"])
            staying = {id(_top_of(member)) for member, _error in failed}
            tops = [member for member in tops if id(member) not in staying]
            lone = [one for one in lone if id(one) not in staying]
            _hold(held, [*tops, *lone])
            pushed = {look.member.path: look.tip for look in looks} | {id(one): one.tip for one in lone}
            groups, lone = _look_at_all(tops, lone, params, errors, pushed, check=False)
        outcomes = _map(
            lambda number: _remove(groups[number], params),
            range(len(tops)),
            lambda number: tops[number].repository.common,
        )
        outcomes += _map(lambda one: _remove_lone(one, params), lone, lambda one: one.repository.common)
        earlier = [one for common in _commons(tops) for one in _trash.left(common) if _trash.is_stuck(one)]
        result["trash"] = list(dict.fromkeys([*earlier, *(one for member in tops for one in member.stuck)]))
        _tidy(tops)
    result["saved"] = [saved for outcome in outcomes if isinstance(outcome, list) for saved in outcome]
    _tell_partial(
        "removing the worktree",
        [*tops, *lone, *(member for member, _error in failed)],
        [*outcomes, *(error for _member, error in failed)],
        changed=any(groups) or bool(lone) or bool(result["pushed"]),
        saved=result["saved"],
        pushed=result["pushed"],
        failed_pushes=[member.name for member, _error in failed],
    )
    return result


def _look_at_all(
    tops: t.Sequence[Member],
    lone: t.Sequence[LoneBranch],
    params: Params,
    errors: list[WorktreesError],
    pushed: t.Mapping[t.Any, str | None] | None,
    *,
    check: bool,
) -> tuple[list[list[Look]], list[LoneBranch]]:
    """What there is to remove of each member of the set; refused where work would be lost with it."""
    owner = params["owner"]
    views: dict[str, View] = {}
    _survey(tops, lambda member, view: _follow(member, view, owner), views, errors, owner, check=check)
    _tell_all(errors, "cannot remove the worktrees")
    everyone = [one for member in tops for one in member.everyone]
    found = _survey(
        everyone, lambda member, view: _look(member, view, params, pushed), views, errors, owner, check=check
    )
    mine: list[LoneBranch] = []
    for one in lone:
        with _collected(errors):
            if _look_at_lone(one, params, pushed):
                mine.append(one)
    _tell_all(errors, "cannot remove the worktrees")
    groups = [[look for one in member.everyone if (look := found[id(one)])] for member in tops]
    _refuse_losses([*(look for group in groups for look in group), *mine], force=params["force"])
    return groups, mine


def _look_at_lone(lone: LoneBranch, params: Params, pushed: t.Mapping[t.Any, str | None] | None) -> bool:
    delete = params["delete_branch"]
    is_ours = _lone_branches.look(lone, params["owner"], delete=delete, pushed=params["push"])
    if pushed is not None and pushed.get(id(lone)) != lone.tip and delete and is_ours:
        # What was committed while it was pushed is nowhere else.
        return _lone_branches.look(lone, params["owner"], delete=delete, pushed=False)
    return is_ours


def _top_of(member: Member | LoneBranch) -> Member | LoneBranch:
    return member.inside or member if isinstance(member, Member) else member


def _follow(member: Member, view: View, owner: str) -> None:
    """Follow a worktree to where it was moved, by its mark."""
    if member.adopt or view.standing(member.path):
        return
    moved = _whereabouts.moved_worktrees(member.repository, view.listed, owner, view.known)
    found = [one for one in moved if one.branch == member.branch] or moved
    if not found:
        return
    if len(found) > 1 or os.path.lexists(member.folder):
        places = ", ".join(one.path for one in found)
        raise UserError(
            f"repository {member.name}: {member.path} was moved, and it is not clear what belongs to it: {places}",
            hint=f"move it back: git -C {member.repository.path} worktree move {found[0].path} {member.path}",
        )
    place = os.path.realpath(found[0].path)
    if processes := _processes.inside([place]):
        raise UserError(
            f"repository {member.name}: {member.path} was moved to {found[0].path}, where processes are at work: "
            + ", ".join(map(str, processes)),
            hint="end them first: kill " + " ".join(str(process.pid) for process in processes),
        )
    view.known |= {place}
    member.move_to(found[0].path)


def _look(member: Member, view: View, params: Params, pushed: t.Mapping[str, str | None] | None) -> Look | None:
    """Look at a member before it goes; None where there is nothing.

    :arg pushed: the commits that were pushed; None where the pushes are still to come.
    """
    standing = view.standing(member.path)
    if standing is None:
        if member.inside:
            _whereabouts.refuse_unlisted(member.name, member.repository, member.path)
        return _look_at_leftover(member, view, params)
    half_made = standing.lock == MAKING
    mark = member.manifest
    owner = mark.owner if mark else None
    if member.adopt and owner is None:
        return None  # given back before
    if not half_made and owner != params["owner"]:
        whose, way_out = _whereabouts.whose(owner, params["owner"])
        by_hand = f"git -C {member.repository.path} worktree remove {member.path}, if nobody needs it"
        raise UserError(f"repository {member.name}: the worktree {member.path} {whose}", hint=way_out or by_hand)
    # A branch that was renamed is the task's still; one that was switched to, beside it, is not.
    member.switched = standing.branch not in (None, member.branch) and member.branch in view.branches
    if member.switched and params["push"] and not (mark and mark.adopted):
        raise UserError(
            f"repository {member.name}: {member.path} is on {standing.branch}, "
            f"and the task's branch is {member.branch}",
            hint=f"switch back: git -C {member.path} switch {member.branch}; or leave push out",
        )
    member.branch = standing.branch or member.branch
    look = Look(member, standing, standing.head if standing.branch else view.branches.get(member.branch))
    look.has_branch = look.tip is not None
    member.adopt = bool(mark and mark.adopted)
    if member.adopt:
        return look  # it stays, with all that is in it
    _mounts.refuse(member.path)
    if standing.lock is not None and not half_made and not params["force"]:
        raise _is_locked(member, standing.lock)
    elsewhere = look.tip if pushed is None else pushed.get(member.path)
    held = [elsewhere] if elsewhere and params["push"] and _can_be_pushed(look) else []
    if params["delete_branch"]:
        look.made = member.branch in view.made
        look.going = _work.Going(member.branch if _goes(look, params) else None, view.made, held)
    else:
        look.going = _work.Going(held=held)
    look.submodules = [submodule.within for submodule in member.submodules if _is_linked(submodule)]
    look.work = _examine(look, member.folder, params)
    return look


def _examine(look: Look, folder: str, params: Params) -> _work.Work:
    """What the removal of a member would lose, looked at where its folder lies now.

    :raises EnvironmentFailure: git cannot say, and nothing is forced: with force, all of its files count.
    """
    tree, standing = look.tree(folder), look.standing
    more: dict[str, t.Any] = {"disposable": params["disposable"], "members": look.submodules}
    if standing is None:
        return _work.look_at_leftover(folder, params["disposable"])
    try:
        if not _work.has_content(folder):
            return _work.look_at_commits(tree, standing.head, standing.branch, look.going)
        if not look.half_made:
            tree.check()
        return _work.look(tree, look.going, half_made=look.half_made, **more)
    except EnvironmentFailure as error:
        if not (params["force"] or look.half_made):
            error.hint = f"{error.hint}\n      or add -e force=true: all that git does not have is then saved first"
            raise
    with contextlib.suppress(EnvironmentFailure):
        # It may be the .git file alone that is broken.
        return _work.look(tree, look.going, half_made=False, **more)
    with _work.mended(tree) as stand_in:
        return _work.look(stand_in, look.going, half_made=False, **more)


def _look_at_leftover(member: Member, view: View, params: Params) -> Look | None:
    """Look at a folder that lies where a worktree would."""
    if member.inside or member.adopt or not os.path.lexists(member.folder):
        return None
    _refuse_escape(member.repository, member.path)
    if not os.path.isdir(member.folder):
        raise UserError(f"repository {member.name}: {member.path} is not a folder", hint=f"move it away: {member.path}")
    _mounts.refuse(member.path)
    work = _work.look_at_leftover(member.folder, params["disposable"])
    if work.files and not params["force"]:
        raise UserError(
            f"repository {member.name}: {member.path} has files, but git does not know it as a worktree, so it is "
            f"unknown what would be lost: {', '.join(work.files[: _work.AT_MOST_SHOWN])}",
            hint="look at it, then add -e force=true: the files are then saved first",
        )
    return Look(member, work=work, has_branch=member.branch in view.branches)


def _is_linked(submodule: Member) -> bool:
    try:
        return bool(submodule.repository.admin_in(submodule.path))
    except EnvironmentFailure:
        return False


def _can_be_pushed(look: Look) -> bool:
    standing = look.standing
    return bool(look.tip and standing and not standing.gone and not look.half_made)


def _refuse_losses(everything: t.Sequence[Look | LoneBranch], *, force: bool) -> None:
    looks = [one for one in everything if isinstance(one, Look)]
    nested = [os.path.normpath(os.path.join(look.member.path, folder)) for look in looks for folder in look.work.nested]
    if nested:
        raise UserError(
            f"repositories of their own lie in the worktree, and no commit can save them: {', '.join(nested)}",
            hint="move them elsewhere first",
        )
    # What lies where a killed run of ours left off is saved without a question: nobody was told it was ready.
    lost: dict[str, _work.Work] = {}
    for one in everything:
        member = one.member if isinstance(one, Look) else one
        if one.work and not (isinstance(one, Look) and one.half_made):
            lost[f"{member.name} ({member.path})"] = one.work
    if not lost or force:
        return
    lines = [f"{place}\n    " + "\n    ".join(work.lines()) for place, work in lost.items()]
    raise UserError(
        "work would be lost, so nothing was removed:\n  " + "\n  ".join(lines),
        hint="commit and push it, or add -e force=true: it is then saved under refs/worktrees-saved first",
        files={place.partition(" (")[0]: work.files for place, work in lost.items()},
        commits={place.partition(" (")[0]: work.commits for place, work in lost.items()},
    )


def _planned(looks: t.Sequence[Look], params: Params) -> list[str]:
    to_push = _push_order(looks) if params["push"] else []
    actions = [f"push {member.branch} of {member.name} to {params['remote']}" for member in to_push]
    for look in looks:
        member = look.member
        if member.adopt:
            actions.append(f"leave worktree {member.path} to the tool that made it")
            continue
        if look.work:
            actions.append(f"save the work in {member.path} under {_elsewhere.SAVED}/{_task(params['owner'])}")
        actions.append(f"remove worktree {member.path}")
        if _goes(look, params):
            actions.append(f"delete branch {member.branch} of {member.name}")
    return actions


def _lone_planned(lone: t.Sequence[LoneBranch], params: Params) -> list[str]:
    actions = [f"push {one.branch} of {one.name} to {params['remote']}" for one in lone if params["push"] and one.tip]
    for one in lone:
        if params["delete_branch"] and _notes([], [one]):
            actions += [f"leave {note}" for note in _notes([], [one])]
        elif one.goes(params["delete_branch"]):
            if one.work:
                actions.append(f"save the work in {one.path} under {_elsewhere.SAVED}/{_task(params['owner'])}")
            actions.append(f"delete branch {one.branch} of {one.name}")
        else:
            actions.append(f"give back branch {one.branch} of {one.name}")
    return actions


def _gone(params: Params, looks: t.Sequence[Look]) -> list[str]:
    """What was gone before, so that nobody takes it for removed: it may have been moved."""
    repositories = {given["repo"]: given["name"] for given in params["worktrees"] if not os.path.isdir(given["repo"])}
    notes = [f"repository {path} of {name}, which was gone before" for path, name in repositories.items()]
    for look in looks:
        member = look.member
        if look.standing and not member.inside and not os.path.lexists(member.folder):
            notes.append(f"worktree {member.path} of {member.name}, whose folder was gone before")
    return notes


def _notes(looks: t.Sequence[Look], lone: t.Sequence[LoneBranch]) -> list[str]:
    """The branches that stay although branches are to be deleted, and why."""
    notes = [
        f"branch {look.member.branch} of {look.member.name}, which was not made for the task"
        for look in looks
        if look.tip and not look.made and not look.member.adopt and not look.member.switched
    ]
    for one in lone:
        if one.trees:
            notes.append(f"branch {one.branch} of {one.name}, which is checked out at {', '.join(one.trees)}")
        elif one.tip and not one.is_made:
            notes.append(f"branch {one.branch} of {one.name}, which was not made for the task")
    return notes


def _remove_lone(lone: LoneBranch, params: Params) -> list[dict[str, str]]:
    return _lone_branches.remove(lone, delete=params["delete_branch"], task=_task(params["owner"]))


def _goes(look: Look, params: Params) -> bool:
    """Whether the branch is deleted too."""
    mine = look.made and not look.member.adopt and not look.member.switched
    return bool(params["delete_branch"] and look.tip and mine)


def _push_order(looks: t.Sequence[Look]) -> list[Member]:
    """Repositories in the order given, then submodules."""
    members = [look.member for look in looks if _can_be_pushed(look)]
    return sorted(members, key=lambda member: member.inside is not None)


def _push(
    members: t.Sequence[Member | LoneBranch], remote: str, pushed: list[dict[str, str]]
) -> list[tuple[Member | LoneBranch, WorktreesError]]:
    """Push each branch; returns what failed."""
    failed: list[tuple[Member | LoneBranch, WorktreesError]] = []
    for member in members:
        if isinstance(member, LoneBranch) and member.tip is None:
            continue
        ref, tree = f"refs/heads/{member.branch}", member.path if isinstance(member, Member) else None
        if tree and (fault := _top_level.fault(tree)):
            failed.append((member, EnvironmentFailure(fault, hint=_top_level.HINT)))
            continue
        done = member.repository.git("push", remote, f"{ref}:{ref}", worktree=tree, hooks=True)
        if done.ok:
            pushed.append({"name": member.name, "branch": member.branch, "remote": remote})
        else:
            by_hand = f"git -C {tree or member.repository.path} push {remote} {member.branch}"
            doing = f"pushing {member.branch} to {remote}, so the worktree stays"
            failed.append((member, done.failure(doing, hint=f"mend it and run this again, or push by hand: {by_hand}")))
    return failed


def _remove(looks: t.Sequence[Look], params: Params) -> list[dict[str, str]]:
    """Remove a worktree and those of its submodules; returns what was saved."""
    for look in looks:
        if look.member.adopt:
            _leave(look.member)
    going = [look for look in looks if not look.member.adopt]
    if not going:
        return []
    top = t.cast(Member, _top_of(going[0].member))
    if not os.path.lexists(top.path):
        saved = [one for look in going for one in _look_again(look, look.member.path, params)]
    else:
        with _aside.taken(top.path) as place:
            saved = [one for look in going for one in _look_again(look, look.member.below(place), params)]
            thrown = _trash.throw_away(top.repository.common, place, called=os.path.basename(top.path))
        top.stuck = [thrown] if _trash.is_stuck(thrown) else []
    for look in going:
        member = look.member
        if look.standing:
            if look.standing.gone or look.half_made:
                _break_locks(member)
            if look.tip and _goes(look, params):
                _delete_branch(member, look.tip)
            _forget(member)
    if os.path.lexists(top.path):
        raise EnvironmentFailure(
            f"repository {top.name}: {top.path} is there again: a program has written to it after it was removed",
            hint=f"end that program, then run the same command again; see who is at work there: fuser -v {top.path}",
        )
    return saved


def _look_again(look: Look, folder: str, params: Params) -> list[dict[str, str]]:
    """Look at a member where nothing reaches it any more, and save what is there; returns what was saved.

    :raises UserError: there is work that was not there before.
    """
    member = look.member
    if _goes(look, params):
        # Before the look, which sees all that the branch has now; what comes later keeps the branch from being deleted.
        look.tip = member.repository.commit(f"refs/heads/{member.branch}")
    work = _examine(look, folder, params)
    if work.nested or (work and not (params["force"] or look.half_made)):
        raise UserError(
            f"repository {member.name}: {member.path} was written to while it was being removed, so it stays:\n    "
            + "\n    ".join(work.lines()),
            hint="end the program that writes there, then commit and push, or add -e force=true",
        )
    return _save(member, look.tree(folder), work, params["owner"])


def _leave(member: Member) -> None:
    """Take what we wrote out of a worktree that another tool made, and our mark last."""
    manifest = member.manifest
    if manifest is None:
        return
    repository = member.repository
    if os.path.lexists(member.path):
        _hooks.remove(repository, member.path)
    for path in manifest.written if os.path.lexists(member.path) else ():
        place = os.path.join(member.path, path)
        if not manifest.is_ours(place):
            continue  # somebody's work by now
        if repository.git("ls-files", "--error-unmatch", "--", path, worktree=member.path).ok:
            doing = f"giving back {place}"
            _kept_out.show(repository, member.path, path)
            repository.must("checkout-index", "--force", "--", path, doing=doing, worktree=member.path)
            continue
        repository.throw_away(place)
        with contextlib.suppress(OSError):
            os.removedirs(os.path.dirname(place))
    others = [
        Manifest.in_admin("", admin) for admin in repository.admins() if admin != repository.admin_of(member.path)
    ]
    for path in manifest.blocks if os.path.lexists(member.path) else ():
        _blocks.take_out(os.path.join(member.path, path))
        # An earlier version hid it from all worktrees: his file is seen by git again, unless another has one so named.
        if not any(path in (*other.written, *other.blocks) for other in others):
            _exclude.remove(repository.common, _exclude.pattern_of(path))
    admin = str(repository.admin_of(member.path))
    _exclude.remove_own(repository, admin)
    for folder in (LOGS, _guard.FOLDER):
        _mounts.remove(os.path.join(admin, folder))
    manifest.forget()


def _save(member: Member, tree: _work.Tree, work: _work.Work, owner: str) -> list[dict[str, str]]:
    saved = _work.save(tree, work, name=_task(owner))
    return [{"name": member.name, **dataclasses.asdict(one)} for one in saved]


def _task(owner: str) -> str:
    """The task in a mark of ownership such as ``bautista/fix-login@5f3a09c1``, or the mark as it is."""
    return task_of(owner)[2] or owner


def _forget(member: Member) -> None:
    """Let git forget a worktree whose folder is away: in one step, so that none is ever half-known to git."""
    admin = member.repository.admin_of(member.path)
    if admin:
        member.repository.throw_away(admin)


def _delete_branch(member: Member, tip: str) -> None:
    """Delete a branch if it still is what was looked at."""
    repository, doing = member.repository, f"deleting branch {member.branch} of {member.name}"
    repository.must("update-ref", "-d", f"refs/heads/{member.branch}", tip, doing=doing)
    repository.git("config", "--remove-section", f"branch.{member.branch}")


def _tidy(tops: t.Iterable[Member]) -> None:
    """Remove the last traces, those of killed runs too: empty folders, lines that hid them, and what lies aside."""
    everyone = [one for top in tops for one in top.everyone if os.path.isdir(one.repository.common)]
    for member in everyone:
        if not (member.inside or member.adopt or os.path.lexists(member.path)):
            parent = os.path.dirname(member.made_at)
            with contextlib.suppress(OSError):
                while True:
                    os.rmdir(parent)
                    parent = os.path.dirname(parent) if member.exclusion else ""
            if member.exclusion:
                _exclude.remove(member.repository.common, member.exclusion)
    for member in everyone:
        repository = member.repository
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(repository.common, "worktrees"))
        if not any(Manifest.in_admin("", admin).exists for admin in repository.admins()):
            _exclude.clear(repository.common)
    _trash.discard(_commons(tops))


def _commons(tops: t.Iterable[Member]) -> list[str]:
    return list(dict.fromkeys(one.repository.common for top in tops for one in top.everyone))


# --- errors of sets ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _collected(errors: list[WorktreesError]) -> t.Iterator[None]:
    """Go on after an expected error, which is told with the others."""
    try:
        yield
    except WorktreesError as error:
        errors.append(error)


def _tell_all(errors: t.Sequence[WorktreesError], doing: str) -> None:
    """Raise what went wrong, all of it as one."""
    if not errors:
        return
    first, messages = errors[0], list(dict.fromkeys(error.message for error in errors))
    if len(messages) == 1:
        raise first
    kind = UserError if all(isinstance(error, UserError) for error in errors) else EnvironmentFailure
    raise kind(f"{doing}:\n  " + "\n  ".join(messages), hint=first.hint, **first.details)


def _tell_partial(
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
        _tell_all([error for _name, error in failed], f"{doing} failed")
    raise PartialFailure(
        f"{doing} failed for {len(failed)} of {len(pairs)} (done: {', '.join(done)}):\n  "
        + "\n  ".join(f"{name}: {error.message}" for name, error in failed),
        hint=failed[0][1].hint or "mend it and run the same command again: it goes on where it stopped",
        changed=changed,
        done=done,
        failed_members=[name for name, _error in failed],
        **details,
    )


def _map(
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
