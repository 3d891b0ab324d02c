#!/usr/bin/env bash
# Copyright (c) parallel.worktrees contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Lets the key in SSH_PUBLIC_KEY in as "worker" and as root, with host keys that no other container has.
set -eu
for user in worker root; do
    home=$(getent passwd "$user" | cut -d: -f6)
    install -d -m 700 -o "$user" -g "$user" "$home/.ssh"
    install -m 600 -o "$user" -g "$user" /dev/stdin "$home/.ssh/authorized_keys" <<<"$SSH_PUBLIC_KEY"
done
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
exec /usr/sbin/sshd -D -e -o PasswordAuthentication=no -o MaxStartups=100 -o UseDNS=no
