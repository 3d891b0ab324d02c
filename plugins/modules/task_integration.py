#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_integration
short_description: Merge a finished task, and move main forward
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Merges what is checked out in the worktrees of a task into the integration branch of each repository, as C(git
    merge --no-ff) does, in a worktree of its own.
  - Makes the checks of the stage V(integration) there. Where they are green, it pushes the branches, and moves the
    integration branch and O(target) forward.
  - A conflict or a red gate leaves every branch as it was. Over several repositories it is all or none.
  - A submodule in which the task has commits is merged likewise, and pushed before the repository around it, whose
    merge names what was merged there. Where other tasks have moved it too, that is no conflict unless its files are.
  - One call at a time is at work in a repository; others wait for it. What a killed call was about to publish is
    finished by the next one.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.gates
  - parallel.worktrees.gates.surroundings
attributes:
  check_mode:
    support: partial
    details: Conflicts are foreseen, with what was fetched last and git 2.38 or later. The checks are not made.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  workspace:
    description:
      - The workspace of the task.
    type: str
    required: true
  task:
    description:
      - The task, as the merge commits name it.
    type: str
    required: true
  worktrees:
    description:
      - Its worktrees. All in them has to be committed, on a branch.
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
          - The folder of the worktree. Without it, the task has its O(worktrees[].branch) in O(worktrees[].repo) alone,
            and what is not committed is looked for where that is checked out.
        type: path
      repo:
        description:
          - The main working tree of the repository; the worktree says so too, where there is one.
        type: path
      branch:
        description:
          - The branch of the task. In a worktree, it is what is checked out.
        type: str
      submodules:
        description:
          - Paths of submodules that have worktrees of their own in it. One without a branch called like O(target) moves
            its integration branch only.
        type: list
        elements: str
        default: []
  branch:
    description:
      - The integration branch. It is made from O(target) where it is missing, and may be checked out nowhere.
      - It may be O(target) itself, where finished tasks go to it at once.
    type: str
    default: integration
  target:
    description:
      - The branch that moves forward to the integration branch. Without it, none does.
      - Commits that are on it alone are merged into the integration branch first.
      - A tree that has it checked out follows where all in it is committed; else it stays, and RV(notes) tells how to
        bring it there.
    type: str
  remote:
    description:
      - The remote to push to, in repositories that have it.
    type: str
    default: origin
  push:
    description:
      - Whether to push; the branch of the task, the integration branch and O(target), all of a repository or none.
    type: bool
    default: true
  directory:
    description:
      - Where the worktrees for it are. What git ignores in them stays from one time to the next. It defaults to
        C(integration) in the state folder of the user.
    type: path
seealso:
  - module: parallel.worktrees.task_gate
"""

EXAMPLES = r"""
- name: Merge a finished task
  parallel.worktrees.task_integration:
    workspace: shop
    task: fix-login
    worktrees:
      - name: backend
        path: /srv/shop/backend/.worktrees/fix-login
    target: main
    checks:
      - name: tests
        command: make test
        stages: [integration]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - merge fix-login of backend into integration and main for fix-login
    - push fix-login and integration and main of backend to origin
integrated:
  description:
    - The repositories and submodules in which a branch was moved. Empty for a task that is in all of them already.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The repository, or submodule of one, such as V(backend/migrations).
      type: str
      sample: backend
    branch:
      description: The branch of the task.
      type: str
      sample: fix-login
    commit:
      description: The commit that the branches are at; V(none) in check mode.
      type: str
      sample: 2fb6bd4a6f0d4e1b3a3c0a1b6cf6b0c1d5d3f0aa
notes:
  description: Trees that were not brought to the new state of O(target), with why and how to.
  returned: success
  type: list
  elements: str
  sample: []
summary:
  description: All of it for people.
  returned: success
  type: str
  sample: |
    fix-login: integrated
      backend  fix-login is in integration and main at 2fb6bd4a6f0d
checks:
  description: How each check ended, as RV(parallel.worktrees.task_gate#module:checks).
  returned: failure of a check
  type: list
  elements: dict
  sample: []
files:
  description: The files in conflict, by repository or submodule.
  returned: failure by a conflict
  type: dict
  sample: {backend: [README.md]}
failure:
  description:
    - V(user) for a conflict, a red gate, work that is not committed, a detached HEAD, or branches that went different
      ways.
    - V(environment) if a push is refused, or git does not do its part.
    - V(partial) if, after that, what was pushed of another repository could not be put back.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "solve it in the worktree of the task, then integrate again"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._integration import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
