# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repositories of a workspace, as its file lists them, made complete for one task.

Private to this collection: may change without notice.
"""

from __future__ import annotations

import os
import typing as t

from . import _include
from ._errors import UserError

KEYS = {
    "name",
    "path",
    "folder",
    "branch",
    "checkout",
    "base",
    "submodules",
    "existing_branch",
    "links",
    "copies",
    "include",
    "dependencies",
    "setup",
}

VIEWS: dict[str, tuple[str, ...]] = {
    "git_worktree": (
        *("name", "repo", "path", "branch", "checkout", "base", "submodules", "existing_branch", "adopt"),
        *("links", "copies", "installed", "include"),
    ),
    "env_file": ("name", "path", "source"),
    "worktree_setup": ("name", "path", "setup"),
    "worktree_hooks": ("name", "path", "submodules"),
    "agent_file": ("name", "path"),
    "task_info": ("name", "repo"),
    "git_worktree_info": ("name", "repo"),
}
"""What each module takes of a repository; ``path`` of git_worktree may be relative, of the others it is absolute."""

OF_ALL = ("git_worktree", "task_info", "git_worktree_info")
"""The modules for which a repository counts of which a task has no worktree."""

OF_WORKTREES = ("folder", "submodules", "links", "copies", "include", "dependencies", "setup")
"""What there is only in a worktree."""

LOCK_FILES: dict[str, list[str]] = {
    "node_modules": [
        "package.json",
        "package-lock.json",
        "pnpm-lock.yaml",
        "yarn.lock",
        "bun.lock*",
    ],
    "vendor": ["composer.json", "composer.lock"],
    ".venv": ["pyproject.toml", "uv.lock", "poetry.lock", "requirements*.txt"],
}
"""By the name of a folder of dependencies, what says which belong into it."""

Repo = dict[str, t.Any]


def worktree_set(
    repos: t.Sequence[t.Any],
    *,
    root: str,
    folder: str,
    branch: str,
    selection: str | None = None,
    planned: t.Sequence[t.Mapping[str, t.Any]] = (),
    checkout: bool = True,
) -> list[Repo]:
    """The selected repositories with every default filled in.

    :arg repos: the workspace's list; an entry is a name, or a dictionary with a name.
    :arg root: the folder that relative paths of repositories start from.
    :arg folder: where a worktree goes within its repository, unless the repository says.
    :arg branch: the branch of the task, unless the repository says.
    :arg selection: names with commas, or ``all``.
    :arg planned: what the task has or is to have; where another tool made some of it, it has just these.
    :arg checkout: whether a task has a worktree, unless the repository says, or the task has it already.
    :raises UserError: an entry or a name of the selection is wrong.
    """
    former = {one["name"]: one.get("checkout", True) for one in planned}
    complete = [_complete(entry, root, folder, branch) for entry in repos]
    for repo in complete:
        wanted = checkout if repo["checkout"] is None else repo["checkout"]
        repo["checkout"] = former.get(repo["name"], wanted)
    names = [repo["name"] for repo in complete]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UserError(
            f"worktrees_repos names {', '.join(twins)} more than once",
            hint="give each entry a name of its own",
        )
    if not complete:
        raise UserError("worktrees_repos is empty", hint="list the repositories of the workspace: - name: backend")
    there = {one["name"]: one for one in planned if one.get("adopt")}
    if there:
        return [_adopted(repo, there[repo["name"]]) for repo in complete if repo["name"] in there]
    if not selection or selection == "all":
        return complete
    chosen = [name.strip() for name in selection.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise UserError(
            f"repos={selection} names {', '.join(unknown) or 'nothing'}, which worktrees_repos does not have",
            hint=f"choose from: {', '.join(names)}, or all",
        )
    return [repo for repo in complete if repo["name"] in chosen]


def view(repos: t.Sequence[Repo], module: str) -> list[Repo]:
    """Just what a module takes of each repository."""
    return [
        {key: repo["place"] if key == "path" and module != "git_worktree" else repo[key] for key in VIEWS[module]}
        for repo in repos
        if repo["checkout"] or module in OF_ALL
    ]


def refuse_contradiction(entry: t.Mapping[str, t.Any]) -> None:
    """Refuse an entry that says what goes into a worktree, and that there is none."""
    given = [key for key in OF_WORKTREES if entry.get(key)]
    if entry.get("checkout") is not None and not is_true(entry["checkout"]) and given:
        raise UserError(
            f"repository {entry['name']} in worktrees_repos has checkout: false, so that there is no worktree for its "
            f"{' and '.join(given)}",
            hint=f"leave out checkout, or {' and '.join(given)}",
        )


def is_true(value: t.Any) -> bool:
    """A word of YAML or of the command line as a truth value."""
    return str(value).lower() not in ("false", "no", "off", "0", "n", "f")


def _complete(entry: t.Any, root: str, folder: str, branch: str) -> Repo:
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict) or not entry.get("name"):
        raise UserError(f"an entry of worktrees_repos has no name: {entry!r}", hint="write it as - name: backend")
    unknown = sorted(set(entry) - KEYS)
    if unknown:
        raise UserError(
            f"repository {entry['name']} in worktrees_repos has {', '.join(unknown)}, which nothing reads",
            hint=f"an entry may have {', '.join(sorted(KEYS))}",
        )
    refuse_contradiction(entry)
    repo = os.path.normpath(os.path.join(root, os.path.expanduser(entry.get("path") or entry["name"])))
    path = entry.get("folder") or folder
    dependencies = [_dependency(entry["name"], item) for item in entry.get("dependencies") or []]
    return {
        "name": entry["name"],
        "repo": repo,
        "source": repo,
        "path": path,
        "place": os.path.normpath(os.path.join(repo, path)),
        "branch": entry.get("branch") or branch,
        "checkout": None if entry.get("checkout") is None else is_true(entry["checkout"]),
        "base": entry.get("base"),
        "submodules": list(entry.get("submodules") or []),
        "existing_branch": entry.get("existing_branch") or "use",
        "adopt": False,
        "links": [_named(item, "path") for item in entry.get("links") or []] + _by_way(dependencies, "link"),
        "copies": [_named(item, "path") for item in entry.get("copies") or []] + _by_way(dependencies, "copy"),
        "include": _include.DEFAULT if entry.get("include") is None else entry["include"],
        "installed": [item["path"] for item in dependencies if item["how"] == "install"],
        "setup": [item["setup"] for item in dependencies if item["how"] == "install"]
        + [_named(item, "command") for item in entry.get("setup") or []],
    }


def _dependency(repo: str, item: t.Any) -> dict[str, t.Any]:
    """A folder of dependencies, with how the worktree comes by it, and what installs it."""
    given = {"how": "link", **_named(item, "path")}
    path, how = given.get("path"), given["how"]
    where = f"a dependency of repository {repo}"
    if not path or how not in WAYS:
        raise UserError(
            f"{where} is {item!r}", hint="write it as {path: node_modules, how: link}; how is link, copy or install"
        )
    if how == "install" and not given.get("command"):
        raise UserError(
            f"{where}, {path}, is to be installed, and nothing says how",
            hint="give the command: {path: node_modules, how: install, command: npm ci}",
        )
    folder, name = os.path.split(os.path.normpath(path))
    inputs = given.get("inputs")
    given["setup"] = {
        "command": given.get("command"),
        "folder": folder or ".",
        "inputs": LOCK_FILES.get(name, []) if inputs is None else inputs,
        "parallel": given.get("parallel", False),
    }
    return given


WAYS = ("link", "copy", "install")


def _by_way(dependencies: t.Sequence[dict[str, t.Any]], how: str) -> list[dict[str, t.Any]]:
    return [
        {key: item[key] for key in ("path", "source", "optional") if key in item}
        for item in dependencies
        if item["how"] == how
    ]


def _adopted(repo: Repo, worktree: t.Mapping[str, t.Any]) -> Repo:
    """A repository whose worktree is there; its submodules are the business of whoever made it."""
    place = {"path": worktree["path"], "place": worktree["path"], "branch": worktree["branch"]}
    return {**repo, **place, "submodules": [], "adopt": True, "checkout": True}


def _named(item: t.Any, key: str) -> dict[str, t.Any]:
    """The long form of an entry that may be written as one word."""
    return dict(item) if isinstance(item, dict) else {key: str(item)}
