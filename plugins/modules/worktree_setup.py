#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: worktree_setup
short_description: Run the set-up commands of worktrees, each once
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Runs commands in worktrees, such as an installation of dependencies, in the order given. A command that has
    succeeded in a worktree is not run there again. The first that fails ends the call, and the next call goes on with
    it.
  - A command is known by its text and its folder, so one that is changed is run. So is one whose
    O(worktrees[].setup[].inputs) have changed since it has run.
  - What a command prints is kept in git's folder for the worktree, in C(parallel-worktrees-logs), of mode 0600.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
    details: A folder that is no linked worktree of git keeps no account of its commands; there they run each time.
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
              - Where it runs, from O(worktrees[].path). A path that leads out of the worktree is refused.
            type: str
            default: .
          inputs:
            description:
              - Files that the command is run on, such as a lock file, from its folder; shell patterns, with C(**) for
                any depth. It is run again where their content has changed, and where one came or went.
            type: list
            elements: str
            default: []
          parallel:
            description:
              - Whether it may run at the same time as its neighbours of which this is said too, in whichever worktree.
            type: bool
            default: false
  variables:
    description:
      - Environment variables of the commands, added to those of this process.
      - C(PARALLEL_WORKTREES_DATABASE_PASSWORD) in a value stands for the password that O(password_file) has.
      - A variable with the value V(null) is not set. If an env file of the worktree (M(parallel.worktrees.env_file))
        sets the same variable, the value in the env file is used.
    type: dict
    default: {}
  password_file:
    description:
      - The file that keeps the password of the task's database.
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
  description: What was run, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - run 'composer install' in backend
failure:
  description:
    - V(user) for a folder that leads out of the worktree.
    - V(environment) if a command failed; C(msg) has its last words.
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
