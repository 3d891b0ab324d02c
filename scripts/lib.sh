# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034

# Sourced by the other scripts: Debian packages, Pythons, virtual environments, Docker.
# All that is installed lies under .work/ of the clone, but for Debian packages.

clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
work=$clone/.work
logs=$work/logs
collections=$work/collections
mkdir -p "$logs"

OLDEST_CORE=2.19 # runs on Python 3.11 to 3.13
NEWEST_CORE=2.21 # runs on Python 3.12 to 3.14

say() { printf '%s\n' "$*"; }
warn() { printf 'WARNING: %s\n' "$*" >&2; }
die() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND...: root runs it, anybody else asks sudo.
as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; return; fi
    command -v sudo >/dev/null || die "run as root, or install sudo: needed for: $*"
    sudo "$@"
}

# logged NAME COMMAND...: silent while all is well; else the end of what it said.
logged() {
    local log=$logs/$1.log
    shift
    if "$@" >"$log" 2>&1 </dev/null; then return; fi
    grep -v 'is ignored: it is neither a file nor a directory' "$log" | tail -n 40 >&2
    die "failed: $* (all of it: $log)"
}

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$package"
    done
}

# need_packages NAME...: installs the Debian packages that are missing.
need_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if [[ ${#missing[@]} == 0 ]]; then return; fi
    command -v apt-get >/dev/null || die "install these yourself, here is no apt-get: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    if ! apt_install "${missing[@]}" >"$logs/apt.log" 2>&1; then
        logged apt-update as_root apt-get --quiet update
        logged apt apt_install "${missing[@]}"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes --no-install-recommends install "$@" </dev/null
}

# The tests make clusters of their own: the packages shall not start one that stays.
need_postgres() {
    local no_cluster=/etc/postgresql-common/createcluster.d/parallel-worktrees.conf
    if compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then return; fi
    as_root install -D -m 644 /dev/stdin "$no_cluster" <<<'create_main_cluster = false'
    need_packages postgresql
    as_root rm -f "$no_cluster"
}

# Tells version and path of each Python from 3.11 on that runs and can make virtual environments.
# Those of pyenv are asked by their real paths: its shims are there for versions that are not.
pythons() {
    local candidate about seen=' '
    for candidate in python3 python3.{11,12,13,14} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3.1[1-4]; do
        about=$("$candidate" -c 'import ensurepip, sqlite3, ssl, sys
print("%d.%d" % sys.version_info[:2], sys._base_executable)' 2>/dev/null) || continue
        if [[ ${about%% *} =~ ^3\.1[1-4]$ && $seen != *" ${about%% *} "* ]]; then
            seen+="${about%% *} "
            printf '%s\n' "$about"
        fi
    done
}

need_python() {
    local minor
    if [[ -n $(pythons) ]]; then return; fi
    for minor in 13 12 14 11; do
        if apt-cache show "python3.$minor-venv" >/dev/null 2>&1; then
            need_packages "python3.$minor" "python3.$minor-venv"
            break
        fi
    done
    [[ -n $(pythons) ]] || die 'no Python from 3.11 to 3.14 that can make virtual environments (ensurepip, sqlite3, ssl)'
}

# make_venv CORE PYTHON REQUIREMENTS [NAME]: .work/venv-NAME (CORE where there is none), made anew only when what it is
# made from has changed.
make_venv() {
    local core=$1 python=$2 requirements=$3 venv=$work/venv-${4:-$1} stamp
    stamp=$(cat "$clone"/requirements*.txt "$clone/tests/requirements.txt" - <<<"$*" | sha256sum)
    if [[ $(cat "$venv/stamp" 2>/dev/null) == "$stamp" ]]; then return; fi
    say "installing ansible-core $core and $requirements from PyPI for $("$python" --version)"
    if [[ $(readlink -f "$venv/bin/python") != "$(readlink -f "$python")" ]]; then
        rm -rf "$venv"
        logged "venv-$core" "$python" -m venv "$venv"
    fi
    logged "pip-$core" "$venv/bin/python" -m pip --disable-pip-version-check --quiet \
        install --upgrade "ansible-core~=$core.0" --requirement "$clone/$requirements"
    printf '%s\n' "$stamp" >"$venv/stamp"
}

# The clone as a collection, where Ansible and Python find it.
link_collection() {
    mkdir -p "$collections/ansible_collections/parallel"
    ln -sfn "$clone" "$collections/ansible_collections/parallel/worktrees"
}

# Makes the virtual environments and sets "oldest" and "newest" to the ansible-cores that run here.
# Where only one runs, the two are the same, and "missing_core" tells which one cannot.
set_up_ansible() {
    local version python first_python='' last_python=''
    need_python
    link_collection
    mkdir -p "$work/pythons"
    while read -r version python; do
        ln -sfn "$python" "$work/pythons/python$version"
        if [[ $version != 3.14 ]]; then first_python=${first_python:-$python}; fi
        if [[ $version != 3.11 ]]; then last_python=$python; fi
    done < <(pythons | sort --version-sort)
    missing_core=''
    oldest=$OLDEST_CORE newest=$NEWEST_CORE
    if [[ -z $first_python ]]; then oldest=$NEWEST_CORE missing_core="ansible-core $OLDEST_CORE (Python 3.11 to 3.13)"; fi
    if [[ -z $last_python ]]; then newest=$OLDEST_CORE missing_core="ansible-core $NEWEST_CORE (Python 3.12 to 3.14)"; fi
    (
        flock 9
        if [[ $newest == "$NEWEST_CORE" ]]; then make_venv "$newest" "$last_python" requirements-dev.txt; fi
        if [[ $newest == "$OLDEST_CORE" ]]; then make_venv "$oldest" "$first_python" requirements-dev.txt; fi
        if [[ $newest != "$oldest" ]]; then make_venv "$oldest" "$first_python" tests/requirements.txt; fi
    ) 9>"$work/venv.lock"
}

# use_ansible VENV: the commands and the collection of this clone, untouched by who runs it.
use_ansible() {
    local setting
    for setting in "${!ANSIBLE_@}"; do unset "$setting"; done
    unset VIRTUAL_ENV PYTHONHOME
    PATH=$work/venv-$1/bin:$work/pythons:$(tr ':' '\n' <<<"$PATH" | grep -v '/\.pyenv/shims$\|/\.work/' | paste -sd:)
    export PATH LC_ALL=C.UTF-8
    export PYTHONPATH=$collections ANSIBLE_COLLECTIONS_PATH=$collections ANSIBLE_HOME=$work/ansible
}

docker_answers() { docker version >/dev/null 2>&1; }

# Starts a Docker engine unless one answers. Sets "stop_docker" to what ends the one it started.
start_docker() {
    stop_docker=''
    if docker_answers; then return; fi
    need_packages docker.io iptables
    if docker_answers; then return; fi
    # Debian 13 has the client in a package of its own.
    if ! command -v docker >/dev/null; then need_packages docker-cli; fi
    if [[ -d /run/systemd/system ]]; then
        if as_root systemctl is-active --quiet docker; then return; fi
        say 'starting Docker (until the tests are done)'
        as_root systemctl start docker
        stop_docker='as_root systemctl stop docker.socket docker'
    else
        start_dockerd "$PATH" || start_dockerd "$(old_iptables):$PATH" ||
            { tail -n 20 "$logs/dockerd.log" >&2; die "dockerd does not start (all of it: $logs/dockerd.log)"; }
    fi
}

# A folder whose iptables writes the kernel's old tables: for machines without nf_tables.
old_iptables() {
    mkdir -p "$work/old-iptables"
    local name
    for name in iptables ip6tables; do ln -sf "/usr/sbin/$name-legacy" "$work/old-iptables/$name"; done
    printf '%s' "$work/old-iptables"
}

# start_dockerd PATH: an engine of our own, its data under .work, for as long as the tests run.
start_dockerd() {
    local dockerd
    say 'starting dockerd (until the tests are done)'
    if [[ ! -e /sys/fs/cgroup/cgroup.controllers ]] && ! grep -q ' cgroup ' /proc/mounts; then
        as_root mount -t cgroup2 cgroup2 /sys/fs/cgroup
    fi
    as_root env "PATH=$1" dockerd --data-root "$work/docker/data" --exec-root "$work/docker/exec" \
        --pidfile "$work/dockerd.pid" --group "$(id -gn)" >"$logs/dockerd.log" 2>&1 </dev/null &
    dockerd=$!
    for _ in {1..300}; do
        if docker_answers; then
            # Through sudo the job is sudo's: the pid file has the engine's own.
            stop_docker="as_root kill $(<"$work/dockerd.pid")"
            return 0
        fi
        kill -0 "$dockerd" 2>/dev/null || return 1
        sleep 0.1
    done
    as_root kill "$(<"$work/dockerd.pid")"
    return 1
}

zfs_answers() { as_root zpool list >/dev/null 2>&1; }

# Starts a ZFS in user space unless one answers, and has the programs of the other file systems that pools can lie on, and
# the PgBouncer that leads to what is on them.
# Sets "stop_zfs" to what ends the one it started.
start_zfs() {
    local daemon
    stop_zfs=''
    need_packages btrfs-progs pgbouncer xfsprogs
    if zfs_answers; then return; fi
    need_packages zfs-fuse
    if zfs_answers; then return; fi
    say 'starting zfs-fuse (until the tests are done)'
    if [[ -d /run/systemd/system ]]; then
        as_root systemctl start zfs-fuse
        stop_zfs='as_root systemctl stop zfs-fuse'
    else
        as_root rm -f "$work/zfs-fuse.pid" # it does not start where there is one
        logged zfs-fuse as_root zfs-fuse --no-kstat-mount --pidfile "$work/zfs-fuse.pid"
        daemon=$(as_root cat "$work/zfs-fuse.pid")
        stop_zfs="as_root kill $daemon; timeout 30 tail --pid=$daemon -f /dev/null" # it needs a moment
    fi
    for _ in {1..100}; do
        if zfs_answers; then return; fi
        sleep 0.1
    done
    die 'zfs-fuse does not start'
}

# run_in_docker_group COMMAND...: instead of what is left of this script, where Docker answers root alone: as who runs
# it, with the group of Docker's socket besides.
run_in_docker_group() {
    local socket=/var/run/docker.sock status=0
    if ! as_root docker version >/dev/null 2>&1; then die 'Docker does not answer, even to root'; fi
    say "running with the group of $socket, which $(id -un) is not in"
    as_root setpriv --reuid "$(id -u)" --regid "$(id -g)" --groups "$(id -G | tr ' ' ,),$(stat -c %g "$socket")" \
        env "HOME=$HOME" "USER=$(id -un)" "PATH=$PATH" "CI=${CI-}" "$@" || status=$?
    exit "$status"
}

build_images() {
    need_packages debootstrap debian-archive-keyring gzip
    if [[ -z $(docker images --quiet parallel-worktrees-test/postgres:15) ]]; then
        say 'building the test images (a few minutes, once)'
    fi
    logged images env DOCKER_BUILDKIT=0 "$clone/tests/images/build" "$work/images"
}
