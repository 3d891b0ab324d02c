# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment variables of a task's commands, and what the env files of a worktree say of the same names.

Private to this collection: may change without notice.

Programs that load an env file leave alone what their environment has, so a variable of the task's would hide what the
file says.
"""

from __future__ import annotations

import os
import typing as t

from . import _env_file, _files, _git, _secrets
from ._manifest import Manifest

USUAL = (".env", ".env.local")
"""Env files that many programs load by themselves."""


def texts(given: t.Mapping[str, t.Any], known: t.Mapping[str, str]) -> dict[str, str]:
    """Variables as text, with the secrets that they stand for; one without a value is left out."""
    return {name: _secrets.reveal(str(value), known) for name, value in given.items() if value is not None}


def in_folder(variables: t.Mapping[str, str], folder: str) -> dict[str, str]:
    """The variables of a command in a folder: what the worktree's env files say of a name counts.

    Where two files differ, or a value is to be expanded, whoever loads a file is left to find it there.
    """
    worktree = _git.enclosing_worktree(os.path.join(folder, "any"))
    manifest = None if worktree is None else Manifest.of(worktree)
    found = dict(variables)
    if worktree is None or manifest is None:
        return found
    files = [_env_file.read(_files.read(os.path.join(worktree, path))) for path in manifest.env_files]
    for name in variables:
        said = {values[name] for values in files if name in values}
        if len(said) == 1 and "$" not in (value := next(iter(said))):
            found[name] = value
        elif said:
            del found[name]
    return found


def hidden(variables: t.Mapping[str, t.Any], worktree: str) -> list[str]:
    """What the task's variables hide in files that the workspace does not name among its env files: a line each."""
    manifest = Manifest.of(worktree)
    own = manifest.env_files if manifest else []
    lines = []
    for path in USUAL:
        if path in own:
            continue
        said = _env_file.read(_files.read(os.path.join(worktree, path)))
        names = [
            name
            for name, value in variables.items()
            if value is not None and said.get(name) not in (None, "", str(value))
        ]
        if names:
            lines.append(
                f"{os.path.join(worktree, path)}: commands of the task have another {' and '.join(names)} than this "
                "file says. For one value, name the file in env_files, or set the variable to null in task_variables"
            )
    return lines
