# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The removal of a worktree set: checked as a whole, then repository by repository.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from . import (
    _aside,
    _blocks,
    _elsewhere,
    _exclude,
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
    _worktree_set,
)
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError, WorktreesError
from ._git import MAKING, Listed
from ._lone_branches import LoneBranch
from ._manifest import LOGS, Manifest
from ._worktree_set import Member, View


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


def remove_set(params: Params, *, check: bool) -> Result:
    errors: list[WorktreesError] = []
    members = _worktree_set.members_of(params, errors)
    tops, lone = _worktree_set.kinds(members)
    failed: list[tuple[Member | LoneBranch, WorktreesError]] = []
    with contextlib.ExitStack() as held:
        _worktree_set.hold(held, members)
        groups, lone = _look_at_all(tops, lone, params, errors, None, check=check)
        looks = [look for group in groups for look in group]
        result = _foreseen(looks, lone, params)
        if check:
            return result
        if params["push"]:
            # Nobody waits for the network while the locks are held; what happens meanwhile must not be lost.
            held.close()
            failed = _push([*_push_order(looks), *lone], params["remote"], result["pushed"])
            staying = {id(_top_of(member)) for member, _error in failed}
            tops = [member for member in tops if id(member) not in staying]
            lone = [one for one in lone if id(one) not in staying]
            _worktree_set.hold(held, [*tops, *lone])
            pushed = {look.member.path: look.tip for look in looks} | {id(one): one.tip for one in lone}
            groups, lone = _look_at_all(tops, lone, params, errors, pushed, check=False)
        outcomes = _worktree_set.in_turn(
            lambda number: _remove(groups[number], params),
            range(len(tops)),
            lambda number: tops[number].repository.common,
        )
        outcomes += _worktree_set.in_turn(
            lambda one: _remove_lone(one, params), lone, lambda one: one.repository.common
        )
        earlier = [one for common in _commons(tops) for one in _trash.left(common) if _trash.is_stuck(one)]
        result["trash"] = list(dict.fromkeys([*earlier, *(one for member in tops for one in member.stuck)]))
        _tidy(tops)
    result["saved"] = [saved for outcome in outcomes if isinstance(outcome, list) for saved in outcome]
    _worktree_set.raise_partial(
        "removing the worktree",
        [*tops, *lone, *(member for member, _error in failed)],
        [*outcomes, *(error for _member, error in failed)],
        changed=any(groups) or bool(lone) or bool(result["pushed"]),
        saved=result["saved"],
        pushed=result["pushed"],
        failed_pushes=[member.name for member, _error in failed],
    )
    return result


def _foreseen(looks: t.Sequence[Look], lone: t.Sequence[LoneBranch], params: Params) -> Result:
    """The result as far as it is known before anything is removed."""
    staying = [look.member.branch for look in looks if look.has_branch and not _goes(look, params)]
    staying += [one.branch for one in lone if one.tip and not one.goes(params["delete_branch"])]
    return {
        "changed": bool(looks or lone),
        "actions": [*_planned(looks, params), *_lone_planned(lone, params)],
        "saved": [],
        "pushed": [],
        "left": [look.member.path for look in looks if look.member.adopt],
        "branches": list(dict.fromkeys(staying)),
        "notes": [*_gone(params, looks), *(_notes(looks, lone) if params["delete_branch"] else [])],
        "trash": [],
        "diff": _worktree_set.diff([*(look.member for look in looks), *lone], []),
    }


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
    _worktree_set.survey(tops, lambda member, view: _follow(member, view, owner), views, errors, owner, check=check)
    _worktree_set.raise_all(errors, "cannot remove the worktrees")
    everyone = [one for member in tops for one in member.everyone]
    found = _worktree_set.survey(
        everyone, lambda member, view: _look(member, view, params, pushed), views, errors, owner, check=check
    )
    mine: list[LoneBranch] = []
    for one in lone:
        with _worktree_set.collected(errors):
            if _look_at_lone(one, params, pushed):
                mine.append(one)
    _worktree_set.raise_all(errors, "cannot remove the worktrees")
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
    if os.path.islink(member.path):
        _worktree_set.refuse_escape(member.repository, member.path)
    half_made = standing.lock == MAKING
    mark = member.manifest
    owner = mark.owner if mark else None
    if member.adopt and owner is None:
        return None  # removed before
    if not half_made and owner != params["owner"]:
        whose, way_out = _whereabouts.whose(owner, params["owner"])
        by_hand = f"git -C {member.repository.path} worktree remove {member.path}, if nobody needs it"
        raise UserError(f"repository {member.name}: the worktree {member.path} {whose}", hint=way_out or by_hand)
    if standing.gone and not params["force"]:
        _whereabouts.refuse_unmounted(member.name, member.path, mark)
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
        raise _worktree_set.is_locked(member, standing.lock)
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
    _worktree_set.refuse_escape(member.repository, member.path)
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
            actions.append(
                f"save the work in {member.path} under {_elsewhere.SAVED}/{_worktree_set.task_in(params['owner'])}"
            )
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
                actions.append(
                    f"save the work in {one.path} under {_elsewhere.SAVED}/{_worktree_set.task_in(params['owner'])}"
                )
            actions.append(f"delete branch {one.branch} of {one.name}")
        else:
            actions.append(f"release branch {one.branch} of {one.name}")
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
    return _lone_branches.remove(lone, delete=params["delete_branch"], task=_worktree_set.task_in(params["owner"]))


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
                _worktree_set.break_locks(member)
            if look.tip and _goes(look, params):
                _delete_branch(member, look.tip)
            _worktree_set.forget(member)
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
    return _worktree_set.save(member, look.tree(folder), work, params["owner"])


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
            doing = f"releasing {place}"
            _kept_out.show(repository, member.path, path)
            repository.must("checkout-index", "--force", "--", path, doing=doing, worktree=member.path)
            continue
        thrown = repository.throw_away(place)
        if not manifest.is_ours(place, at=thrown):
            os.rename(thrown, place)  # somebody wrote to it in between
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
