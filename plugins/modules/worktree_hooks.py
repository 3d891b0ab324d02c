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
  - Sets git hooks for single worktrees. C(core.hooksPath) is set only in the configuration of the worktree, so other
    worktrees are not affected.
  - Before a commit, the checks of the stage V(commit) run, and a check that fails stops the commit. A push to a
    protected branch is refused.
  - After that, the hooks of the project run, from the current C(core.hooksPath) or C(.git/hooks). If an installation
    generates this folder in the working tree, as husky does, the worktree gets a copy of the folder of the main working
    tree. If both lack the folder, a warning is printed, also at each commit.
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
      - The worktrees, which must be linked worktrees.
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
          - Paths of submodules in the worktree that have their own worktree, which gets the hooks too.
        type: list
        elements: str
        default: []
  state:
    description:
      - With V(present), the worktrees have the hooks. With V(absent), their former hooks are restored.
    type: str
    choices:
      - present
      - absent
    default: present
  registry:
    description:
      - The registry file that contains the reservations. It defaults to the registry of the user.
    type: path
  workspace:
    description:
      - The workspace of the task. With it, commits to paths that another task has reserved are refused.
    type: str
  task:
    description:
      - Name of the task that has the worktrees.
    type: str
    required: true
  protected:
    description:
      - Shell patterns for branches to which pushes from the worktrees are refused.
    type: list
    elements: str
    default:
      - main
      - master
seealso:
  - module: parallel.worktrees.path_reservation
  - module: parallel.worktrees.task_gate
notes:
  - The module sets C(extensions.worktreeConfig) in the repository, so that a worktree can have its own settings. It is
    not unset later, since other tools may rely on it. It has no effect if no worktree has its own settings.
  - C(git commit --no-verify) and C(git push --no-verify) skip all hooks.
"""

EXAMPLES = r"""
- name: Run the tests before each commit in a worktree
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
    - V(user) if the definition of a check is invalid.
    - V(environment) if a folder is not a linked worktree, or git fails.
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
