#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ci_workflow
short_description: Write the CI workflow of the integration branch
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Writes a workflow of GitHub Actions into worktrees, with the set-up commands of the workspace, the checks of the
    stage V(integration), and a PostgreSQL service. It is committed like any other file.
  - Tells the commands with which the forge protects O(target), of GitHub or GitLab by the address of the remote. It
    runs none of them.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.gates
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
      - The worktrees to write into.
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
      setup:
        description:
          - The commands to run before the checks, each with C(command) and, where that is not the top, C(folder).
        type: list
        elements: dict
        default: []
  file:
    description:
      - Where the workflow goes. A file there that this module did not write is refused.
    type: str
    default: .github/workflows/integration.yml
  branch:
    description:
      - The integration branch, whose pushes it runs for.
    type: str
    default: integration
  target:
    description:
      - The branch whose pull requests it runs for, and which is to be protected.
    type: str
    default: main
  remote:
    description:
      - The remote whose address tells the forge.
    type: str
    default: origin
  image:
    description:
      - The image of the PostgreSQL service.
    type: str
    default: postgres:17
  runner:
    description:
      - What it runs on.
    type: str
    default: ubuntu-latest
  variables:
    description:
      - Environment variables of its commands. C(DATABASE_URL) is that of the service where it is not given.
    type: dict
    default: {}
  reviews:
    description:
      - How many reviews a pull request to O(target) is to need.
    type: int
    default: 1
  linear_history:
    description:
      - Whether O(target) is to have no merge commits. M(parallel.worktrees.task_integration) makes them.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Write the workflow into a task's worktree
  parallel.worktrees.ci_workflow:
    worktrees:
      - name: backend
        path: /srv/shop/backend/.worktrees/fix-login
        setup:
          - command: npm ci
    checks:
      - name: tests
        command: npm test
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - write /srv/shop/backend/.worktrees/fix-login/.github/workflows/integration.yml
report:
  description: The commands with which the forge protects the target, a paragraph a repository.
  returned: success
  type: str
  sample: |
    # backend: let the forge protect main
    gh api --method PUT repos/shop/backend/branches/main/protection --input - <<'JSON'
failure:
  description:
    - V(user) for a file that is somebody else's, or a place outside of the worktree.
    - V(environment) if a worktree is not there, or cannot be written.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: "look at it, then move it away"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._ci import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
