#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_info
short_description: Tell how every task stands
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Tell how every task stands.
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
  registry:
    description: See the collection.
    type: path
  workspace:
    description: See the collection.
    type: str
  task:
    description: See the collection.
    type: str
  repos:
    description: See the collection.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: See the collection.
        type: str
        required: true
      repo:
        description: See the collection.
        type: path
        required: true
  backend:
    description: See the collection.
    type: str
  docker_host:
    description: See the collection.
    type: str
  directory:
    description: See the collection.
    type: path
  disposable:
    description: See the collection.
    type: list
    elements: str
    default: ['node_modules', '__pycache__', '*.pyc', '.venv', '.pytest_cache', '.mypy_cache', '.ruff_cache', '.hypothesis', '.tox', '.gradle', '.next', '.turbo']
  format:
    description: See the collection.
    type: str
    choices: ['table', 'json']
"""

EXAMPLES = r"""
"""

RETURN = r"""
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._status import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
