# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dependencies that a worktree has from its main tree: which packages they lead to, and whose paths are in them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from integration.repos import SPACE, call, git, refused, status, succeeded

from ansible_collections.parallel.worktrees.plugins.module_utils import _guard, _workspace, _worktrees

SHIM = '#!/bin/sh\nexport NODE_PATH="{}/node_modules/.pnpm/node_modules"\n'


@pytest.fixture
def app(sample):
    (sample.app / ".gitignore").write_text("node_modules\nvendor/\n.venv\n/.worktrees/\n")
    for name in ("a", "b"):
        (sample.app / "packages" / name).mkdir(parents=True)
        (sample.app / "packages" / name / "index.js").write_text(f"// {name}\n")
    git(sample.app, "add", "--all")
    git(sample.app, "commit", "--quiet", "--message", "packages")
    sample.make("app")
    return sample.app


@pytest.fixture
def tree(app):
    return app / ".worktrees" / "fix"


def files(app, *dependencies, check=False):
    """The call that the role makes for a repository of the workspace file."""
    repo = {"name": "app", "path": str(app), "dependencies": list(dependencies)}
    whole = _workspace.worktree_set([repo], root="/", folder=".worktrees/fix", branch="fix")
    return call(_worktrees, check=check, owner=f"{SPACE}/fix", worktrees=_workspace.view(whole, "git_worktree"))


@pytest.fixture
def modules(app):
    """As npm, pnpm and yarn make it in a workspace: with links to the project's own packages."""
    folder = app / "node_modules"
    for path in (
        "foreign/index.js",
        "@scope/foreign/index.js",
        ".cache/tool/state",
        ".pnpm/x@1/node_modules/x/index.js",
    ):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("//\n")
    (folder / ".package-lock.json").write_text("{}\n")
    (folder / "x").symlink_to(".pnpm/x@1/node_modules/x")
    (folder / "a").symlink_to("../packages/a")
    (folder / "@scope" / "b").symlink_to("../../packages/b")
    (folder / ".bin").mkdir()
    (folder / ".bin" / "a").symlink_to("../a/index.js")
    (folder / ".bin" / "x").write_text(SHIM.format(app))
    inner = app / "packages" / "a" / "node_modules"
    inner.mkdir()
    (inner / "b").symlink_to("../../b")
    (inner / "x").symlink_to("../../../node_modules/.pnpm/x@1/node_modules/x")
    return folder


LINKED = ("node_modules", "packages/a/node_modules")


def leads(place: pathlib.Path) -> pathlib.Path:
    return place.resolve(strict=True)


def test_the_packages_of_the_project_are_those_of_the_worktree(app, tree, modules):
    planned = succeeded(files(app, *LINKED, check=True))
    assert not (tree / "node_modules").exists()
    done = succeeded(files(app, *LINKED))
    assert planned["actions"] == done["actions"]
    assert f"link {tree}/node_modules from {modules}, entry by entry" in done["actions"]
    ours = tree / "node_modules"
    assert leads(ours / "a") == leads(tree) / "packages" / "a"
    assert leads(ours / "@scope" / "b") == leads(tree) / "packages" / "b"
    assert leads(ours / ".bin" / "a") == leads(tree) / "packages" / "a" / "index.js"
    assert leads(tree / "packages" / "a" / "node_modules" / "b") == leads(tree) / "packages" / "b"
    for path in ("foreign", "@scope/foreign", "x"):
        assert leads(ours / path) == leads(modules / path)
    assert leads(tree / "packages" / "a" / "node_modules" / "x") == leads(modules / "x")
    assert not (ours / ".package-lock.json").is_symlink()
    assert not (ours / ".cache").exists()
    assert status(tree) == ""
    assert not succeeded(files(app, *LINKED))["changed"]


def test_a_folder_that_is_linked_entry_by_entry_follows_the_main_tree(app, tree, modules):
    succeeded(files(app, "node_modules"))
    (modules / "new").mkdir()
    (tree / "node_modules" / ".cache").mkdir()
    (tree / "node_modules" / "foreign").unlink()
    (tree / "node_modules" / "foreign").mkdir()  # the worktree's own by now
    assert succeeded(files(app, "node_modules"))["changed"]
    assert leads(tree / "node_modules" / "new") == modules / "new"
    assert not (tree / "node_modules" / "foreign").is_symlink()
    # No package of the project any more: the whole folder is a link again.
    for path in ("a", "@scope/b"):
        (modules / path).unlink()
    assert succeeded(files(app, "node_modules"))["changed"]
    assert (tree / "node_modules").readlink() == modules


def test_from_a_link_to_its_entries_and_to_a_copy(app, tree, modules):
    (modules / "a").rename(app / "aside")
    (modules / "@scope" / "b").unlink()
    succeeded(files(app, "node_modules"))
    assert (tree / "node_modules").is_symlink()
    (app / "aside").rename(modules / "a")
    assert succeeded(files(app, "node_modules"))["changed"]
    assert leads(tree / "node_modules" / "a") == leads(tree) / "packages" / "a"
    result = succeeded(files(app, {"path": "node_modules", "how": "copy"}))
    assert "name the worktree in 1 files" in result["actions"][0]
    assert (tree / "node_modules" / ".bin" / "x").read_text() == SHIM.format(tree)
    assert (modules / ".bin" / "x").read_text() == SHIM.format(app)
    assert leads(tree / "node_modules" / "a") == leads(tree) / "packages" / "a"
    assert (tree / "node_modules" / "foreign" / "index.js").is_file()
    assert not (tree / "node_modules" / "foreign").is_symlink()


def test_an_installation_gets_a_folder_of_its_own(app, tree, modules):  # noqa: ARG001 - it is there
    succeeded(files(app, "node_modules"))
    install = {"path": "node_modules", "how": "install", "command": "npm ci"}
    assert f"unlink {tree}/node_modules" in succeeded(files(app, install))["actions"]
    assert not os.path.lexists(tree / "node_modules")
    assert (app / "node_modules" / "foreign" / "index.js").is_file()


def test_an_install_into_linked_entries_is_refused(app, tree, modules, tmp_path):
    succeeded(files(app, "node_modules"))
    (tmp_path / "npm").write_text('#!/bin/sh\necho "real npm $*"\n')
    (tmp_path / "npm").chmod(0o755)
    path = f"{_guard.folder_of(str(tree))}:{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["npm", "ci"], cwd=tree, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"would write into {modules}, which other worktrees share" in done.stderr


def test_the_removal_leaves_the_main_tree_as_it_is(app, tree, modules, sample):
    succeeded(files(app, *LINKED))
    sample.remove("app")
    assert not tree.exists()
    assert (modules / "foreign" / "index.js").is_file()
    assert (app / "packages" / "a" / "index.js").is_file()


@pytest.fixture
def environment(app):
    """A virtual environment, with the project installed in editable mode."""
    subprocess.run([sys.executable, "-m", "venv", app / ".venv"], check=True)
    (site,) = (app / ".venv").glob("lib/python*/site-packages")
    (site / "__editable__.app-1.pth").write_text(f"{app}/src\n")
    return app / ".venv"


def test_a_copied_environment_is_the_worktrees(app, tree, environment):
    result = succeeded(files(app, {"path": ".venv", "how": "copy"}))
    assert "name the worktree in" in result["actions"][0]
    ours = tree / ".venv"
    told = subprocess.run([ours / "bin" / "pip", "--version"], check=True, capture_output=True, text=True).stdout
    assert f"{ours}/lib/" in told
    script = '. .venv/bin/activate; echo "$VIRTUAL_ENV"; python -c "import sys; print(sys.prefix, *sys.path)"'
    told = subprocess.run(["bash", "-c", script], cwd=tree, check=True, capture_output=True, text=True).stdout
    assert told.splitlines()[0] == str(ours)
    assert str(ours) in told.splitlines()[1]
    assert f"{environment}/" not in told
    (site,) = ours.glob("lib/python*/site-packages")
    assert (site / "__editable__.app-1.pth").read_text() == f"{tree}/src\n"
    for path in (*(ours / "bin").iterdir(), ours / "pyvenv.cfg"):
        assert path.is_symlink() or str(environment).encode() not in path.read_bytes(), path
    assert str(environment) in (environment / "bin" / "activate").read_text()
    assert not succeeded(files(app, {"path": ".venv", "how": "copy"}))["changed"]


def test_a_link_that_brings_the_main_trees_code_is_reported(app, tree, environment):  # noqa: ARG001 - it is there
    (app / "vendor" / "composer").mkdir(parents=True)
    (app / "vendor" / "composer" / "autoload_real.php").write_text("<?php\n")
    first, second = succeeded(files(app, ".venv", "vendor"))["warnings"]
    assert f"{tree}/.venv is a link" in first
    assert "__editable__.app-1.pth" in first
    assert f"{tree}/vendor is a link" in second
    for line in (first, second):
        assert str(app) in line
        assert "how: copy" in line


def test_an_environment_of_conda_is_not_copied(app, tree):
    (app / ".venv" / "conda-meta").mkdir(parents=True)
    refused(files(app, {"path": ".venv", "how": "copy"}), "user", "conda", "how: install")
    assert not (tree / ".venv").exists()
