#!/usr/bin/env bash
# The job of one task with nothing but git, files and Docker: what provision and teardown are measured against.
#   bare.sh up|down|up-overlapped|down-overlapped WORKSPACE IMAGE TASK PORT
set -euo pipefail
verb=$1 root=$2 image=$3 task=$4 port=$5
container=bare_bautista_testing_$task

start_database() {
    docker run --detach --name "$container" --publish "127.0.0.1:$port:5432" \
        --env POSTGRES_PASSWORD=bare "$image" -c fsync=off >/dev/null
}

wait_for_database() {
    until PGPASSWORD=bare psql --host 127.0.0.1 --port "$port" --username postgres --command 'select 1' >/dev/null 2>&1; do
        sleep 0.02
    done
}

make_worktree() { # repository; thirty at once in one repository fail now and then, hence the lock
    flock "$root/$1/.git" git -C "$root/$1" worktree add --quiet -B "$task" "$root/$1/.worktrees/$task" HEAD
}

make_backend() {
    make_worktree bautista-backend
    local tree=$root/bautista-backend/.worktrees/$task
    flock "$root/bautista-backend/migrations" git -C "$root/bautista-backend/migrations" worktree add --quiet -B "$task" "$tree/migrations" HEAD
    ln -s "$root/bautista-backend/vendor" "$tree/vendor"
    for file in "$tree/.env.test" "$tree/migrations/.env.test"; do
        sed -e "s|^DB_PORT=.*|DB_PORT=$port|" -e "s|^DB_PASSWORD=.*|DB_PASSWORD=bare|" \
            -e "s|^DOCKER_COMPOSE_PATH=.*|DOCKER_COMPOSE_PATH=$tree/docker-compose.yml|" \
            "$root/bautista-backend/.env.test" >"$file"
    done
}

make_app() {
    make_worktree bautista-app
    mkdir "$root/bautista-app/.worktrees/$task/php"
    ln -s "$root/bautista-app/node_modules" "$root/bautista-app/.worktrees/$task/node_modules"
    printf "<?php\nconst DB_PORT = %s;\n" "$port" >"$root/bautista-app/.worktrees/$task/php/constants.php"
}

make_informes() {
    make_worktree informes
    ln -s "$root/informes/vendor" "$root/informes/.worktrees/$task/vendor"
    printf "<?php\nconst DB_PORT = %s;\n" "$port" >"$root/informes/.worktrees/$task/constants.php"
}

remove_backend() {
    local tree=$root/bautista-backend/.worktrees/$task
    flock "$root/bautista-backend/migrations" \
        git -C "$root/bautista-backend/migrations" worktree remove --force "$tree/migrations"
    rm -rf "$tree"
    flock "$root/bautista-backend/.git" git -C "$root/bautista-backend" worktree prune
}

remove_worktree() { # repository
    flock "$root/$1/.git" git -C "$root/$1" worktree remove --force "$root/$1/.worktrees/$task"
}

remove_database() { docker rm --force --volumes "$container" >/dev/null; }

case $verb in
up)
    start_database
    make_backend
    make_app
    make_informes
    make_worktree docs
    wait_for_database
    ;;
down)
    remove_backend
    for repository in bautista-app informes docs; do remove_worktree "$repository"; done
    remove_database
    ;;
up-overlapped)
    start_database &
    make_backend &
    make_app &
    make_informes &
    make_worktree docs &
    wait
    wait_for_database
    ;;
down-overlapped)
    remove_backend &
    for repository in bautista-app informes docs; do remove_worktree "$repository" & done
    remove_database &
    wait
    ;;
esac
