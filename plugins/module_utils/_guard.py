# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guard before package managers: none installs into a dependency folder that is a link to a shared one.

Private to this collection: may change without notice.

Its programs stand in for theirs on a task's PATH, from a folder in git's own folder for the worktree. Each looks at
what is there when it is called, so a link that was replaced by a folder is no obstacle.
"""

from __future__ import annotations

import contextlib
import os
import re

from . import _files, _git
from ._errors import EnvironmentFailure

PROGRAMS = ("bun", "composer", "npm", "pip", "pip3", "pnpm", "uv", "yarn")
PYTHON = re.compile(r"(python|pip)(3(\.[0-9]+)?)?")
"""Guarded where they are on the PATH: who looks for python3.13 is not to find one that is not there."""
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
            return file.read() == GUARD and all(os.path.islink(os.path.join(folder, name)) for name in _programs())
    except OSError:
        return False


def put(worktree: str) -> None:
    """Put the guard in its place."""
    folder = folder_of(worktree)
    if folder is None:
        raise EnvironmentFailure(f"{worktree} is no linked worktree, so it cannot be guarded")
    os.makedirs(folder, exist_ok=True)
    _files.write(os.path.join(folder, SCRIPT), GUARD.encode(), mode=0o755)
    for name in _programs():
        place = os.path.join(folder, name)
        if not os.path.islink(place):
            os.symlink(SCRIPT, place)


def _programs() -> list[str]:
    """What it stands in for on this machine."""
    found = set(PROGRAMS)
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        if os.path.basename(folder.rstrip("/")) != FOLDER:
            with contextlib.suppress(OSError):
                found.update(filter(PYTHON.fullmatch, os.listdir(folder)))
    return sorted(found)


def of(folder: str) -> str | None:
    """The guard of the worktree that a folder lies in; None where there is none."""
    worktree = _git.enclosing_worktree(os.path.join(folder, "any"))
    guard = None if worktree is None else folder_of(worktree)
    return guard if guard is not None and os.path.isdir(guard) else None


def path_for(folder: str, path: str | None = None) -> str | None:
    """The PATH of a command that runs in a folder: the guard of its worktree first; None where there is none.

    :arg path: what follows it; this process's own where it is None.
    """
    guard = of(folder)
    if guard is None:
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

# What is run as a module of Python, or by uv, is looked at as if it were called by itself.
told=$me
program=$me
case $me in pip*) program=pip ;; esac
start=. verb='' second='' skip='' elsewhere='' environment='' by_uv=''
for argument in "$@"; do
    if [ -n "$skip" ]; then
        case $skip in
            module) program=$argument told="$told -m $argument" ;;
            start) start=$argument ;;
            environment) environment=$argument ;;
        esac
        skip=
        continue
    fi
    case $program in
        python*)
            case $argument in
                --check-hash-based-pycs) skip=value && continue ;;
                -?*) flags=${argument#-} ;;
                *) break ;; # a script of its own
            esac
            while :; do
                case $flags in [bBdEiIOPqRsSuvx]*) flags=${flags#?} ;; *) break ;; esac
            done
            case $flags in
                '' | [WX]?*) ;;
                [WX]) skip=value ;;
                m) skip=module ;;
                m*) program=${flags#m} told="$told -m ${flags#m}" ;;
                *) break ;;
            esac
            continue
            ;;
    esac
    case "$program $argument" in
        'uv --') if [ "$verb" != run ]; then break; fi ;;
        *' --') break ;;
        'pip --target'* | 'pip -t' | 'pip --prefix'* | 'pip --root' | 'pip --root='* | 'pip --user') elsewhere=yes ;;
        'pip --python' | 'uv --python' | 'uv -p') skip=environment ;;
        'pip --python='* | 'uv --python='*) environment=${argument#*=} ;;
        'pip --log' | 'pip --proxy' | 'pip --retries' | 'pip --timeout' | 'pip --exists-action') skip=value ;;
        'pip --trusted-host' | 'pip --cert' | 'pip --client-cert' | 'pip --cache-dir') skip=value ;;
        'pip --use-feature' | 'pip --use-deprecated' | 'pip --keyring-provider' | 'pip -C' | 'uv -C') skip=value ;;
        'venv --prompt') skip=value ;;
        'uv --system' | 'uv --target'* | 'uv --prefix'* | 'uv --script') elsewhere=yes ;;
        *' -g' | *' --global' | *' --location=global' | *' --dry-run' | *' --help' | *' -h' | *' --version')
            elsewhere=yes ;;
        'composer -d' | *' -C' | *' --prefix' | *' --dir' | *' --cwd') skip=start ;;
        *' --working-dir' | *' --directory' | *' --project') skip=start ;;
        *' --prefix='* | *' --dir='* | *' --cwd='* | *' --working-dir='* | *' --directory='* | *' --project='*)
            start=${argument#*=} ;;
        'npm -w' | *' --workspace' | *' --filter' | *' -F') skip=value ;;
        *' --loglevel' | *' --registry' | *' --cache' | *' --cache-dir' | *' --store-dir') skip=value ;;
        *' --reporter' | *' --userconfig' | *' --globalconfig' | *' --config' | *' --config-file') skip=value ;;
        *' --script-shell') skip=value ;;
        *' -'*) ;;
        *)
            case "$program $verb $argument" in
                'uv run pip'* | 'uv run python'*)
                    by_uv=yes verb='' told="$told run $argument"
                    program=${argument%%[0-9.]*}
                    continue
                    ;;
                'uv run '*) break ;;
            esac
            if [ -z "$verb" ]; then
                verb=$argument
            elif [ -z "$second" ]; then
                second=$argument
            fi
            ;;
    esac
done

writes='' names=node_modules above=yes
case $program in
    composer) names=${COMPOSER_VENDOR_DIR:-vendor} ;;
    uv) names=${UV_PROJECT_ENVIRONMENT:-.venv} ;;
esac
case "$program $verb" in
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
    'uv venv') writes=yes && if [ -n "$second" ]; then names=${second%/} above=''; fi ;;
    'uv run') writes=unless_told ;; # it would bring the environment up to date first
    'uv pip') case $second in install | uninstall | sync) writes=environment ;; esac ;;
    'pip install' | 'pip uninstall' | 'ensurepip '*) writes=environment ;;
    'venv '?*) writes=yes names=${verb%/} above='' ;;
esac
if [ -n "$elsewhere" ]; then writes=''; fi
if [ -n "$by_uv" ] && [ -z "$writes" ]; then writes=unless_told names=${UV_PROJECT_ENVIRONMENT:-.venv}; fi
if [ -z "$writes" ]; then exec "$real" "$@"; fi

if [ "$writes" = environment ]; then
    # The one that was named, or that the program lies in, or that is active; else whichever is nearest.
    names=.venv:venv
    case $environment in */bin/python*) environment=${environment%/bin/*} ;; esac
    if [ ! -d "$environment" ]; then environment=''; fi
    bin=${real%/*}
    if [ -n "$environment" ]; then :; elif [ "$me" != uv ] && [ -f "${bin%/*}/pyvenv.cfg" ]; then
        environment=${bin%/*}
    elif [ -z "$by_uv" ]; then
        environment=$VIRTUAL_ENV
    fi
    environment=${environment%/}
    if [ -L "$environment" ]; then
        case $environment in */*) start=${environment%/*} ;; esac
        names=${environment##*/} above='' environment=''
    elif [ -d "$environment" ]; then
        environment=$(cd -- "$environment" && pwd -P)
    fi
fi

folder=$(cd -- "$start" 2>/dev/null && pwd -P) || exec "$real" "$@"
top=$folder
while [ ! -e "$top/.git" ] && [ -n "$top" ]; do top=${top%/*}; done

# The nearest folder of dependencies counts, up to the top of the worktree.
IFS=:
while :; do
    for name in $names; do
        case $name in /*) place=$name ;; *) place=$folder/$name ;; esac
        target='' how='is a link to it'
        if [ -L "$place" ]; then
            target=$(cd -- "$place" 2>/dev/null && pwd -P) || target=$(readlink "$place")
        elif [ -f "$place/.parallel-worktrees-shared" ]; then
            how='has links into it'
            IFS= read -r target <"$place/.parallel-worktrees-shared"
        fi
        if [ -n "$target" ]; then
            if [ -n "$environment" ] && [ "$environment" != "$target" ]; then continue; fi
            case $target/ in "$top"/*) exec "$real" "$@" ;; esac
            if [ "$writes" = unless_told ]; then UV_NO_SYNC=1 exec "$real" "$@"; fi
            {
                echo "refused: $told${verb:+ $verb} would write into $target, which other worktrees share"
                echo "  $place $how"
                echo "hint: for one of its own, say how: install (or copy) of ${place##*/} under dependencies in the"
                echo "      workspace file, and provision again; to install for all, cd ${target%/*}"
            } >&2
            exit 1
        elif [ -d "$place" ] && [ -z "$environment" ]; then
            exec "$real" "$@"
        fi
    done
    if [ -z "$above" ] || [ "$folder" = "$top" ] || [ -z "$folder" ]; then exec "$real" "$@"; fi
    folder=${folder%/*}
done
"""
