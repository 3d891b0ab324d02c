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
  - Starts checks of worktrees in the background, all at the same time. Each check writes a text report, and the call
    returns a summary.
  - The checks cannot write to the worktree and its repository, which are mounted read-only in a namespace of the check
    or, if the user cannot create namespaces, in a container of O(image). The call is refused if neither is possible.
  - No checks are started in a worktree whose checks are still running.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The module changes only the reports.
  idempotent:
    support: none
    details: Each call starts the checks again, except those that are still running.
options:
  task:
    description:
      - Name of the task, for the reports.
    type: str
    required: true
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
          - A command line for C(/bin/sh). The check passes if the command exits with 0.
        type: str
        required: true
      folder:
        description:
          - The folder in which the command runs, relative to the folder of the worktree.
        type: str
        default: .
      repos:
        description:
          - The repositories that the check applies to. It defaults to all repositories.
        type: list
        elements: str
  only:
    description:
      - The names of the checks to run. It defaults to all checks.
    type: list
    elements: str
  variables:
    description:
      - Environment variables of the commands, in addition to the inherited variables. If a value contains the
        placeholder of the password, the command gets the password; the report has a mask in its place.
      - A variable with the value V(null) is not set. If an env file of the worktree (M(parallel.worktrees.env_file))
        sets the same variable, the value in the env file is used.
      - C(TMPDIR) and C(XDG_CACHE_HOME) name a writable folder, a separate folder for each check.
    type: dict
    default: {}
  password_file:
    description:
      - The file that contains the password. Without it, placeholders are not replaced.
    type: path
  image:
    description:
      - The image of the containers in which the checks run if this user cannot create namespaces.
    type: str
  timeout:
    description:
      - The time in seconds after which a check is ended.
    type: int
    default: 3600
  wait:
    description:
      - Whether to wait until all checks have ended.
    type: bool
    default: false
  start:
    description:
      - Whether to start the checks. With V(false), RV(reports) lists the existing reports.
    type: bool
    default: true
seealso:
  - module: parallel.worktrees.task_gate
notes:
  - The checks do not see a file system that is mounted at a folder inside the worktree.
  - Files elsewhere, such as in the home folder, are not protected.
  - The module needs C(unshare) and C(setpriv) of util-linux 2.38 or later.
"""

EXAMPLES = r"""
- name: Analyze a worktree
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
  description: What was started, or would be started in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - "analyze /srv/shop/backend/.worktrees/fix-login: lint, security"
states:
  description: The state of the analysis, V(running), V(done), V(interrupted) or V(none), by the name of the repository.
  returned: success
  type: dict
  sample: {backend: done}
reports:
  description: The report of each check.
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
      description: Why the check failed, and whether it tried to write.
      type: str
      sample: ended with 1
    seconds:
      description: Duration of the check, in seconds; V(none) while it is running.
      type: float
      sample: 2.3
    file:
      description: The file of its report.
      type: str
      sample: /srv/shop/backend/.git/worktrees/fix-login/parallel-worktrees-logs/analysis/lint.txt
summary:
  description: The result as a text for people.
  returned: success
  type: str
  sample: |
    fix-login: analyzed, backend
failure:
  description:
    - V(user) if the worktrees cannot be made read-only on this machine, or the definition of a check is invalid.
    - V(environment) if a worktree does not exist.
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
