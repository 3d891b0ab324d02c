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
      - The registry file. A file that does not exist counts as a registry without tasks.
      - It defaults to C(parallel-worktrees/registry.sqlite3) in E(XDG_STATE_HOME), or in C(~/.local/state) if that
        variable is not set.
    type: path
  repos:
    description:
      - The repositories in which to search for leftover worktrees. A folder that is not a repository is skipped.
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
          - The main working tree of the repository.
        type: path
        required: true
  backend:
    description:
      - The back end in which to search for leftover databases, V(container), V(embedded) or V(shared), in addition to
        the back ends of the registered tasks.
    type: str
  docker_host:
    description:
      - With O(backend=container), the URL of the Docker daemon. It defaults to E(DOCKER_HOST), or to Docker's default
        socket.
      - If it does not answer, the databases of its tasks count as missing.
    type: str
  directory:
    description:
      - With O(backend=embedded), the folder of the clusters. It has the same default as
        O(parallel.worktrees.pg_database#module:embedded.directory).
    type: path
  branches:
    description:
      - With O(backend=branch), the branches that M(parallel.worktrees.pg_branch_info) reports on the DB host. Branches
        of other machines are skipped.
      - Without it, the module connects to the branch of each task with the task's own password, and does not find
        branches that belong to no task.
    type: list
    elements: dict
  shared:
    description:
      - With O(backend=shared), the server to search in addition to the servers of the registered tasks.
      - If it does not answer, the databases of its tasks count as missing.
    type: dict
    suboptions:
      address:
        description:
          - The address of the server, or the folder of its socket.
        type: str
        default: 127.0.0.1
      port:
        description:
          - The port of the server.
        type: int
        required: true
      container:
        description:
          - The container of the server, if the workspace declares a container.
        type: str
      admin_user:
        description:
          - See O(parallel.worktrees.pg_database#module:shared.admin_user).
        type: str
        default: postgres
      admin_password_file:
        description:
          - See O(parallel.worktrees.pg_database#module:shared.admin_password_file).
        type: path
      maintenance_database:
        description:
          - See O(parallel.worktrees.pg_database#module:shared.maintenance_database).
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
