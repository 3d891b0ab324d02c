# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links and copies from the main trees into a task's worktrees.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import functools
import os
import typing as t

from . import _cow, _dependencies, _files, _guard, _include, _mounts
from ._door import Params, Result, warned
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

OPTIONS: dict[str, t.Any] = {
    "links": _ENTRY,
    "copies": _ENTRY,
    "installed": {"type": "list", "elements": "str", "default": []},
    "include": {"type": "str", "default": _include.DEFAULT},
}
"""What a worktree takes of its main tree."""


def worktrees_of(given: t.Sequence[Params]) -> list[Params]:
    """The worktrees among the repositories of a task, as the functions below take them.

    :arg given: as ``_worktrees`` takes them.
    :raises UserError: something is to be placed in a worktree that is not wanted.
    """
    found = []
    for one in given:
        named = [key for key in ("links", "copies", "installed") if one[key]]
        if one["checkout"]:
            source = os.path.abspath(one["repo"])
            found.append({**one, "source": source, "path": os.path.normpath(os.path.join(source, one["path"]))})
        elif named:
            raise UserError(
                f"repository {one['name']} has checkout: false, so there is no worktree for its {' and '.join(named)}",
                hint=f"leave out checkout, or {' and '.join(named)}",
            )
    return found


def refuse_missing(worktrees: t.Sequence[Params]) -> None:
    """Refuse, before a worktree is made, what could not be placed in it.

    :raises UserError: a path leads out of its worktree.
    :raises EnvironmentFailure: a source is missing.
    """
    for worktree in worktrees:
        for entry in _entries(worktree):
            if not entry.optional and not os.path.lexists(entry.place):
                entry.refuse_missing()


def place(worktrees: t.Sequence[Params], *, check: bool) -> Result:
    """Link and copy what the worktrees need; what a run before placed there, and was edited since, stays."""
    to_do: list[_Entry] = []
    warnings: list[str] = []
    to_unlink: list[str] = []
    to_guard: list[str] = []
    for worktree in worktrees:
        entries = _entries(worktree)
        to_do += [entry for entry in entries if entry.is_wanted()]
        to_do += _included(worktree, entries)
        warnings += [line for entry in entries for line in entry.warnings()]
        to_unlink += [place for path in worktree["installed"] if _is_our_link(place := inside(worktree["path"], path))]
        if any(entry.is_shared_dependency for entry in entries) and not _guard.is_there(worktree["path"]):
            to_guard.append(worktree["path"])
    actions = [f"unlink {place}" for place in to_unlink]
    if not check:
        for place in to_unlink:
            _cow.make_way(place)
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
        **warned(*warnings),
    }


def _entries(worktree: Params) -> list[_Entry]:
    return [_Entry(worktree, kind, given) for kind in ("link", "copy") for given in worktree[_KINDS[kind]]]


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
    """Whether a place, or all that is in it, was linked here."""
    if _dependencies.is_shared(place):
        return True
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

    @functools.cached_property
    def layout(self) -> _dependencies.Layout | None:
        """The entries to link one by one, where a link to the folder would lead to packages of the main tree."""
        return _dependencies.layout(self.source, self.worktree["source"]) if self.kind == "link" else None

    def warnings(self) -> list[str]:
        """What a link brings from the main tree besides."""
        is_link = self.kind == "link" and self.layout is None
        return _dependencies.warnings(self.source, self.place, self.worktree["source"]) if is_link else []

    def is_wanted(self) -> bool:
        """Whether there is something to do; refuses a missing source and a place that is taken."""
        manifest = Manifest.around(self.place)
        if self.layout and _dependencies.fits(self.place, self.layout):
            return False
        if (
            self.kind == "link"
            and not self.layout
            and os.path.islink(self.place)
            and os.readlink(self.place) == self.source
        ):
            return False
        was_link = _is_our_link(self.place) and not os.path.islink(self.source)
        is_known = manifest is not None and manifest.knows(self.place) and os.path.lexists(self.place)
        if self.kind == "copy" and is_known and not was_link:
            return False
        if not os.path.lexists(self.source):
            if self.optional:
                return False
            self.refuse_missing()
        if self.kind == "copy":
            _dependencies.refuse_copy(self.source)
        if not _dependencies.is_shared(self.place):
            refuse_foreign(self.place, manifest, f"{self.kind} {self.source} to")
        return True

    def refuse_missing(self) -> None:
        """Refuse a source that is not there."""
        if not os.path.lexists(self.source):
            raise EnvironmentFailure(
                f"repository {self.worktree['name']}: cannot {self.kind} {self.source}: it is missing",
                hint="make it in the main tree first (install its dependencies), or mark the entry optional: true",
            )

    @property
    def is_shared_dependency(self) -> bool:
        """Whether an install into it would reach every worktree."""
        return self.kind == "link" and os.path.basename(self.place) in _guard.DEPENDENCIES

    def told(self) -> str:
        one_by_one = ", entry by entry" if self.layout else ""
        return f"{self.kind} {self.place} from {self.source}{one_by_one}"

    def put(self) -> str:
        """Place it and tell how; it is noted before it is there, so that a killed run leaves nothing unknown."""
        inside(self.worktree["path"], self.path)  # again, as a link that was just made may lead out
        os.makedirs(os.path.dirname(self.place), exist_ok=True)
        if self.layout:
            self._link_entries(self.layout)
            return self.told()
        if self.kind == "link":
            self._note(link_signature(self.source))
            _cow.make_way(self.place)
            os.symlink(self.source, self.place)
            return self.told()
        if _is_our_link(self.place):
            _cow.make_way(self.place)
        repaired = 0

        def complete(copied: str) -> None:
            nonlocal repaired
            places = {"source": self.source, "place": self.place}
            repaired = _dependencies.repair(copied, **places, main=self.worktree["source"], tree=self.worktree["path"])
            self._note(signature(copied))

        way = _cow.copy(self.source, self.place, before=complete)
        told = f"{self.told()} ({'shared blocks' if way == 'reflink' else 'full copy'})"
        return f"{told}, and name the worktree in {repaired} files of it" if repaired else told

    def _link_entries(self, layout: _dependencies.Layout) -> None:
        """Link the entries one by one; a folder that has some of them gets the others."""
        if _dependencies.is_shared(self.place):
            _dependencies.build(self.place, self.source, layout)
            self._note(signature(self.place))
            return
        _cow.make_way(self.place)
        partial = _files.temporary_name(*os.path.split(self.place))
        _mounts.remove(partial)
        _dependencies.build(partial, self.source, layout)
        self._note(signature(partial))
        os.rename(partial, self.place)

    def _note(self, value: str | None) -> None:
        manifest = Manifest.around(self.place)
        if manifest and value:
            manifest.note(self.place, value)
            manifest.save()
