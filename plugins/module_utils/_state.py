# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this project keeps what must outlive a run.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os


def state_folder() -> str:
    """The user's state folder, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "parallel-worktrees")


def registry_path() -> str:
    """The registry of this user on this machine, where the workspace names no other."""
    return os.path.join(state_folder(), "registry.sqlite3")
