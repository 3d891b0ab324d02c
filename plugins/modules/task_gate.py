#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_gate
short_description: Run the checks of a gate in worktrees
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs the checks of one stage in worktrees, and fails if one of them fails, with the result of each check.
  - A check is a command, a search for leaked databases, or a condition on the git state of the worktree.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.gates
  - parallel.worktrees.gates.surroundings
attributes:
  check_mode:
    support: partial
    details: The checks do not run, so their results cannot be predicted.
  diff_mode:
    support: none
    details: The changes that a command makes cannot be shown.
  idempotent:
    support: partial
    details: The effects of the commands are not known. A leaked database is dropped only once.
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
      - The stage whose checks run.
    type: str
    choices:
      - commit
      - gate
      - integration
      - teardown
    default: gate
  drop_leaked:
    description:
      - Whether to drop the leaked databases that are found.
    type: bool
    default: false
  title:
    description:
      - The text that messages begin with, such as the name of the task.
    type: str
seealso:
  - module: parallel.worktrees.worktree_hooks
notes:
  - Commands run without the variables that git sets for its hooks, so that tests that create repositories do not commit
    to this repository.
"""

EXAMPLES = r"""
- name: Check whether a task can be merged
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
  description: The databases that were dropped. In check mode, the checks that would run.
  returned: success
  type: list
  elements: str
  sample:
    - drop the leaked database test_db_1
checks:
  description: The result of each check. Empty in check mode.
  returned: success, or if a check failed
  type: list
  elements: dict
  contains:
    name:
      description: Name of the check.
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
      description: Duration of the check, in seconds.
      type: float
      sample: 2.31
    text:
      description: What the check found; for a command, the last 20 lines of its output. Empty if the check passed.
      type: str
      sample: "'make test' ended with 2:\n1 test failed"
    log:
      description: The file with the whole output of the command; V(none) without a command.
      type: str
      sample: /srv/shop/backend/.git/worktrees/fix-login/parallel-worktrees-logs/gate-tests.log
summary:
  description: The result as a text for people.
  returned: success, but not in check mode
  type: str
  sample: |
    fix-login: green
      backend: build passed
failure:
  description:
    - V(user) if a check failed, or its definition is invalid.
    - V(environment) if a worktree or O(password_file) does not exist or cannot be used.
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
