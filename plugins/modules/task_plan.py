#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_plan
short_description: Note what a task is going to have, before anything is made
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Asks M(parallel.worktrees.git_worktree) and M(parallel.worktrees.task_database) what they would make and what they
    would refuse, and notes it in the task's record, so that a run that is killed can be completed or undone.
  - Where either refuses, nothing is noted.
  - A host that M(parallel.worktrees.task_host) has added gets the variables C(task_facts) with RV(facts), and
    C(task_planned) with RV(planned).
  - Nothing but the registry is touched.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.run
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  registry:
    description:
      - The registry's file, see O(parallel.worktrees.task_record#module:registry).
    type: path
  workspace:
    description:
      - Name of the workspace that the task belongs to.
    type: str
    required: true
  task:
    description:
      - Name of the task. It is registered by now, except in check mode.
    type: str
    required: true
  pattern:
    description:
      - A Python regular expression that the whole of the task's name has to match.
    type: str
    default: "[A-Za-z0-9][A-Za-z0-9_-]*"
  worktrees:
    description:
      - The arguments of M(parallel.worktrees.git_worktree) for this task.
    type: dict
    required: true
  database:
    description:
      - The arguments of M(parallel.worktrees.task_database) for this task.
    type: dict
    required: true
  agent:
    description:
      - Who works on the task, to be noted in its record.
    type: dict
    default: {}
  facts:
    description:
      - What is known of the task so far, as M(parallel.worktrees.task_host) gives it in C(task_facts).
    type: dict
    required: true
seealso:
  - module: parallel.worktrees.task_record
  - module: parallel.worktrees.task_steps
"""

EXAMPLES = r"""
- name: Note what is about to be made
  parallel.worktrees.task_plan:
    workspace: shop
    task: fix-login
    facts: "{{ task_facts }}"
    worktrees:
      owner: "{{ task_facts.owner }}"
      worktrees:
        - name: backend
          repo: "{{ workspace_root }}/backend"
          path: .worktrees/fix-login
          branch: fix-login
    database:
      backend: embedded
      owner: "{{ task_facts.owner }}"
      name: shop_fix_login
      port: "{{ task_facts.ports.database }}"
"""

RETURN = r"""
actions:
  description: What was done to the record, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - note what is made for task fix-login
tasks:
  description: The task, as M(parallel.worktrees.task_record) returns it.
  returned: success
  type: list
  elements: dict
facts:
  description: O(facts) with what the worktrees and the database will be; a database's password is in none of them.
  returned: success
  type: dict
  contains:
    worktrees:
      description: The folder of each worktree, by the name of its repository.
      type: dict
      sample:
        backend: /srv/shop/backend/.worktrees/fix-login
    branches:
      description: The branch of each repository, by its name.
      type: dict
      sample:
        backend: fix-login
    database:
      description: The task's database, as M(parallel.worktrees.task_database) returns it.
      type: dict
    databases:
      description: All of its databases, by their key.
      type: dict
planned:
  description: The arguments O(worktrees) and O(database), for the calls that make what is planned.
  returned: success
  type: dict
failure:
  description:
    - That of M(parallel.worktrees.git_worktree), of M(parallel.worktrees.task_database) or of
      M(parallel.worktrees.task_record), whichever refused.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
  returned: failure
  type: str
  sample: "choose another task name"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._plan import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
