#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worktree_setup
short_description: Run each set-up command of worktrees once
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs commands in worktrees, such as the installation of dependencies, in the given order. A command that has
    succeeded in a worktree is not run there again. The first command that fails ends the call, and the next call
    continues with this command.
  - A command is identified by its text and its folder, so a changed command runs again. A command whose
    O(worktrees[].setup[].inputs) have changed since its last run also runs again.
  - The output of a command is stored in git's folder for the worktree, in C(parallel-worktrees-logs), with mode 0600.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
    details:
      In a folder that is not a linked git worktree, successful commands are not recorded, so they run at each call.
options:
  worktrees:
    description:
      - The worktrees and their commands.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the repository in messages.
        type: str
        required: true
      path:
        description:
          - Folder of the worktree.
        type: path
        required: true
      setup:
        description:
          - The commands.
        type: list
        elements: dict
        default: []
        suboptions:
          command:
            description:
              - A command line for C(/bin/sh).
            type: str
            required: true
          folder:
            description:
              - The folder in which the command runs, relative to O(worktrees[].path). A path that leads out of the
                worktree is refused.
            type: str
            default: .
          inputs:
            description:
              - Shell patterns for files that the command reads, such as a lock file, relative to its folder, with C(**)
                for any depth. The command runs again if the content of a file has changed, or if a file was added or
                removed.
            type: list
            elements: str
            default: []
          parallel:
            description:
              - Whether the command may run at the same time as the commands before and after it that also have V(true),
                in any worktree.
            type: bool
            default: false
  variables:
    description:
      - Environment variables of the commands, in addition to the inherited variables.
      - C(PARALLEL_WORKTREES_DATABASE_PASSWORD) in a value is the placeholder of the password in O(password_file).
      - A variable with the value V(null) is not set. If an env file of the worktree (M(parallel.worktrees.env_file))
        sets the same variable, the value in the env file is used.
    type: dict
    default: {}
  password_file:
    description:
      - The file that contains the password of the task's database.
    type: path
seealso:
  - module: parallel.worktrees.git_worktree
"""

EXAMPLES = r"""
- name: Set up the worktree once
  parallel.worktrees.worktree_setup:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
        setup:
          - command: git log -1 --format=%H > version.txt
          - command: test -n "$DATABASE_URL" && echo ready
            folder: config
          - command: npm ci
            folder: client
            inputs: [package-lock.json]
            parallel: true
          - command: uv sync
            folder: server
            inputs: [uv.lock]
            parallel: true
    variables:
      DATABASE_URL: postgresql://postgres:PARALLEL_WORKTREES_DATABASE_PASSWORD@127.0.0.1:15433/postgres
    password_file: "{{ workspace_root }}/secrets/database"
"""

RETURN = r"""
actions:
  description: What was run, or would be run in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - run 'composer install' in backend
failure:
  description:
    - V(user) for a folder that leads out of the worktree.
    - V(environment) if a command failed. C(msg) contains the end of its output.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "mend it and run provision again: it goes on here; all of its output: /srv/shop/backend/.git/..."
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._setup import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
