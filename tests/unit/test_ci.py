# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import subprocess
import typing as t

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.parallel.worktrees.plugins.module_utils import _ci
from ansible_collections.parallel.worktrees.plugins.module_utils._errors import UserError

CHECKS: list[dict[str, t.Any]] = [
    {"name": "build", "command": "make 'all: x' \"$HOME\" # no\nmake more", "folder": "app"},
    {"name": "ü", "command": "make test", "repos": ["other"]},
    {"name": "leaked", "databases": "test_db_%", "warns": ["integration"]},
    {"name": "sync", "command": "sync", "stages": ["commit"]},
    {"name": "clean", "git": "clean"},
    {"name": "branch", "git": "attached"},
]


@pytest.fixture
def tree(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def params(tree, **more: t.Any) -> dict[str, t.Any]:
    setup = [{"command": "npm ci"}, {"command": "npm ci", "folder": "app"}]
    worktrees = [{"name": "docs", "path": str(tree), "setup": setup}]
    checked = ArgumentSpecValidator(_ci.ARGUMENT_SPEC).validate({"worktrees": worktrees, "checks": CHECKS, **more})
    assert not checked.error_messages, checked.error_messages
    return t.cast("dict[str, t.Any]", checked.validated_parameters)


def test_a_workflow_has_the_commands_as_they_are(tree):
    result = _ci.operation(params(tree, variables={"PORT": 1}), check=False)
    assert result["changed"]
    found = yaml.safe_load((tree / ".github" / "workflows" / "integration.yml").read_text())
    assert found[True] == {"push": {"branches": ["integration"]}, "pull_request": {"branches": ["main"]}}
    job = found["jobs"]["gate"]
    assert job["services"]["postgres"]["image"] == "postgres:17"
    assert job["env"]["PORT"] == "1"
    assert job["env"]["DATABASE_URL"].startswith("postgresql://postgres:")
    steps = job["steps"][1:]
    assert [one["name"] for one in steps] == ["set up: npm ci", "set up: npm ci", "build", "leaked", "clean"]
    assert steps[1]["working-directory"] == steps[2]["working-directory"] == "app"
    assert steps[2]["run"] == CHECKS[0]["command"]
    assert steps[3]["continue-on-error"] is True
    assert "like '\"'\"'test_db_%'\"'\"'" in steps[3]["run"]
    assert not _ci.operation(params(tree, variables={"PORT": 1}), check=False)["changed"]
    assert _ci.operation(params(tree), check=True)["changed"]


def test_what_is_somebody_elses_stays(tree):
    file = tree / ".github" / "workflows" / "integration.yml"
    file.parent.mkdir(parents=True)
    file.write_text("name: mine\n")
    with pytest.raises(UserError, match="did not write"):
        _ci.operation(params(tree), check=True)
    assert file.read_text() == "name: mine\n"


@pytest.mark.parametrize(
    "url",
    ["https://github.com/ada/shop.git", "git@github.com:ada/shop.git", "ssh://git@github.com/ada/shop"],
)
def test_the_forge_is_told_what_to_protect(tree, url):
    subprocess.run(["git", "-C", tree, "remote", "add", "origin", url], check=True)
    command, _newline, rest = _ci.operation(params(tree, linear_history=True), check=True)["report"].partition("\n")
    assert command == "# docs: let the forge protect main"
    line, body = rest.split(" <<'JSON'\n")
    assert line == "gh api --method PUT repos/ada/shop/branches/main/protection --input -"
    settings = json.loads(body.removesuffix("JSON\n"))
    assert settings["required_status_checks"] == {"strict": True, "contexts": ["gate"]}
    assert settings["required_pull_request_reviews"] == {"required_approving_review_count": 1}
    assert settings["required_linear_history"] is True
    assert settings["allow_force_pushes"] is False


def test_other_forges(tree):
    subprocess.run(["git", "-C", tree, "remote", "add", "origin", "git@gitlab.com:ada/deep/shop.git"], check=True)
    report = _ci.operation(params(tree), check=True)["report"]
    assert "glab api --method POST projects/ada%2Fdeep%2Fshop/protected_branches -f name=main" in report
    subprocess.run(["git", "-C", tree, "remote", "set-url", "origin", "/srv/shop.git"], check=True)
    report = _ci.operation(params(tree, reviews=2), check=True)["report"]
    assert "tells no forge that is known here" in report
    assert "reviews of a pull request: 2; required check: gate; linear history: no" in report
