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
import secrets
import shutil
import subprocess
import typing as t

from . import _exclude, _git, _work
from ._door import Params, Result
from ._errors import EnvironmentFailure, PartialFailure, UserError, WorktreesError
from ._git import MAKING, Listed, Repository
from ._identity import check_branch
from ._manifest import Manifest

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "repo": {"type": "path", "required": True},
            "path": {"type": "str", "required": True},
            "branch": {"type": "str", "required": True},
            "base": {"type": "str"},
            "submodules": {"type": "list", "elements": "str", "default": []},
            "existing_branch": {"type": "str", "choices": ["use", "refuse"], "default": "use"},
        },
    },
    "owner": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force": {"type": "bool", "default": False},
    "delete_branch": {"type": "bool", "default": False},
    "push": {"type": "bool", "default": False},
    "remote": {"type": "str", "default": "origin"},
    "disposable": {"type": "list", "elements": "str", "default": list(_work.DISPOSABLE)},
}

THREADS = 2
TRIES = 3
TRASH = "parallel-worktrees-trash"

T = t.TypeVar("T")


@dataclasses.dataclass
class Member:
    """One worktree of the set: of a repository, or of a submodule within another member.

    :ivar path: absolute.
    :ivar inside: the member whose worktree this submodule lies in.
    """

    name: str
    repository: Repository
    path: str
    branch: str
    base: str | None
    existing_branch: str
    inside: Member | None = None
    submodules: list[Member] = dataclasses.field(default_factory=list)

    @property
    def submodule_path(self) -> str:
        return os.path.relpath(self.path, self.inside.path) if self.inside else ""

    def listed(self) -> Listed | None:
        """This worktree as git lists it. The caller holds the lock."""
        self.repository.remove_unreadable_admin()
        real = os.path.realpath(self.path)
        return next((one for one in self.repository.worktrees() if os.path.realpath(one.path) == real), None)

    def manifest_owner(self) -> str | None:
        """Who the mark in the worktree's git directory says it is for; it is there even where the folder is gone."""
        admin = self.repository.admin_of(self.path)
        return Manifest.in_admin(self.path, admin).owner if admin else None

    def plan(self) -> dict[str, t.Any]:
        """What a later removal needs to know, in the terms of this module's parameters."""
        return {
            "name": self.name,
            "repo": self.repository.path,
            "path": self.path,
            "branch": self.branch,
            "submodules": [member.submodule_path for member in self.submodules],
        }

    def commit(self) -> str | None:
        head = _git.git(self.path, "rev-parse", "--verify", "--quiet", "HEAD")
        return head.stdout.strip() if head.ok else None


@dataclasses.dataclass
class Finding:
    """What stands where a member is wanted.

    :ivar state: ``ready``, ``half`` (a killed run began it), ``gone`` (git knows it, the folder is away) or ``none``.
    """

    member: Member
    state: str
    branch_exists: bool = False


def operation(params: Params, *, check: bool) -> Result:
    """Make or remove a worktree set."""
    if params["state"] == "absent":
        return _remove_set(params, check=check)
    return _make_set(params, check=check)


# --- making -----------------------------------------------------------------------------------------------------


def _make_set(params: Params, *, check: bool) -> Result:
    owner = params["owner"]
    members = _gather(lambda given: _member(given, check=check), params["worktrees"], "cannot make the worktrees")
    _refuse_twins(members)
    findings = _gather(lambda member: _inspect(member, owner, check=check), members, "cannot make the worktrees")
    to_make = [finding for finding in findings if finding.state != "ready" or _lacks_submodule(finding, owner)]
    actions = [f"make worktree {finding.member.path} on branch {finding.member.branch}" for finding in to_make]
    if to_make and not check:
        _each(lambda finding: _make(finding, owner), to_make, "worktree", lambda finding: finding.member.name)
    lines = {True: "".join(f"{one.member.path} ({one.member.branch})\n" for one in findings)}
    lines[False] = "".join(f"{one.member.path} ({one.member.branch})\n" for one in findings if one not in to_make)
    return {
        "changed": bool(to_make),
        "worktrees": [{**member.plan(), "commit": member.commit()} for member in members],
        "plan": [member.plan() for member in members],
        "actions": actions,
        "diff": [_diff(lines[False], lines[True])] if to_make else [],
    }


def _diff(before: str, after: str) -> dict[str, str]:
    return {"before_header": "worktrees", "after_header": "worktrees", "before": before, "after": after}


def _member(given: Params, *, check: bool) -> Member:
    check_branch(given["branch"])
    repository = Repository.at(given["repo"], given["name"])
    path = os.path.normpath(os.path.join(os.path.abspath(given["repo"]), given["path"]))
    _refuse_escape(repository, given["path"], path)
    member = Member(
        given["name"], repository, path, given["branch"], given["base"], given["existing_branch"]
    )
    member.submodules = [_submodule(member, sub, check=check) for sub in given["submodules"]]
    return member


def _refuse_escape(repository: Repository, wanted: str, path: str) -> None:
    """Refuse a place that a symbolic link leads elsewhere."""
    if os.path.islink(path):
        raise UserError(
            f"the worktree folder {path} is a symbolic link to {os.readlink(path)}",
            hint=f"remove it if it is not needed: rm {path}",
        )
    if os.path.isabs(wanted) or wanted.startswith(".."):
        return  # the workspace itself names a place outside
    ancestor = os.path.dirname(path)
    while not os.path.lexists(ancestor):
        ancestor = os.path.dirname(ancestor)
    top = os.path.realpath(repository.path)
    if os.path.commonpath([top, os.path.realpath(ancestor)]) != top:
        raise UserError(
            f"the worktree folder {path} leads out of {repository.path}: {ancestor} is really "
            f"{os.path.realpath(ancestor)}",
            hint="remove the symbolic link, or name the real place in worktrees_repos (folder)",
        )


def _submodule(parent: Member, path: str, *, check: bool) -> Member:
    """The member for a submodule: a worktree of the very repository that the main tree's submodule has."""
    main = parent.repository
    place = os.path.join(main.path, path)
    name = f"{parent.name}/{path}"
    full = os.path.join(parent.path, path)
    if os.path.lexists(os.path.join(place, ".git")):
        repository = Repository.at(place, name)
    else:
        # The main tree has not initialised it; git keeps, or will keep, its repository here all the same.
        repository = Repository(place, os.path.join(main.common, "modules", _submodule_name(main, path, name)))
    return Member(name, repository, full, parent.branch, None, "use", inside=parent)


def _submodule_name(main: Repository, path: str, name: str) -> str:
    listed = main.git("config", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$")
    for line in listed.stdout.splitlines():
        key, _, value = line.partition(" ")
        if value == path:
            return key.removeprefix("submodule.").removesuffix(".path")
    raise UserError(
        f"repository {name}: {main.path} has no submodule {path}", hint=f"see them: git -C {main.path} submodule status"
    )


def _refuse_twins(members: t.Sequence[Member]) -> None:
    seen: dict[str, Member] = {}
    for member in members:
        twin = seen.setdefault(member.path, member)
        if twin is not member:
            raise UserError(f"the worktrees of {twin.name} and {member.name} would both be {member.path}")


def _inspect(member: Member, owner: str, *, check: bool) -> Finding:
    """Look at what stands where a member is wanted, and refuse every collision."""
    for submodule in member.submodules:
        _inspect_submodule(submodule)
    with member.repository.locked():
        if not check:
            member.repository.remove_unreadable_admin()
        finding = _find(member, owner)
    if finding.state in ("none", "gone") and not finding.branch_exists:
        member.repository.base_commit(member.base, name=member.name, check=check)
    return finding


def _inspect_submodule(member: Member) -> None:
    if os.path.isdir(member.repository.common):
        with member.repository.locked():
            _refuse_branch_elsewhere(member, member.repository.worktrees())


def _find(member: Member, owner: str) -> Finding:
    listed = member.repository.worktrees()
    real = os.path.realpath(member.path)
    standing = next((one for one in listed if os.path.realpath(one.path) == real), None)
    branch_exists = _branch_exists(member)
    if standing is None:
        if os.path.lexists(member.path) and (not os.path.isdir(member.path) or os.listdir(member.path)):
            raise UserError(
                f"repository {member.name}: {member.path} exists and is not a worktree of {member.repository.path}",
                hint=f"look at it, then move it away: mv {member.path} {member.path}.old",
            )
        _refuse_branch_elsewhere(member, listed)
        if branch_exists and member.existing_branch == "refuse":
            raise UserError(
                f"repository {member.name}: {member.repository.path} has a branch {member.branch} already",
                hint=f"choose another name, or delete it: git -C {member.repository.path} branch -d {member.branch}",
            )
        return Finding(member, "none", branch_exists)
    if standing.lock == MAKING:
        return Finding(member, "gone" if standing.gone else "half", branch_exists)
    if standing.gone:
        _refuse_branch_elsewhere(member, [one for one in listed if one is not standing])
        return Finding(member, "gone", branch_exists)
    found = member.manifest_owner()
    if found != owner:
        whose = f"belongs to {found}" if found else "was not made by this collection"
        raise UserError(
            f"repository {member.name}: the worktree {member.path} (branch {standing.branch}) {whose}",
            hint=f"remove it: git -C {member.repository.path} worktree remove {member.path}",
        )
    member.branch = standing.branch or member.branch
    return Finding(member, "ready", branch_exists)


def _branch_exists(member: Member) -> bool:
    """Whether the branch exists; refused where git could not make it beside another (a and a/b)."""
    parts = member.branch.split("/")
    prefixes = ["refs/heads/" + "/".join(parts[: number + 1]) for number in range(len(parts))]
    listed = member.repository.git("for-each-ref", "--format=%(refname)", *prefixes).stdout.splitlines()
    full = prefixes[-1]
    clash = next((ref for ref in listed if ref in prefixes[:-1] or ref.startswith(full + "/")), None)
    if clash and full not in listed:
        raise UserError(
            f"repository {member.name}: git cannot make branch {member.branch} beside {clash.removeprefix('refs/heads/')}",
            hint="choose another name: a branch cannot be a folder of another",
        )
    return full in listed


def _refuse_branch_elsewhere(member: Member, listed: t.Sequence[Listed]) -> None:
    real = os.path.realpath(member.path)
    for one in listed:
        if one.branch == member.branch and os.path.realpath(one.path) != real and not one.gone:
            raise UserError(
                f"repository {member.name}: branch {member.branch} is checked out at {one.path}",
                hint=f"git -C {one.path} switch --detach, or choose another task name",
            )


def _lacks_submodule(finding: Finding, owner: str) -> bool:
    return any(
        not os.path.lexists(os.path.join(submodule.path, ".git")) or submodule.manifest_owner() != owner
        for submodule in finding.member.submodules
    )


def _make(finding: Finding, owner: str) -> None:
    member = finding.member
    with member.repository.locked() as lock:
        # Another run may have come between the look and the lock, so look again.
        finding = _find(member, owner)
        made = finding.state != "ready"
        if finding.state == "half":
            _complete(member, keep=(lock,))
        elif made:
            _add(finding, keep=(lock,))
        if made and member.inside is None:
            _exclude_folder(member)
    for submodule in member.submodules:
        if not os.path.isdir(submodule.repository.common):
            _adopt_module(member, submodule)
        _make(Finding(_based(submodule), "none"), owner)
    if made:
        with member.repository.locked():
            manifest = Manifest.of(member.path)
            if manifest is None:
                raise EnvironmentFailure(f"the worktree {member.path} is gone again while it was being made")
            manifest.owner = owner
            manifest.save()
            _git.must(
                member.repository.path, "worktree", "unlock", member.path, doing=f"finishing the worktree {member.path}"
            )


def _add(finding: Finding, *, keep: t.Sequence[int]) -> None:
    """Add a worktree; git's lock marks it as ours and unfinished from its very first file on."""
    member, repository = finding.member, finding.member.repository
    for attempt in range(1, TRIES + 1):
        if finding.state == "gone":
            _forget(member)
        if finding.branch_exists:
            what = ("--", member.path, member.branch)
        else:
            base = repository.base_commit(member.base, name=member.name, check=False)
            what = ("--no-track", "-b", member.branch, "--", member.path, str(base))
        done = _git.git(
            _place(repository), "worktree", "add", "--quiet", "--lock", "--reason", MAKING, *what, keep=keep
        )
        if done.ok:
            return
        if attempt == TRIES:
            raise done.failure(f"repository {member.name}: making the worktree {member.path}")
        # Something other than ours may have been at work in the repository; see what is there now.
        repository.remove_unreadable_admin()
        standing = member.listed()
        if standing and not standing.gone:
            _complete(member, keep=keep)
            return
        finding = Finding(member, "gone" if standing else "none", _branch_exists(member))


def _place(repository: Repository) -> str:
    """Where git commands for a repository run: its folder, or its git directory where that has no folder yet."""
    return repository.path if os.path.lexists(os.path.join(repository.path, ".git")) else repository.common


def _complete(member: Member, *, keep: t.Sequence[int]) -> None:
    """Finish a worktree whose making was killed; whatever else is in it is saved first."""
    repository = member.repository
    admin = repository.admin_of(member.path)
    if admin is None or not _git.git(member.path, "rev-parse", "--verify", "--quiet", "HEAD").ok:
        _set_aside(member)
        _forget(member)
        _add(Finding(member, "none", _branch_exists(member)), keep=keep)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(admin, "index.lock"))
    _save_half_made(member)
    _git.must(member.path, "reset", "--hard", "--quiet", doing=f"finishing the worktree {member.path}", keep=keep)


def _save_half_made(member: Member) -> None:
    work = _work.look(
        member.repository,
        member.path,
        branch_to_delete=None,
        disposable=_work.DISPOSABLE,
        members=[submodule.submodule_path for submodule in member.submodules],
        half_made=True,
    )
    if work.files:
        _work.save(member.repository, member.path, work, name=member.branch, branch=member.branch)


def _exclude_folder(member: Member) -> None:
    top = os.path.realpath(member.repository.path)
    inside = os.path.relpath(os.path.realpath(member.path), top)
    if inside.startswith("..") or member.repository.git("check-ignore", "--quiet", "--", inside + "/").ok:
        return
    parent = os.path.dirname(inside)
    _exclude.add(member.repository.common, [_exclude.pattern_of(parent or inside) + "/"])


def _based(submodule: Member) -> Member:
    """A submodule's branch starts at the commit that its superproject's worktree names."""
    parent = t.cast(Member, submodule.inside)
    path = submodule.submodule_path
    text = _git.must(parent.path, "ls-tree", "HEAD", "--", path, doing=f"reading submodule {submodule.name}")
    mode, _, rest = text.partition(" ")
    if mode != "160000":
        raise UserError(
            f"repository {parent.name}: {path} is not a submodule at {parent.branch}",
            hint=f"see them: git -C {parent.path} submodule status",
        )
    submodule.base = rest.split()[1]
    repository = submodule.repository
    if repository.commit(submodule.base) is None:
        done = _git.git(repository.common, "fetch", "--no-tags", "origin", submodule.base)
        if not done.ok:
            done = _git.git(repository.common, "fetch", "--no-tags", "origin")
        if repository.commit(submodule.base) is None:
            raise done.failure(f"submodule {submodule.name}: nobody has its commit {submodule.base}")
    return submodule


def _adopt_module(parent: Member, submodule: Member) -> None:
    """Fetch a submodule that the main tree never initialised, and keep its repository where the main tree's would be."""
    path, common = submodule.submodule_path, submodule.repository.common
    with parent.repository.locked():
        if os.path.isdir(common):
            return
        _git.must(
            parent.path, "submodule", "update", "--init", "--", path, doing=f"fetching submodule {submodule.name}"
        )
        private = _git.admin_folder(submodule.path)
        if private is None:
            raise EnvironmentFailure(f"submodule {submodule.name}: git made no repository for it in {submodule.path}")
        os.makedirs(os.path.dirname(common), exist_ok=True)
        work_tree = os.path.relpath(os.path.join(parent.repository.path, path), common)
        _git.must(
            submodule.path, "config", "core.worktree", work_tree, doing=f"keeping the repository of {submodule.name}"
        )
        shutil.rmtree(submodule.path)
        os.mkdir(submodule.path)
        os.rename(private, common)


# --- removing ---------------------------------------------------------------------------------------------------


def _remove_set(params: Params, *, check: bool) -> Result:
    owner, force = params["owner"], params["force"]
    tops = _gather(_standing_member, params["worktrees"], "cannot remove the worktrees")
    members = [one for top in tops if top for one in (top, *top.submodules)]
    looks = _gather(lambda member: _look(member, params), members, "cannot tell what would be lost")
    found = [(member, look) for member, look in zip(members, looks) if look]
    _refuse_losses(found, force=force)
    actions = []
    if params["push"]:
        actions += [f"push {member.branch} of {member.name} to {params['remote']}" for member, _ in _push_order(found)]
    for member, look in found:
        if look.work and not look.half_made:
            actions.append(f"save the work in {member.path} under refs/worktrees-saved/{_saved_name(owner)}")
        actions.append(f"remove worktree {member.path}")
        if params["delete_branch"] and member.repository.branch_commit(member.branch):
            actions.append(f"delete branch {member.branch} of {member.name}")
    result: Result = {
        "changed": bool(found),
        "actions": actions,
        "saved": [],
        "pushed": [],
        "diff": [_diff("".join(f"{member.path} ({member.branch})\n" for member, _ in found), "")] if found else [],
    }
    if not check:
        failed = _push(found, params["remote"], result) if params["push"] else {}
        kept = {member.name.split("/")[0] for member in members if member.name in failed}
        going = [(member, look) for member, look in found if member.name.split("/")[0] not in kept]
        by_repository: dict[str, list[tuple[Member, Look]]] = {}
        for member, look in going:
            by_repository.setdefault(member.name.split("/")[0], []).append((member, look))
        _each(
            lambda group: result["saved"].extend(_remove(group, params)),
            list(by_repository.values()),
            "removal of the worktree",
            lambda group: group[0][0].name,
        )
        if failed:
            raise PartialFailure(
                "\n".join(f"push of {name} failed, so its worktree stays: {why}" for name, why in failed.items()),
                hint="mend it and run teardown again, or push by hand: git -C WORKTREE push origin BRANCH",
                changed=bool(going),
                pushed=result["pushed"],
                failed_pushes=sorted(failed),
            )
    return result


@dataclasses.dataclass
class Look:
    """What a removal found at a member: is it registered, half-made, and which work it has."""

    work: _work.Work
    half_made: bool
    gone: bool
    unregistered: bool


def _standing_member(given: Params) -> Member | None:
    """A member to remove; None where its repository and its folder are both gone."""
    path = os.path.normpath(os.path.join(os.path.abspath(given["repo"]), given["path"]))
    if not os.path.isdir(given["repo"]) and not os.path.lexists(path):
        return None
    repository = Repository.at(given["repo"], given["name"])
    member = Member(given["name"], repository, path, given["branch"], None, "use")
    for sub in given["submodules"]:
        with contextlib.suppress(UserError):
            submodule = _submodule(member, sub, check=True)
            if os.path.isdir(submodule.repository.common):
                member.submodules.append(submodule)
    return member


def _look(member: Member, params: Params) -> Look | None:
    """Look at a member before it goes; None where there is nothing."""
    with member.repository.locked():
        listed = member.listed()
        owner = member.manifest_owner()
    if listed is None:
        if not os.path.isdir(member.path) or not os.listdir(member.path) or member.inside:
            return None
        if not params["force"]:
            raise UserError(
                f"repository {member.name}: {member.path} has files, but git does not know it as a worktree, so it is "
                "unknown what would be lost",
                hint="look at it, then add -e force=true: the files are then saved first",
            )
        everything = [
            os.path.relpath(os.path.join(folder, name), member.path)
            for folder, _, files in os.walk(member.path)
            for name in files
            if name != ".git"
        ]
        return Look(_work.Work(uncommitted=everything), half_made=False, gone=False, unregistered=True)
    half_made = listed.lock == MAKING
    if not half_made and owner != params["owner"] and not params["force"]:
        raise UserError(
            f"repository {member.name}: the worktree {member.path} "
            + (f"belongs to {owner}, not to {params['owner']}" if owner else "was not made by this collection"),
            hint=f"git -C {member.repository.path} worktree remove {member.path}, if nobody needs it",
        )
    if listed.lock is not None and not half_made and not params["force"]:
        raise UserError(
            f"repository {member.name}: the worktree {member.path} is locked ({listed.lock or 'no reason given'})",
            hint=f"git -C {member.repository.path} worktree unlock {member.path}",
        )
    if half_made:
        # The branch was chosen by us; nobody can have switched it.
        member.branch = listed.branch or member.branch
    elif listed.branch:
        member.branch = listed.branch
    if listed.gone:
        return Look(_work.Work(), half_made, gone=True, unregistered=False)
    if half_made and not _git.git(member.path, "rev-parse", "--verify", "--quiet", "HEAD").ok:
        return Look(_work.Work(), half_made, gone=False, unregistered=False)
    work = _work.look(
        member.repository,
        member.path,
        branch_to_delete=member.branch if params["delete_branch"] else None,
        disposable=params["disposable"],
        members=[submodule.submodule_path for submodule in member.submodules],
        half_made=half_made,
    )
    return Look(work, half_made, gone=False, unregistered=False)


def _refuse_losses(found: t.Sequence[tuple[Member, Look]], *, force: bool) -> None:
    lost = [(member, look.work) for member, look in found if look.work and not look.half_made]
    nested = [f"{member.path}/{folder}" for member, work in lost for folder in work.nested]
    if nested:
        raise UserError(
            f"repositories of their own lie in the worktree, and no commit can save them: {', '.join(nested)}",
            hint="move them elsewhere first",
        )
    if not lost or force:
        return
    lines = [f"{member.name} ({member.path})\n    " + "\n    ".join(work.lines()) for member, work in lost]
    raise UserError(
        "work would be lost, so nothing was removed:\n  " + "\n  ".join(lines),
        hint="commit and push it, or add -e force=true: it is then saved under refs/worktrees-saved first",
        files={member.name: work.files for member, work in lost},
        commits={member.name: work.commits for member, work in lost},
    )


def _push_order(found: t.Sequence[tuple[Member, Look]]) -> list[tuple[Member, Look]]:
    """Repositories in the order given, then submodules."""
    return sorted((pair for pair in found if not pair[1].gone), key=lambda pair: pair[0].inside is not None)


def _push(found: t.Sequence[tuple[Member, Look]], remote: str, result: Result) -> dict[str, str]:
    """Push each branch; what failed, by name, with the reason."""
    failed = {}
    for member, _look in _push_order(found):
        refspec = f"refs/heads/{member.branch}:refs/heads/{member.branch}"
        done = _git.git(_place(member.repository), "push", "--porcelain", remote, refspec)
        if done.ok:
            result["pushed"].append({"name": member.name, "branch": member.branch, "remote": remote})
        else:
            failed[member.name] = done.failure(f"pushing {member.branch} to {remote}").message
    return failed


def _remove(group: t.Sequence[tuple[Member, Look]], params: Params) -> list[dict[str, str]]:
    """Remove a repository's worktree and those of its submodules; returns what was saved."""
    saved = []
    for member, look in group:
        if (look.work.files or look.work.commits) and not look.gone:
            with member.repository.locked():
                ref = _work.save(
                    member.repository,
                    member.path,
                    look.work,
                    name=_saved_name(params["owner"]),
                    branch=member.branch,
                )
            back = f"git -C {member.repository.path} switch -c NEW-BRANCH {ref}"
            saved.append({"name": member.name, "ref": ref, "restore": back})
    trash = []
    for member, look in group:
        with member.repository.locked():
            if os.path.lexists(member.path):
                trash.append(_set_aside(member))
            if not look.unregistered:
                _forget(member)
            if params["delete_branch"]:
                _delete_branch(member, force=params["force"])
            if member.inside is None:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(member.path))
                _clear_exclude(member.repository)
    _discard(trash, group[0][0].repository)
    return saved


def _saved_name(owner: str) -> str:
    """An owner is a workspace and a task: ``bautista/fix-login``."""
    return owner.partition("/")[2] or owner


def _set_aside(member: Member) -> str:
    """Move a worktree's folder out of sight at once; it is deleted later."""
    name = secrets.token_hex(8)
    for place in (os.path.join(member.repository.common, TRASH), os.path.dirname(member.path)):
        target = os.path.join(place, name if os.path.basename(place) == TRASH else f".{TRASH}-{name}")
        try:
            os.makedirs(place, exist_ok=True)
            os.rename(member.path, target)
        except OSError as error:
            reason = error.strerror
        else:
            return target
    raise EnvironmentFailure(f"cannot move the worktree {member.path} aside: {reason}")


def _forget(member: Member) -> None:
    """Let git forget a worktree whose folder is away."""
    if member.listed() is None:
        return
    _git.must(
        _place(member.repository),
        "worktree",
        "remove",
        "--force",
        "--force",
        member.path,
        doing=f"repository {member.name}: forgetting the worktree {member.path}",
    )


def _delete_branch(member: Member, *, force: bool) -> None:
    """Delete a branch only if it still is what was looked at, and nothing is lost with it."""
    repository, ref = member.repository, f"refs/heads/{member.branch}"
    tip = repository.commit(ref)
    if tip is None:
        return
    unique = repository.unique_commits([tip], but=member.branch)
    if unique and not force:
        raise UserError(f"branch {member.branch} of {member.name} got new commits, so it stays: {', '.join(unique)}")
    _git.must(repository.common, "update-ref", "-d", ref, tip, doing=f"deleting branch {member.branch} of {member.name}")
    _git.git(repository.common, "config", "--remove-section", f"branch.{member.branch}")


def _clear_exclude(repository: Repository) -> None:
    """Take our block out of info/exclude with the last worktree of ours."""
    if not any(Manifest.in_admin("", admin).exists for admin in repository.admins()):
        _exclude.clear(repository.common)


def _discard(trash: list[str], repository: Repository) -> None:
    """Delete what was set aside, now and by killed runs before, in the background: nobody waits for it."""
    folder = os.path.join(repository.common, TRASH)
    with contextlib.suppress(OSError):
        trash = list(dict.fromkeys([*trash, *(os.path.join(folder, entry) for entry in os.listdir(folder))]))
    if trash:
        script = 'rm -rf -- "$@"; rmdir -- "$0" 2>/dev/null'
        subprocess.Popen(
            ["/bin/sh", "-c", script, folder, *trash],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


# --- sets -------------------------------------------------------------------------------------------------------


def _gather(look: t.Callable[[t.Any], T], items: t.Sequence[t.Any], doing: str) -> list[T]:
    """Look at every item and tell all refusals at once."""
    results, errors = _map(look, items)
    if errors:
        raise _all_of(list(errors.values()), doing)
    return [results[number] for number in range(len(items))]


def _all_of(errors: t.Sequence[WorktreesError], doing: str) -> WorktreesError:
    """Several errors told as one."""
    first = errors[0]
    if len(errors) == 1:
        return first
    kind = UserError if all(isinstance(error, UserError) for error in errors) else EnvironmentFailure
    return kind(f"{doing}:\n  " + "\n  ".join(error.message for error in errors), hint=first.hint, **first.details)


def _each(act: t.Callable[[t.Any], t.Any], items: t.Sequence[t.Any], what: str, name: t.Callable[[t.Any], str]) -> None:
    """Act on every item; where some are done and some are not, say which."""
    results, errors = _map(act, items)
    if not errors:
        return
    if not results:
        raise _all_of(list(errors.values()), f"{what} failed")
    first = next(iter(errors.values()))
    done = ", ".join(name(items[number]) for number in sorted(results))
    failed = "\n  ".join(f"{name(items[number])}: {error.message}" for number, error in sorted(errors.items()))
    raise PartialFailure(
        f"{what} failed for {len(errors)} of {len(items)} (done: {done}):\n  {failed}",
        hint=first.hint or "mend it and run the same command again: it goes on where it stopped",
        changed=bool(results),
        done=[name(items[number]) for number in sorted(results)],
        failed_members=[name(items[number]) for number in sorted(errors)],
    )


def _map(
    act: t.Callable[[t.Any], T], items: t.Sequence[t.Any]
) -> tuple[dict[int, T], dict[int, WorktreesError]]:
    """Results and expected errors, by the item's number; two repositories at a time."""
    results: dict[int, T] = {}
    errors: dict[int, WorktreesError] = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(act, item) for item in items]
    for number, future in enumerate(futures):
        try:
            results[number] = future.result()
        except WorktreesError as error:
            errors[number] = error
    return results, errors
