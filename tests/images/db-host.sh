#!/usr/bin/env bash
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Boots a machine that lets the key in SSH_PUBLIC_KEY in as "worker" and as root. Run anew, by "docker restart", it is
# the same machine rebooted.
set -eu
for user in worker root; do
    home=$(getent passwd "$user" | cut -d: -f6)
    install -d -m 700 -o "$user" -g "$user" "$home/.ssh"
    install -m 600 -o "$user" -g "$user" /dev/stdin "$home/.ssh/authorized_keys" <<<"$SSH_PUBLIC_KEY"
done
ssh-keygen -A >/dev/null
# The kernel's loop devices, of which only those that are there at the start would have a name.
for number in {0..63}; do
    [[ -e /dev/loop$number ]] || mknod -m 660 "/dev/loop$number" b 7 "$number"
done
[[ -e /dev/loop-control ]] || mknod -m 660 /dev/loop-control c 10 237
exec /lib/systemd/systemd --log-target=console --show-status=no
