# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written into worktrees: ports and paths in env files, shells' environment, agents' rules, set-up commands."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tomllib
import typing as t

import pytest
from integration.repos import call, commit, git, refused, status, succeeded

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _agents,
    _env_files,
    _guard,
    _manifest,
    _setup,
)
from ansible_collections.parallel.worktrees.plugins.module_utils._secrets import DATABASE_PASSWORD

PORTS = {"ports": {"web": 3100, "api": 5100}, "main_ports": {"web": 3000, "api": 5000, "old": 1}}


@pytest.fixture
def app(sample):
    (sample.app / ".gitignore").write_text(".env*\n/.worktrees/\nnode_modules\n")
    git(sample.app, "add", "--all")
    git(sample.app, "commit", "--quiet", "--message", "ignore")
    sample.make("app")
    return sample.app


@pytest.fixture
def tree(app):
    return app / ".worktrees" / "fix"


def trees(app, tree):
    return [{"name": "app", "path": str(tree), "source": str(app)}]


def written(app, tree, *files, check=False, **more):
    given = [{"repo": "app", **file} for file in files]
    return call(_env_files, check=check, worktrees=trees(app, tree), files=given, **more)


def add(app, name, text):
    """Have git track a file, in the main tree and in the worktree's branch."""
    commit(app, name, text)
    git(app / ".worktrees" / "fix", "merge", "--quiet", "--ff-only", "main")


# Env files


def test_ports_paths_values_and_overrides_in_one_file(app, tree):
    (app / ".env").write_text(
        f"# mine\nPORT=3000\nAPI=http://localhost:5000/v1\nTIMEOUT=5000\nROOT={app}/data\nNAME=main\n"
    )
    file = {"path": ".env", "patch_ports": True, "rewrite_paths": True, "values": {"NAME": "fix"}}
    file["overrides"] = {"API": "http://localhost:5100/v2", "EXTRA": 1}
    planned = succeeded(written(app, tree, file, check=True, **PORTS))
    assert not (tree / ".env").exists()
    result = succeeded(written(app, tree, file, **PORTS))
    assert planned == result
    assert (tree / ".env").read_text() == (
        f"# mine\nPORT=3100\nAPI=http://localhost:5100/v1\nTIMEOUT=5000\nROOT={tree}/data\nNAME=fix\n"
        "API=http://localhost:5100/v2\nEXTRA=1\n"
    )
    assert (app / ".env").read_text().startswith("# mine\nPORT=3000\n")
    assert "PORT=3100\n" in result["diff"][0]["after"]
    assert not succeeded(written(app, tree, file, **PORTS))["changed"]


def test_what_the_main_tree_says_by_now_is_taken_unless_somebody_edited(app, tree):
    (app / ".env").write_text("PORT=3000\n")
    file = {"path": ".env", "patch_ports": True, "overrides": {"A": "1"}}
    succeeded(written(app, tree, file, **PORTS))
    (app / ".env").write_text("PORT=3000\nNEW=1\n")
    succeeded(written(app, tree, file, **PORTS))
    assert (tree / ".env").read_text() == "PORT=3100\nNEW=1\nA=1\n"
    # By whoever works there: his ports stay, and an override follows only where it does not win.
    (tree / ".env").write_text("PORT=3000\nA=1\nMINE=1\n")
    assert not succeeded(written(app, tree, file, **PORTS))["changed"]
    file["overrides"] = {"A": "2"}
    succeeded(written(app, tree, file, **PORTS))
    assert (tree / ".env").read_text() == "PORT=3000\nA=1\nMINE=1\nA=2\n"


def test_a_port_that_is_another_of_the_main_tree_is_not_patched_twice(app, tree):
    (app / ".env").write_text("WEB_PORT=3000\nAPI_PORT=3100\n")
    near = {"ports": {"web": 3100, "api": 3200}, "main_ports": {"web": 3000, "api": 3100}}
    for _again in range(2):
        succeeded(written(app, tree, {"path": ".env", "patch_ports": True}, **near))
        assert (tree / ".env").read_text() == "WEB_PORT=3100\nAPI_PORT=3200\n"


def test_a_file_that_git_has_is_taken_as_git_has_it(app, tree):
    add(app, "settings.env", f"PORT=3000\nROOT={app}\n")
    (app / "settings.env").write_text("PORT=3000\nLOCAL=1\n")
    file = {"path": "settings.env", "patch_ports": True, "rewrite_paths": True}
    for _again in range(2):
        succeeded(written(app, tree, file, **PORTS))
        assert (tree / "settings.env").read_text() == f"PORT=3100\nROOT={tree}\n"
    assert not succeeded(written(app, tree, file, **PORTS))["changed"]


def test_two_ports_with_one_number_are_refused(app, tree):
    (app / ".env").write_text("PORT=3000\n")
    both = {"ports": {"a": 3100, "b": 3200}, "main_ports": {"a": 3000, "b": 3000}}
    refused(written(app, tree, {"path": ".env", "patch_ports": True}, **both), "user", "3000", "lease_ports.b.main")


def test_a_main_port_that_stays_is_reported(app, tree):
    (app / ".env").write_text(
        "PORT=3000\nAPI=${API_PORT:-5000}\nMAP=127.0.0.1:3000:80\nTIMEOUT=5000\nOWN=backend:5000\n"
    )
    file = {"path": ".env", "patch_ports": True, "values": {"OWN": "backend:1"}}
    result = succeeded(written(app, tree, file, **PORTS))
    assert [line.split(": ")[1].split(",")[0] for line in result["warnings"]] == [
        "API still has the main tree's port 5000",
        "MAP still has the main tree's port 3000",
    ]
    assert all(str(tree / ".env") in line for line in result["warnings"])
    assert "PORT=3100\n" in (tree / ".env").read_text()


@pytest.mark.parametrize("path", ["a.json", "a.toml", "config/database.yml", "compose.yaml"])
@pytest.mark.parametrize("asked", [{"values": {"A": 1}}, {"overrides": {"A": 1}}, {"patch_ports": True}])
def test_a_file_of_another_language_takes_its_content(app, tree, path, asked):
    (app / path).parent.mkdir(exist_ok=True)
    (app / path).write_text("{}\n")
    refused(written(app, tree, {"path": path, **asked}, **PORTS), "user", f"{path} is no env file", "content:")
    assert not (tree / path).exists()


def test_a_secret_in_a_file_that_git_tracks_is_reported(app, tree, tmp_path):
    (tmp_path / "password").write_text("s3cret\n")
    add(app, "settings.env", "URL=none\n")
    add(app, "whole.env", "URL=none\n")
    for file in (
        {"path": "settings.env", "values": {"URL": f"x://u:{DATABASE_PASSWORD}@h"}},
        {"path": "settings.env", "overrides": {"API_TOKEN": "abc"}},
        {"path": "whole.env", "content": f"URL=x://u:{DATABASE_PASSWORD}@h\n"},
    ):
        (line,) = succeeded(written(app, tree, file, password_file=str(tmp_path / "password")))["warnings"]
        assert str(tree / file["path"]) in line
        assert "git tracks" in line
    for file in ({"path": "settings.env", "values": {"PORT": 1}}, {"path": "own.env", "content": "API_TOKEN=abc\n"}):
        assert "warnings" not in succeeded(written(app, tree, file))


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        ("PORT=1\n", 0o640),
        ("PASSWORD=\nAPI_TOKEN=${TOKEN}\nSECRETS=true\n", 0o640),
        ("# a token\nURL=http://localhost/\n", 0o640),
        (f"URL=x://u:{DATABASE_PASSWORD}@h\n", 0o600),
        ("URL=x://u:word@h\n", 0o600),
        ("PORT=1\nexport API_TOKEN='abc'\n", 0o600),
        ("database:\n  password: abc\n", 0o600),
        ('{"client_secret": "abc"}\n', 0o600),
    ],
)
def test_whole_files_respect_the_umask_and_keep_secrets(app, tree, content, mode):
    former = os.umask(0o027)
    try:
        for _again in range(2):
            succeeded(written(app, tree, {"path": "own", "content": content}))
            assert (tree / "own").stat().st_mode & 0o777 == mode
        succeeded(written(app, tree, {"path": "own", "content": content, "mode": "0644"}))
    finally:
        os.umask(former)
    assert (tree / "own").stat().st_mode & 0o777 == 0o644


def test_configuration_with_paths_into_the_main_tree(app, tree, sample):
    (app / ".mcp.json").write_text(
        f'{{\n  // where it lies\n  "root" : "{app}", "other":"{sample.docs}/src", "token": "s3cret"\n}}\n'
    )
    (app / ".tool.toml").write_text(f'# {app}\nroot = "{app}"  # here\n')
    worktrees = [
        *trees(app, tree),
        {"name": "docs", "path": str(sample.tree("docs")), "source": str(sample.docs)},
    ]
    files = [{"repo": "app", "path": path, "rewrite_paths": True} for path in (".mcp.json", ".tool.toml")]
    result = succeeded(call(_env_files, worktrees=worktrees, files=files))
    assert (tree / ".mcp.json").read_text() == (app / ".mcp.json").read_text().replace(str(app), str(tree)).replace(
        str(sample.docs), str(sample.tree("docs"))
    )
    assert tomllib.loads((tree / ".tool.toml").read_text()) == {"root": str(tree)}
    assert f"# {app}\n" in (tree / ".tool.toml").read_text()
    assert "s3cret" not in json.dumps(result)
    assert status(tree) == ""
    assert not succeeded(call(_env_files, worktrees=worktrees, files=files))["changed"]
    refused(written(app, tree, {"path": ".mcp.json", "rewrite_paths": True, "values": {"A": 1}}), "user", ".mcp.json")
    (app / ".mcp.json").write_text("{nonsense")
    refused(written(app, tree, {"path": ".mcp.json", "rewrite_paths": True}), "environment", "is not JSON")


# Shells


def shell(tree, *, check=False, **more):
    password_file = more.pop("password_file", None)
    given = {"variables": {"TASK_NAME": "fix", "TEXT": "it's $HOME"}, **more}
    worktrees = trees(tree.parent.parent, tree)
    return call(_env_files, check=check, worktrees=worktrees, shell=given, password_file=password_file)


def sourced(tree, program="sh"):
    script = '. ./.task.env; . ./.task.env; printf "%s|%s|%s" "$TASK_NAME" "$TEXT" "$PATH"'
    return subprocess.run([program, "-c", script], cwd=tree, check=True, capture_output=True, text=True).stdout


def test_a_file_to_source(tree, tmp_path):
    (tmp_path / "password").write_text("hidden\n")
    more = {
        "variables": {"TASK_NAME": "fix", "TEXT": "it's $HOME", "URL": f"x://u:{DATABASE_PASSWORD}@h/"},
        "password_file": str(tmp_path / "password"),
    }
    assert succeeded(shell(tree, check=True, **more))["changed"]
    result = succeeded(shell(tree, **more))
    assert not succeeded(shell(tree, **more))["changed"]
    assert "hidden" not in json.dumps(result)
    assert (tree / ".task.env").stat().st_mode & 0o777 == 0o600
    assert "x://u:hidden@h/" in (tree / ".task.env").read_text()
    for program in ("sh", "bash"):
        name, text, path = sourced(tree, program).split("|")
        assert (name, text) == ("fix", "it's $HOME")
        assert path.split(":").count(_guard.folder_of(str(tree))) == 1
        assert path.split(":")[0] == _guard.folder_of(str(tree))
    assert status(tree) == ""


def test_a_variable_that_no_shell_takes(tree):
    refused(shell(tree, variables={"a.b": 1}), "user", "'a.b'")


def test_shells_have_what_the_env_file_of_the_same_call_says(app, tree):
    (app / ".env").write_text("TEXT=main\n")
    shell_files = {"variables": {"TASK_NAME": "fix", "TEXT": "hidden"}}
    result = succeeded(written(app, tree, {"path": ".env", "values": {"TEXT": "own"}}, shell=shell_files))
    assert result["files"] == [f"{tree}/.env", f"{tree}/.task.env"]
    assert sourced(tree).split("|")[:2] == ["fix", "own"]
    again = written(app, tree, {"path": ".env", "values": {"TEXT": "own"}}, shell=shell_files)
    assert not succeeded(again)["changed"]


def test_nothing_is_written_where_the_shells_cannot_be(app, tree):
    (app / ".env").write_text("A=1\n")
    for bad in ({"variables": {"a.b": 1}}, {"file": "../out"}):
        refused(written(app, tree, {"path": ".env"}, shell=bad), "user")
        assert not (tree / ".env").exists()


# One file by itself


def test_one_env_file_needs_no_worktree(tmp_path):
    place = tmp_path / "deep" / "compose.env"
    (tmp_path / "password").write_text("hidden\n")
    given: dict[str, t.Any] = {
        "path": str(place),
        "values": {"PORT": 8001, "URL": f"x://u:{DATABASE_PASSWORD}@h/"},
        "password_file": str(tmp_path / "password"),
    }
    planned = succeeded(call(_env_files, check=True, **given))
    assert not place.parent.exists()
    result = succeeded(call(_env_files, **given))
    assert result == planned
    assert result["files"] == [str(place)]
    assert "hidden" not in json.dumps(result)
    assert place.read_text() == "PORT=8001\nURL=x://u:hidden@h/\n"
    assert place.stat().st_mode & 0o777 == 0o600
    assert not succeeded(call(_env_files, **given))["changed"]


def test_one_env_file_keeps_what_is_in_it(tmp_path):
    place = tmp_path / "compose.env"
    place.write_text("# mine\nPORT=1 # web\nOTHER=2\n")
    place.chmod(0o640)
    succeeded(call(_env_files, path=str(place), values={"PORT": 8001}))
    assert place.read_text() == "# mine\nPORT=8001 # web\nOTHER=2\n"
    assert place.stat().st_mode & 0o777 == 0o640
    succeeded(call(_env_files, path=str(place), values={}, mode="0600"))
    assert place.stat().st_mode & 0o777 == 0o600


def test_one_env_file_is_refused_where_it_cannot_be(tmp_path, app, tree):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    refused(call(_env_files, path=str(tmp_path / "link"), values={"A": 1}), "user", "symbolic link")
    refused(call(_env_files, path=str(tmp_path / "a.json"), values={"A": 1}), "user", "a.json is no env file")
    refused(call(_env_files, path=str(tmp_path / "a"), values={"1A": 1}), "user", "'1A'")
    refused(call(_env_files, path=str(tmp_path / "a"), worktrees=trees(app, tree)), "user", "both path and worktrees")
    refused(call(_env_files, values={"A": 1}), "user", "values, and no path")
    refused(call(_env_files), "user", "nothing to write, and no path")
    assert not succeeded(call(_env_files, worktrees=[]))["changed"], "a task may have no worktree"
    assert not (tmp_path / "elsewhere").exists()


def test_direnv_loads_it_once_it_is_allowed(tree, tmp_path, monkeypatch):
    if shutil.which("direnv") is None:
        pytest.fail("direnv is not here\nrun: apt install direnv", pytrace=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    succeeded(shell(tree, loaders=["direnv"]))
    command = ["direnv", "exec", str(tree), "sh", "-c", 'printf "%s|%s" "$TASK_NAME" "$PATH"']
    assert subprocess.run(command, check=False, capture_output=True, cwd=tmp_path).returncode != 0
    subprocess.run(["direnv", "allow", str(tree)], check=True)
    name, path = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.split("|")
    assert name == "fix"
    assert path.split(":")[0] == _guard.folder_of(str(tree))
    assert status(tree) == ""


def test_what_loaders_read_is_never_taken_from_somebody(tree):
    (tree / ".envrc").write_text("export MINE=1\n")
    (tree / "mise.local.toml").write_text("[env]\nMINE = '1'\n")
    result = succeeded(shell(tree, loaders=["direnv", "mise"]))
    assert result["left"] == [f"{tree}/mise.local.toml was left alone: somebody wrote or edited it"]
    assert (tree / "mise.local.toml").read_text() == "[env]\nMINE = '1'\n"
    text = (tree / ".envrc").read_text()
    assert text.startswith("export MINE=1\n\n# parallel.worktrees: begin\n")
    assert not succeeded(shell(tree, loaders=["direnv", "mise"]))["changed"]
    (tree / ".envrc").write_text(text + "export MORE=1\n")
    succeeded(shell(tree, loaders=["direnv"], file="other.env"))
    text = (tree / ".envrc").read_text()
    assert text.endswith("# parallel.worktrees: end\nexport MORE=1\n")
    assert ". ./other.env\n" in text
    assert ".task.env" not in text


def test_mise_is_told_where_it_lies(tree):
    succeeded(shell(tree, loaders=["mise"]))
    told = tomllib.loads((tree / "mise.local.toml").read_text())["env"]["_"]
    assert told == {"source": "{{config_root}}/.task.env", "path": [_guard.folder_of(str(tree))]}


# Agents


def rules(tree, *files, check=False, text="Stay inside.\n"):
    worktrees = [{"name": "app", "path": str(tree)}]
    return call(_agents, check=check, worktrees=worktrees, files=list(files), text=text)


def test_rules_in_files_that_agents_read(tree):
    spawn = "---\ndescription: start\n---\nRun it.\n"
    files: list[dict[str, object]] = [
        {"path": "AGENTS.md"},
        {"path": ".claude/settings.md", "content": "More.\n"},
        {"path": ".rules"},
        {"path": ".claude/commands/spawn.md", "content": spawn, "whole": True},
    ]
    planned = succeeded(rules(tree, *files, check=True))
    assert not (tree / "AGENTS.md").exists()
    result = succeeded(rules(tree, *files))
    assert planned == result
    mark = "<!-- parallel.worktrees: {} -->\n"
    assert (tree / "AGENTS.md").read_text() == f"{mark.format('begin')}Stay inside.\n{mark.format('end')}"
    assert (tree / ".rules").read_text().startswith("# parallel.worktrees: begin\n")
    assert (tree / ".claude" / "commands" / "spawn.md").read_text() == spawn
    assert status(tree) == ""
    assert not succeeded(rules(tree, *files))["changed"]


def test_what_others_write_around_the_rules_stays(tree):
    own = b"# Mine\n\nA line\r\n"
    (tree / "AGENTS.md").write_bytes(own)
    succeeded(rules(tree, {"path": "AGENTS.md"}))
    content = (tree / "AGENTS.md").read_bytes()
    assert content.startswith(own)
    assert b"Stay inside." in content
    succeeded(rules(tree, {"path": "AGENTS.md"}, text="Another rule.\n"))
    assert (tree / "AGENTS.md").read_bytes() == content.replace(b"Stay inside.", b"Another rule.")


def test_what_git_tracks_and_what_is_a_link_is_left_alone_and_told(app, tree):
    add(app, "AGENTS.md", "ours\n")
    (app / "CLAUDE.md").write_text("of the main tree\n")
    (tree / "CLAUDE.md").symlink_to(app / "CLAUDE.md")
    (tree / "spawn.md").write_text("mine\n")
    result = succeeded(rules(tree, {"path": "AGENTS.md"}, {"path": "CLAUDE.md"}, {"path": "spawn.md", "whole": True}))
    assert not result["changed"]
    assert [line.rpartition(": ")[2] for line in result["left"]] == [
        "git tracks it",
        "it is a symbolic link",
        "somebody wrote or edited it",
    ]
    assert result["summary"].count("was left alone") == 3
    assert (app / "CLAUDE.md").read_text() == "of the main tree\n"


def test_rules_never_have_a_password_and_never_lead_out(tree):
    succeeded(rules(tree, {"path": "AGENTS.md"}, text=f"postgresql://u:{DATABASE_PASSWORD}@h/"))
    assert "postgresql://u:********@h/" in (tree / "AGENTS.md").read_text()
    refused(rules(tree, {"path": "../AGENTS.md"}), "user", "../AGENTS.md")


def test_rules_are_no_work_and_somebodys_file_is(sample, tree):
    succeeded(rules(tree, {"path": "AGENTS.md"}))
    (tree / "NOTES.md").write_text("mine\n")
    succeeded(rules(tree, {"path": "NOTES.md"}))
    assert "AGENTS.md" not in refused(sample.run("app", state="absent"), "user", "NOTES.md")
    (tree / "NOTES.md").unlink()
    sample.remove("app")
    assert sample.traces() == []


def test_a_worktree_of_another_tool_is_left_as_it_was(app, sample):
    tree = app / "theirs"
    git(app, "worktree", "add", "--quiet", "-b", "theirs", str(tree))
    (tree / "NOTES.md").write_text("mine\n")
    member = sample.member("app", path=str(tree), branch="theirs", adopt=True)
    sample.make(worktrees=[member], task="theirs")
    succeeded(rules(tree, {"path": "NOTES.md"}, {"path": "AGENTS.md"}))
    succeeded(shell(tree, loaders=["direnv", "mise"]))
    _guard.put(str(tree))
    sample.remove(worktrees=[member], task="theirs")
    assert (tree / "NOTES.md").read_text().strip() == "mine"
    assert status(tree) == "?? NOTES.md"
    assert not list((app / ".git" / "worktrees" / "theirs").glob("parallel-worktrees*"))


# Set-up commands


def set_up(tree, *setup, check=False, **more):
    return call(_setup, check=check, worktrees=[{"name": "app", "path": str(tree), "setup": list(setup)}], **more)


def log(tree):
    return (tree / "log").read_text().split() if (tree / "log").exists() else []


def test_a_command_is_run_again_when_its_inputs_change(tree):
    step = {"command": "echo one >> ../log", "folder": "client", "inputs": ["package*.json", "deep/**/*.lock"]}
    (tree / "client" / "deep" / "er").mkdir(parents=True)
    (tree / "client" / "package.json").write_text("1")
    assert succeeded(set_up(tree, step))["changed"]
    assert succeeded(set_up(tree, step))["actions"] == []
    for number, change in enumerate(
        (
            lambda: (tree / "client" / "package.json").write_text("2"),
            lambda: (tree / "client" / "package-lock.json").write_text("new"),
            lambda: (tree / "client" / "deep" / "er" / "x.lock").write_text("new"),
            (tree / "client" / "package-lock.json").unlink,
        ),
        start=2,
    ):
        change()
        assert succeeded(set_up(tree, step, check=True))["changed"]
        assert succeeded(set_up(tree, step))["changed"]
        assert log(tree) == ["one"] * number
        assert not succeeded(set_up(tree, step))["changed"]


def test_a_command_that_writes_its_own_lock_file_is_not_run_for_that(tree):
    step = {"command": "date +%N > app.lock; echo one >> log", "inputs": ["app.lock"]}
    assert succeeded(set_up(tree, step))["changed"]
    assert not succeeded(set_up(tree, step))["changed"]
    assert log(tree) == ["one"]


def test_inputs_do_not_lead_out(tree):
    refused(set_up(tree, {"command": "true", "inputs": ["../../README"]}), "user", "leads out")


def test_commands_that_say_so_run_at_the_same_time(tree, sample):
    meet = "echo $$ > at-{0}; i=0; while [ ! -e {1} ]; do i=$((i+1)); [ $i -lt 100 ] || exit 1; sleep 0.05; done"
    other = sample.tree("docs")
    sample.make("docs")
    worktrees = [
        {
            "name": "app",
            "path": str(tree),
            "setup": [
                {"command": "echo first >> log"},
                {"command": meet.format("a", other / "at-b"), "parallel": True},
            ],
        },
        {
            "name": "docs",
            "path": str(other),
            "setup": [
                {"command": meet.format("b", tree / "at-a"), "parallel": True},
                {"command": f"cat at-b {tree}/at-a {tree}/log > last"},
            ],
        },
    ]
    succeeded(call(_setup, worktrees=worktrees))
    assert len((other / "last").read_text().split()) == 3
    assert not succeeded(call(_setup, worktrees=worktrees))["changed"]


def test_of_those_at_the_same_time_what_succeeded_is_not_run_again(tree):
    good = {"command": "sleep 0.2; echo good >> log", "parallel": True}
    bad = [{"command": f"echo {name}; test -e {name}", "parallel": True} for name in ("one", "two")]
    last = {"command": "echo last >> log"}
    message = refused(set_up(tree, bad[0], good, bad[1], last), "environment", "2 set-up commands failed")
    for name in ("one", "two"):
        assert f"'echo {name}; test -e {name}' ended with 1:\n{name}" in message
    assert log(tree) == ["good"]
    (tree / "one").touch()
    (tree / "two").touch()
    result = succeeded(set_up(tree, bad[0], good, bad[1], last))
    assert len(result["actions"]) == 3
    assert log(tree) == ["good", "last"]


def test_all_of_the_output_is_kept_and_its_end_told(tree, tmp_path):
    (tmp_path / "password").write_text("hidden\n")
    step = {"command": 'for i in $(seq 50); do echo "line $i $SECRET"; done; echo bad >&2; exit 3'}
    message = refused(
        set_up(tree, step, variables={"SECRET": DATABASE_PASSWORD}, password_file=str(tmp_path / "password")),
        "environment",
        "ended with 3",
        "line 50 ********\nbad",
    )
    assert "line 5 " not in message
    place = pathlib.Path(message.rpartition("all of its output: ")[2])
    assert place.parent.name == _manifest.LOGS
    kept = place.read_text()
    assert "line 5 ********" in kept
    assert "hidden" not in kept + message
    assert place.stat().st_mode & 0o777 == 0o600


def test_an_install_in_place_of_a_link(tree, app, monkeypatch, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "npm").write_text('#!/bin/sh\nmkdir -p node_modules; echo "$*" >> log\n')
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (app / "node_modules").mkdir()
    (tree / "node_modules").symlink_to(app / "node_modules")
    _guard.put(str(tree))
    refused(set_up(tree, {"command": "npm ci"}), "environment", "would write into", "share")
    (tree / "node_modules").unlink()
    succeeded(set_up(tree, {"command": "npm ci"}))
    assert log(tree) == ["ci"]
