#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_steps
short_description: Carry out several modules of a task in one call
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Carries out modules of this collection one after another, as calls of their own would.
  - A call costs more than most of what a task is given, here and most of all over SSH, where each is a round trip.
  - The arguments of all steps are checked before the first begins. The first step that fails ends the call.
  - With O(plan), what the task is going to have is noted in its record before the first step, so that a run that is
    killed can be completed or undone. Where anything of it is refused, nothing is noted and no step begins.
  - Values are templated once for all steps. What is known only after a step goes into a later call.
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
  steps:
    description:
      - What to carry out, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What the step is called in the output.
        type: str
        required: true
      module:
        description:
          - The module, without the name of the collection.
        type: str
        choices:
          - agent_file
          - env_file
          - git_worktree
          - port_lease
          - task_database
          - task_record
          - worktree_files
          - worktree_hooks
          - worktree_processes
          - worktree_setup
          - worktree_shell
        required: true
      planned:
        description:
          - Take the arguments of the module from this part of O(plan).
        type: str
        choices:
          - worktrees
          - database
      arguments:
        description:
          - What the module takes. It goes before what was O(steps[].planned).
        type: dict
        default: {}
  plan:
    description:
      - What the task is going to have. M(parallel.worktrees.git_worktree) and M(parallel.worktrees.task_database) are
        asked what they would make and what they would refuse, and the record notes it.
      - A host that M(parallel.worktrees.task_host) has added gets the variables C(task_facts) with RV(facts), and
        C(task_planned) with RV(planned).
    type: dict
    suboptions:
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
"""

EXAMPLES = r"""
- name: Worktrees, and what they have beside git's files
  parallel.worktrees.task_steps:
    steps:
      - name: Worktrees
        module: git_worktree
        arguments:
          owner: shop/fix-login@3f1c9a77
          worktrees:
            - name: backend
              repo: "{{ workspace_root }}/backend"
              path: .worktrees/fix-login
              branch: fix-login
      - name: Links and copies
        module: worktree_files
        arguments:
          worktrees:
            - name: backend
              path: "{{ workspace_root }}/backend/.worktrees/fix-login"
              source: "{{ workspace_root }}/backend"
              links:
                - path: vendor

- name: What is planned, and the worktrees of it
  parallel.worktrees.task_steps:
    plan:
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
    steps:
      - name: Worktrees
        module: git_worktree
        planned: worktrees
"""

RETURN = r"""
actions:
  description: What all steps did, or would do in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - add worktree /srv/shop/backend/.worktrees/fix-login
facts:
  description: O(plan.facts) with what the worktrees and the database will be; a password is in none of them.
  returned: success, with O(plan)
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
  description: O(plan.worktrees) and O(plan.database), for later calls that make what is planned.
  returned: success, with O(plan)
  type: dict
results:
  description:
    - What each step returned, in order. Of a call that failed, those that had ended. What noted O(plan) comes first.
  returned: always
  type: list
  elements: dict
  contains:
    step:
      description: The step's name.
      type: str
      sample: Worktrees
    module:
      description: Its module.
      type: str
      sample: git_worktree
    began:
      description: When it began, in seconds since the epoch.
      type: float
      sample: 1767225600.25
    ended:
      description: When it ended, in seconds since the epoch.
      type: float
      sample: 1767225600.5
step:
  description: The step that failed.
  returned: failure
  type: str
  sample: Worktrees
module:
  description: Its module.
  returned: failure
  type: str
  sample: git_worktree
began:
  description: When it began, in seconds since the epoch.
  returned: failure
  type: float
  sample: 1767225600.25
ended:
  description: When it ended, in seconds since the epoch.
  returned: failure
  type: float
  sample: 1767225600.5
failure:
  description:
    - That of the step that failed, or of what was planned; V(user) for arguments that its module does not take.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
  returned: failure
  type: str
  sample: "what it takes: ansible-doc parallel.worktrees.git_worktree"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._steps import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
