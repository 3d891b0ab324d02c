#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_source_info
short_description: Tell how the sources of a DB host stand
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Tells of each source of a DB host whether its standby follows the primary and how far behind it is, which goldens
    there are, how old their data are and which branches stand on them; how full the pool is; and what somebody should
    look into. Changes nothing.
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
  name:
    description:
      - Only the source of this name. It defaults to all.
    type: str
  host_file:
    description:
      - The file that says what the host is made of.
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
- name: See how they stand
  parallel.worktrees.db_source_info:
  become: true
  register: there

- name: Fail where somebody should look into it
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
      description: Its name.
      type: str
    kind:
      description: V(standby) or V(dump).
      type: str
    database:
      description: The database that branches of it are made for.
      type: str
    standby:
      description: How its standby stands; null where there is none.
      type: dict
      contains:
        running:
          description: Whether its server runs.
          type: bool
        streaming:
          description: Whether it is connected to its primary.
          type: bool
        lag:
          description: How many seconds old its data are; null where it cannot tell.
          type: float
        behind:
          description: How many bytes of the primary's log it has not replayed yet.
          type: int
        data_at:
          description: Up to when it has the primary's data; null where it cannot tell.
          type: str
          sample: "2026-11-21T18:00:00+00:00"
    golden:
      description: The newest golden; null where there is none.
      type: str
      sample: goldens/app/20261121T180000Z
    golden_age:
      description: How many seconds ago it was made.
      type: int
    data_at:
      description: Up to when it has the source's data.
      type: str
      sample: "2026-11-21T18:00:00+00:00"
    goldens:
      description: All goldens, the newest last.
      type: list
      elements: dict
      contains:
        name:
          description: Its name.
          type: str
        ready:
          description: Whether branches can be made of it; else it is being made, or a killed run has left it.
          type: bool
        created:
          description: When it was made.
          type: str
        data_at:
          description: Up to when it has the source's data.
          type: str
        branches:
          description: The volumes that stand on it, so that it stays.
          type: list
          elements: str
    problems:
      description: What somebody should look into.
      type: list
      elements: str
space:
  description: How full the pool is.
  returned: success
  type: dict
  contains:
    root:
      description: Where it is mounted.
      type: str
    total:
      description: All of it, in bytes.
      type: int
    free:
      description: What is free, in bytes.
      type: int
    free_percent:
      description: The same in percent.
      type: float
    reserve_percent:
      description: What has to stay free.
      type: float
problems:
  description: What somebody should look into, of the pool and of all sources.
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
