#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worktree_hooks
short_description: Set the git hooks of worktrees
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Gives worktrees hooks that no other worktree sees; C(core.hooksPath) is set in the configuration of the worktree
    alone.
  - Before a commit, the checks of the stage V(commit) are made, and one that fails stops it. A push to a protected
    branch is refused.
  - The hooks that the project itself has run after that, wherever C(core.hooksPath) or C(.git/hooks) has them at that
    time.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  worktrees:
    description:
      - The worktrees, linked ones.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What to call the repository.
        type: str
        required: true
      path:
        description:
          - The folder of the worktree.
        type: path
        required: true
      submodules:
        description:
          - Paths of submodules within it that have a worktree of their own, which gets hooks too.
        type: list
        elements: str
        default: []
  state:
    description:
      - With V(absent), they get back the hooks that they had.
    type: str
    choices:
      - present
      - absent
    default: present
  registry:
    description:
      - The file of the registry that has the reservations. It defaults to the user's own.
    type: path
  workspace:
    description:
      - The workspace of the task. With it, commits to paths that another task has reserved are refused.
    type: str
  task:
    description:
      - The task that works in them.
    type: str
    required: true
  protected:
    description:
      - Branches that nothing is pushed to from here, as shell patterns.
    type: list
    elements: str
    default:
      - main
      - master
  checks:
    description:
      - The checks, in the order in which they are made. Each has one of O(checks[].command), O(checks[].databases)
        and
        O(checks[].git).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What to call it; no two have one name.
        type: str
        required: true
      command:
        description:
          - A line for C(/bin/sh), which passes where it ends with 0. After one that failed, the later ones of that
            worktree are skipped.
        type: str
      folder:
        description:
          - Where the command runs, from the folder of the worktree.
        type: str
        default: .
      databases:
        description:
          - A pattern of SQL's C(LIKE), such as V(test_db_%). It fails where the task's database server has databases
            that match it. Those of tasks never count.
        type: str
      git:
        description:
          - With V(clean), it fails where something is not committed. With V(attached), where no branch is checked
            out.
        type: str
        choices:
          - clean
          - attached
      repos:
        description:
          - The repositories that it is meant for. It defaults to all.
        type: list
        elements: str
      stages:
        description:
          - When it is made; before a commit, on demand, before the integration of a task, before its teardown.
        type: list
        elements: str
        choices:
          - commit
          - gate
          - integration
          - teardown
        default:
          - gate
          - integration
      warns:
        description:
          - The stages in which it only warns.
        type: list
        elements: str
        choices:
          - commit
          - gate
          - integration
          - teardown
        default: []
  variables:
    description:
      - Environment variables of the commands, beside the inherited ones. Where a value has the placeholder of the
        password, as has RV(parallel.worktrees.task_database#module:database.url), the command gets the password.
    type: dict
    default: {}
  password_file:
    description:
      - The file that has the password. Without it, placeholders stay as they are.
    type: path
  database:
    description:
      - The facts of the task's database, as RV(parallel.worktrees.task_database#module:database) has them, for the
        checks that look for leaked databases. Names in a list C(spared) never count as leaked.
    type: dict
    default: {}
seealso:
  - module: parallel.worktrees.path_reservation
  - module: parallel.worktrees.worktree_gate
notes:
  - It sets C(extensions.worktreeConfig) in the repository, which stays set.
  - C(git commit --no-verify) and C(git push --no-verify) pass by every hook.
"""

EXAMPLES = r"""
- name: Test before each commit in a worktree
  parallel.worktrees.worktree_hooks:
    worktrees:
      - name: backend
        path: /srv/shop/backend/.worktrees/fix-login
    workspace: shop
    task: fix-login
    protected: [main, release/*]
    checks:
      - name: tests
        command: make test
        stages: [commit, gate]
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - set the hooks of /srv/shop/backend/.worktrees/fix-login
failure:
  description:
    - V(user) if a check cannot be meant as it is.
    - V(environment) if a folder is no linked worktree, or git does not do its part.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
  returned: failure
  type: str
  sample: "run provision again: it makes what is missing"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._hooks import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
