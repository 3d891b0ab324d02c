# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent must know of its task, in the files that agents read.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import typing as t

from . import _blocks, _secrets
from ._door import Params, Result

ARGUMENT_SPEC: dict[str, t.Any] = {
    "worktrees": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
        },
    },
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "str", "required": True},
            "repo": {"type": "str"},
            "content": {"type": "str"},
            "whole": {"type": "bool", "default": False},
        },
    },
    "text": {"type": "str", "default": ""},
}

NO_SECRETS = {_secrets.DATABASE_PASSWORD: _secrets.MASK}


def operation(params: Params, *, check: bool) -> Result:
    """Write the files that differ; one that git tracks, and one of somebody else's, is left alone and told."""
    files = [
        _blocks.managed(
            worktree["path"],
            given["path"],
            _secrets.mask(params["text"] if given["content"] is None else given["content"], NO_SECRETS),
            whole=given["whole"],
        )
        for given in params["files"]
        for worktree in params["worktrees"]
        if given["repo"] in (None, worktree["name"])
    ]
    return written(files, check=check)


def written(files: t.Sequence[_blocks.Managed], *, check: bool) -> Result:
    """Write what differs, and tell of it and of what was left alone."""
    to_write = [file for file in files if file.differs]
    if not check:
        _blocks.write(to_write)
    left = [f"{file.place} was left alone: {file.left}" for file in files if file.left]
    return {
        "changed": bool(to_write),
        "files": [file.place for file in files if not file.left],
        "left": left,
        "actions": [f"write {file.place}" for file in to_write],
        "summary": "".join(f"{line}\n" for line in left) or None,
        "diff": [
            {
                "before_header": file.place,
                "after_header": file.place,
                "before": file.before or "",
                "after": file.after,
            }
            for file in to_write
        ],
    }
