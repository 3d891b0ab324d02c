#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_host
short_description: Add the inventory host of a task
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Adds a host to the group C(parallel_worktrees_tasks) of the running playbook. The host has the name of the task, and
    the connection variables of the machine of the task.
  - Therefore each task of a call succeeds or fails independently, and the play recap lists the tasks.
  - The host gets the variables C(task_record), C(task_facts) and C(task_machine).
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The module changes only the inventory in memory.
  idempotent:
    support: full
options:
  record:
    description:
      - The task, as M(parallel.worktrees.task_record) returns it in RV(parallel.worktrees.task_record#module:tasks).
    type: dict
    required: true
  leases:
    description:
      - The lease of the task, as M(parallel.worktrees.port_lease) returns it in
        RV(parallel.worktrees.port_lease#module:leases). Leases of other tasks in this list are ignored.
      - Do not set it if the task has no lease.
    type: list
    elements: dict
  adopted:
    description:
      - The worktree of the task, as M(parallel.worktrees.task_record) returns it in
        RV(parallel.worktrees.task_record#module:adopted). If another tool made this worktree, it is the only worktree
        of the task.
    type: dict
seealso:
  - module: ansible.builtin.add_host
"""

EXAMPLES = r"""
- name: Add a host for each task
  parallel.worktrees.task_host:
    record: "{{ item }}"
  loop: "{{ records.tasks }}"
"""

RETURN = r"""
add_host:
  description: The host that was added, as M(ansible.builtin.add_host) returns it.
  returned: always
  type: dict
"""
# An action plugin does all of it; there is nothing to send to a host.
