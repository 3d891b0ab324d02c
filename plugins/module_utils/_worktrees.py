# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worktree set of a task: checked as a whole, then made or removed repository by repository.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import time
import typing as t

from . import (
    _branch_marks,
    _exclude,
    _files,
    _foreign_ports,
    _git,
    _lone_branches,
    _mounts,
    _top_level,
    _whereabouts,
    _work,
    _worktree_files,
    _worktree_removal,
    _worktree_set,
)
from ._door import Params, Result, together
from ._errors import UserError, WorktreesError
from ._git import MAKING, Listed
from ._lone_branches import LoneBranch
from ._manifest import Manifest
from ._worktree_set import Member, View

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
            **_worktree_files.OPTIONS,
        },
        "required_if": [("checkout", True, ("path",))],
    },
    "owner": {"type": "str", "required": True},
    "ports": {"type": "dict", "default": {}},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force": {"type": "bool", "default": False},
    "delete_branch": {"type": "bool", "default": False},
    "push": {"type": "bool", "default": False},
    "remote": {"type": "str", "default": "origin"},
    "disposable": {"type": "list", "elements": "str", "default": list(_work.DISPOSABLE)},
}

TRIES = 3

SETTINGS = "give it settings of its own: git -C {} config --worktree core.bare false"


def operation(params: Params, *, check: bool) -> Result:
    """Make or remove a worktree set."""
    if params["state"] == "absent":
        return _worktree_removal.remove_set(params, check=check)
    worktrees = _worktree_files.worktrees_of(params["worktrees"])
    _worktree_files.refuse_missing(worktrees)
    made = _make_set(params, check=check)
    try:
        placed = _worktree_files.place(worktrees, check=check)
    except WorktreesError as error:
        error.details |= {"changed": made["changed"] and not check, "saved": made["saved"]}
        raise
    return {**made, **together(made, placed)}


CHANGING = ("commit", "existing_branch", "taken_up")
"""The facts of a worktree that change with work."""


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
    members = _worktree_set.members_of(params, errors)
    tops, lone = _worktree_set.kinds(members)
    with contextlib.ExitStack() as held:
        _worktree_set.hold(held, members)
        with _worktree_set.collected(errors):
            _refuse_twins(members)
        views: dict[str, View] = {}

        def find(member: Member, view: View) -> Finding:
            return _find(member, view, owner, found.get(id(member.inside)), check=check)

        found: dict[int, Finding] = {}
        found |= _worktree_set.survey(tops, find, views, errors, owner, check=check)
        inner = [submodule for member in tops if id(member) in found for submodule in member.submodules]
        found |= _worktree_set.survey(inner, find, views, errors, owner, check=check)
        for one in lone:
            with _worktree_set.collected(errors):
                _find_lone(one, owner, check=check)
        _worktree_set.raise_all(errors, "cannot make the worktrees")
        findings = [found[id(one)] for member in tops for one in member.everyone]
        for finding in findings:
            known = views[finding.member.repository.common].made
            finding.is_used = not (finding.is_new or finding.member.branch in known)
        ready = [one for one in lone if one.is_ready]
        actions = _actions(findings, lone)
        saved: list[dict[str, str]] = []
        if any(finding.state != "ready" for finding in findings):
            _foreign_ports.check([member.repository for member in tops], owner, params["ports"])

        def make(member: Member) -> list[dict[str, str]]:
            kept = _make_all([found[id(one)] for one in member.everyone], owner)
            _foreign_ports.note(member.manifest, params["ports"])
            return kept

        if not check:
            outcomes = _worktree_set.in_turn(
                make,
                tops,
                lambda member: member.repository.common,
            )
            saved = [one for outcome in outcomes if isinstance(outcome, list) for one in outcome]
            made = _worktree_set.in_turn(
                lambda one: _lone_branches.make(one, owner), lone, lambda one: one.repository.common
            )
            _worktree_set.raise_partial(
                "making the worktree", [*tops, *lone], [*outcomes, *made], changed=True, saved=saved
            )
    facts = [_lone_facts(one) if isinstance(one, LoneBranch) else _facts(found[id(one)]) for one in members]
    return {
        "changed": bool(actions),
        "worktrees": facts,
        # What a later removal needs to know, in the terms of this module's parameters: nothing that changes with work.
        "plan": [{key: value for key, value in one.items() if key not in CHANGING} for one in facts],
        "actions": actions,
        "saved": saved,
        "diff": [
            *_worktree_set.diff(
                [*(one.member for one in findings if one.state == "ready"), *ready],
                [*(one.member for one in findings), *lone],
            ),
            *(one.renewal.diff for one in findings if one.renewal),
        ],
    }


def _actions(findings: t.Sequence[Finding], lone: t.Sequence[LoneBranch]) -> list[str]:
    """What is going to be done, for people."""
    actions = []
    for one in findings:
        place, branch = f"worktree {one.member.path}", f"branch {one.member.branch}"
        if one.state == "adopt":
            actions.append(f"adopt {place} on {branch}")
        elif one.state != "ready":
            actions.append(f"make {place} on {'the existing ' if one.is_used else ''}{branch}")
    actions += [f"give worktree {one.member.path} its own settings of git" for one in findings if one.is_unsettled]
    for one in findings:
        if one.renewal:
            actions.append(f"take over what git ignores elsewhere into worktree {one.member.path}")
    branches = (one for one in lone if not one.is_ready)
    return [*actions, *(f"{'take' if one.tip else 'make'} branch {one.branch} of {one.name}" for one in branches)]


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
        "taken_up": None,
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
        "taken_up": _taken_up(finding),
    }


def _taken_up(finding: Finding) -> str | None:
    """The last commit of a branch that exists and gets a worktree now."""
    is_taken = finding.state == "none" and not finding.is_new and finding.start
    return finding.member.repository.last_commit(str(finding.start)) if is_taken else None


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
    if standing and standing.gone:
        _whereabouts.refuse_unmounted(member.name, member.path, mark)
    if standing and standing.gone and standing.lock not in (None, MAKING):
        raise _worktree_set.is_locked(member, standing.lock)
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
        _worktree_set.forget(member)
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
    manifest.mount = _whereabouts.own_mount(member.repository, member.path)
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
    return _worktree_set.save(member, tree, work, owner)


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
        _worktree_set.break_locks(member)
    doing = f"repository {member.name}: checking out {member.branch} in {member.path}"
    if finding.is_new:
        _branch_marks.make(repository, member.branch, str(finding.start), owner, doing=doing)
    repository.must(
        *("checkout", "--quiet", "--force", member.branch, "--"),
        doing=doing,
        worktree=member.path,
    )


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
