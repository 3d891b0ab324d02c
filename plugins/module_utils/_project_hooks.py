# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks that a project has itself, as a worktree finds them.

Private to this collection: may change without notice.

Husky and its like set ``core.hooksPath`` to a folder in the working tree (``.husky/_``) that an installation generates
and git ignores. A new worktree lacks it, and git then runs no hook without a word. Where the main tree has one,
the worktree gets a copy: its scripts run what the worktree's own branch has beside them (``.husky/pre-commit``).
"""

from __future__ import annotations

import os

from . import _cow, _git
from ._errors import UserError
from ._git import Repository
from ._manifest import Manifest, signature
from ._placing import inside, keep_out_of_git

SCOPES = ("system", "global", "local")
"""Those of settings that are not a worktree's own."""


def configured(worktree: str) -> str | None:
    """The folder of hooks that is set for a worktree, ours aside; None where none is set."""
    asked = _git.git(worktree, "config", "-z", "--type=path", "--show-scope", "--get-all", "core.hooksPath", hooks=True)
    fields = asked.stdout.split("\0")
    found = [path for scope, path in zip(fields[::2], fields[1::2], strict=False) if scope in SCOPES]
    return os.path.join(worktree, found[-1]) if found else None


def generated(repository: Repository, worktree: str, folder: str) -> str | None:
    """The folder of the main tree that a worktree is to have a copy of; None where it is to have none."""
    within = os.path.relpath(folder, worktree)
    source = os.path.join(repository.path, within)
    if os.path.lexists(folder) or not os.path.isdir(source):
        return None
    try:
        inside(worktree, within)
    except UserError:
        return None
    tracked = _git.git(repository.path, "--literal-pathspecs", "ls-files", "-z", "--", within)
    return source if tracked.ok and not tracked.stdout else None


def copy(source: str, worktree: str, folder: str) -> None:
    """Copy it. The caller does not hold the repository's lock."""
    manifest = Manifest.of(worktree)

    def note(copied: str) -> None:
        value = signature(copied)
        if manifest and value:
            manifest.note(folder, value)
            manifest.save()

    keep_out_of_git([(worktree, folder)])
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    _cow.copy(source, folder, before=note)
