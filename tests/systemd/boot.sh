#!/bin/bash
# Turns fresh namespaces into a machine and becomes its PID 1: the systemd of this one, on a throw-away overlay of its root.
# Run by tests/src/systemd.rs, below unshare (mount, pid, cgroup, uts, ipc and net namespaces), with one argument: a folder
# of the host, which stays visible inside at the same path. Nothing outside that folder is ever written.
set -eu
folder=$1
root=$folder/mnt/root

mount_root() {
    mkdir -p "$folder/mnt"
    mount -t tmpfs -o mode=755 tmpfs "$folder/mnt"
    mkdir "$folder"/mnt/{upper,work,root}
    mount -t overlay -o "lowerdir=/,upperdir=$folder/mnt/upper,workdir=$folder/mnt/work" overlay "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
}

mount_devices() {
    local name
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for name in null zero full random urandom tty; do
        : >"$root/dev/$name"
        mount --bind "/dev/$name" "$root/dev/$name"
    done
    mkdir "$root"/dev/{pts,shm}
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
}

# Nothing that the host has enabled may start here, and its journal is none of our business.
forget_the_host() {
    rm -rf "$root"/etc/systemd/system/*.wants "$root/var/log/journal"
    : >"$root/etc/fstab"
    echo bulkhead-test >"$root/etc/hostname"
    [ -s "$root/etc/machine-id" ] || systemd-machine-id-setup --root="$root"
}

mount_root
mount_devices
forget_the_host
mkdir "$root/.old"
cd "$root"
pivot_root . .old
umount -l /.old
exec env -i container=bulkhead-test PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no </dev/null
