#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace_check
short_description: Refuse variables that are not as the roles document them
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Holds the variables of a workspace against the argument specs of this collection's roles, all at once, before
    anything is made for any task. Types, choices, what is required, and the names of nested options are looked at.
  - A name of a repository that the workspace does not have is refused too.
  - A variable that looks like a misspelt one of the roles draws a warning.
  - A value that follows from C(task_facts) cannot be told yet. It passes, and is looked at by the module that takes it.
    What stands beside it is looked at all the same.
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
    description: The entry point of the roles whose variables are looked at.
    type: str
    default: main
  records:
    description:
      - Tasks, as M(parallel.worktrees.task_info) returns them in RV(parallel.worktrees.task_info#module:tasks).
      - With them, nothing else is looked at than whether anything of each is made yet, and C(repos), which has to name
        repositories that each of them has.
    type: list
    elements: dict
  machines:
    description:
      - The variable that names the hosts which a playbook works on, as P(parallel.worktrees.machines#lookup) takes it.
      - With it, nothing else is looked at than that. Hosts that the inventory does not have are refused, and so is a
        variable that the inventory says for some hosts only.
    type: str
    choices:
      - workspace_machine
      - db_host
notes:
  - It takes the place of the validation that Ansible does for each role and host, which cannot be done before the facts
    of a task are there.
seealso:
  - module: ansible.builtin.validate_argument_spec
"""

EXAMPLES = r"""
- name: Refuse a workspace that is not as it has to be
  parallel.worktrees.workspace_check:

- name: Refuse to take a task back by variables that are not as they have to be
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
