# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command in a task's worktree, with the task's environment.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import typing as t

from . import _commands, _git, _guard, _secrets, _task_variables, _top_level
from ._door import Params, Result, warned
from ._errors import EnvironmentFailure, UserError

ARGUMENT_SPEC: dict[str, t.Any] = {
    "command": {"type": "str", "required": True},
    "folder": {"type": "path"},
    "variables": {"type": "dict", "default": {}},
    "password_file": {"type": "path", "no_log": False},
    "title": {"type": "str"},
    "ready": {"type": "bool", "default": True},
}

NOT_READY = "is not ready: its provision has failed or was interrupted, and what is missing is not known"
GO_ON = "run provision again: it goes on where it ended"


EXAMPLE = """-e command="'make test'\""""
"""Ansible takes the outer quotes away, and cuts what is left at a space."""


def operation(params: Params, *, check: bool) -> Result:
    """Run the command; what it prints is kept apart from that of other tasks."""
    folder, command = params["folder"], params["command"]
    if not command.strip():
        raise UserError("no command is given", hint=f"give one, in two kinds of quotes: {EXAMPLE}")
    title = params["title"] or "the task"
    if folder is None and not params["ready"]:
        raise UserError(f"{title} {NOT_READY}", hint=GO_ON)
    if folder is None:
        raise UserError(
            f"{title} has no worktree to run '{command}' in",
            hint="name a repository that it has a worktree of, by -e repos=NAME; status shows them",
        )
    if not os.path.isdir(folder):
        raise EnvironmentFailure(f"there is no folder {folder}", hint="run provision again: it makes what is missing")
    _top_level.check([tree] if (tree := _git.enclosing_worktree(os.path.join(folder, "any"))) else [])
    if check:
        return {"changed": True, "diff": [], "actions": [f"run '{command}' in {folder}"], "stdout": "", "stderr": ""}
    env = variables(params["variables"], params["password_file"], folder)
    done = _commands.run_line(command, cwd=folder, env=env)
    known = known_secrets(params["password_file"])
    stdout, stderr = _secrets.mask(done.stdout, known), _secrets.mask(done.stderr, known)
    if not done.ok:
        raise UserError(
            f"in {folder}, '{command}' {done.ending(stdout + stderr, _commands.NEXT_LINE)}",
            code=done.code,
            stdout=stdout,
            stderr=stderr,
        )
    heading = f"{params['title']}:\n" if params["title"] else ""
    return {
        **warned(*([] if params["ready"] else [f"{title} {NOT_READY}; {GO_ON}"])),
        "changed": True,
        "diff": [],
        "actions": [f"run '{command}' in {folder}"],
        "code": done.code,
        "stdout": stdout,
        "stderr": stderr,
        "summary": heading + (stdout + stderr).rstrip("\n") + "\n",
    }


def known_secrets(password_file: str | None) -> dict[str, str]:
    """The secrets of a task, by their placeholders.

    :raises EnvironmentFailure: the file is not there, or cannot be read.
    """
    if password_file is None:
        return {}
    try:
        return {_secrets.DATABASE_PASSWORD: _secrets.read(password_file)}
    except FileNotFoundError as error:
        hint = "run provision again: it makes what is missing"
        raise EnvironmentFailure(f"the password file {password_file} is not there", hint=hint) from error


def variables(given: t.Mapping[str, t.Any], password_file: str | None, folder: str | None = None) -> dict[str, str]:
    """The environment of a task's commands: the only place beside its env files in which the password appears.

    :arg folder: where they run, as far as it is known.
    """
    texts = _task_variables.texts(given, known_secrets(password_file))
    return texts if folder is None else guarded(texts, folder)


def guarded(texts: t.Mapping[str, str], folder: str) -> dict[str, str]:
    """The environment of a command in a folder: what env files there say, and the guard of its worktree on its PATH."""
    found = _task_variables.in_folder(texts, folder)
    path = _guard.path_for(folder, found.get("PATH"))
    return found if path is None else {**found, "PATH": path}
