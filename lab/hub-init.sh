#!/bin/sh
# The first process of a lab, inside its own mount, network and pid namespaces: makes what the
# master could write to private, lays the bridge, then only reaps orphans. Its standard input is
# the lab's locked file: while it lives the lock is held.
#   hub-init.sh DIRECTORY ADDRESS/BITS KEEP...
# KEEP: directories that must stay the real ones (the checkout, the lab's own, the Python in use).
set -eu
umask 022
dir=$1 address=$2
shift 2

# A file system that cannot hold an overlay's upper layer (an overlay, in a container).
if [ "$(stat -f -c %T "$dir")" = overlayfs ]; then
    mkdir -p "$dir/layers"
    mount -t tmpfs -o mode=700 lab "$dir/layers"
fi

# File descriptors 3 to 9 hold the directories to keep, since their paths vanish below the overlays.
fd=3
for path; do
    eval "exec $fd<\"\$path\""
    fd=$((fd + 1))
done
for top in etc root srv var; do
    mkdir -p "$dir/layers/hub/$top/up" "$dir/layers/hub/$top/wk"
    mount -t overlay lab -o "lowerdir=/$top,upperdir=$dir/layers/hub/$top/up,workdir=$dir/layers/hub/$top/wk" "/$top"
done
fd=3
for path; do
    case $path in
        /etc/* | /root/* | /srv/* | /var/*) mount -c --bind "/proc/self/fd/$fd" "$path" ;;
    esac
    eval "exec $fd<&-"
    fd=$((fd + 1))
done
rm -rf /etc/salt /root/.ssh /root/.rpmdb /var/lib/rpm /var/lib/cpacman /var/cache/cpacman
mkdir -p -m 700 /root/.ssh
mkdir -p /etc/rpm /var/lib/rpm
echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros
ln -s "$dir/master/conf" /etc/salt

ip link set lo up
ip link add lab0 type bridge
ip addr add "$address" dev lab0
ip link set lab0 up

: >"$dir/hub.ready"
trap : TERM INT HUP
while :; do
    sleep 3600 &
    wait
done
