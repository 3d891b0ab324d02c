# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""That git, started in a worktree, works on that worktree.

Private to this collection: may change without notice.

Where ``extensions.worktreeConfig`` is set, a ``core.bare`` or ``core.worktree`` in the shared configuration counts in
every worktree that has none of its own (git-worktree(1), CONFIGURATION FILE). ``git submodule update`` writes the
latter into that of a submodule. So each worktree of ours has its own, in ``config.worktree`` itself, since git does not
follow includes for these two. They mean nothing where the extension is not set.

A submodule's repository gets that extension, and its main tree keeps its ``core.worktree`` for itself as well: without,
``git submodule update`` in a task's worktree writes the place of the task's submodule into the configuration of all.

``core.worktree`` is for submodules, and for worktrees whose shared configuration has it, since ``git worktree move``
leaves it as it is. It is relative, as it has to stay right where the whole repository is moved.
"""

from __future__ import annotations

import os
import typing as t

from . import _files, _git, _git_files, _own_config
from ._errors import EnvironmentFailure
from ._git import Repository

HINT = "run provision again: it gives the worktree settings of its own"


def is_settled(worktree: str, admin: str, *, is_submodule: bool) -> bool:
    """Whether a worktree has its own settings."""
    text = _files.read(_config(admin))
    if is_submodule and not _own_config.is_allowed(os.path.dirname(os.path.dirname(os.path.realpath(admin)))):
        return False
    return text.startswith(_own(worktree, admin)) or (not is_submodule and text.startswith(_own(None, admin)))


def settle(repository: Repository, worktree: str, *, is_submodule: bool) -> None:
    """Give a worktree its own settings. The caller holds the repository's lock.

    :raises EnvironmentFailure: git takes something else for the top of the worktree all the same.
    """
    admin = repository.admin_in(worktree)
    if not is_settled(worktree, admin, is_submodule=is_submodule):
        _write(repository, admin, _own(worktree if is_submodule else None, admin))
        if is_submodule:
            _own_config.allow(repository)
    if not is_submodule and fault(worktree):
        _write(repository, admin, _own(worktree, admin))
    if found := fault(worktree):
        raise EnvironmentFailure(found, hint=f"see its settings: git -C {worktree} config --show-origin --list")


def check(worktrees: t.Iterable[str], *, hint: str = HINT) -> None:
    """See that git works on each of these worktrees; one that is not there is somebody else's matter.

    :raises EnvironmentFailure: it does not.
    """
    for worktree in worktrees:
        if os.path.isdir(worktree) and (found := fault(worktree)):
            raise EnvironmentFailure(found, hint=hint)


def trees_of(worktrees: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """The folders of worktrees and their submodules; a branch without a worktree has none."""
    given = [one for one in worktrees if one.get("path")]
    inner = [os.path.join(one["path"], within) for one in given for within in one.get("submodules") or ()]
    return [*(one["path"] for one in given), *inner]


def fault(worktree: str) -> str | None:
    """What git, without any variable of ours, takes for the top of a worktree, where that is wrong."""
    if _git_files.common_of(worktree):
        return None
    asked = _git.git(worktree, "rev-parse", "--show-toplevel")
    top = asked.stdout.removesuffix("\n")
    if not asked.ok:
        return f"git does not work in the worktree {worktree}: {asked.stderr.strip()}"
    if os.path.realpath(top) != os.path.realpath(worktree):
        return f"git in the worktree {worktree} works on {top}"
    return None


def _config(admin: str) -> str:
    return os.path.join(admin, "config.worktree")


def _own(worktree: str | None, admin: str) -> str:
    lines = ["[core]", "\tbare = false"]
    if worktree is not None:
        place = os.path.relpath(os.path.realpath(worktree), os.path.realpath(admin))
        quoted = place.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines.append(f'\tworktree = "{quoted}"')
    return "".join(f"{line}\n" for line in lines)


def _write(repository: Repository, admin: str, own: str) -> None:
    """Put our settings before those that others have made for the worktree."""
    config = _config(admin)
    text = _files.read(config)
    for name in ("bare", "worktree"):
        if name in text.lower():
            # 5: it is not set, and the word is part of something else.
            done = repository.git("config", "--file", config, "--unset-all", f"core.{name}")
            if done.code not in (0, 5):
                raise done.failure(f"changing the settings of a worktree in {config}")
    _files.rewrite(config, own + _files.read(config).removeprefix("[core]\n"))
