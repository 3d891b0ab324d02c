#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_integration
short_description: Merge a finished task and fast-forward the main branch
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Merges the branches of a task into the integration branch of each repository, as C(git merge --no-ff) does. The
    merge takes place in a separate worktree.
  - Runs the checks of the stage V(integration) there. If they pass, it pushes the branches, and moves the integration
    branch and O(target) forward.
  - After a conflict or a failed gate, every branch is unchanged. A task is integrated in all of its repositories or in
    none.
  - A submodule in which the task has commits is merged in the same way, and pushed before the repository that contains
    it. The merge in that repository refers to the merge commit of the submodule. If other tasks have moved the
    submodule too, this is a conflict only if files in the submodule conflict.
  - Only one call at a time works in a repository; others wait for it. The next call finishes what a killed call was
    about to publish.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.gates
  - parallel.worktrees.gates.surroundings
attributes:
  check_mode:
    support: partial
    details: Conflicts are predicted from the last fetch, with git 2.38 or later. The checks do not run.
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
      - The worktrees of the task. Everything in them must be committed on a branch.
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
          - The folder of the worktree. Without it, the task has only O(worktrees[].branch) in O(worktrees[].repo), and
            the module searches for uncommitted changes where that branch is checked out.
        type: path
      repo:
        description:
          - The main working tree of the repository. Not required with O(worktrees[].path).
        type: path
      branch:
        description:
          - The branch of the task. In a worktree, it is the branch that is checked out.
        type: str
      submodules:
        description:
          - Paths of submodules that have their own worktrees in it. In a submodule without a branch named O(target),
            only the integration branch moves.
        type: list
        elements: str
        default: []
  branch:
    description:
      - The integration branch. It is created from O(target) if it does not exist. It must not be checked out anywhere.
      - It may be O(target) itself, so that finished tasks are merged directly into O(target).
    type: str
    default: integration
  target:
    description:
      - The branch that is fast-forwarded to the integration branch. Without it, no branch is.
      - Commits that are only on this branch are merged into the integration branch first.
      - A working tree with this branch checked out is updated if everything in it is committed. Otherwise it stays as
        it is, and RV(notes) names the command that updates it.
    type: str
  remote:
    description:
      - The remote to push to. A repository without this remote is not pushed.
    type: str
    default: origin
  push:
    description:
      - Whether to push the branch of the task, the integration branch and O(target). In each repository, all of them
        are pushed or none.
    type: bool
    default: true
  directory:
    description:
      - The folder of the worktrees in which the integration takes place. Files that git ignores in them are kept for
        the next integration. It defaults to C(integration) in the state folder of the user.
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
    - The repositories and submodules in which a branch was moved. Empty if the task was already merged in all of them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The repository, or the submodule of a repository, such as V(backend/migrations).
      type: str
      sample: backend
    branch:
      description: The branch of the task.
      type: str
      sample: fix-login
    commit:
      description: The commit that the branches point to; V(none) in check mode.
      type: str
      sample: 2fb6bd4a6f0d4e1b3a3c0a1b6cf6b0c1d5d3f0aa
notes:
  description: Working trees that were not updated to O(target), each with the reason and the command that updates it.
  returned: success
  type: list
  elements: str
  sample: []
summary:
  description: The result as a text for people.
  returned: success
  type: str
  sample: |
    fix-login: integrated
      backend  fix-login is in integration and main at 2fb6bd4a6f0d
checks:
  description: The result of each check, as in RV(parallel.worktrees.task_gate#module:checks).
  returned: if a check failed
  type: list
  elements: dict
  sample: []
files:
  description: The files in conflict, by repository or submodule.
  returned: if there is a conflict
  type: dict
  sample: {backend: [README.md]}
failure:
  description:
    - V(user) for a conflict, a failed gate, work that is not committed, a detached HEAD, or branches that have
      diverged.
    - V(environment) if a push is refused, or git fails.
    - V(partial) if, after such a failure, the push of another repository could not be undone.
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
