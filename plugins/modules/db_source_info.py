#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_source_info
short_description: Report the sources of a DB host
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Reports for each source of a DB host whether its standby follows the primary, its lag, its goldens, the age of their
    data, and the branches that depend on them. Reports also how full the pool is, and the problems that need attention.
    It changes nothing.
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
  name:
    description:
      - Report only the source of this name. It defaults to all sources.
    type: str
  host_file:
    description:
      - The host file, which the role C(db_host) writes.
    type: path
    default: /etc/parallel-worktrees/db_host.json
requirements:
  - A DB host
  - psycopg2 (Python)
  - root
seealso:
  - module: parallel.worktrees.db_source
"""

EXAMPLES = r"""
- name: Report the sources
  parallel.worktrees.db_source_info:
  become: true
  register: there

- name: Fail if there is a problem
  ansible.builtin.assert:
    that: not there.problems
    fail_msg: "{{ there.problems | join('; ') }}"
"""

RETURN = r"""
sources:
  description: The sources.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the source or golden.
      type: str
    kind:
      description: V(standby) or V(dump).
      type: str
    database:
      description: The database that branches of this source provide.
      type: str
    standby:
      description: State of its standby; null if it has no standby.
      type: dict
      contains:
        running:
          description: Whether the server of the standby runs.
          type: bool
        streaming:
          description: Whether the standby is connected to its primary.
          type: bool
        lag:
          description: Age of its data, in seconds; null if it cannot be determined.
          type: float
        behind:
          description: Number of bytes of the primary's log (WAL) that the standby has not replayed yet.
          type: int
        data_at:
          description: The time up to which it has the primary's data; null if it cannot be determined.
          type: str
          sample: "2026-11-21T18:00:00+00:00"
    golden:
      description: The newest golden; null if there is none.
      type: str
      sample: goldens/app/20261121T180000Z
    golden_age:
      description: Age of the newest golden, in seconds.
      type: int
    data_at:
      description: The time up to which the golden has the source's data.
      type: str
      sample: "2026-11-21T18:00:00+00:00"
    goldens:
      description: All goldens, the newest last.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the source or golden.
          type: str
        ready:
          description:
            - Whether branches can be made from the golden. If not, a run is still making it, or a killed run left it
              incomplete.
          type: bool
        created:
          description: When the golden was made.
          type: str
        data_at:
          description: The time up to which the golden has the source's data.
          type: str
        branches:
          description: The volumes that depend on the golden. While there are any, it is not removed.
          type: list
          elements: str
    problems:
      description: The problems of the source that need attention.
      type: list
      elements: str
space:
  description: The space in the pool.
  returned: success
  type: dict
  contains:
    root:
      description: Mount point of the pool.
      type: str
    total:
      description: Size of the pool, in bytes.
      type: int
    free:
      description: Free space, in bytes.
      type: int
    free_percent:
      description: Free space, in percent.
      type: float
    reserve_percent:
      description: Percentage of the pool that must stay free.
      type: float
problems:
  description: The problems of the pool and of all sources that need attention.
  returned: success
  type: list
  elements: str
  sample:
    - "source app: its newest golden is 3 days old, and is to be 60 min"
actions:
  description: Always empty.
  returned: success
  type: list
  elements: str
failure:
  description:
    - V(user) if there is no such source, or the machine is no DB host.
    - V(environment) if the pool is not mounted.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._door import answer
from ..module_utils._sources import INFO_SPEC as ARGUMENT_SPEC
from ..module_utils._sources import info as operation


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
