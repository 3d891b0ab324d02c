# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the doors load ideas: with their bytecode kept."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

DOOR = "ansible_collections.parallel.worktrees.plugins.action.task_steps"
SCRIPT = f"""
import importlib
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader([])
door = importlib.import_module("{DOOR}").ActionModule
print(importlib.import_module(door.operation.__module__).operation is door.operation)
"""


def test_the_bytecode_of_ideas_is_kept(tmp_path: pathlib.Path) -> None:
    root = next(path for path in sys.path if pathlib.Path(path, "ansible_collections/parallel/worktrees").is_dir())
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": root, "PYTHONPYCACHEPREFIX": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n", "Ansible and the door have one and the same module"
    assert [path.name.partition(".")[0] for path in tmp_path.rglob("_steps.*.pyc")] == ["_steps"]
