# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worktree that is there, maybe made by another tool: of which repository it is, on which branch, and whose.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import typing as t

from ._door import Params, Result
from ._errors import UserError
from ._git import MAKING, Repository
from ._manifest import Manifest

ARGUMENT_SPEC: dict[str, t.Any] = {
    "path": {"type": "path", "required": True},
    "repos": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "repo": {"type": "path", "required": True},
        },
    },
}


def operation(params: Params, *, check: bool) -> Result:  # noqa: ARG001 - it touches nothing anyway
    """Look at a linked worktree of one of the repositories."""
    return {"changed": False, "diff": [], "actions": [], "worktree": look(params["path"], params["repos"])}


def look(place: str, repos: t.Sequence[dict[str, t.Any]]) -> dict[str, t.Any]:
    """What there is to tell of a linked worktree of one of the repositories.

    :raises UserError: it is of none.
    """
    path = os.path.realpath(place)
    for given in repos:
        found = _worktree(path, given["name"], Repository.at(given["repo"], given["name"]))
        if found:
            return found
    names = ", ".join(given["name"] for given in repos)
    top = _top(path)
    inside = f", but lies in one: {top}" if top else ""
    raise UserError(
        f"{place} is no linked worktree of this workspace's repositories ({names}){inside}",
        hint=f"see what there is: git -C {repos[0]['repo']} worktree list",
    )


def _worktree(path: str, name: str, repository: Repository) -> dict[str, t.Any] | None:
    admin = repository.admin_of(path)
    if admin is None or not os.path.isdir(path):
        return None
    with repository.locked():
        listed = next((one for one in repository.worktrees() if os.path.realpath(one.path) == path), None)
    if listed is None or listed.gone:
        return None
    if listed.branch is None:
        raise UserError(
            f"the worktree {path} is on no branch",
            hint=f"give it one: git -C {path} switch -c NAME",
        )
    mark = Manifest.in_admin(path, admin)
    return {
        "name": name,
        "repo": repository.path,
        "path": path,
        "branch": listed.branch,
        "owner": mark.owner,
        "adopt": mark.adopted or (mark.owner is None and listed.lock != MAKING),
    }


def _top(path: str) -> str | None:
    """The top of the linked worktree that a folder lies in."""
    parent = os.path.dirname(path)
    while parent != os.path.dirname(parent):
        if os.path.isfile(os.path.join(parent, ".git")):
            return parent
        parent = os.path.dirname(parent)
    return None
