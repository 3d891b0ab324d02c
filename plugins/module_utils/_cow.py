# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies that share their blocks with the original where the file system can (reflinks).

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import shutil

from . import _commands, _files
from ._errors import EnvironmentFailure


def copy(source: str, target: str) -> str:
    """Copy a file or folder with its times and modes, and return the way that was taken: ``reflink`` or ``copy``.

    ``cp --reflink=auto`` would never say which (coreutils manual), so each way is tried by its own name. The target
    appears in one step when its content is complete.
    """
    partial = _files.temporary_name(*os.path.split(target))
    for way, flag in (("reflink", "always"), ("copy", "never")):
        _clear(partial)
        done = _commands.run(("cp", "-a", f"--reflink={flag}", "--", source, partial))
        if done.ok:
            os.rename(partial, target)
            return way
    _clear(partial)
    raise done.failure(f"copying {source} to {target}")


def _clear(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
    except OSError as error:
        raise EnvironmentFailure(f"cannot remove {path}: {error.strerror}") from error
