#!/usr/bin/python
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_file
short_description: Write the facts of a task into the files that agents read
version_added: 1.0.0
author:
  - parallel.worktrees contributors (@parallel-worktrees)
description:
  - Writes a block between two marks into files of a worktree such as C(AGENTS.md) and C(CLAUDE.md). Other text in such
    a file is not changed.
  - A file that git tracks and a symbolic link are not changed, and are reported in RV(left). To add to the text of a
    tracked file, use another file, such as C(CLAUDE.local.md).
  - Git ignores the written files in that worktree only (see the notes). They are recorded in git's folder for the
    worktree, so that the removal of the worktree does not count them as work.
extends_documentation_fragment:
  - parallel.worktrees.attributes
  - parallel.worktrees.excluded
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
      - The worktrees.
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
          - Folder of the worktree.
        type: path
        required: true
  files:
    description:
      - The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - The file, relative to the folder of the worktree. A path that leads out of the worktree is refused.
        type: str
        required: true
      repo:
        description:
          - Name of the entry of O(worktrees) to write the file into. It defaults to all worktrees.
        type: str
      content:
        description:
          - The text to write. It defaults to O(text).
        type: str
      whole:
        description:
          - Whether the content is the whole file, without marks, for example for a file that begins with front matter.
            A file that was written or edited by hand is then not changed, and is reported in RV(left).
        type: bool
        default: false
  text:
    description:
      - The text for files without O(files[].content).
      - C(PARALLEL_WORKTREES_DATABASE_PASSWORD) in it is masked.
    type: str
    default: ""
seealso:
  - module: parallel.worktrees.env_file
"""

EXAMPLES = r"""
- name: Describe the task to agents
  parallel.worktrees.agent_file:
    worktrees:
      - name: backend
        path: "{{ workspace_root }}/backend/.worktrees/fix-login"
    text: |
      Work in this folder only. The database is at port {{ task_facts.ports.database }}.
    files:
      - path: AGENTS.md
      - path: CLAUDE.md
      - path: .claude/commands/spawn.md
        whole: true
        content: "{{ lookup('ansible.builtin.template', workspace_root ~ '/spawn.md.j2') }}"
"""

RETURN = r"""
actions:
  description: What was written, or would be written in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - write /srv/shop/backend/.worktrees/fix-login/AGENTS.md
files:
  description: The files that have the requested content.
  returned: success
  type: list
  elements: str
  sample:
    - /srv/shop/backend/.worktrees/fix-login/AGENTS.md
left:
  description: The files that were not changed, one line each, with the reason.
  returned: success
  type: list
  elements: str
  sample:
    - "/srv/shop/backend/.worktrees/fix-login/AGENTS.md was left alone: git tracks it"
summary:
  description: RV(left) as a text for people; V(none) if RV(left) is empty.
  returned: success
  type: str
failure:
  description:
    - V(user) for a path that leads out of the worktree.
    - V(environment) for a file that cannot be written.
  returned: failure
  type: str
  sample: user
hint:
  description: The command or change that helps; V(none) if there is none. C(msg) ends with it, too.
  returned: failure
  type: str
  sample: name a path within it
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._agents import ARGUMENT_SPEC, operation
from ..module_utils._door import answer


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    result = answer(operation, module.params, check=module.check_mode, diff=module._diff, warn=module.warn)
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
