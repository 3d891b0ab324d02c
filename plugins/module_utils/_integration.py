# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Integration: the branches of a finished task, merged, tried, and only then published, in all repositories or none.

Private to this collection: may change without notice.

A task is merged in worktrees of our own, at no branch, so that a conflict or a red gate leaves every branch as it was.
A submodule in which it has work is merged before the repository that names it, and lies in that one's worktree.
What is about to be published is noted first; after a kill, the next call finishes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import typing as t

from . import _files, _gates, _git, _lone_branches, _mounts, _top_level
from ._door import Params, Result, warned
from ._errors import EnvironmentFailure, PartialFailure, UserError, WorktreesError
from ._git import MAKING, Repository
from ._manifest import repository_of
from ._state import state_folder

NO_CHECK = "task {task} is integrated without any check: gate_checks of the workspace is empty"

ARGUMENT_SPEC: dict[str, t.Any] = {
    "workspace": {"type": "str", "required": True},
    "task": {"type": "str", "required": True},
    "worktrees": {
        **_gates.WORKTREES,
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path"},
            "submodules": {"type": "list", "elements": "str", "default": []},
            "repo": {"type": "path"},
            "branch": {"type": "str"},
        },
        "required_one_of": [("path", "repo")],
        "required_together": [("repo", "branch")],
    },
    "branch": {"type": "str", "default": "integration"},
    "target": {"type": "str"},
    "remote": {"type": "str", "default": "origin"},
    "push": {"type": "bool", "default": True},
    "directory": {"type": "path"},
    "checks": _gates.CHECKS,
    **_gates.SURROUNDINGS,
}

NOTHING = "0" * 40


@dataclasses.dataclass
class Place:
    """A branch here and at the remote; each a commit, or None where there is none."""

    name: str
    here: str | None
    there: str | None = None

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.name}"


@dataclasses.dataclass
class Member:
    """A repository in which a task has work, or a submodule of one.

    :ivar common: its common git directory.
    :ivar main: its main tree, as far as that is known.
    :ivar worktree: of the task, or the main one where the task has its branch alone.
    :ivar own: the task's branch, with the commit that is checked out.
    :ivar remote: what to push to; None where nothing is pushed.
    :ivar tree: the worktree of ours in which it is merged.
    :ivar waits: why the target is not moved here; None where it is. It is checked out where something is not committed.
    :ivar candidate: what integration and target are to become.
    :ivar submodules: the paths of those that have worktrees in the task's.
    :ivar inside: the name of the repository that a submodule lies in, and ``within`` its path there.
    :ivar named: commits of a submodule that integration and target of that repository name.
    :ivar is_checked_out: whether the branch of the task is, in its worktree or anywhere.
    :ivar is_touched: whether the task has something for it; always, where it is no submodule.
    """

    name: str
    common: str
    worktree: str
    own: Place
    integration: Place
    target: Place | None
    remote: str | None
    tree: str
    waits: str | None = None
    candidate: str = ""
    submodules: list[str] = dataclasses.field(default_factory=list)
    inside: str | None = None
    within: str = ""
    named: list[str] = dataclasses.field(default_factory=list)
    is_checked_out: bool = True
    is_touched: bool = True
    main: str = ""

    @classmethod
    def noted(cls, note: dict[str, t.Any]) -> Member:
        places = {key: Place(**note[key]) for key in ("own", "integration")}
        return cls(**{**note, **places, "target": Place(**note["target"]) if note["target"] else None})

    @property
    def repository(self) -> Repository:
        return Repository(self.main or self.worktree, self.common)

    @property
    def called(self) -> str:
        return _called(self.name, self.inside)

    @property
    def moving(self) -> list[Place]:
        """The branches that are to become the candidate: one, where integration is the target itself."""
        target = self.target
        return [self.integration, *([target] if target and target.name != self.integration.name else [])]

    @property
    def is_done(self) -> bool:
        """Whether all is where it is to be."""
        if not self.is_touched:
            return True
        waiting = self.target.name if self.target and self.waits else None
        places = [place.here == self.candidate for place in self.moving if place.name != waiting]
        if self.remote:
            places += [place.there == self.candidate for place in self.moving]
            places.append(self.own.there == self.own.here)
        return all(places)


def operation(params: Params, *, check: bool) -> Result:
    """Integrate one task: all of its repositories or none."""
    folder = params["directory"] or _usual_folder()
    chosen = _gates.refused_where_unclear(params["checks"], [one["name"] for one in params["worktrees"]], "integration")
    wanted = _wanted(params)
    opened = [_repository(one) for one in wanted]
    commons = [one.common for one in opened]
    finished: list[str] = []
    with _held(folder, commons):
        if not check:
            finished = _finish_others(folder, commons)
        members = _members(wanted, opened, folder, params, check=check)
        if check:
            for member in members:
                _foresee(member, _inside(member, members), params["task"])
            moving = [member for member in members if not member.is_done]
        else:
            _merge_all(members, params["task"])
            moving = [member for member in members if not member.is_done]
            if moving:
                _pass_gate(chosen, moving, params)
                _publish(folder, params["workspace"], params["task"], moving)
    notes = [f"{member.name}: {member.waits}" for member in members if member.waits]
    before, after = _lines(moving, "before"), _lines(moving, "after")
    actions = [*finished, *(line for member in moving for line in _actions(member, params["task"]))]
    return {
        "changed": bool(actions),
        "actions": actions,
        "integrated": [
            {"name": member.name, "branch": member.own.name, "commit": member.candidate or None} for member in moving
        ],
        "notes": notes,
        **warned(*([NO_CHECK.format(task=params["task"])] if moving and not params["checks"] else [])),
        "summary": _summary(params, moving, notes, check=check),
        "diff": [{"before_header": "branches", "after_header": "branches", "before": before, "after": after}]
        if before != after
        else [],
    }


def _lines(members: t.Sequence[Member], when: str) -> str:
    lines = []
    for member in members:
        for place in member.moving:
            commit = place.here if when == "before" else member.candidate or f"with {member.own.name}"
            lines.append(f"{member.name} {place.name} {commit or 'is not there'}\n")
    return "".join(lines)


def _actions(member: Member, task: str) -> list[str]:
    into = " and ".join(place.name for place in member.moving)
    lines = [f"merge {member.own.name} of {member.name} into {into} for {task}"]
    if member.remote:
        lines.append(f"push {member.own.name} and {into} of {member.name} to {member.remote}")
    return lines


def _summary(params: Params, moving: t.Sequence[Member], notes: t.Sequence[str], *, check: bool) -> str:
    task = params["task"]
    state = f"{'would be ' if check else ''}integrated" if moving else f"is in {params['branch']} already"
    lines = [f"{task}: {state}"]
    for member in moving:
        into = " and ".join(place.name for place in member.moving)
        at = f" at {member.candidate[:12]}" if member.candidate else ""
        lines.append(f"  {member.name}  {member.own.name} is in {into}{at}")
    return "\n".join([*lines, *(f"  {note}" for note in notes)]) + "\n"


# --- looking ----------------------------------------------------------------------------------------------------


def _wanted(params: Params) -> list[Params]:
    """What is to be integrated, in the order of publishing: submodules, then the repository that names them."""
    found = []
    for one in params["worktrees"]:
        for path in one["submodules"]:
            place = {"name": f"{one['name']}/{path}", "path": os.path.join(one["path"], path)}
            found.append({**place, "submodules": [], "inside": one["name"], "within": path})
        found.append({**one, "inside": None, "within": ""})
    return found


def _inside(member: Member, members: t.Iterable[Member]) -> list[Member]:
    return [one for one in members if one.inside == member.name]


def _called(name: str, inside: str | None) -> str:
    return f"{'submodule' if inside else 'repository'} {name}"


def _repository(given: Params) -> Repository:
    """The repository of a worktree, or of a branch."""
    if given["path"] is None:
        return Repository.at(given["repo"], given["name"])
    found = repository_of(given["path"])
    if found is None:
        raise UserError(
            f"{_called(given['name'], given['inside'])}: {given['path']} is no linked worktree any more, so nobody can "
            "say what is finished in it",
            hint="run provision again: it makes what is missing",
        )
    return found


def _members(
    wanted: t.Sequence[Params], opened: t.Sequence[Repository], folder: str, params: Params, *, check: bool
) -> list[Member]:
    members: dict[str, Member] = {}
    errors = []
    # A submodule is looked at after its repository: what that names is what the task may have added to.
    for given, repository in sorted(zip(wanted, opened, strict=True), key=lambda pair: pair[0]["inside"] is not None):
        around = members.get(given["inside"])
        try:
            if around:
                members[given["name"]] = _submodule(given, repository, around, params, check=check)
            elif given["inside"] is None:
                members[given["name"]] = _member(
                    given, repository, _tree_of(repository.common, folder), params, check=check
                )
        except WorktreesError as error:
            errors.append(error)
    if errors:
        kind = UserError if all(isinstance(error, UserError) for error in errors) else EnvironmentFailure
        text = "\n  ".join(error.message for error in errors)
        raise kind(
            errors[0].message if len(errors) == 1 else f"task {params['task']} cannot be integrated:\n  {text}",
            hint=errors[0].hint,
        )
    return [members[given["name"]] for given in wanted]


def _submodule(given: Params, repository: Repository, around: Member, params: Params, *, check: bool) -> Member:
    """A submodule, in which the task has work where its commits are not in what integration names already."""
    tree = os.path.join(around.tree, given["within"])
    target = _newest(around, around.target) if around.target else None
    # What the repository around it is merged on comes first; that is its candidate yet.
    links = [around.repository.gitlink(commit, given["within"]) for commit in (around.candidate, target) if commit]
    named = [link for link in dict.fromkeys(links) if link and _has(repository, link, given["name"], check=check)]
    _listed, own = _standing(given, repository, params)
    head = str(own.head)
    if links[0] is None or (links[0] in named and _contains(repository, links[0], head)):
        places = Place(own.branch or "", head), Place(params["branch"], None), None
        return Member(
            given["name"],
            repository.common,
            given["path"],
            *places,
            None,
            tree,
            inside=around.name,
            within=given["within"],
            is_touched=False,
            main=repository.path,
        )
    return _member(given, repository, tree, params, around, named, check=check)


def _has(repository: Repository, commit: str, name: str, *, check: bool) -> bool:
    """Whether a commit of a submodule is here, which it is but in check mode."""
    if not check and (done := repository.obtain(commit)):
        raise _git.nobody_has(name, commit, done)
    return repository.commit(commit) is not None


def _standing(given: Params, repository: Repository, params: Params) -> tuple[list[_git.Listed], _git.Listed]:
    """All worktrees of a repository, and that of the task, which is finished."""
    if given["path"] is not None:
        _top_level.check([given["path"]])
    with repository.locked():
        listed = repository.worktrees()
    path = given["path"]
    if path is None:
        return listed, _lone_branch(given, repository, listed, params)
    own = next((one for one in listed if os.path.realpath(one.path) == os.path.realpath(path)), None)
    if own is None or own.head is None or own.lock == MAKING:
        raise UserError(
            f"{_the_worktree(given, params)} is not finished", hint="run provision again: it makes what is missing"
        )
    return listed, own


def _lone_branch(given: Params, repository: Repository, listed: t.Sequence[_git.Listed], params: Params) -> _git.Listed:
    """The branch of a task as if it stood in a worktree: where it is checked out, or in the main one."""
    branch = _lone_branches.of(repository, params["workspace"], params["task"]) or given["branch"]
    head = repository.commit(f"refs/heads/{branch}")
    if head is None:
        raise UserError(
            f"repository {given['name']}: branch {branch} of task {params['task']} is gone",
            hint="run provision again: it makes what is missing",
        )
    place = next((one.path for one in listed if one.branch == branch and not one.gone), given["repo"])
    return _git.Listed(place, head, branch, None, gone=False)


def _the_worktree(given: Params, params: Params) -> str:
    called = _called(given["name"], given["inside"])
    if given["path"] is None:
        return f"{called}: branch {given['branch']} of task {params['task']}"
    return f"{called}: the worktree {given['path']} of task {params['task']}"


def _member(
    given: Params,
    repository: Repository,
    tree: str,
    params: Params,
    around: Member | None = None,
    named: t.Sequence[str] = (),
    *,
    check: bool,
) -> Member:
    called = _called(given["name"], given["inside"])
    listed, own = _standing(given, repository, params)
    path = given["path"] or own.path
    moving = [params["branch"], *([params["target"]] if params["target"] else [])]
    what = _the_worktree(given, params)
    if own.branch is None:
        raise UserError(f"{what} is at no branch (detached HEAD)", hint=f"make one: git -C {path} switch -c NAME")
    if own.branch in moving:
        raise UserError(f"{what} is on {own.branch} itself", hint=f"make one of its own: git -C {path} switch -c NAME")
    is_there = given["path"] is not None or any(one.branch == own.branch for one in listed)
    if is_there and (dirt := _gates.dirt(path)):
        raise UserError(f"{what} has work that is {dirt}", hint="commit it, or put it aside: git stash")
    if params["branch"] != params["target"]:
        _refuse_checked_out(called, params["branch"], listed)
    there: dict[str, str] = {}
    remote = params["remote"] if params["push"] and repository.git("remote", "get-url", params["remote"]).ok else None
    if remote:
        there = _fetch(repository, remote, [*moving, own.branch], called, check=check)
    places = [Place(one, repository.commit(f"refs/heads/{one}"), there.get(one)) for one in moving]
    if around:
        # A submodule is often somebody else's, and need not have a branch of the target's name.
        places = [place for place in places if place.name == params["branch"] or place.here or place.there]
    target = places[1] if len(places) > 1 else None
    member = Member(
        given["name"],
        repository.common,
        path,
        Place(own.branch, own.head, there.get(own.branch)),
        places[0],
        target,
        remote,
        tree,
        _waits(target, listed, around, given["within"]),
        submodules=given["submodules"],
        inside=given["inside"],
        within=given["within"],
        named=list(named),
        is_checked_out=is_there,
        main=repository.path,
    )
    member.candidate = _base(member)
    return member


def _waits(target: Place | None, listed: t.Sequence[_git.Listed], around: Member | None, within: str) -> str | None:
    for one in listed:
        if target is None or one.branch != target.name or one.gone:
            continue
        if dirt := _gates.dirt(one.path):
            return f"{target.name} stays behind at {one.path}, which has work that is {dirt}"
        if around and os.path.realpath(one.path) not in _following(around, within):
            return f"{target.name} stays behind at {one.path}, as the tree around it does"
    return None


def _following(member: Member, within: str) -> list[str]:
    """Where a submodule lies in trees that follow the target."""
    target = None if member.target is None or member.waits else member.target.name
    with member.repository.locked():
        listed = member.repository.worktrees()
    return [os.path.realpath(os.path.join(one.path, within)) for one in listed if target and one.branch == target]


def _refuse_checked_out(called: str, branch: str, listed: t.Sequence[_git.Listed]) -> None:
    for one in listed:
        if one.branch == branch:
            raise UserError(
                f"{called}: branch {branch} is checked out at {one.path}, which keeps it where it is",
                hint=f"git -C {one.path} switch --detach",
            )


def _fetch(
    repository: Repository, remote: str, branches: t.Sequence[str], called: str, *, check: bool
) -> dict[str, str]:
    """The commits of these branches at the remote, which are here then; in check mode of what was fetched before."""
    refs = [f"refs/heads/{branch}" for branch in branches]
    doing = f"{called}: asking {remote}"
    listed = repository.must("ls-remote", "--heads", remote, *refs, doing=doing, keep=())
    pairs = (line.split("\t") for line in listed.splitlines())
    found = {ref.removeprefix("refs/heads/"): commit for commit, ref in pairs}
    found = {branch: commit for branch, commit in found.items() if branch in branches}
    if check:
        return {branch: commit for branch, commit in found.items() if repository.commit(commit)}
    if found:
        specs = [f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}" for branch in found]
        done = repository.fetch(*specs, remote=remote)
        if not done.ok:
            raise done.failure(doing)
    return found


def _newest(member: Member, place: Place) -> str | None:
    """Where a branch is, here and at the remote together."""
    if place.here is None or place.there is None:
        return place.here or place.there
    for old, new in ((place.here, place.there), (place.there, place.here)):
        if _contains(member.repository, new, old):
            return new
    raise UserError(
        f"{member.called}: {place.name} here and at {member.remote} have gone different ways",
        hint=f"look at both, then let one contain the other: git -C {member.worktree} log --graph "
        f"{place.name} {member.remote}/{place.name}",
    )


def _contains(repository: Repository, commit: str, older: str) -> bool:
    done = repository.git("merge-base", "--is-ancestor", older, commit)
    if done.code not in (0, 1):
        raise done.failure(f"comparing commits in {repository.common}")
    return done.ok


def _base(member: Member) -> str:
    """What the task is merged on: integration, unless the target is further, or else what names a submodule."""
    integration = _newest(member, member.integration)
    target = _newest(member, member.target) if member.target else None
    if member.target and target is None:
        raise UserError(
            f"{member.called} has no branch {member.target.name}",
            hint="name the branch that integration leads to: integration_target",
        )
    base = integration or target or next(iter(member.named), None)
    if base is None:
        raise UserError(
            f"{member.called} has no branch {member.integration.name}, and no target to make it from",
            hint=f"make it: git -C {member.worktree} branch {member.integration.name} COMMIT",
        )
    return target if target and _contains(member.repository, target, base) else base


# --- merging ----------------------------------------------------------------------------------------------------


def _merge_all(members: t.Sequence[Member], task: str) -> None:
    """Merge the task in worktrees of our own, at no branch; that of a submodule lies in that of its repository."""
    for member in reversed(members):
        if member.is_touched:
            _make_tree(member)
    for member in members:
        if member.is_touched:
            _merge(member, _inside(member, members), task)
            # The others are in it as they are named, so that what is tried is whole.
            for one in _inside(member, members):
                link = None if one.is_touched else member.repository.gitlink(member.candidate, one.within)
                if link and one.repository.obtain(link) is None:
                    one.candidate = link
                    _make_tree(one)


def _parts(member: Member, task: str) -> t.Iterator[tuple[str, str, str]]:
    """What is to be in integration by the end: a commit, the message with which it is merged, and what it is."""
    into = member.integration.name
    if member.target and (target := _newest(member, member.target)):
        yield target, f"Merge branch '{member.target.name}' into {into}", member.target.name
    for commit in member.named:
        yield commit, f"Merge what {member.inside} names into {into}", f"what {member.inside} names"
    yield str(member.own.here), _message(member, task), f"task {task} ({member.own.name})"


def _message(member: Member, task: str) -> str:
    return f"Merge branch '{member.own.name}' into {member.integration.name}\n\nTask: {task}"


def _merge(member: Member, submodules: t.Sequence[Member], task: str) -> None:
    for commit, message, what in _parts(member, task):
        if not _contains(member.repository, member.candidate, commit):
            _merge_one(member, submodules, commit, message, what)
    touched = [one for one in submodules if one.is_touched]
    if any(member.repository.gitlink(member.candidate, one.within) != one.candidate for one in touched):
        _commit(member, submodules, _message(member, task))


def _merge_one(member: Member, submodules: t.Sequence[Member], commit: str, message: str, what: str) -> None:
    repository, tree = member.repository, member.tree
    options = ("--quiet", "--no-ff", "--no-commit", "--no-rerere-autoupdate")
    done = repository.git("merge", *options, commit, worktree=tree)
    listed = repository.git("ls-files", "--unmerged", "-z", worktree=tree).stdout.split("\0")
    files = list(dict.fromkeys(entry.partition("\t")[2] for entry in listed if entry))
    links = {file: _link(member, submodules, file, commit) for file in files}
    left = [file for file in files if links[file] is None]
    if left or not (done.ok or files):
        repository.git("merge", "--abort", worktree=tree)
        raise _conflict(member, what, left) or done.failure(f"{member.called}: merging {what}")
    for file, link in links.items():
        _name(member, file, str(link))
    _commit(member, submodules, message)


def _link(member: Member, submodules: t.Sequence[Member], path: str, commit: str) -> str | None:
    """The commit of a submodule that two commits name differently: one that has both in it."""
    one = next((one for one in submodules if one.within == path), None)
    sides = [member.repository.gitlink(side, path) for side in (member.candidate, commit)]
    if one is None or not all(side and one.repository.commit(side) for side in sides):
        return None
    for link in (one.candidate, *sides):
        if link and all(_contains(one.repository, link, str(side)) for side in sides):
            return link
    return None


def _name(member: Member, path: str, link: str) -> None:
    doing = f"{member.called}: naming a commit of {path}"
    member.repository.must(
        "update-index", "--add", "--cacheinfo", f"160000,{link},{path}", doing=doing, worktree=member.tree
    )


def _commit(member: Member, submodules: t.Iterable[Member], message: str) -> None:
    """Commit what was merged, with what was merged in submodules."""
    for one in submodules:
        if one.is_touched:
            _name(member, one.within, one.candidate)
    doing = f"{member.called}: committing what was merged"
    member.repository.must("commit", "--quiet", "--no-verify", "-m", message, doing=doing, worktree=member.tree)
    member.candidate = member.repository.must("rev-parse", "HEAD", doing=doing, worktree=member.tree).strip()


def _conflict(member: Member, what: str, files: t.Sequence[str]) -> UserError | None:
    if not files:
        return None
    into = member.integration.name
    where = next((place.name for place in member.moving if place.here), member.candidate[:12])
    merge = f"git -C {member.worktree} merge {where}"
    if not member.is_checked_out:
        merge = f"git -C {member.worktree} switch {member.own.name} && {merge}"
    return UserError(
        f"{member.called}: {what} conflicts with {into} in {', '.join(files)}; every branch is as it was",
        hint=f"solve it where the task's branch is, then integrate again: {merge}",
        files={member.name: list(files)},
    )


def _foresee(member: Member, submodules: t.Sequence[Member], task: str) -> None:
    """The refusal of a conflict, in check mode; what git writes for it goes elsewhere."""
    if not member.is_touched:
        return
    touched = {one.within for one in submodules if one.is_touched}
    parts = list(_parts(member, task))
    new = [part for part in parts if not _contains(member.repository, member.candidate, part[0])]
    with tempfile.TemporaryDirectory(prefix="parallel-worktrees-") as objects:
        env = {
            "GIT_OBJECT_DIRECTORY": objects,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": json.dumps(os.path.join(member.common, "objects")),
        }
        for commit, _with, what in new:
            options = ("--write-tree", "--name-only", "--no-messages", "-z")
            done = member.repository.git("merge-tree", *options, member.candidate, commit, env=env)
            if done.code == 1:
                files = [file for file in done.stdout.split("\0")[1:-1] if file not in touched]
                if left := [file for file in files if _link(member, submodules, file, commit) is None]:
                    raise t.cast(UserError, _conflict(member, what, left))
            elif not done.ok:
                raise done.failure(
                    f"foreseeing the merge into {member.integration.name}",
                    hint="a dry run of it needs git 2.38 or later",
                )
    if new or touched:
        member.candidate = ""


def _make_tree(member: Member) -> None:
    """A clean worktree of our own, at the commit to merge on; what git ignores stays from the last time."""
    repository, base, path = member.repository, member.candidate, member.tree
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    doing = f"{member.called}: making a worktree for integration at {path}"
    with repository.locked():
        repository.sweep_unfinished(path)
        real = os.path.realpath(path)
        standing = next((one for one in repository.worktrees() if os.path.realpath(one.path) == real), None)
        if standing is None or standing.gone or standing.lock == MAKING:
            _forget_tree(repository, path)
            options = ("--quiet", "--no-checkout", "--detach", "--lock", "--reason", MAKING)
            repository.must("worktree", "add", *options, "--", path, base, doing=doing)
            _top_level.settle(repository, path, is_submodule=member.inside is not None)
            os.unlink(os.path.join(repository.admin_in(path), "locked"))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(repository.admin_in(path), "index.lock"))  # of a killed run
    exactly = ("--force", "--detach")
    repository.must("checkout", "--quiet", *exactly, base, "--", doing=doing, worktree=path)
    _mounts.refuse(path)
    repository.must("clean", "-ffdq", doing=doing, worktree=path)


def _usual_folder() -> str:
    return os.path.join(state_folder(), "integration")


def _tree_of(common: str, folder: str) -> str:
    name = os.path.basename(os.path.dirname(common) if common.endswith("/.git") else common)
    return os.path.join(folder, f"{name}-{_short(common)}")


def _forget_tree(repository: Repository, path: str) -> None:
    _mounts.refuse(path)
    if admin := repository.admin_of(path):
        aside = repository.throw_away(admin)
        _mounts.remove(aside)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(aside))
    _mounts.remove(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.join(repository.common, "worktrees"))


def left_behind(repository: Repository) -> str | None:
    """The worktree that integration has used in a repository, where it is usually, and is not using now."""
    path = _tree_of(repository.common, _usual_folder())
    notes = _notes(_usual_folder()).values()
    is_needed = any(member["common"] == repository.common for note in notes for member in note["members"])
    return path if os.path.isdir(path) and not is_needed else None


def remove_tree(repository: Repository) -> None:
    """Take that worktree back, as soon as nobody integrates there: all in it is on a branch, or was refused."""
    with _files.locked(os.path.join(repository.common, "refs")), repository.locked():
        if path := left_behind(repository):
            _mounts.refuse(path)
            for submodule in _submodule_trees(repository, path):
                with submodule.locked():
                    _forget_tree(submodule, submodule.path)
            _forget_tree(repository, path)


def _submodule_trees(repository: Repository, path: str) -> t.Iterator[Repository]:
    """The worktrees of ours within one of ours."""
    for place in _git.submodule_trees(path) if repository.admin_of(path) else ():
        yield Repository(place, Repository.of_admin(str(_git.linked_admin(place))).common)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _pass_gate(chosen: t.Sequence[Params], members: t.Sequence[Member], params: Params) -> None:
    worktrees = [{"name": member.name, "path": member.tree} for member in members if not member.inside]
    outcomes, _dropped = _gates.run(chosen, worktrees, "integration", _gates.Surroundings.of(params))
    if failed := _gates.failures(outcomes):
        title = f"task {params['task']} was not integrated, every branch is as it was; the gate of {params['branch']}"
        raise _gates.red(title, failed, checks=[dataclasses.asdict(outcome) for outcome in outcomes])


# --- publishing -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held(folder: str, commons: t.Sequence[str]) -> t.Iterator[None]:
    """Be the only one who integrates in these repositories, and in those of what has to be finished first.

    That is the lock of another folder than the one for making worktrees: this takes as long as a gate does.
    """
    while True:
        wanted = _involved(folder, commons)
        with contextlib.ExitStack() as held:
            for common in sorted(wanted):
                held.enter_context(_files.locked(os.path.join(common, "refs")))
            if _involved(folder, commons) <= wanted:
                yield
                return


def _note_of(folder: str, workspace: str, task: str) -> str:
    return os.path.join(folder, f"{_short(workspace + '/' + task)}.json")


def _notes(folder: str) -> dict[str, dict[str, t.Any]]:
    """What is being published, or was when a run was killed, by the files that say so."""
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(".json"):
            with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, name), encoding="utf-8") as file:
                found[os.path.join(folder, name)] = json.load(file)
    return found


def _involved(folder: str, commons: t.Iterable[str]) -> set[str]:
    """The repositories of a call, and those of what has to be finished first."""
    involved = set(commons)
    notes = [{member["common"] for member in note["members"]} for note in _notes(folder).values()]
    for _round in notes:
        for others in notes:
            if others & involved:
                involved |= {common for common in others if os.path.isdir(common)}
    return involved


def _finish_others(folder: str, commons: t.Sequence[str]) -> list[str]:
    """Publish what a killed run had noted; returns what was done."""
    told = []
    involved = _involved(folder, commons)
    for path, note in _notes(folder).items():
        members = [Member.noted(one) for one in note["members"] if os.path.isdir(one["common"])]
        if any(member.common in involved for member in members):
            _carry_out(path, note["task"], members)
            told.append(f"finish the integration of {note['task']}, which was killed")
    return told


def _publish(folder: str, workspace: str, task: str, members: t.Sequence[Member]) -> None:
    """Move the branches of all repositories, or none."""
    path = _note_of(folder, workspace, task)
    note = {"task": task, "members": [dataclasses.asdict(member) for member in members]}
    _files.write(path, json.dumps(note, indent=1).encode("utf-8", "surrogateescape"), mode=0o600)
    _carry_out(path, task, members)


def _carry_out(path: str, task: str, members: t.Sequence[Member]) -> None:
    done: list[Member] = []
    try:
        for act in (_push, _move):
            for member in members:
                done.append(member)
                act(member)
    except WorktreesError as error:
        left = [told for member in {id(one): one for one in done}.values() for told in _take_back(member)]
        os.unlink(path)
        if left:
            raise PartialFailure(
                f"task {task} was integrated in part only: {error.message}\n  " + "\n  ".join(left),
                hint="see to these branches by hand, then integrate again",
                changed=True,
            ) from error
        text = f"task {task} was not integrated, every branch is as it was; {error.message}"
        raise type(error)(text, hint=error.hint, **error.details) from error
    for member in members:
        _follow(member)
    os.unlink(path)


def _push(member: Member) -> None:
    """Push the task's branch and those that move, together; each only from where it was seen last."""
    if not member.remote or _is_pushed(member):
        return
    leases = [f"--force-with-lease={place.ref}:{place.there or ''}" for place in member.moving]
    specs = [f"{member.candidate}:{place.ref}" for place in member.moving]
    own = [f"{member.own.here}:{member.own.ref}"] if member.own.there != member.own.here else []
    tree = member.tree if os.path.isdir(member.tree) else None
    _top_level.check([tree] if tree else [])
    done = member.repository.git(
        *("push", "--quiet", "--atomic", *leases, member.remote, *own, *specs),
        worktree=tree,
        hooks=True,  # such as that of git-lfs; ours, which would refuse it, are of the worktrees of tasks alone
        keep=(),
    )
    if not done.ok and not _is_pushed(member):
        names = ", ".join([member.own.name, *(place.name for place in member.moving)])
        raise done.failure(
            f"{member.called}: pushing {names} to {member.remote}",
            hint="integrate again; where the forge lets nobody push to the target, set integration_target: null",
        )


def _is_pushed(member: Member) -> bool:
    wanted = {member.own.ref: member.own.here, **{place.ref: member.candidate for place in member.moving}}
    listed = member.repository.git("ls-remote", "--heads", str(member.remote), *wanted, keep=())
    pairs = (line.split("\t") for line in listed.stdout.splitlines())
    found = {ref: commit for commit, ref in pairs}
    return listed.ok and all(found.get(ref) == commit for ref, commit in wanted.items())


def _move(member: Member) -> None:
    """Move the branches here; one that is checked out somewhere follows later."""
    with member.repository.locked():
        away = {one.branch for one in member.repository.worktrees()}
        _update(member, {place.ref: member.candidate for place in member.moving if place.name not in away})


def _update(member: Member, wanted: t.Mapping[str, str]) -> None:
    """Let branches be at these commits, all or none, each from where it was seen last."""
    before = {place.ref: place.here or NOTHING for place in member.moving}
    lines = []
    for ref, commit in wanted.items():
        now = member.repository.commit(ref) or NOTHING
        if now != commit:
            lines.append(f"update {ref} {commit} {before[ref] if commit == member.candidate else member.candidate}\n")
    done = member.repository.git("update-ref", "--stdin", stdin="".join(lines).encode())
    if not done.ok:
        raise done.failure(
            f"{member.called}: moving {', '.join(place.name for place in member.moving)}",
            hint="somebody else has moved it; integrate again",
        )


def _take_back(member: Member) -> list[str]:
    """Let branches be where they were; returns what could not be."""
    left = []
    if member.remote:
        listed = member.repository.git("ls-remote", "--heads", member.remote, keep=())
        at_candidate = {line.split("\t")[1] for line in listed.stdout.splitlines() if line.startswith(member.candidate)}
        back = [place for place in member.moving if place.ref in at_candidate and place.there != member.candidate]
        if back or not listed.ok:
            leases = [f"--force-with-lease={place.ref}:{member.candidate}" for place in back]
            specs = [f"+{place.there or ''}:{place.ref}" for place in back]
            pushed = member.repository.git("push", "--quiet", "--atomic", *leases, member.remote, *specs, keep=())
            if not pushed.ok:
                names = " and ".join(place.name for place in back) or "what was pushed"
                left.append(
                    f"{member.name}: {names} of {member.remote} could not be put back ({pushed.stderr.strip()})"
                )
    try:
        with member.repository.locked():
            moved = [place for place in member.moving if member.repository.commit(place.ref) == member.candidate]
            moved = [place for place in moved if place.here != member.candidate]
            _update(member, {place.ref: place.here or NOTHING for place in moved})
    except WorktreesError as error:
        left.append(error.message)
    return left


def _follow(member: Member) -> None:
    """Bring a tree that has the target checked out to it, where all is committed there; else say how."""
    repository = member.repository
    with repository.locked():
        for one in repository.worktrees():
            if member.target is None or one.branch != member.target.name or one.gone:
                continue
            if one.head != member.candidate:
                by_hand = f"git -C {one.path} merge --ff-only {member.candidate[:12]}"
                if not member.waits:
                    # Killed in the middle, it would leave a lock in somebody's tree.
                    done = _git.git(one.path, "merge", "--quiet", "--ff-only", member.candidate, keep=repository.kept)
                    if not done.ok:
                        member.waits = f"{one.branch} stays behind at {one.path} ({done.stderr.strip()})"
                if member.waits:
                    member.waits += f"; then: {by_hand}"
                    continue
            for path in member.submodules:
                _bring(member, one.path, path)


def _bring(member: Member, tree: str, path: str) -> None:
    """Let a submodule in a tree that has followed be at the commit named now, where it was at the one named before."""
    place = os.path.join(tree, path)
    before, now = (
        commit and member.repository.gitlink(commit, path)
        for commit in (member.target and member.target.here, member.candidate)
    )
    if not now or not os.path.lexists(os.path.join(place, ".git")):
        return
    at = _git.git(place, "rev-parse", "HEAD").stdout.strip()
    if at == before != now and not _git.is_attached(place) and not _gates.dirt(place):
        quietly = ("--quiet", "--detach")
        _git.git(place, "checkout", *quietly, now, keep=member.repository.kept)
        at = _git.git(place, "rev-parse", "HEAD").stdout.strip()
    if at != now:
        member.waits = f"{path} stays behind at {place}; then: git -C {tree} submodule update {path}"
