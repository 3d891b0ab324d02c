#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_database_info
short_description: Report the content of the databases of a task
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Reports for each database of a task its number of tables, its size, the last migration, and the command that opens a
    C(psql) session in it.
  - The password is read from its file, and is in no result or log.
extends_documentation_fragment:
  - parallel.worktrees.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: The module changes nothing.
  idempotent:
    support: full
options:
  databases:
    description:
      - The databases by key, as in RV(parallel.worktrees.pg_database#module:databases), which
        M(parallel.worktrees.pg_database) returns, and in C(task_facts.databases).
    type: dict
    required: true
  database:
    description:
      - Key of the database to report. It defaults to all databases.
    type: str
  migration_query:
    description:
      - A query whose first row names the last migration. If its table does not exist, there was no migration.
    type: str
  about:
    description:
      - Facts about the task, by label, which RV(report) shows first.
    type: dict
    default: {}
  format:
    description:
      - Format of RV(report), which is text for people, JSON, or the command that opens a session in the first database.
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
- name: Report the databases of the task
  parallel.worktrees.pg_database_info:
    databases: "{{ task_facts.databases }}"
    migration_query: select version from schema_migrations order by version desc
    format: text
"""

RETURN = r"""
actions:
  description: Always empty, since the module changes nothing.
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
      description: Key of the database in O(databases).
      type: str
      sample: world
    name:
      description: Name of the database.
      type: str
      sample: world_oauth_v2_b2b4c8
    state:
      description: V(running), or the reason why it cannot be queried.
      type: str
      sample: running
    url:
      description: Its URL, with the password masked.
      type: str
      sample: postgresql://oauth_v2_b2b4c8:********@127.0.0.1:5432/world_oauth_v2_b2b4c8
    command:
      description: The shell command that opens a session in the database.
      type: str
    tables:
      description: Number of tables; V(none) if the database cannot be queried.
      type: int
      sample: 12
    size:
      description: Size of the database, in a form for people.
      type: str
      sample: 8641 kB
    migration:
      description: The last migration, if O(migration_query) is set and there was a migration.
      type: str
      sample: "20260102"
report:
  description: The whole result in the format of O(format).
  returned: success
  type: str
failure:
  description:
    - V(user) if the database does not exist, V(environment) if the query failed.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps. C(msg) ends with it, too.
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
