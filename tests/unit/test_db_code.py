# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package that a DB host runs is whole: it starts by itself, with nothing else of ours on the path."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _db_code
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError


def install(folder, *, check=False):
    return _db_code.operation({"directory": str(folder)}, check=check)


@pytest.mark.parametrize("entry", _db_code.ENTRIES)
def test_what_timers_run_starts(tmp_path, entry):
    assert install(tmp_path)["changed"]
    command = [sys.executable, "-m", f"parallel_worktrees.{entry}", "nonsense"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "usage")


def test_it_is_written_once(tmp_path):
    assert install(tmp_path, check=True)["changed"]
    assert list(tmp_path.iterdir()) == []
    install(tmp_path)
    again = install(tmp_path)
    assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])


def test_what_is_no_longer_part_of_it_goes_and_what_was_changed_is_mended(tmp_path):
    folder = tmp_path / "parallel_worktrees"
    install(tmp_path)
    (folder / "_old.py").write_text("old")
    (folder / "_files.py").write_text("changed")
    assert install(tmp_path)["actions"] == [f"remove 1 files of {folder}", f"write 1 files of {folder}"]
    assert not (folder / "_old.py").exists()
    assert not install(tmp_path)["changed"]


def test_what_is_not_ours_is_refused(tmp_path):
    (tmp_path / "parallel_worktrees").mkdir()
    (tmp_path / "parallel_worktrees" / "theirs.txt").touch()
    with pytest.raises(UserError, match=r"theirs\.txt is not ours"):
        install(tmp_path)
