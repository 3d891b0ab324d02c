# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applies ``--start-at-task`` from the play of the tasks on.

Private to this collection: may change without notice.

Ansible skips all before the Ansible task that the option names. So it would skip the plays that look up the tasks of
the workspace and add their hosts, and the play of these hosts would have none. Ansible reads the option at each play.
"""

from __future__ import annotations

from ansible import context
from ansible.utils.context_objects import CLIArgs

OPTION = "start_at_task"
_held: list[str] = []


def hold() -> None:
    """Let the plays that follow run from their beginning."""
    if name := context.CLIARGS.get(OPTION):
        _held.append(name)
        _set(None)


def release() -> None:
    """Let the next play start where the user said."""
    if _held:
        _set(_held.pop())


def _set(name: str | None) -> None:
    context.CLIARGS = CLIArgs({**context.CLIARGS, OPTION: name})
