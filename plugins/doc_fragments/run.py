# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The run that makes a call, which the controller fills in."""

    DOCUMENTATION = r"""
options:
  holder:
    description:
      - The run that makes this call. The controller sets this option, so you do not need to set it.
      - See O(parallel.worktrees.task_record#module:holder).
    type: dict
    suboptions:
      pid:
        description:
          - ID of a process that lives as long as the run.
        type: int
        required: true
      started:
        description:
          - Start time of that process, in clock ticks since the machine's start (field 22 of C(/proc/PID/stat)).
        type: int
        required: true
      machine:
        description:
          - The machine's boot id and the process namespace, as in C(BOOT_ID/pid:[4026531836]).
        type: str
        required: true
      user:
        description:
          - The user who started the run. Messages to other runs name this user.
        type: str
        required: true
"""
