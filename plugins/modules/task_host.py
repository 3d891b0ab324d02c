#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_host
short_description: Add the inventory host that stands for a task
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Adds a host to the group C(parallel_worktrees_tasks) of the running playbook. The host has the name of the task
    and is reached as the machine is reached on which the task lives.
  - So each task of a call succeeds or fails on its own, and the recap reads as a list of tasks.
  - The host gets the variables C(task_record), C(task_facts) and C(task_machine).
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Nothing but the inventory in memory is changed.
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
      - Its lease and maybe those of others, as M(parallel.worktrees.port_lease) returns them in
        RV(parallel.worktrees.port_lease#module:leases).
      - Leave it out where the task has none.
    type: list
    elements: dict
  adopted:
    description:
      - The worktree that the task is about, as M(parallel.worktrees.task_record) returns it in
        RV(parallel.worktrees.task_record#module:adopted). One that another tool has made is all that the task has.
    type: dict
seealso:
  - module: ansible.builtin.add_host
"""

EXAMPLES = r"""
- name: A host for each task
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
