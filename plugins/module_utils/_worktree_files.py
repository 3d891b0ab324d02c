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
from ._errors import EnvironmentFailure, UserError
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
    to_do = []
    for worktree in params["worktrees"]:
        if (os.path.lexists(worktree["path"]) or not check) and Manifest.of(worktree["path"]) is None:
            raise UserError(f"repository {worktree['name']}: {worktree['path']} is not a linked worktree")
        entries = [_Entry(worktree, kind, given) for kind in ("link", "copy") for given in worktree[_KINDS[kind]]]
        to_do += [entry for entry in entries if entry.is_wanted()]
    if not check:
        for worktree in params["worktrees"]:
            keep_out_of_git(worktree["path"], [entry.place for entry in to_do if entry.worktree is worktree])
    actions = [entry.told() if check else entry.put() for entry in to_do]
    headers = {"before_header": "links and copies", "after_header": "links and copies"}
    return {
        "changed": bool(to_do),
        "actions": actions,
        "diff": [{**headers, "before": "", "after": "".join(f"{line}\n" for line in actions)}] if to_do else [],
    }


_KINDS = {"link": "links", "copy": "copies"}


class _Entry:
    """One link or copy of one worktree."""

    def __init__(self, worktree: Params, kind: str, given: Params) -> None:
        self.worktree = worktree
        self.kind = kind
        self.optional = given["optional"]
        self.path = given["path"]
        self.place = inside(worktree["path"], self.path)
        self.source = os.path.normpath(os.path.join(worktree["source"], given["source"] or given["path"]))

    def is_wanted(self) -> bool:
        """Whether there is something to do; refuses a missing source and a place that is taken."""
        manifest = Manifest.around(self.place)
        if self.kind == "link" and os.path.islink(self.place) and os.readlink(self.place) == self.source:
            return False
        if self.kind == "copy" and manifest and manifest.knows(self.place) and os.path.lexists(self.place):
            return False
        if not os.path.lexists(self.source):
            if self.optional:
                return False
            raise EnvironmentFailure(
                f"repository {self.worktree['name']}: cannot {self.kind} {self.source}: it is missing",
                hint="make it in the main tree first (install its dependencies), or mark the entry optional: true",
            )
        refuse_foreign(self.place, manifest, f"{self.kind} {self.source} to")
        return True

    def told(self) -> str:
        return f"{self.kind} {self.place} from {self.source}"

    def put(self) -> str:
        """Place it and tell how; it is noted before it is there, so that a killed run leaves nothing unknown."""
        inside(self.worktree["path"], self.path)  # again, as a link that was just made may lead out
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        if self.kind == "link":
            self._note(link_signature(self.source))
            if os.path.islink(self.place):
                os.unlink(self.place)
            os.symlink(self.source, self.place)
            return self.told()
        way = _cow.copy(self.source, self.place, before=lambda copied: self._note(signature(copied)))
        return f"{self.told()} ({'shared blocks' if way == 'reflink' else 'full copy'})"

    def _note(self, value: str | None) -> None:
        manifest = Manifest.around(self.place)
        if manifest and value:
            manifest.note(self.place, value)
            manifest.save()
