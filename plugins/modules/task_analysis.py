#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_analysis
short_description: Analyze worktrees in the background, read-only
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Starts named checks over worktrees in the background, all at once, and leaves a text report of each and a summary.
  - The worktree and its repository are read-only to them, whatever they try; mounted so in a namespace of their own
    or, where that cannot be had, in a container of O(image). The call is refused where neither is possible.
  - Worktrees whose checks are still running are left to them.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing but the reports.
  idempotent:
    support: none
    details: Each call starts the checks again, but for those that are running.
options:
  task:
    description:
      - The task, as the reports name it.
    type: str
    required: true
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
  checks:
    description:
      - The checks.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the check, unique among the checks.
        type: str
        required: true
      command:
        description:
          - A command line for C(/bin/sh). It passes where it ends with 0.
        type: str
        required: true
      folder:
        description:
          - Where it runs, from the folder of the worktree.
        type: str
        default: .
      repos:
        description:
          - The repositories that it is meant for. It defaults to all.
        type: list
        elements: str
  only:
    description:
      - The names of those to run. It defaults to all.
    type: list
    elements: str
  variables:
    description:
      - Environment variables of the commands, in addition to the inherited variables. If a value contains the
        placeholder of the password, the command gets the password; the report has a mask in its place.
      - A variable with the value V(null) is not set. If an env file of the worktree (M(parallel.worktrees.env_file))
        sets the same variable, the value in the env file is used.
      - C(TMPDIR) and C(XDG_CACHE_HOME) are a folder that each check has for itself and may write to.
    type: dict
    default: {}
  password_file:
    description:
      - The file that contains the password. Without it, placeholders are not replaced.
    type: path
  image:
    description:
      - The image of the containers that they run in where this user cannot have namespaces.
    type: str
  timeout:
    description:
      - After how many seconds a check is ended.
    type: int
    default: 3600
  wait:
    description:
      - Wait until all have ended.
    type: bool
    default: false
  start:
    description:
      - Without it, nothing is started, and RV(reports) tells what there is.
    type: bool
    default: true
seealso:
  - module: parallel.worktrees.task_gate
notes:
  - What is mounted at a folder inside the worktree is not seen by the checks.
  - Files elsewhere, such as in the home folder, are not protected.
  - It needs C(unshare) and C(setpriv) of util-linux 2.38 or later.
"""

EXAMPLES = r"""
- name: Look over a worktree
  parallel.worktrees.task_analysis:
    task: fix-login
    worktrees:
      - name: backend
        path: /srv/shop/backend/.worktrees/fix-login
    checks:
      - name: lint
        command: ruff check --no-cache
      - name: security
        command: bandit -r src
    wait: true
  register: looked
"""

RETURN = r"""
actions:
  description: What was started, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - "analyze /srv/shop/backend/.worktrees/fix-login: lint, security"
states:
  description: V(running), V(done), V(interrupted) or V(none), by the name of the repository.
  returned: success
  type: dict
  sample: {backend: done}
reports:
  description: What there is of each check.
  returned: success
  type: list
  elements: dict
  contains:
    repo:
      description: The repository.
      type: str
      sample: backend
    name:
      description: The check.
      type: str
      sample: lint
    verdict:
      description: V(running), V(passed) or V(failed).
      type: str
      sample: failed
    why:
      description: Why it failed, and whether it tried to write.
      type: str
      sample: ended with 1
    seconds:
      description: How long it took; V(none) while it is running.
      type: float
      sample: 2.3
    file:
      description: Its report.
      type: str
      sample: /srv/shop/backend/.git/worktrees/fix-login/parallel-worktrees-logs/analysis/lint.txt
summary:
  description: The same for people.
  returned: success
  type: str
  sample: |
    fix-login: analyzed, backend
failure:
  description:
    - V(user) if nothing can be made read-only here, or a check cannot be meant as it is.
    - V(environment) if a worktree is not there.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "name an image: analysis_image"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._analysis import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
