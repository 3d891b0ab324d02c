# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command that is run for a task, when the caller's environment names another repository, as in a git hook."""

from __future__ import annotations

import typing as t

import pytest
from integration.repos import Sample, branches, call, git, succeeded

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _analysis,
    _elsewhere,
    _exec,
    _gates,
    _golden,
    _pg_pull,
    _setup,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._postgres import Address

PROBE = "git rev-parse --show-toplevel && locale charmap"


@pytest.fixture
def other(sample: Sample, monkeypatch: pytest.MonkeyPatch):
    """Another repository, which the environment leads to as it does in a hook of it; with no locale."""
    sample.make("docs")
    other = sample.informes
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git" / "index",
        "GIT_OBJECT_DIRECTORY": other / ".git" / "objects",
        "GIT_PREFIX": "src/",
        "GIT_CONFIG_PARAMETERS": f"'core.worktree'='{other}'",
        "LC_ALL": "C",
    }.items():
        monkeypatch.setenv(name, str(value))
    return other


@pytest.mark.usefixtures("other")
def test_commands_are_at_home_in_the_worktree(sample, tmp_path):
    tree = sample.tree("docs")
    one = {"name": "docs", "path": str(tree)}
    probe = f"{{ {PROBE}; }} >{tmp_path}/$NAME"
    at_home = f"{tree}\nUTF-8\n"

    gate = {"name": "gate", "command": probe.replace("$NAME", "gate")}
    setup = {**one, "setup": [{"command": probe.replace("$NAME", "setup")}]}
    succeeded(call(_setup, worktrees=[setup]))
    succeeded(call(_exec, command=probe.replace("$NAME", "exec"), folder=str(tree)))
    succeeded(call(_gates, worktrees=[one], checks=[gate]))
    for name in ("setup", "exec", "gate"):
        assert (tmp_path / name).read_text() == at_home, name
    analysis = call(_analysis, task="fix", worktrees=[one], wait=True, checks=[{"name": "probe", "command": PROBE}])
    with open(succeeded(analysis)["reports"][0]["file"], encoding="utf-8") as file:
        assert file.read().endswith(f"\n\n{at_home}")


@pytest.mark.usefixtures("other")
def test_commands_about_databases_are_where_they_are_said_to_be(sample, tmp_path):
    golden: dict[str, t.Any] = {"folder": str(sample.docs), "dump": None, "pull": None, "files": [], "inputs": []}
    commands = [f"{{ {PROBE}; }} >{tmp_path}/golden"]
    made = _golden.Golden.of({**golden, "transaction": True, "commands": commands}, "r/shop/fix", ())
    made.fill(Address("", 0, "", ""), "pw", server=t.cast("t.Any", None))
    assert (tmp_path / "golden").read_text() == f"{sample.docs}\nUTF-8\n"
    line = f"cd {sample.docs} && echo postgres://host/$(git rev-parse --show-toplevel)/$(locale charmap)"
    asked = {"url_command": line, "url_file": None, "url_variable": None, "mask": None, "jobs": 1}
    asked |= {"mask_verify": None, "exclude_kinds": None}
    pull = _pg_pull.Pull.of({**asked, "tables": [], "exclude_tables": [], "exclude_data": []})
    assert pull._url() == f"postgres://host/{sample.docs}/UTF-8"


def test_hooks_of_the_project_find_what_git_gives_them(sample, other, tmp_path, monkeypatch):
    """What a plain push in a linked worktree has in its environment, and the locale of text."""
    hook = sample.docs / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    monkeypatch.setenv("PGHOST", "db.example.com")
    lines = ("#!/bin/sh", "{ echo $PGHOST; env | sed -n 's/^GIT_[DIW].*=//p'; ", f"{PROBE}; }} >{tmp_path}/env", "")
    hook.write_text("\n".join(lines))
    hook.chmod(0o755)
    tree = sample.tree("docs")
    succeeded(sample.run("docs", state="absent", push=True))
    admin = sample.docs / ".git" / "worktrees" / "fix"
    assert (tmp_path / "env").read_text() == f"db.example.com\n{admin}\n{tree}\nUTF-8\n"
    monkeypatch.delenv("GIT_DIR")
    assert "fix" not in branches(other)


def test_a_command_that_commits_does_not_reach_the_other(sample, other, monkeypatch):
    line = "git commit --quiet --allow-empty --message task"
    worktree = {"name": "docs", "path": str(sample.tree("docs")), "setup": [{"command": line}]}
    succeeded(call(_setup, worktrees=[worktree]))
    succeeded(sample.run("app"))
    sample.remove("app", "docs", delete_branch=True, force=True)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG_PARAMETERS"):
        monkeypatch.delenv(name)
    assert git(sample.docs, "for-each-ref", "--format=%(subject)", _elsewhere.SAVED) == "task"
    assert git(other, "log", "--format=%s") == "first"
    assert (branches(other), branches(sample.app), branches(sample.docs)) == (["main"],) * 3
