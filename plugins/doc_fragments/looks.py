# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Where the modules that look at all tasks of a workspace look."""

    DOCUMENTATION = r"""
options:
  registry:
    description:
      - The registry's file. One that is not there has no tasks.
      - It defaults to C(parallel-worktrees/registry.sqlite3) in E(XDG_STATE_HOME), or in C(~/.local/state) if that
        variable is not set.
    type: path
  repos:
    description:
      - The repositories to look for left worktrees in. One that is no repository is passed over.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the repository.
        type: str
        required: true
      repo:
        description:
          - Its main working tree.
        type: path
        required: true
  backend:
    description:
      - The back end to look for left databases in, V(container), V(embedded) or V(shared), beside those that tasks are
        registered with.
    type: str
  docker_host:
    description:
      - With O(backend=container), the URL of the Docker daemon to ask. It defaults to E(DOCKER_HOST), or Docker's usual
        socket.
      - Where it does not answer, the databases of its tasks count as missing.
    type: str
  directory:
    description:
      - With O(backend=embedded), where clusters lie. It defaults as
        O(parallel.worktrees.pg_database#module:embedded.directory) does.
    type: path
  branches:
    description:
      - With O(backend=branch), what M(parallel.worktrees.pg_branch_info) tells of the DB host. Those of other machines
        are passed over.
      - Without it, each task's branch is asked with the task's own password, and those of no task are not seen.
    type: list
    elements: dict
  shared:
    description:
      - With O(backend=shared), the server to look in beside those of the registered tasks.
      - Where it does not answer, the databases of its tasks count as missing.
    type: dict
    suboptions:
      address:
        description:
          - Its address, or the folder of its socket.
        type: str
        default: 127.0.0.1
      port:
        description:
          - Its port.
        type: int
        required: true
      container:
        description:
          - The container that it runs in, where the workspace declares one.
        type: str
      admin_user:
        description:
          - As O(parallel.worktrees.pg_database#module:shared.admin_user).
        type: str
        default: postgres
      admin_password_file:
        description:
          - As O(parallel.worktrees.pg_database#module:shared.admin_password_file).
        type: path
      maintenance_database:
        description:
          - As O(parallel.worktrees.pg_database#module:shared.maintenance_database).
        type: str
        default: postgres
  disposable:
    description:
      - Shell patterns for names of files and folders. If git ignores such a file or folder, it never counts as work.
      - A clone in such a folder still counts as work if its remotes lack one of its commits, or if it has a file that
        is neither pushed nor ignored.
    type: list
    elements: str
    default:
      - node_modules
      - __pycache__
      - "*.pyc"
      - .venv
      - .pytest_cache
      - .mypy_cache
      - .ruff_cache
      - .hypothesis
      - .tox
      - .gradle
      - .next
      - .turbo
      - .husky/_
"""
