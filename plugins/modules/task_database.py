#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: task_database
short_description: Give a task its PostgreSQL, whatever the back end
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Give a task its PostgreSQL, whatever the back end.
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
  backend:
    description: See the collection.
    type: str
    required: true
    choices: ['none', 'container', 'embedded']
  name:
    description: See the collection.
    type: str
    required: true
  owner:
    description: See the collection.
    type: str
    required: true
  state:
    description: See the collection.
    type: str
    default: 'present'
    choices: ['present', 'absent']
  wait:
    description: See the collection.
    type: bool
    default: True
  timeout:
    description: See the collection.
    type: float
    default: 120.0
  address:
    description: See the collection.
    type: str
    default: '127.0.0.1'
  port:
    description: See the collection.
    type: int
  user:
    description: See the collection.
    type: str
    default: 'postgres'
  database:
    description: See the collection.
    type: str
  password_file:
    description: See the collection.
    type: path
  settings:
    description: See the collection.
    type: dict
    default: {}
  container:
    description: See the collection.
    type: dict
    suboptions:
      image:
        description: See the collection.
        type: str
      pull:
        description: See the collection.
        type: str
        default: 'missing'
        choices: ['missing', 'never']
      memory:
        description: See the collection.
        type: str
      shm_size:
        description: See the collection.
        type: str
        default: '256m'
      prepared:
        description: See the collection.
        type: bool
        default: True
      environment:
        description: See the collection.
        type: dict
        default: {}
      docker_host:
        description: See the collection.
        type: str
  embedded:
    description: See the collection.
    type: dict
    suboptions:
      directory:
        description: See the collection.
        type: path
      bin_directory:
        description: See the collection.
        type: path
      system_user:
        description: See the collection.
        type: str
        default: 'postgres'
"""

EXAMPLES = r"""
"""

RETURN = r"""
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._databases import ARGUMENT_SPEC, operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
