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
      arguments:
        description:
          - What the module takes.
        type: dict
        default: {}
seealso:
  - module: parallel.worktrees.task_plan
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
"""

RETURN = r"""
actions:
  description: What all steps did, or would do in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - add worktree /srv/shop/backend/.worktrees/fix-login
results:
  description:
    - What each step returned, in order. Of a call that failed, those that had ended.
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
    - That of the step that failed; V(user) for arguments that its module does not take.
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
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
