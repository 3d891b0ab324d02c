# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set-up commands of a worktree, each run at most once.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import hashlib
import os
import typing as t

from . import _commands, _exec, _files, _git, _secrets
from ._door import Params, Result
from ._errors import EnvironmentFailure
from ._manifest import LOGS, Manifest
from ._placing import inside

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "setup": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "command": {"type": "str", "required": True},
                    "folder": {"type": "str", "default": "."},
                },
            },
        },
    },
    "variables": {"type": "dict", "default": {}},
    "password_file": {"type": "path", "no_log": False},
}


def operation(params: Params, *, check: bool) -> Result:
    """Run what did not run yet, in order; the output is kept in the worktree's git directory."""
    to_run = []
    for worktree in params["worktrees"]:
        manifest = Manifest.of(worktree["path"])
        ran = manifest.ran if manifest else []
        for given in worktree["setup"]:
            inside(worktree["path"], given["folder"])
            if _key(given) not in ran:
                to_run.append((worktree, given))
    actions = [f"run '{given['command']}' in {worktree['name']}" for worktree, given in to_run]
    if not check:
        variables = _exec.variables(params["variables"], params["password_file"])
        for worktree, given in to_run:
            _run(worktree, given, variables, _exec.known_secrets(params["password_file"]))
    return {
        "changed": bool(to_run),
        "actions": actions,
        "diff": [{"before": "", "after": "".join(line + "\n" for line in actions)}] if to_run else [],
    }


def _key(given: Params) -> str:
    return hashlib.sha256(f"{given['folder']}\0{given['command']}".encode()).hexdigest()[:16]


def _run(worktree: Params, given: Params, variables: t.Mapping[str, str], known: t.Mapping[str, str]) -> None:
    folder = inside(worktree["path"], given["folder"])
    # The command is a line of the workspace's own file, so a shell is what its author expects.
    done = _commands.run(("/bin/sh", "-c", given["command"]), cwd=folder, env=variables)
    output = _secrets.mask(done.stdout + done.stderr, known)
    hint = "mend it and run provision again: it goes on here"
    admin = _git.admin_folder(worktree["path"])
    if admin:
        log = os.path.join(admin, LOGS, _key(given) + ".log")
        os.makedirs(os.path.dirname(log), exist_ok=True)
        _files.write(log, f"$ {given['command']}\n{output}".encode("utf-8", "replace"), mode=0o600)
        hint += f"; all of its output: {log}"
    if not done.ok:
        raise EnvironmentFailure(
            f"repository {worktree['name']}: the set-up command '{given['command']}' ended with {done.code}:\n"
            + _commands.last_words(output),
            hint=hint,
        )
    manifest = Manifest.of(worktree["path"])
    if manifest:
        manifest.ran.append(_key(given))
        manifest.save()
