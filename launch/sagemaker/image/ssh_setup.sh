#!/bin/bash
# While the image is built: a key with which its own containers, and nobody else, reach each other.
set -eu
root=${1:-}  # of the file system; empty in an image
mkdir -p "$root/root/.ssh" "$root/run/sshd"
chmod 700 "$root/root/.ssh"
rm -f "$root/root/.ssh/id_ed25519"
ssh-keygen -q -t ed25519 -N '' -f "$root/root/.ssh/id_ed25519"
cp "$root/root/.ssh/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
printf 'Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n' >"$root/root/.ssh/config"
chmod 600 "$root/root/.ssh/authorized_keys" "$root/root/.ssh/config"
