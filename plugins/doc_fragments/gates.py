# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What the modules that know a gate take for it, as ``_gates`` has it in its argument specs."""

    DOCUMENTATION = r"""
options:
  checks:
    description:
      - The checks, in the order in which they run. Each check has exactly one of O(checks[].command),
        O(checks[].databases) and O(checks[].git).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the check, unique among the checks.
        type: str
        required: true
      command:
        description:
          - A command line for C(/bin/sh). The check passes if the command exits with 0. After a failed command, the
            later commands for the same worktree are skipped.
        type: str
      folder:
        description:
          - The folder in which the command runs, relative to the folder of the worktree.
        type: str
        default: .
      databases:
        description:
          - A pattern of SQL's C(LIKE), such as V(test_db_%). The check fails if the task's database server has a
            database that matches the pattern. Databases of tasks never count.
        type: str
      git:
        description:
          - With V(clean), the check fails if something is not committed. With V(attached), the check fails if no branch
            is checked out.
        type: str
        choices:
          - clean
          - attached
      repos:
        description:
          - The repositories that the check applies to. It defaults to all repositories.
        type: list
        elements: str
      stages:
        description:
          - The stages in which the check runs, which are before a commit, on demand, before the integration of a task,
            and before its teardown.
        type: list
        elements: str
        choices:
          - commit
          - gate
          - integration
          - teardown
        default:
          - gate
          - integration
      warns:
        description:
          - The stages in which a failure of the check is only a warning.
        type: list
        elements: str
        choices:
          - commit
          - gate
          - integration
          - teardown
        default: []
"""

    # What the checks run with.
    SURROUNDINGS = r"""
options:
  variables:
    description:
      - Environment variables of the commands, in addition to the inherited variables. If a value contains the
        placeholder of the password, as RV(parallel.worktrees.pg_database#module:database.url) does, the command gets
        the password. A variable with the value V(null) is not set. If an env file of the worktree
        (M(parallel.worktrees.env_file)) sets the same variable, the value in the env file is used.
    type: dict
    default: {}
  password_file:
    description:
      - The file that contains the password. Without it, placeholders are not replaced.
    type: path
  database:
    description:
      - The facts of the task's database, as in RV(parallel.worktrees.pg_database#module:database), for the checks that
        search for leaked databases. Names in a list C(spared) never count as leaked.
    type: dict
    default: {}
"""
