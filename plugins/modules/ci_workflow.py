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
  - Writes a GitHub Actions workflow into worktrees, with the set-up commands of the workspace, the checks of the stage
    V(integration), and a PostgreSQL service. Commit the workflow like any other file.
  - Reports the commands that protect O(target) on the forge. The address of the remote selects GitHub or GitLab. The
    module does not run these commands.
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
          - The commands to run before the checks, each with C(command) and, if it does not run in the top folder,
            C(folder).
        type: list
        elements: dict
        default: []
  file:
    description:
      - The file of the workflow, relative to the folder of the worktree. An existing file that this module did not
        write is refused.
    type: str
    default: .github/workflows/integration.yml
  branch:
    description:
      - The integration branch. The workflow runs for pushes to this branch.
    type: str
    default: integration
  target:
    description:
      - The branch to protect. The workflow runs for pull requests to this branch.
    type: str
    default: main
  remote:
    description:
      - The remote whose address selects the forge.
    type: str
    default: origin
  image:
    description:
      - The image of the PostgreSQL service.
    type: str
    default: postgres:17
  runner:
    description:
      - The runner of the workflow (C(runs-on)).
    type: str
    default: ubuntu-latest
  variables:
    description:
      - Environment variables of its commands. C(DATABASE_URL) defaults to the URL of the PostgreSQL service.
    type: dict
    default: {}
  reviews:
    description:
      - Number of reviews that a pull request to O(target) requires.
    type: int
    default: 1
  linear_history:
    description:
      - Whether the forge refuses merge commits on O(target). M(parallel.worktrees.task_integration) creates merge
        commits.
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
  description: The commands that protect O(target) on the forge, a paragraph for each repository.
  returned: success
  type: str
  sample: |
    # backend: let the forge protect main
    gh api --method PUT repos/shop/backend/branches/main/protection --input - <<'JSON'
failure:
  description:
    - V(user) for a file that this module did not write, or a path outside the worktree.
    - V(environment) if a worktree does not exist, or cannot be written to.
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
