#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_gate
short_description: Let worktrees pass a gate
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Makes the named checks of one stage in worktrees, and fails where one of them does, with the result of each.
  - A check is a command, a look for leaked databases, or for what git says of the worktree.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.gates
  - parallel.worktrees.gates.surroundings
attributes:
  check_mode:
    support: partial
    details: The checks are not made, so what they would find cannot be foreseen.
  diff_mode:
    support: none
    details: The changes that a command makes cannot be shown.
  idempotent:
    support: partial
    details: What the commands do is not known. Databases that were dropped are not there a second time.
options:
  worktrees:
    description:
      - The worktrees.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the repository.
        type: str
        required: true
      path:
        description:
          - The folder of the worktree.
        type: path
        required: true
  stage:
    description:
      - Which of the checks to make.
    type: str
    choices:
      - commit
      - gate
      - integration
      - teardown
    default: gate
  drop_leaked:
    description:
      - Drop the leaked databases that are found.
    type: bool
    default: false
  title:
    description:
      - What messages begin with, such as the name of the task.
    type: str
seealso:
  - module: parallel.worktrees.worktree_hooks
notes:
  - Commands run without the variables that git sets for its hooks, so that tests which make repositories do not
    commit to this one.
"""

EXAMPLES = r"""
- name: See whether a task is fit to be merged
  parallel.worktrees.task_gate:
    worktrees:
      - name: backend
        path: /srv/shop/backend/.worktrees/fix-login
    checks:
      - name: build
        command: make
      - name: leaked databases
        databases: test_db_%
        warns: [commit]
      - name: clean tree
        git: clean
    variables:
      DATABASE_URL: "{{ task_facts.database.url }}"
    password_file: "{{ task_facts.database.password_file }}"
    database: "{{ task_facts.database }}"
    title: fix-login
"""

RETURN = r"""
actions:
  description: The databases that were dropped. In check mode, the checks that would be made.
  returned: success
  type: list
  elements: str
  sample:
    - drop the leaked database test_db_1
checks:
  description: How each check ended. Empty in check mode.
  returned: success, and failure of a check
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: tests
    repo:
      description: The repository; V(none) for databases, which belong to the task as a whole.
      type: str
      sample: backend
    verdict:
      description: V(passed), V(warned), V(failed) or V(skipped).
      type: str
      sample: failed
    seconds:
      description: How long it took.
      type: float
      sample: 2.31
    text:
      description: What it found; of a command its last 20 lines. Empty where it passed.
      type: str
      sample: "'make test' ended with 2:\n1 test failed"
    log:
      description: The file with all that the command printed; V(none) without a command.
      type: str
      sample: /srv/shop/backend/.git/worktrees/fix-login/parallel-worktrees-logs/gate-tests.log
summary:
  description: What to tell a person.
  returned: success, but not in check mode
  type: str
  sample: |
    fix-login: green
      backend: build passed
failure:
  description:
    - V(user) if a check failed, or cannot be meant as it is.
    - V(environment) if a worktree or O(password_file) is not there, or cannot be used.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: mend it, and run this again
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._gates import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
