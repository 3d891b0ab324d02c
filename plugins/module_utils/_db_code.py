# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The code that a DB host runs by itself: this package's own, as it was sent with a module, written to a folder there.

Private to this collection: may change without notice.

Whoever imports this takes along what timers run, so all of it travels with the module.
"""

from __future__ import annotations

import hashlib
import os
import typing as t

from . import _branches, _files, _program, _sources
from ._door import Params, Result
from ._errors import EnvironmentFailure, UserError

ARGUMENT_SPEC: dict[str, t.Any] = {"directory": {"type": "path", "default": "/usr/local/lib/parallel-worktrees"}}

BEGIN = "__init__.py"
ENTRIES = tuple(module.__name__.rpartition(".")[2] for module in (_branches, _sources))
"""What timers and the start of the machine run."""


def operation(params: Params, *, check: bool) -> Result:
    """Write the package."""
    folder = os.path.join(params["directory"], _program.PACKAGE)
    sources = _program.sources(*ENTRIES)
    wanted = {BEGIN: b"", **{f"{name}.py": source.encode() for name, source in sources.items()}}
    found = _found(folder)
    stale = sorted(found.keys() - wanted.keys())
    differing = sorted(name for name, content in wanted.items() if found.get(name) != content)
    if not check and (stale or differing):
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            for name in stale:
                os.unlink(os.path.join(folder, name))
        except OSError as error:
            raise EnvironmentFailure(f"cannot change {folder}: {error.strerror}", hint="run as root: become") from error
        # The one that makes it a package comes last: until then nobody imports a part of it.
        for name in sorted(differing, key=lambda name: name == BEGIN):
            _files.write(os.path.join(folder, name), wanted[name], mode=0o644)
    before, after = _digests(found), _digests(wanted)
    return {
        "changed": before != after,
        "actions": [
            *([f"remove {len(stale)} files of {folder}"] if stale else []),
            *([f"write {len(differing)} files of {folder}"] if differing else []),
        ],
        "diff": [{"before": before, "after": after, "before_header": folder, "after_header": folder}]
        if before != after
        else [],
        "package": folder,
    }


def _found(folder: str) -> dict[str, bytes]:
    """What is there.

    :raises UserError: it is not ours.
    """
    if not os.path.isdir(folder):
        return {}
    found = {}
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name == "__pycache__" or _files.is_temporary(name):
            continue
        if not name.endswith(".py") or not name.startswith("_") or os.path.islink(path):
            raise UserError(f"{path} is not ours", hint="move it away, or choose another directory")
        with open(path, "rb") as file:
            found[name] = file.read()
    return found


def _digests(files: dict[str, bytes]) -> str:
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()[:16]}  {name}\n" for name in sorted(files))
