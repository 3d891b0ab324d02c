#!/usr/bin/env bash
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Starts PostgreSQL as the official image does: on an empty data directory it makes the cluster first, runs what
# lies in /docker-entrypoint-initdb.d on a server that only its own socket reaches, and then starts the real one.
set -euo pipefail

fail() {
    printf 'Error: %s\n' "$@" >&2
    exit 1
}

# setting NAME [DEFAULT]: NAME from the environment, or from the file that NAME_FILE names.
setting() {
    local name=$1 file="$1_FILE" value=${2-}
    if [[ -n ${!name-} && -n ${!file-} ]]; then fail "$name and $file are both set: they exclude each other"; fi
    if [[ -n ${!name-} ]]; then value=${!name}; elif [[ -n ${!file-} ]]; then value=$(<"${!file}"); fi
    export "$name=$value"
    unset "$file"
}

as_maintainer() {
    PGHOST=/var/run/postgresql PGPASSWORD=$POSTGRES_PASSWORD \
        psql --no-psqlrc --no-password --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" "$@"
}

# A uid without a name (docker run --user 1234) cannot run initdb: it gets a name for as long as that runs.
name_for_uid() {
    getent passwd "$(id -u)" >/dev/null && return
    NSS_WRAPPER_PASSWD=$(mktemp) NSS_WRAPPER_GROUP=$(mktemp)
    echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" >"$NSS_WRAPPER_PASSWD"
    echo "postgres:x:$(id -g):" >"$NSS_WRAPPER_GROUP"
    export NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP LD_PRELOAD=libnss_wrapper.so
}

make_cluster() {
    local arguments options=() method
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        fail 'Database is uninitialized and superuser password is not specified.' \
            'Set POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) to a value that is not empty.' \
            'POSTGRES_HOST_AUTH_METHOD=trust does without, and lets everybody in.'
    fi
    # As in the official image these are words of a shell, so that they can be quoted.
    eval "arguments=($POSTGRES_INITDB_ARGS)"
    if [[ -n ${POSTGRES_INITDB_WALDIR-} ]]; then options+=(--waldir "$POSTGRES_INITDB_WALDIR"); fi
    (
        name_for_uid
        initdb --username "$POSTGRES_USER" --pwfile <(echo "$POSTGRES_PASSWORD") "${options[@]}" "${arguments[@]}"
        if [[ -n ${NSS_WRAPPER_PASSWD-} ]]; then rm -f "$NSS_WRAPPER_PASSWD" "$NSS_WRAPPER_GROUP"; fi
    )
    method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption)}
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

run_init_files() {
    local file
    # shellcheck disable=SC1090
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;;
            *.sql) as_maintainer --dbname "$POSTGRES_DB" --file "$file" ;;
            *.sql.gz) gunzip --stdout "$file" | as_maintainer --dbname "$POSTGRES_DB" ;;
            *.sql.xz) xzcat "$file" | as_maintainer --dbname "$POSTGRES_DB" ;;
            *.sql.zst) zstd --decompress --stdout "$file" | as_maintainer --dbname "$POSTGRES_DB" ;;
            *) echo "$0: ignoring $file" ;;
        esac
    done
}

fill_cluster() {
    local quoted
    printf -v quoted '%q ' -c listen_addresses= -p 5432 "$@"
    PGUSER=$POSTGRES_USER pg_ctl --pgdata "$PGDATA" --options "$quoted" --wait start
    if [[ $POSTGRES_DB != postgres ]]; then
        echo 'CREATE DATABASE :"name"' | as_maintainer --dbname postgres --set "name=$POSTGRES_DB"
    fi
    run_init_files
    PGUSER=$POSTGRES_USER pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
}

if [[ ${1-} == -* ]]; then set -- postgres "$@"; fi
if [[ ${1-} != postgres || " ${*:2} " =~ \ (-\?|--help|--describe-config|-V|--version)\  ]]; then exec "$@"; fi

# Read while still root: a mounted secret may be root's alone.
setting POSTGRES_PASSWORD
setting POSTGRES_USER postgres
setting POSTGRES_DB "$POSTGRES_USER"
setting POSTGRES_INITDB_ARGS
: "${POSTGRES_HOST_AUTH_METHOD:=}"

mkdir -p "$PGDATA" ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"}
chmod 0700 "$PGDATA" || true
if [[ $(id -u) == 0 ]]; then
    find "$PGDATA" ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} \! -user postgres -exec chown postgres '{}' +
    exec gosu postgres "$0" "$@"
fi

if [[ -s $PGDATA/PG_VERSION ]]; then
    echo 'PostgreSQL Database directory appears to contain a database; Skipping initialization'
else
    shopt -s nullglob
    make_cluster
    fill_cluster "${@:2}"
    echo 'PostgreSQL init process complete; ready for start up.'
fi
unset POSTGRES_PASSWORD
exec "$@"
