#!/bin/sh
# Turns a host's first process into systemd, once the host has its own root: cgroups of its own,
# and no unit of this machine but those that any system needs.
# The units that the lab brings lie in /run/systemd/system.
set -eu
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
if grep -q '^[0-9]*:name=systemd:' /proc/self/cgroup; then
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
if [ ! -e /etc/lab.systemd ]; then
    rm -rf /etc/systemd/system /etc/init.d
    mkdir -p /etc/systemd/system /etc/init.d
    : >/etc/fstab
    : >/etc/lab.systemd
fi
for unit in dev-hugepages.mount dev-mqueue.mount getty.target sys-fs-fuse-connections.mount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    systemd-journald-audit.socket systemd-modules-load.service systemd-random-seed.service \
    systemd-remount-fs.service systemd-resolved.service systemd-sysctl.service \
    systemd-timesyncd.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup.service \
    systemd-udev-trigger.service systemd-udevd.service; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
: >/run/lab.ready
export container=lab
exec /lib/systemd/systemd --system --unit=lab.target --show-status=no </dev/null
