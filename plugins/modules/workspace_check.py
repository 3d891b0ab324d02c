#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace_check
short_description: Validate the variables of a workspace against the documentation of the roles
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Validates the variables of a workspace against the argument specs of all roles of this collection, before anything
    is made for any task. It checks types, choices, required options, and the names of nested options.
  - The name of a repository that is not in the workspace is refused too.
  - A variable that looks like a misspelled variable of a role causes a warning.
  - A value that depends on C(task_facts) cannot be determined yet. It is accepted, and the module that takes it
    validates it later. The values next to it are still validated.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The module changes nothing.
  idempotent:
    support: full
options:
  entry:
    description: The entry point of the roles whose variables are validated.
    type: str
    default: main
  records:
    description:
      - Tasks, as M(parallel.worktrees.task_info) returns them in RV(parallel.worktrees.task_info#module:tasks).
      - With this option, the module checks only that something was made for each of these tasks, and that C(repos)
        names only repositories that each of them has.
    type: list
    elements: dict
  machines:
    description:
      - The variable that names the hosts of a playbook, as P(parallel.worktrees.machines#lookup) takes it.
      - With this option, the module checks only this variable. Hosts that are not in the inventory are refused, and so
        is a variable that the inventory sets only for some hosts.
    type: str
    choices:
      - workspace_machine
      - db_host
notes:
  - The module replaces the validation that Ansible does for each role and host, which is not possible before the facts
    of a task exist.
seealso:
  - module: ansible.builtin.validate_argument_spec
"""

EXAMPLES = r"""
- name: Validate the variables of a workspace
  parallel.worktrees.workspace_check:

- name: Validate the variables of a teardown
  parallel.worktrees.workspace_check:
    entry: teardown
"""

RETURN = r"""
failure:
  description: Always V(user).
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "what there is: ansible-doc -t role parallel.worktrees.worktrees"
"""
# An action plugin does all of it; there is nothing to send to a host.
