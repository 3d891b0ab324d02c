# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: worktree
version_added: 1.0.0
author: parallel.worktrees contributors (@parallel-worktrees)
short_description: Run modules on this machine, in the worktree of a task
description:
  - Works like P(ansible.builtin.local#connection), with a worktree as the current folder of each module.
  - The hosts of P(parallel.worktrees.tasks#inventory) use it.
options:
  worktree:
    description:
      - The current folder of each module.
      - It defaults to the current folder of Ansible.
    type: path
    vars:
      - name: ansible_worktree
  become_success_timeout:
    description: See P(ansible.builtin.local#connection).
    type: int
    default: 10
    vars:
      - name: ansible_local_become_success_timeout
  become_strip_preamble:
    description: See P(ansible.builtin.local#connection).
    type: bool
    default: true
    vars:
      - name: ansible_local_become_strip_preamble
extends_documentation_fragment:
  - connection_pipelining
"""

import typing as t

from ansible.plugins.connection.local import Connection as LocalConnection


class Connection(LocalConnection):
    """A local connection with a current folder; ``transport`` stays ``local``, by which Ansible knows this machine."""

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        self.cwd: t.Any = self.get_option("worktree")
        return super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
