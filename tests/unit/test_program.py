# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import io
import pathlib
import subprocess
import sys
import zipfile

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _program

IDEAS = pathlib.Path(_program.__file__).parent


@pytest.mark.parametrize("path", sorted(IDEAS.glob("_*.py")), ids=lambda path: path.stem)
def test_imports_are_those_that_python_sees(path):
    source = path.read_text()
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    assert _program._imported(source) == found


@pytest.mark.parametrize("entry", ["_hook", "_analysis"])
def test_an_archive_has_all_that_it_needs(entry, tmp_path):
    content = _program.archive(entry)
    assert content == _program.archive(entry), "the same ideas make the same archive"
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert f"parallel_worktrees/{entry}.py" in names
    (tmp_path / "run.pyz").write_bytes(content)
    # Alone, from anywhere, with a Python that knows nothing of this collection.
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "run.pyz", "commit"], check=False, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 1
    assert "cannot read" in done.stderr
