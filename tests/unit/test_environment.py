# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of programs that are run here."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

from ansible_collections.parallel.worktrees.plugins.module_utils import _commands, _environment

IDEAS = pathlib.Path(_environment.__file__).parent


def test_nothing_that_git_calls_local_is_inherited(monkeypatch):
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], check=True, capture_output=True, text=True)
    names = {*listed.stdout.split(), "GIT_QUARANTINE_PATH", "GIT_NAMESPACE"} - {"GIT_CONFIG_COUNT"}
    for name in names:
        monkeypatch.setenv(name, "elsewhere")
    assert not names & _environment.of_program().keys()
    assert not names & _environment.of_command().keys()
    assert _environment.of_command({"GIT_DIR": "given"})["GIT_DIR"] == "given"


def test_settings_from_variables_stay_but_for_a_location(monkeypatch):
    pairs = [("core.worktree", "/elsewhere"), ("user.name", "Ada"), ("Core.Bare", "true"), ("safe.directory", "*")]
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(pairs)))
    for number, (key, value) in enumerate(pairs):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    found = _environment.of_command()
    listed = subprocess.run(
        ["git", "config", "--list", "--show-scope"], check=True, env=found, capture_output=True, text=True
    )
    lines = [line.split("\t")[1] for line in listed.stdout.splitlines() if line.startswith("command\t")]
    assert lines == ["user.name=Ada", "safe.directory=*"]
    assert {name for name in found if name.startswith("GIT_CONFIG_KEY")} == {"GIT_CONFIG_KEY_0", "GIT_CONFIG_KEY_1"}


@pytest.mark.parametrize(
    ("given", "charmap", "language"),
    [
        ({}, "UTF-8", "C.UTF-8"),
        ({"LC_ALL": "C"}, "UTF-8", "C.UTF-8"),
        ({"LANG": "POSIX"}, "UTF-8", "C.UTF-8"),
        ({"LC_ALL": "", "LANG": "C.utf8"}, "UTF-8", "C.utf8"),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "UTF-8", "C.UTF-8"),
    ],
)
def test_a_command_has_the_locale_of_the_caller_or_utf8(monkeypatch, given, charmap, language):
    for name in [name for name in os.environ if name.startswith("LC_") or name == "LANG"]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    done = _commands.run_line("locale charmap; locale | sed -n 's/LC_CTYPE=//p' | tr -d '\"'")
    assert done.stdout.split() == [charmap, language]
    assert _commands.run(("locale", "charmap")).stdout.strip() == "ANSI_X3.4-1968"


def test_lines_of_shell_are_run_in_one_place():
    """The programs of the guard, the hooks and the read-only view are files and wrappers, not lines of a workspace."""
    found = {path.name for path in IDEAS.glob("*.py") if re.search(r'"(/bin/)?sh", "-c"', path.read_text())}
    assert found == {"_commands.py", "_readonly.py"}
