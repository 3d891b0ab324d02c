# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links and copies on real repositories: what .worktreeinclude brings, dependencies in each way, and their guard."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import typing as t

import pytest
from integration.repos import SPACE, call, git, refused, status, succeeded

from ansible_collections.parallel.worktrees.plugins.module_utils import (
    _analysis,
    _exec,
    _gates,
    _guard,
    _hooks,
    _workspace,
    _worktrees,
)


@pytest.fixture
def app(sample):
    """The main tree of app, with a worktree; git ignores what a project usually has ignored."""
    (sample.app / ".gitignore").write_text(
        ".env*\nnode_modules\nvendor/\n.venv\n/.worktrees/\nsecrets/\n*.key\n/local/*.ini\n"
    )
    git(sample.app, "add", "--all")
    git(sample.app, "commit", "--quiet", "--message", "ignore")
    sample.make("app")
    return sample.app


@pytest.fixture
def tree(app):
    return app / ".worktrees" / "fix"


def write(folder: pathlib.Path, *paths: str, text: str = "x\n") -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def files(app, *, check=False, **repo):
    """The call that the role makes for a repository of the workspace file."""
    whole = _workspace.worktree_set(
        [{"name": "app", "path": str(app), **repo}], root="/", folder=".worktrees/fix", branch="fix"
    )
    return call(_worktrees, check=check, owner=f"{SPACE}/fix", worktrees=_workspace.view(whole, "git_worktree"))


def there(tree):
    """The files of a worktree that git does not track."""
    found = git(tree, "ls-files", "--others", "-z").split("\0")
    return sorted(path for path in found if path)


# In the call that makes the worktree


def test_one_call_makes_the_worktree_and_what_is_in_it(sample):
    write(sample.app, "vendor/one", "uploads/day")
    member = {**sample.member("app"), "links": [{"path": "vendor"}], "copies": [{"path": "uploads"}]}
    asked: dict[str, t.Any] = {"owner": f"{SPACE}/fix", "worktrees": [member]}
    planned = succeeded(call(_worktrees, check=True, **asked))
    tree = sample.tree("app")
    assert not tree.exists()
    made = succeeded(call(_worktrees, **asked))
    assert [line.partition(" (full")[0].partition(" (shared")[0] for line in made["actions"]] == planned["actions"]
    assert [line.split()[0] for line in made["actions"]] == ["make", "link", "copy", "guard"]
    assert (tree / "vendor").is_symlink()
    assert (tree / "uploads" / "day").exists()
    assert status(tree) == ""
    assert not succeeded(call(_worktrees, **asked))["changed"]
    # A removal needs to know nothing of it.
    sample.remove("app", disposable=[])
    assert (sample.app / "vendor" / "one").exists()


@pytest.mark.parametrize(
    ("entries", "failure", "words"),
    [
        ({"links": [{"path": "missing"}]}, "environment", "cannot link"),
        ({"copies": [{"path": "missing"}]}, "environment", "cannot copy"),
        ({"links": [{"path": "../out"}]}, "user", "leads out of the worktree"),
        ({"checkout": False, "links": [{"path": "README"}]}, "user", "has checkout: false"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_what_cannot_be_placed_is_refused_before_anything_is_made(sample, entries, failure, words, check):
    members = [sample.member("backend"), {**sample.member("app"), **entries}]
    refused(call(_worktrees, check=check, owner=f"{SPACE}/fix", worktrees=members), failure, words)
    for name in ("backend", "app"):
        assert not sample.tree(name).exists()
        assert "fix" not in git(getattr(sample, name), "branch", "--list", "fix")


def test_what_somebody_put_there_is_refused_and_the_worktrees_stay(sample):
    sample.make("app")
    (sample.tree("app") / "build").mkdir()
    write(sample.app, "build/one")
    member = {**sample.member("app"), "links": [{"path": "build"}]}
    members = [sample.member("docs"), member]
    result = call(_worktrees, owner=f"{SPACE}/fix", worktrees=members)
    refused(result, "user", "build")
    assert result["changed"]
    assert sample.tree("docs").is_dir()


# .worktreeinclude


def test_what_the_list_names_and_git_ignores_is_copied(app, tree):
    write(
        app, ".env", "deep/er/.env.local", "a.key", "secrets/one", "secrets/two", "local/a.ini", "local/b.txt", "plain"
    )
    write(app, ".worktreeinclude", text=".env*\n!.env.local\n/secrets/\n*.key\nlocal/\nplain\nREADME\nmissing\n")
    planned = succeeded(files(app, check=True))
    assert there(tree) == []
    result = succeeded(files(app))
    assert there(tree) == [".env", "a.key", "local/a.ini", "secrets/one", "secrets/two"]
    assert status(tree) == ""
    for name in (".env", "a.key", "local/a.ini", "secrets"):
        told = f"copy {tree}/{name} from {app}/{name}"
        assert told in planned["actions"]
        assert f"{told} (full copy)" in result["actions"] or f"{told} (shared blocks)" in result["actions"]
    assert not succeeded(files(app))["changed"]


def test_what_is_there_and_other_worktrees_stay_out_of_it(app, tree, sample):
    write(app, ".env", "node_modules/p/.env")
    write(app, ".worktreeinclude", text=".env\n.worktrees/\nnode_modules/\n")
    sample.make("app", task="other")
    write(sample.tree("app", "other"), ".env", text="of another\n")
    write(tree, ".env", text="mine\n")
    assert not succeeded(files(app, dependencies=[]))["actions"][1:]
    assert (tree / ".env").read_text() == "mine\n"
    assert not (tree / ".worktrees").exists()
    assert (tree / "node_modules" / "p" / ".env").exists()


def test_what_is_linked_is_not_copied_besides(app, tree):
    write(app, "node_modules/p/.env", ".env")
    write(app, ".worktreeinclude", text=".env\nnode_modules\n")
    succeeded(files(app, links=["node_modules"]))
    assert (tree / "node_modules").readlink() == app / "node_modules"
    assert (tree / ".env").exists()


def test_another_list_or_none(app, tree):
    write(app, ".env", "a.key")
    write(app, ".worktreeinclude", text=".env\n")
    write(app, "mine.txt", text="*.key\n")
    assert not succeeded(files(app, include=""))["changed"]
    succeeded(files(app, include="mine.txt"))
    assert there(tree) == ["a.key"]


def test_a_link_of_the_branch_that_leads_out_is_not_followed(app, tree, tmp_path):
    write(app, "secrets/one")
    write(app, ".worktreeinclude", text="secrets/one\n")
    os.symlink(tmp_path, tree / "secrets")
    assert not succeeded(files(app))["changed"]
    assert list(tmp_path.glob("one")) == []


def test_copies_are_ours_at_the_removal(app, tree, sample):
    write(app, ".env")
    write(app, ".worktreeinclude", text=".env\n")
    succeeded(files(app))
    write(tree, ".env", text="edited\n")
    refused(sample.run("app", state="absent"), "user", ".env")
    write(tree, ".env")
    sample.remove("app")
    assert sample.traces() == []


# The way of a copy


@pytest.fixture(params=["here", "xfs"])
def place(request, tmp_path):
    """A folder whose file system shares blocks, and one that may not."""
    if request.param == "here":
        yield tmp_path
        return
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(320 * 2**20)
    made = shutil.which("mkfs.xfs") and subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=False)
    mounted = made and subprocess.run(["mount", "-o", "loop", image, mount], check=False, capture_output=True)
    try:
        yield mount  # where nothing may be mounted, this is a folder like the other
    finally:
        if mounted and mounted.returncode == 0:
            subprocess.run(["umount", mount], check=True)


def blocks(place: pathlib.Path) -> int:
    """The bytes in use on the file system."""
    os.sync()
    about = os.statvfs(place)
    return (about.f_blocks - about.f_bfree) * about.f_frsize


def test_a_copy_says_truly_which_way_it_took(place):
    app = place / "app"
    app.mkdir()
    git(app, "init", "--quiet")
    write(app, "README")
    write(app, ".gitignore", text="node_modules\n")
    git(app, "add", "--all")
    git(app, "commit", "--quiet", "--message", "first")
    succeeded(files(app))
    write(app, "node_modules/p/big", text="x" * 32 * 2**20)
    probe = ["cp", "--reflink=always", app / "README", place / "probe"]
    can = subprocess.run(probe, check=False, capture_output=True).returncode == 0
    before = blocks(place)
    result = succeeded(files(app, dependencies=[{"path": "node_modules", "how": "copy"}]))
    more = blocks(place) - before
    way = "shared blocks" if can else "full copy"
    assert result["actions"] == [f"copy {app}/.worktrees/fix/node_modules from {app}/node_modules ({way})"]
    if can:
        assert more < 8 * 2**20
    copy = app / ".worktrees" / "fix" / "node_modules" / "p" / "big"
    copy.write_text("mine")
    assert (app / "node_modules" / "p" / "big").stat().st_size == 32 * 2**20


def test_a_copied_link_shares_no_blocks(app, tree):
    write(app, "real")
    (app / ".env").symlink_to("real")
    (app / "bin").mkdir()
    (app / "bin" / "tool").symlink_to("../real")
    copies = [".env", {"path": "bin"}]
    result = succeeded(files(app, copies=copies))
    assert result["actions"] == [f"copy {tree}/{name} from {app}/{name} (full copy)" for name in (".env", "bin")]
    assert os.readlink(tree / ".env") == "real"


# Dependencies


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Package managers that only say that they were run."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in (*_guard.PROGRAMS, "python", "python3", "python3.12", "pip3.12"):
        (folder / name).write_text(f'#!/bin/sh\necho "real {name} $* no_sync=$UV_NO_SYNC"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("VIRTUAL_ENV", "COMPOSER_VENDOR_DIR", "UV_PROJECT_ENVIRONMENT", "UV_NO_SYNC"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(tree, command, folder="."):
    return call(_exec, command=command, folder=str(tree / folder))


def lets_through(tree, command, folder="."):
    return "real" in succeeded(run(tree, command, folder))["stdout"]


INSTALLS = [
    "composer install",
    "composer update vendor/package",
    "composer --no-dev require a/b",
    "npm install",
    "npm i left-pad",
    "npm ci --ignore-scripts",
    "npm audit fix",
    "npm --loglevel=silent update",
    "npm --loglevel error ci",
    "pnpm --reporter silent i",
    "pnpm add x",
    "pnpm install --frozen-lockfile",
    "yarn",
    "yarn --frozen-lockfile",
    "yarn add x",
    "bun install",
    "bun add x",
    "uv sync --locked",
    "uv add x",
    "uv pip install x",
    "pip install x",
    "pip3 install -r requirements.txt",
    "pip3.12 --proxy http://proxy install x",
    "pip install -C setting=1 x",
    "python -m pip install x",
    "python3 -m pip install -r requirements.txt",
    "python3.12 -Im pip --no-input uninstall --yes x",
    "python -W ignore -X dev -mpip install x",
    "python -m uv add x",
    "python -m uv pip install x",
    "python -m ensurepip --upgrade",
    "uv run pip install x",
    "uv run -- python3 -m pip install x",
]
HARMLESS = [
    "composer run-script test",
    "composer show",
    "composer global require a/b",
    "npm test",
    "npm run install-all",
    "npm install --global x",
    "npm --version",
    "npm install --help",
    "npm install --prefix /tmp x",
    "npm run build -- install",
    "pnpm run test",
    "yarn --version",
    "yarn test",
    "bun run dev",
    "bun test",
    "uv lock",
    "uv pip list",
    "uv tool install x",
    "pip list",
    "pip install --user x",
    "pip install --target /tmp x",
    "python",
    "python -",
    "python --version",
    "python -c 'print()' -m pip install x",
    "python setup.py -m pip install x",
    "python3.12 -m pytest -m pip install",
    "python3 -m pip list",
    "python3 -m pip --version",
    "python -m pip install --user x",
    "python -m venv .own",
    "uv run -- python -m pip list",
]


@pytest.fixture
def linked(app, tree, programs):  # noqa: ARG001 - they stand for the real ones
    """A worktree whose dependencies are links to the main tree's."""
    write(app, "node_modules/p/index.js", "vendor/autoload.php", ".venv/pyvenv.cfg")
    result = succeeded(files(app, dependencies=["node_modules", "vendor", {"path": ".venv", "how": "link"}]))
    assert result["actions"][-1] == f"guard the shared dependencies of {tree}"
    assert not succeeded(files(app, dependencies=["node_modules", "vendor", ".venv"]))["changed"]
    assert status(tree) == ""
    (tree / "client").mkdir()
    return tree


@pytest.mark.parametrize("command", INSTALLS)
def test_an_install_into_a_shared_folder_is_refused(linked, app, command):
    for folder in (".", "client"):
        result = run(linked, command, folder)
        assert result["failed"]
        assert result["stdout"] == ""
        name = next(
            path.name for path in (app / "node_modules", app / "vendor", app / ".venv") if path.name in result["stderr"]
        )
        assert f"would write into {app / name}, which other worktrees share" in result["stderr"]
        assert "how: install" in result["stderr"]


@pytest.mark.parametrize("command", HARMLESS)
def test_all_else_runs_as_it_would(linked, command):
    assert lets_through(linked, command)


def test_uv_run_uses_the_shared_environment_as_it_is(linked):
    for words in ("pytest", "pytest -h", "pip list", "python -m pytest"):
        assert succeeded(run(linked, f"uv run {words}"))["stdout"] == f"real uv run {words} no_sync=1\n"


def test_where_it_writes_counts_not_where_it_is_called(linked, app):
    assert run(linked, f"cd / && npm --prefix {linked} install")["failed"]
    assert run(linked, f"npm -C {linked} ci", "client")["failed"]
    assert run(linked, f"composer --working-dir={linked} install", "client")["failed"]
    assert lets_through(linked, f"cd {app} && npm install")


def test_a_folder_of_its_own_is_no_obstacle(linked):
    (linked / "client" / "node_modules").mkdir()
    assert lets_through(linked, "npm install", "client")
    (linked / "node_modules").unlink()
    assert lets_through(linked, "npm install")
    assert run(linked, "composer install")["failed"]


def test_a_folder_of_the_worktree_itself_is_no_obstacle(linked):
    (linked / "vendor").unlink()
    (linked / "packages").mkdir()
    (linked / "vendor").symlink_to("packages")
    assert lets_through(linked, "composer install")


def test_an_environment_that_is_active_is_looked_at(linked, app):
    assert run(linked, f"VIRTUAL_ENV={linked}/.venv pip install x", "client")["failed"]
    # Where the linked folder says itself that it is, in its script "activate".
    assert run(linked, f"VIRTUAL_ENV={app}/.venv python -m pip install x", "client")["failed"]
    assert lets_through(linked, f"VIRTUAL_ENV={app}/other pip install x")
    (linked / ".own").mkdir()
    assert lets_through(linked, f"VIRTUAL_ENV={linked}/.own python -m pip install x")


def test_an_environment_that_is_named_is_looked_at(linked):
    (linked / ".own").mkdir()
    for words in ("pip --python .venv/bin/python install x", "uv pip install --python .venv x", "uv venv .venv"):
        assert run(linked, words)["failed"]
        assert lets_through(linked, words.replace(".venv", ".own"))
    assert run(linked, "python -m venv --clear .venv/")["failed"]
    assert run(linked, f"cd / && pip --python={linked}/.venv install x")["failed"]


def environment(place):
    """A real virtual environment, whose python says which it is."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    package = next(place.glob("lib/python*/site-packages")) / "pip"
    package.mkdir()
    (package / "__main__.py").write_text("import sys; print('real', sys.prefix, *sys.argv[1:])")


def test_python_is_what_it_would_be_without_a_guard(app, tree, monkeypatch):
    """The environment that the program lies in counts, whichever is active."""
    environment(app / ".venv")
    environment(tree / "own")
    succeeded(files(app, dependencies=[".venv"]))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    rest = os.environ["PATH"]
    for place, is_shared in ((app / ".venv", True), (tree / ".venv", True), (tree / "own", False)):
        monkeypatch.setenv("PATH", f"{place}/bin:{rest}")
        told = succeeded(run(tree, "python -m pip list"))["stdout"]
        assert told == f"real {place} list\n"
        result = run(tree, "python -m pip install x")
        assert bool(result.get("failed")) == is_shared
        if is_shared:
            assert f"python -m pip install would write into {app}/.venv" in result["stderr"]
        assert run(tree, "python -c 'raise SystemExit(7)'")["code"] == 7
        ended = subprocess.run(
            ["sh", "-c", "python -c 'import os, signal; os.kill(os.getpid(), signal.SIGTERM)'"],
            env={**os.environ, "PATH": str(_guard.path_for(str(tree)))},
            check=False,
        )
        assert ended.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_only_pythons_that_are_there_are_stood_in_for(linked):
    folder = pathlib.Path(str(_guard.folder_of(str(linked))))
    assert {"python", "python3", "python3.12", "pip3.12"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "python3.99").exists()


def test_a_gate_a_commit_and_an_analysis_are_guarded_too(linked, app):
    """What runs for a task by itself finds the guard as its commands do."""
    checks = [{"name": "install", "command": "npm ci", "folder": "client", "stages": ["commit", "gate"]}]
    given = [{"name": "app", "path": str(linked)}]
    text = refused(call(_gates, worktrees=given, checks=checks), "user", "refused: npm ci would write into")
    assert f"{app}/node_modules, which other worktrees share" in text
    succeeded(call(_hooks, worktrees=given, task="fix", checks=checks))
    (linked / "client" / "work").write_text("")
    git(linked, "add", "--all")
    done = subprocess.run(
        ["git", "-C", linked, "commit", "--message", "x"], check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"refused: npm ci would write into {app}/node_modules" in done.stderr
    checks = [{"name": "install", "command": "cd client; npm ci"}]
    result = succeeded(call(_analysis, worktrees=given, task="fix", checks=checks, wait=True))
    report = pathlib.Path(result["reports"][0]["file"]).read_text()
    assert f"refused: npm ci would write into {app}/node_modules" in report


def test_a_guard_passes_over_other_guards_and_says_what_is_missing(linked, programs):
    other = linked.parent / "parallel-worktrees-bin"
    shutil.copytree(str(_guard.folder_of(str(linked))), other, symlinks=True)
    assert lets_through(linked, f"PATH=$PATH:{other} npm test")
    (programs / "bun").unlink()
    result = run(linked, "PATH=${PATH%%:*}:/usr/bin:/bin bun test")
    assert "bun: not found" in result["stderr"]
    assert result["code"] == 127


def test_from_a_link_to_an_own_folder_and_back(app, tree, programs):  # noqa: ARG001 - they stand for the real ones
    write(app, "node_modules/p/index.js")
    succeeded(files(app, dependencies=["node_modules"]))
    assert (tree / "node_modules").is_symlink()
    install = [{"path": "node_modules", "how": "install", "command": "npm ci"}]
    assert succeeded(files(app, dependencies=install, check=True))["actions"] == [f"unlink {tree}/node_modules"]
    succeeded(files(app, dependencies=install))
    assert not os.path.lexists(tree / "node_modules")
    succeeded(files(app, dependencies=[{"path": "node_modules", "how": "copy"}]))
    assert (tree / "node_modules" / "p" / "index.js").exists()
    assert not (tree / "node_modules").is_symlink()
    succeeded(files(app, dependencies=["node_modules"]))
    assert (tree / "node_modules").is_symlink()
    succeeded(files(app, dependencies=[{"path": "node_modules", "how": "copy"}]))
    assert not (tree / "node_modules").is_symlink()
    assert (app / "node_modules" / "p" / "index.js").exists()
    write(tree, "node_modules/mine")
    refused(files(app, dependencies=["node_modules"]), "user", "node_modules", "did not write")
