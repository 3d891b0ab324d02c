# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a folder of small sample repositories, each with an origin of its own, to try the collection on."""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess

GIT = {
    "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "protocol.file.allow",
    "GIT_CONFIG_VALUE_0": "always",
    "GIT_CONFIG_KEY_1": "user.name",
    "GIT_CONFIG_VALUE_1": "Sample",
    "GIT_CONFIG_KEY_2": "user.email",
    "GIT_CONFIG_VALUE_2": "sample@example.com",
}
IGNORED = ".env*\n/.vercel/\n/vendor/\nnode_modules/\n.venv/\n.mcp.json\nconstants.php\n/app/server/database\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--files", type=int, default=20, help="files in each repository")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="shop")
    options = parser.parse_args()
    SHAPES[options.shape](options.folder.absolute(), options.files)


def shop(folder: pathlib.Path, files: int) -> None:
    """Two repositories: an API with its database migrations as a submodule, and a web front end."""
    make_repository(folder, "shop-api", files, submodule="migrations")
    make_repository(folder, "shop-web", files)
    (folder / "shop-api" / ".env").write_text(
        "# settings of the main tree\nLOG_LEVEL=debug\nPORT=8000\nDATABASE_URL=postgresql://localhost:5432/shop\n"
    )
    (folder / "shop-web" / "node_modules").mkdir()


def bautista(folder: pathlib.Path, files: int) -> None:
    """The four repositories of examples/bautista.yml."""
    for name in ("bautista-backend", "bautista-app", "informes", "docs"):
        make_repository(folder, name, files, submodule="migrations" if name == "bautista-backend" else None)
    for dependencies in ("bautista-backend/vendor", "informes/vendor", "bautista-app/node_modules"):
        (folder / dependencies).mkdir()
    (folder / "bautista-backend" / ".env.test").write_text(
        "# test settings\nDB_HOST=127.0.0.1\nDB_PORT=65432\nDB_PASSWORD=\nDOCKER_COMPOSE_PATH=/docker-compose.yml\n"
    )


def carlo(folder: pathlib.Path, files: int) -> None:
    """The one repository of examples/carlo.yml."""
    make_repository(folder, "carlo", files)
    (folder / "carlo" / ".env.local").write_text("# secrets of all worktrees\nSTRIPE_KEY=sk_test_1\n")
    (folder / "carlo" / ".vercel").mkdir()
    (folder / "carlo" / ".vercel" / "project.json").write_text('{"projectId": "carlo"}\n')


def meal_planner(folder: pathlib.Path, files: int) -> None:
    """The one repository of examples/meal_planner.yml."""
    make_repository(folder, "meal_planner", files)


def adw(folder: pathlib.Path, files: int) -> None:
    """The one repository of examples/adw.yml: a server and a client, and a file that names the main tree's own path."""
    tree = folder / "adw"
    make_repository(folder, "adw", files)
    commit(
        tree,
        {
            "app/server/pyproject.toml": '[project]\nname = "server"\nversion = "1"\n',
            "app/server/uv.lock": "version = 1\n",
            "app/client/package.json": '{"name": "client"}\n',
            "app/client/bun.lock": "{}\n",
            "scripts/reset_db.sh": "echo made > app/server/database\n",
        },
    )
    (tree / ".env").write_text("# settings of the main tree\nBACKEND_PORT=8000\nFRONTEND_PORT=5173\nKEY=value\n")
    (tree / ".mcp.json").write_text(f'{{\n  "servers": {{"files": {{"args": ["--root", "{tree}/app"]}}}}\n}}\n')


def ala(folder: pathlib.Path, files: int) -> None:
    """The one repository of examples/ala.yml."""
    tree = folder / "ala"
    make_repository(folder, "ala", files)
    commit(tree, {"package.json": '{"name": "ala"}\n', "package-lock.json": "{}\n"})
    (tree / ".env").write_text(
        "# settings of the main tree\nPORT=3000\nBACKEND_PORT=5000\nAPI_URL=http://localhost:5000/api\n"
        "CORS_ORIGIN=http://localhost:3000\nTIMEOUT=5000\nDATABASE_URL=postgresql://app@localhost:5432/ala\n"
    )


SHAPES = {shape.__name__: shape for shape in (adw, ala, bautista, carlo, meal_planner, shop)}


def make_repository(folder: pathlib.Path, name: str, files: int, submodule: str | None = None) -> None:
    """A repository with some files and, as its origin, a bare one under ``origins``."""
    tree = folder / name
    tree.mkdir(parents=True)
    git(tree, "init", "--quiet", "--initial-branch=main")
    (tree / ".gitignore").write_text(IGNORED)
    for number in range(files):
        part = tree / "src" / f"part{number % 10}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"file{number}.txt").write_text(f"{name} {number}\n" * 20)
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "first commit")
    origin = folder / "origins" / f"{name}.git"
    git(folder, "clone", "--quiet", "--bare", str(tree), str(origin))
    git(tree, "remote", "add", "origin", str(origin))
    if submodule:
        if not (folder / "origins" / f"{submodule}.git").exists():
            make_repository(folder / "origins" / "made", submodule, files)
            made = folder / "origins" / "made"
            os.rename(made / "origins" / f"{submodule}.git", folder / "origins" / f"{submodule}.git")
            shutil.rmtree(made)
        git(tree, "submodule", "--quiet", "add", str(folder / "origins" / f"{submodule}.git"), submodule)
        git(tree, "commit", "--quiet", "--message", f"add {submodule}")
    git(tree, "push", "--quiet", "--set-upstream", "origin", "main")


def commit(tree: pathlib.Path, texts: dict[str, str]) -> None:
    """Have a repository and its origin track some more files."""
    for path, text in texts.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    git(tree, "add", "--force", "--", *texts)
    git(tree, "commit", "--quiet", "--message", "add what the project is made of")
    git(tree, "push", "--quiet")


def git(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run(("git", *arguments), cwd=folder, env={**os.environ, **GIT}, check=True)


if __name__ == "__main__":
    main()
