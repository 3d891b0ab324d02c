# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guard before package managers: none installs into a dependency folder that is a link to a shared one.

Private to this collection: may change without notice.

Its programs stand in for theirs on a task's PATH, from a folder in git's own folder for the worktree. Each looks at
what is there when it is called, so a link that was replaced by a folder is no obstacle.
"""

from __future__ import annotations

import os

from . import _files, _git
from ._errors import EnvironmentFailure

PROGRAMS = ("bun", "composer", "npm", "pip", "pip3", "pnpm", "uv", "yarn")
DEPENDENCIES = {"node_modules", "vendor", ".venv", "venv"}
"""What their folders of dependencies are called."""

FOLDER = "parallel-worktrees-bin"
SCRIPT = "guard"


def folder_of(worktree: str) -> str | None:
    """Where the guard of a worktree lies; None where the folder is no linked worktree."""
    admin = _git.admin_folder(worktree)
    return None if admin is None else os.path.join(admin, FOLDER)


def is_there(worktree: str) -> bool:
    """Whether the guard of a worktree is complete."""
    folder = folder_of(worktree)
    if folder is None:
        return False
    try:
        with open(os.path.join(folder, SCRIPT), encoding="utf-8") as file:
            return file.read() == GUARD and all(os.path.islink(os.path.join(folder, name)) for name in PROGRAMS)
    except OSError:
        return False


def put(worktree: str) -> None:
    """Put the guard in its place."""
    folder = folder_of(worktree)
    if folder is None:
        raise EnvironmentFailure(f"{worktree} is no linked worktree, so it cannot be guarded")
    os.makedirs(folder, exist_ok=True)
    _files.write(os.path.join(folder, SCRIPT), GUARD.encode(), mode=0o755)
    for name in PROGRAMS:
        place = os.path.join(folder, name)
        if not os.path.islink(place):
            os.symlink(SCRIPT, place)


def path_for(folder: str, path: str | None = None) -> str | None:
    """The PATH of a command that runs in a folder: the guard of its worktree first; None where there is none.

    :arg path: what follows it; this process's own where it is None.
    """
    worktree = _git.enclosing_worktree(os.path.join(folder, "any"))
    guard = None if worktree is None else folder_of(worktree)
    if guard is None or not os.path.isdir(guard):
        return None
    rest = os.environ.get("PATH", os.defpath) if path is None else path
    return ":".join([guard, *(part for part in rest.split(":") if part != guard)])


GUARD = r"""#!/bin/sh
# parallel.worktrees: keeps package managers from writing into a dependency folder that is a link to a shared one.
set -f
me=${0##*/}

# The program itself is the first on PATH that is no guard.
real=
saved_ifs=$IFS
IFS=:
for folder in $PATH; do
    case ${folder%/} in */parallel-worktrees-bin) continue ;; esac
    if [ -f "$folder/$me" ] && [ -x "$folder/$me" ]; then
        real=$folder/$me
        break
    fi
done
IFS=$saved_ifs
if [ -z "$real" ]; then
    echo "$me: not found" >&2
    exit 127
fi

start=. verb='' second='' skip='' elsewhere=''
for argument in "$@"; do
    if [ -n "$skip" ]; then
        if [ "$skip" = start ]; then start=$argument; fi
        skip=
        continue
    fi
    case "$me $argument" in
        *' --') break ;;
        pip*' --target'* | pip*' -t' | pip*' --prefix'* | pip*' --root' | pip*' --root='*) elsewhere=yes ;;
        pip*' --user' | pip*' --python'*) elsewhere=yes ;;
        'uv --system' | 'uv --target'* | 'uv --prefix'* | 'uv --script') elsewhere=yes ;;
        *' -g' | *' --global' | *' --location=global' | *' --dry-run' | *' --help' | *' -h' | *' --version')
            elsewhere=yes ;;
        'composer -d' | *' -C' | *' --prefix' | *' --dir' | *' --cwd') skip=start ;;
        *' --working-dir' | *' --directory' | *' --project') skip=start ;;
        *' --prefix='* | *' --dir='* | *' --cwd='* | *' --working-dir='* | *' --directory='* | *' --project='*)
            start=${argument#*=} ;;
        'npm -w' | *' --workspace' | *' --filter' | *' -F') skip=value ;;
        *' -'*) ;;
        *)
            if [ -z "$verb" ]; then
                verb=$argument
            elif [ -z "$second" ]; then
                second=$argument
            fi
            ;;
    esac
done

names=node_modules
case $me in
    composer) names=${COMPOSER_VENDOR_DIR:-vendor} ;;
    uv) names=${UV_PROJECT_ENVIRONMENT:-.venv} ;;
    pip*) names=${VIRTUAL_ENV:-.venv venv} ;;
esac

writes=
case "$me $verb" in
    'composer i' | 'composer ins'* | 'composer u' | 'composer up'* | 'composer r' | 'composer req'* | \
        'composer re'[im]* | 'composer rm' | 'composer uninstall' | 'composer du'*) writes=yes ;;
    'npm i' | 'npm in' | 'npm ins'* | 'npm isnt'* | 'npm add' | 'npm ci' | 'npm cit' | 'npm ic' | 'npm it' | \
        'npm sit' | 'npm clean-install'* | 'npm update' | 'npm up' | 'npm upgrade' | 'npm udpate' | 'npm uninstall' | \
        'npm un' | 'npm unlink' | 'npm remove' | 'npm rm' | 'npm r' | 'npm dedupe' | 'npm ddp' | 'npm prune' | \
        'npm rebuild' | 'npm rb' | 'npm link' | 'npm ln') writes=yes ;;
    'npm audit' | 'pnpm audit') if [ "$second" = fix ]; then writes=yes; fi ;;
    'pnpm i' | 'pnpm install'* | 'pnpm add' | 'pnpm ci' | 'pnpm update' | 'pnpm up' | 'pnpm upgrade' | 'pnpm remove' | \
        'pnpm rm' | 'pnpm uninstall' | 'pnpm un' | 'pnpm link' | 'pnpm ln' | 'pnpm unlink' | 'pnpm dedupe' | \
        'pnpm prune' | 'pnpm rebuild' | 'pnpm rb' | 'pnpm fetch' | 'pnpm it') writes=yes ;;
    'yarn ') case " $* " in *' -v '*) ;; *) writes=yes ;; esac ;;
    'yarn install' | 'yarn add' | 'yarn remove' | 'yarn up' | 'yarn upgrade' | 'yarn upgrade-interactive' | \
        'yarn link' | 'yarn unlink' | 'yarn dedupe' | 'yarn rebuild') writes=yes ;;
    'bun i' | 'bun install' | 'bun add' | 'bun a' | 'bun remove' | 'bun rm' | 'bun update' | 'bun link' | \
        'bun unlink' | 'bun patch') writes=yes ;;
    'uv sync' | 'uv add' | 'uv remove') writes=yes ;;
    'uv venv') if [ -z "$second" ]; then writes=yes; fi ;;
    'uv run') writes=unless_told ;; # it would bring the environment up to date first
    'uv pip') case $second in install | uninstall | sync) writes=yes ;; esac ;;
    'pip install' | 'pip uninstall' | 'pip3 install' | 'pip3 uninstall') writes=yes ;;
esac

if [ -z "$writes" ] || [ -n "$elsewhere" ]; then exec "$real" "$@"; fi
folder=$(cd -- "$start" 2>/dev/null && pwd -P) || exec "$real" "$@"
top=$folder
while [ ! -e "$top/.git" ] && [ -n "$top" ]; do top=${top%/*}; done

# The nearest folder of dependencies counts, up to the top of the worktree.
while :; do
    for name in $names; do
        case $name in /*) place=$name ;; *) place=$folder/$name ;; esac
        if [ -L "$place" ]; then
            target=$(cd -- "$place" 2>/dev/null && pwd -P) || target=$(readlink "$place")
            case $target/ in "$top"/*) exec "$real" "$@" ;; esac
            if [ "$writes" = unless_told ]; then UV_NO_SYNC=1 exec "$real" "$@"; fi
            {
                echo "refused: $me $verb would write into $target, which other worktrees share"
                echo "  $place is a link to it"
                echo "hint: for one of its own, say how: install (or copy) of ${place##*/} under dependencies in the"
                echo "      workspace file, and provision again; to install for all, cd ${target%/*}"
            } >&2
            exit 1
        elif [ -d "$place" ]; then
            exec "$real" "$@"
        fi
    done
    if [ "$folder" = "$top" ] || [ -z "$folder" ]; then exec "$real" "$@"; fi
    folder=${folder%/*}
done
"""
