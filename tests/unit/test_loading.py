# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How action plugins import modules: with their bytecode kept."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

SCRIPT = """
import importlib
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader([])
plugins = "ansible_collections.parallel.worktrees.plugins"
module = importlib.import_module(f"{plugins}.plugin_utils._loading").load("git_worktree")
print(importlib.import_module(f"{plugins}.module_utils._worktrees").operation is module.operation)
"""


def test_bytecode_is_kept(tmp_path: pathlib.Path) -> None:
    root = next(path for path in sys.path if pathlib.Path(path, "ansible_collections/parallel/worktrees").is_dir())
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": root, "PYTHONPYCACHEPREFIX": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n", "Ansible and the action plugin have one and the same module_utils"
    for name in ("git_worktree", "_worktrees"):
        assert list(tmp_path.rglob(f"{name}.*.pyc")), name
