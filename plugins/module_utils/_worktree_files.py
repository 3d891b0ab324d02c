# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links and copies from the main trees into a task's worktrees.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import typing as t

from . import _cow, _guard, _include
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
            "installed": {"type": "list", "elements": "str", "default": []},
            "include": {"type": "str", "default": _include.DEFAULT},
        },
    },
}


def operation(params: Params, *, check: bool) -> Result:
    """Link and copy what the worktrees need; what a run before placed there, and was edited since, stays."""
    to_do: list[_Entry] = []
    to_unlink: list[str] = []
    to_guard: list[str] = []
    for worktree in params["worktrees"]:
        if (os.path.lexists(worktree["path"]) or not check) and Manifest.of(worktree["path"]) is None:
            raise UserError(f"repository {worktree['name']}: {worktree['path']} is not a linked worktree")
        entries = [_Entry(worktree, kind, given) for kind in ("link", "copy") for given in worktree[_KINDS[kind]]]
        to_do += [entry for entry in entries if entry.is_wanted()]
        to_do += _included(worktree, entries)
        to_unlink += [place for path in worktree["installed"] if _is_our_link(place := inside(worktree["path"], path))]
        if any(entry.is_shared_dependency for entry in entries) and not _guard.is_there(worktree["path"]):
            to_guard.append(worktree["path"])
    actions = [f"unlink {place}" for place in to_unlink]
    if not check:
        for place in to_unlink:
            os.unlink(place)
        keep_out_of_git((entry.worktree["path"], entry.place) for entry in to_do)
    actions += [entry.told() if check else entry.put() for entry in to_do]
    for path in to_guard:
        if not check:
            _guard.put(path)
        actions.append(f"guard the shared dependencies of {path}")
    headers = {"before_header": "links and copies", "after_header": "links and copies"}
    return {
        "changed": bool(actions),
        "actions": actions,
        "diff": [{**headers, "before": "", "after": "".join(f"{line}\n" for line in actions)}] if actions else [],
    }


def _included(worktree: Params, entries: t.Sequence[_Entry]) -> list[_Entry]:
    """What the repository's own list wants besides; a place where something is stays as it is."""
    found = []
    for path in _include.included(worktree["source"], worktree["include"]):
        if any(f"{path}/".startswith(f"{other.path}/") or f"{other.path}/".startswith(f"{path}/") for other in entries):
            continue
        try:
            entry = _Entry(worktree, "copy", {"path": path, "source": None, "optional": True})
        except UserError:
            continue  # the branch has a symbolic link there, which leads out
        if not os.path.lexists(entry.place):
            found.append(entry)
    return found


def _is_our_link(place: str) -> bool:
    manifest = Manifest.around(place)
    return os.path.islink(place) and manifest is not None and manifest.is_ours(place)


_KINDS = {"link": "links", "copy": "copies"}


class _Entry:
    """One link or copy of one worktree."""

    def __init__(self, worktree: Params, kind: str, given: Params) -> None:
        self.worktree = worktree
        self.kind = kind
        self.optional = given["optional"]
        self.path = os.path.normpath(given["path"])
        self.place = inside(worktree["path"], self.path)
        self.source = os.path.normpath(os.path.join(worktree["source"], given["source"] or given["path"]))

    def is_wanted(self) -> bool:
        """Whether there is something to do; refuses a missing source and a place that is taken."""
        manifest = Manifest.around(self.place)
        if self.kind == "link" and os.path.islink(self.place) and os.readlink(self.place) == self.source:
            return False
        was_link = _is_our_link(self.place) and not os.path.islink(self.source)
        is_known = manifest is not None and manifest.knows(self.place) and os.path.lexists(self.place)
        if self.kind == "copy" and is_known and not was_link:
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

    @property
    def is_shared_dependency(self) -> bool:
        """Whether an install into it would reach every worktree."""
        return self.kind == "link" and os.path.basename(self.place) in _guard.DEPENDENCIES

    def told(self) -> str:
        return f"{self.kind} {self.place} from {self.source}"

    def put(self) -> str:
        """Place it and tell how; it is noted before it is there, so that a killed run leaves nothing unknown."""
        inside(self.worktree["path"], self.path)  # again, as a link that was just made may lead out
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        if self.kind == "link":
            self._note(link_signature(self.source))
            _cow.make_way(self.place)
            os.symlink(self.source, self.place)
            return self.told()
        if os.path.islink(self.place):
            os.unlink(self.place)
        way = _cow.copy(self.source, self.place, before=lambda copied: self._note(signature(copied)))
        return f"{self.told()} ({'shared blocks' if way == 'reflink' else 'full copy'})"

    def _note(self, value: str | None) -> None:
        manifest = Manifest.around(self.place)
        if manifest and value:
            manifest.note(self.place, value)
            manifest.save()
