#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worktree_shell
short_description: Load a task's environment in shells
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Writes a file for shells to source, with the task's environment variables and its PATH, and has direnv and mise load
    it.
  - The guard of shared dependencies that M(parallel.worktrees.worktree_files) makes comes first on that PATH.
  - Neither loads anything before its user has allowed it, with C(direnv allow) or C(mise trust).
  - What is written is kept out of git in that worktree alone (see the notes), and noted in git's folder for it, so that
    its removal can tell it from work. What git tracks or somebody else wrote is left alone and told.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.excluded
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
      - The worktrees.
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
          - Folder of the worktree.
        type: path
        required: true
  file:
    description:
      - The file to source, from the folder of the worktree, of mode 0600.
    type: str
    default: .task.env
  loaders:
    description:
      - What is to load it by itself. With V(direnv), a block in C(.envrc); with V(mise), the file C(mise.local.toml).
    type: list
    elements: str
    choices:
      - direnv
      - mise
    default: []
  variables:
    description:
      - The environment variables. One that is V(null) is not set. What an env file of the worktree
        (M(parallel.worktrees.env_file)) says of a name counts.
      - C(PARALLEL_WORKTREES_DATABASE_PASSWORD) in a value stands for the password that O(password_file) has.
    type: dict
    default: {}
  password_file:
    description:
      - The file that keeps the password of the task's database.
    type: path
seealso:
  - module: parallel.worktrees.env_file
  - module: parallel.worktrees.task_exec
"""

EXAMPLES = r"""
- name: Have the environment of the task in every shell
  parallel.worktrees.worktree_shell:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
    loaders:
      - direnv
      - mise
    variables:
      TASK_NAME: fix-login
      PORT: 8001
"""

RETURN = r"""
actions:
  description: What was written, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - write /srv/shop/backend/.worktrees/fix-login/.task.env
files:
  description: The files that are as this call wants them.
  returned: success
  type: list
  elements: str
  sample:
    - /srv/shop/backend/.worktrees/fix-login/.task.env
left:
  description: The files that were left alone, and why, a line each.
  returned: success
  type: list
  elements: str
  sample:
    - "/srv/shop/backend/.worktrees/fix-login/.task.env was left alone: git tracks it"
summary:
  description: RV(left) for people; V(none) where nothing was.
  returned: success
  type: str
failure:
  description:
    - V(user) for a path that leads out of the worktree, or a variable whose name no shell takes.
    - V(environment) for a file that cannot be written, or a password file that is not there.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) where there is no telling. It ends C(msg) too.
  returned: failure
  type: str
  sample: name a path within it
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._shell import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
