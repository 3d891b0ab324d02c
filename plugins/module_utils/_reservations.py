# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reservations: paths of a repository that one task alone may change for a time.

Private to this collection: may change without notice.

They are globs, and two of different tasks may not overlap, whatever files there are today. One ends with its time or
with its task.
"""

from __future__ import annotations

import dataclasses
import time
import typing as t

from . import _globs, _registry
from ._door import Params, Result
from ._errors import UserError
from ._registry import Registry

ARGUMENT_SPEC: dict[str, t.Any] = {
    "registry": {"type": "path"},
    "workspace": {"type": "str", "required": True},
    "task": {"type": "str", "required": True},
    "repos": {"type": "list", "elements": "str", "required": True},
    "paths": {"type": "list", "elements": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "reason": {"type": "str", "default": ""},
    "seconds": {"type": "int", "default": 7200},
}

STATUS = f"see all: {_registry.STATUS}"


@dataclasses.dataclass(frozen=True, order=True)
class Reservation:
    """One glob of one repository, held by one task.

    :ivar expires: seconds since the epoch.
    """

    repo: str
    glob: str
    task: str
    reason: str
    expires: float

    @property
    def terms(self) -> str:
        """Until when, and why."""
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.expires))
        return f"until {until}{f' ({self.reason})' if self.reason else ''}"

    def __str__(self) -> str:
        return f"{self.repo}: {self.glob} {self.terms}"


def operation(params: Params, *, check: bool) -> Result:
    """Reserve paths for a task, or release them; all or none."""
    workspace, task = params["workspace"], params["task"]
    globs = [glob.strip() for glob in params["paths"] or [] if glob.strip()]
    for glob in globs:
        _globs.check(glob)
    with _registry.opened(params["registry"], write=not check) as registry:
        if registry.record(workspace, task) is None:
            known = [record.identity.name for record in registry.records(workspace)]
            raise _registry.unknown(task, workspace, known)
        held = reservations(registry, workspace)
        before = sorted(one for one in held if one.task == task)
        if params["state"] == "present":
            after = _reserve(params, globs, held, before)
        else:
            after = [one for one in before if not (one.repo in params["repos"] and (not globs or one.glob in globs))]
        _store(registry, workspace, task, after)
    gone = [one for one in before if (one.repo, one.glob) not in {(left.repo, left.glob) for left in after}]
    new = [one for one in after if one not in before]
    actions = [f"reserve {one} for {task}" for one in new] + [f"release {one.repo}: {one.glob}" for one in gone]
    texts = ["".join(f"{one}\n" for one in some) for some in (before, after)]
    return {
        "changed": before != after,
        "actions": actions,
        "reservations": [dataclasses.asdict(one) for one in after],
        "summary": f"{task}: " + (f"has reserved\n{_indented(after)}" if after else "has reserved nothing\n"),
        "diff": [
            {
                "before_header": "reservations",
                "after_header": "reservations",
                "before": texts[0],
                "after": texts[1],
            }
        ]
        if before != after
        else [],
    }


def _indented(held: t.Iterable[Reservation]) -> str:
    return "".join(f"  {one}\n" for one in held)


def reservations(registry: Registry, workspace: str) -> list[Reservation]:
    """What is reserved now in a workspace."""
    query = "select repo, glob, task, reason, expires from reservation where workspace = ? and expires > ? order by 1"
    return [Reservation(**dict(row)) for row in registry.sql.execute(query, (workspace, time.time()))]


def _reserve(
    params: Params, globs: t.Sequence[str], held: t.Sequence[Reservation], before: t.Sequence[Reservation]
) -> list[Reservation]:
    if not globs:
        raise UserError("no path is named", hint="name one, or several with commas: -e paths='src/**/*.gleam'")
    if params["seconds"] <= 0:
        raise UserError(
            f"a reservation for {params['seconds']} seconds would have ended before it began",
            hint="give the time in seconds: -e seconds=7200",
        )
    expires = float(int(time.time()) + params["seconds"])
    wanted = [
        Reservation(repo, glob, params["task"], params["reason"], expires) for repo in params["repos"] for glob in globs
    ]
    clashes = [
        f"{one.repo}: {one.glob} overlaps {other.glob}, which task {other.task} has {other.terms}; both mean {common}"
        for one in wanted
        for other in held
        if other.task != one.task and other.repo == one.repo and (common := _globs.overlap(one.glob, other.glob))
    ]
    if clashes:
        raise UserError(
            "cannot reserve what another task has reserved:\n  " + "\n  ".join(clashes),
            hint=f"wait, choose other paths, or ask that task to release them; {STATUS}",
        )
    # The same again is to last as long as it says by now, and never shorter.
    former = {(one.repo, one.glob): one for one in before}
    kept = {(one.repo, one.glob): one for one in wanted}
    for key, one in kept.items():
        if key in former and former[key].expires > one.expires:
            kept[key] = dataclasses.replace(one, expires=former[key].expires)
    return sorted({**former, **kept}.values())


def _store(registry: Registry, workspace: str, task: str, held: t.Iterable[Reservation]) -> None:
    """Let a task have just these; those of others whose time is over go as well."""
    ended = "delete from reservation where workspace = ? and (task = ? or expires <= ?)"
    registry.sql.execute(ended, (workspace, task, time.time()))
    registry.sql.executemany(
        "insert into reservation (workspace, repo, glob, task, reason, expires) values (?, ?, ?, ?, ?, ?)",
        [(workspace, one.repo, one.glob, one.task, one.reason, one.expires) for one in held],
    )


def refusals(registry: str, workspace: str, task: str, repo: str, paths: t.Iterable[str]) -> list[str]:
    """Of paths that a task is about to commit, those that another has reserved: a line each.

    :arg repo: its name; of a submodule that of the repository that has it, and the path there.
    """
    with _registry.opened(registry, write=False) as opened:
        held = reservations(opened, workspace)
    others = [one for one in held if one.task != task and f"{repo}/".startswith(f"{one.repo}/")]
    return [
        f"{path} is reserved by task {one.task} {one.terms}, as {one.glob}"
        for path in (paths if others else ())
        for one in others
        if _globs.matches(one.glob, f"{repo}/{path}".removeprefix(f"{one.repo}/"))
    ]
