#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_database_info
short_description: Tell what is in the databases of a task
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Tells of each database of a task its tables, its size, the last migration, and the command that lets a person in.
  - The password is read from its file, and told nowhere.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: There is nothing that it changes.
  idempotent:
    support: full
options:
  databases:
    description:
      - The databases by their keys, as M(parallel.worktrees.pg_database) returns them in
        RV(parallel.worktrees.pg_database#module:databases), and C(task_facts.databases) has them.
    type: dict
    required: true
  database:
    description:
      - Key of the one to tell of. It defaults to all.
    type: str
  migration_query:
    description:
      - A query of which the first row tells the last migration. A table that is not there means that there was none.
    type: str
  about:
    description:
      - What to tell of the task at the start of RV(report), by labels.
    type: dict
    default: {}
  format:
    description:
      - What RV(report) is, text for people, JSON, or the command that lets a person into the first database.
    type: str
    choices:
      - text
      - json
      - command
requirements:
  - psycopg2
seealso:
  - module: parallel.worktrees.pg_database
"""

EXAMPLES = r"""
- name: What is in the databases of the task
  parallel.worktrees.pg_database_info:
    databases: "{{ task_facts.databases }}"
    migration_query: select version from schema_migrations order by version desc
    format: text
"""

RETURN = r"""
actions:
  description: Empty, since nothing is ever changed.
  returned: success
  type: list
  elements: str
  sample: []
databases:
  description: The databases.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: By what it is found in O(databases).
      type: str
      sample: world
    name:
      description: Its name.
      type: str
      sample: world_oauth_v2_b2b4c8
    state:
      description: V(running), or why it cannot be asked.
      type: str
      sample: running
    url:
      description: Its URL, with the password masked.
      type: str
      sample: postgresql://oauth_v2_b2b4c8:********@127.0.0.1:5432/world_oauth_v2_b2b4c8
    command:
      description: A line for a shell that lets a person in.
      type: str
    tables:
      description: How many tables it has; V(none) where it cannot be asked.
      type: int
      sample: 12
    size:
      description: How large it is, as people say it.
      type: str
      sample: 8641 kB
    migration:
      description: The last migration, where O(migration_query) is given and there was one.
      type: str
      sample: "20260102"
report:
  description: All of it in the O(format) that was asked for.
  returned: success
  type: str
failure:
  description:
    - V(user) where there is no such database, V(environment) where the query failed.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps. It ends C(msg) too.
  returned: failure
  type: str
  sample: "choose from: carlo, world"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._database_info import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
