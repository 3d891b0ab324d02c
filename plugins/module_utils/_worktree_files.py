# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links and copies from the main trees into a task's worktrees.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import typing as t

from . import _cow
from ._door import Params, Result
from ._errors import EnvironmentFailure
from ._manifest import Manifest, link_signature, signature
from ._placing import inside, keep_out_of_git, refuse_foreign

_ENTRY: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "path": {"type": "str", "required": True},
        "source": {"type": "str"},
        "optional": {"type": "bool", "default": False},
    },
}

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
            "links": _ENTRY,
            "copies": _ENTRY,
        },
    },
}


def operation(params: Params, *, check: bool) -> Result:
    """Link and copy what the worktrees need; what a run before placed there, and was edited since, stays."""
    actions: list[str] = []
    wanted = [
        (worktree, kind, _Entry(worktree, kind, given))
        for worktree in params["worktrees"]
        for kind in ("links", "copies")
        for given in worktree[kind]
    ]
    manifests = {worktree["path"]: Manifest.of(worktree["path"]) for worktree in params["worktrees"]}
    to_do = []
    for worktree, _kind, entry in wanted:
        if entry.is_wanted(manifests[worktree["path"]]):
            to_do.append((worktree, entry))
    for worktree, entry in to_do:
        actions.append(entry.place_it(manifests[worktree["path"]], check=check))
    if not check:
        for worktree in params["worktrees"]:
            written = [entry.place for owner, entry in to_do if owner is worktree]
            if written:
                keep_out_of_git(worktree["path"], written)
    return {
        "changed": bool(to_do),
        "actions": actions,
        "diff": [
            {
                "before_header": "links and copies",
                "after_header": "links and copies",
                "before": "",
                "after": "".join(line + "\n" for line in actions),
            }
        ]
        if to_do
        else [],
    }


class _Entry:
    """One link or copy of one worktree."""

    def __init__(self, worktree: Params, kind: str, given: Params) -> None:
        self.kind = kind
        self.optional = given["optional"]
        self.place = inside(worktree["path"], given["path"])
        self.source = os.path.normpath(os.path.join(worktree["source"], given["source"] or given["path"]))
        self.name = worktree["name"]

    def is_wanted(self, manifest: Manifest | None) -> bool:
        """Whether there is something to do; refuses a missing source and a place that is taken."""
        if self.kind == "links" and os.path.islink(self.place) and os.readlink(self.place) == self.source:
            return False
        if self.kind == "copies" and manifest and manifest.knows(self.place) and os.path.lexists(self.place):
            return False
        if not os.path.lexists(self.source):
            if self.optional:
                return False
            raise EnvironmentFailure(
                f"repository {self.name}: {self.source} is missing, so it cannot be "
                + ("linked" if self.kind == "links" else "copied"),
                hint="make it in the main tree first (install its dependencies), or mark the entry optional: true",
            )
        refuse_foreign(self.place, manifest, "link" if self.kind == "links" else "copy to")
        return True

    def place_it(self, manifest: Manifest | None, *, check: bool) -> str:
        doing = "link" if self.kind == "links" else "copy"
        told = f"{doing} {self.place} from {self.source}"
        if check:
            return told
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        if self.kind == "links":
            self._note(manifest, link_signature(self.source))
            if os.path.islink(self.place):
                os.unlink(self.place)
            os.symlink(self.source, self.place)
            return told
        self._note(manifest, signature(self.source) or "")
        way = _cow.copy(self.source, self.place)
        return f"{told} ({'shared blocks' if way == 'reflink' else 'full copy'})"

    def _note(self, manifest: Manifest | None, value: str) -> None:
        if manifest:
            manifest.note(self.place, value)
            manifest.save()
