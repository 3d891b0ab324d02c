# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's environment for shells: a file to source, and what has direnv and mise do so.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import json
import re
import shlex
import typing as t

from . import _blocks, _guard, _placing, _secrets, _task_variables
from ._agents import written
from ._door import Params, Result
from ._errors import UserError

OPTIONS: dict[str, t.Any] = {
    "file": {"type": "str", "default": ".task.env"},
    "loaders": {"type": "list", "elements": "str", "choices": ["direnv", "mise"], "default": []},
    "variables": {"type": "dict", "default": {}},
}


def refuse_unusable(worktrees: t.Sequence[Params], given: Params) -> None:
    """Refuse what cannot be written, before anything is.

    :raises UserError: the file leads out of a worktree, or a variable has a name that no shell takes.
    """
    for worktree in worktrees:
        _placing.inside(worktree["path"], given["file"])
    for name in given["variables"]:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UserError(
                f"{name!r} cannot be an environment variable",
                hint="a name in task_variables is a letter or _, followed by letters, digits and _",
            )


def write(worktrees: t.Sequence[Params], given: Params, secrets: t.Mapping[str, str], *, check: bool) -> Result:
    """Write the files that differ; what others wrote in such a place is left alone and told."""
    files = []
    for worktree in worktrees:
        guard = _guard.folder_of(worktree["path"])
        variables = _task_variables.in_folder(_task_variables.texts(given["variables"], secrets), worktree["path"])
        text = _script(variables, guard)
        files.append(_blocks.managed(worktree["path"], given["file"], text, whole=True, mode=0o600))
        for loader in given["loaders"]:
            path, content, whole = LOADERS[loader](given["file"], guard)
            files.append(_blocks.managed(worktree["path"], path, content, whole=whole))
    result = written(files, check=check)
    for difference in result["diff"]:
        for side in ("before", "after"):
            difference[side] = _masked(difference[side], secrets)
    return result


def _masked(text: str, secrets: t.Mapping[str, str]) -> str:
    """As a diff may show it: what was put in the place of the password by a former run may be another by now."""
    return re.sub(r"(?<=://)([^:/@\s]*):([^@/\s]+)@", rf"\1:{_secrets.MASK}@", _secrets.mask(text, secrets))


def _script(variables: t.Mapping[str, str], guard: str | None) -> str:
    """Lines that sh, bash and zsh take; sourced twice, they do what they do once."""
    lines = ["# The environment of a task: . this file. Written by parallel.worktrees."]
    for name, value in variables.items():
        lines.append(f"export {name}={shlex.quote(value)}")
    if guard:
        path = shlex.quote(guard)
        lines.append(f'case ":$PATH:" in *:{path}:*) ;; *) export PATH={path}:"$PATH" ;; esac')
    return "\n".join(lines) + "\n"


def _direnv(file: str, guard: str | None) -> tuple[str, str, bool]:  # noqa: ARG001 - the script has it
    name = shlex.quote(f"./{file}")
    return ".envrc", f"watch_file {name}\n. {name}\n", False


def _mise(file: str, guard: str | None) -> tuple[str, str, bool]:
    # A table may occur once in a file, so this is not added to what somebody has.
    lines = ["# Written by parallel.worktrees.", "[env]", f"_.source = {json.dumps('{{config_root}}/' + file)}"]
    if guard:
        lines.append(f"_.path = [{json.dumps(guard, ensure_ascii=False)}]")
    return "mise.local.toml", "\n".join(lines) + "\n", True


LOADERS: dict[str, t.Callable[[str, str | None], tuple[str, str, bool]]] = {"direnv": _direnv, "mise": _mise}
"""What each loader reads: the file, what it says, and whether it has to be ours alone."""
