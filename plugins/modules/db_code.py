#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_code
short_description: Install the code that a DB host runs by itself
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - The timers and the start-up of a DB host run code of this collection. This module writes that code into a folder of
    the host, as the Python package C(parallel_worktrees). It needs only Python.
  - Files that no longer belong to the package are removed. A folder with other content is refused.
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
  directory:
    description:
      - The folder that contains the package. It is not on the module search path of other Python programs.
    type: path
    default: /usr/local/lib/parallel-worktrees
requirements:
  - Python 3.11
seealso:
  - module: parallel.worktrees.db_pool
"""

EXAMPLES = r"""
- name: Install the code for the timers
  parallel.worktrees.db_code:
  become: true
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, in order.
  returned: success
  type: list
  elements: str
  sample:
    - write 26 files of /usr/local/lib/parallel-worktrees/parallel_worktrees
package:
  description: The folder of the package.
  returned: success
  type: str
failure:
  description:
    - V(user) if the request is refused, for example because the folder contains files that this collection did not
      write.
    - V(environment) if an operation on the machine fails, for example because the folder is not writable.
  returned: failure
  type: str
  sample: environment
hint:
  description: The command or change that helps.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._db_code import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
