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
    time. Where that is a folder that an installation generates in the working tree, as husky does, the worktree gets a
    copy of the main tree's; where neither has it, a warning says so, and so does each commit.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.gates
  - parallel.worktrees.gates.surroundings
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
          - Name of the repository.
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
seealso:
  - module: parallel.worktrees.path_reservation
  - module: parallel.worktrees.task_gate
notes:
  - It sets C(extensions.worktreeConfig) in the repository, so that a worktree can have settings of its own. That stays
    set, as nobody can tell who else relies on it by then; where no worktree has such settings, it means nothing.
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
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "run provision again: it makes what is missing"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._hooks import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
