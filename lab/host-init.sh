#!/bin/sh
# The first process of a host, in namespaces of its own: builds a root of overlays in which nothing
# is shared for writing, turns it into an EL9 machine, moves into it, then only reaps orphans, and
# plays a reboot when `reboot` is run there: everything is killed, and the boot id is another one.
# Started again over the same layers it is the same host.
#   host-init.sh NAME DIRECTORY LAYERS SITE HIDE... -- NEED...
# DIRECTORY/files is copied over the new root. HIDE: directories a host must not see. NEED:
# directories it must see although they are hidden or on another file system.
set -eu
umask 022
name=$1 dir=$2 layers=$3 site=$4
shift 4
root=$dir/root
count=0

overlay() { # the directory $1 at the same place in the new root, writable and private
    count=$((count + 1))
    mkdir -p "$layers/$count/up" "$layers/$count/wk" "$root$1"
    mount -t overlay "lab-$name" -o "lowerdir=$1,upperdir=$layers/$count/up,workdir=$layers/$count/wk" "$root$1"
}

overlay /
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/sshd" "$root/run/lock"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
while read -r node major minor; do
    mknod -m 666 "$root/dev/$node" c "$major" "$minor"
done <<EOF
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
EOF
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"

while [ "$1" != -- ]; do
    if [ -d "$root$1" ]; then mount -t tmpfs -o mode=755 hidden "$root$1"; fi
    shift
done
shift
for path; do
    if [ -z "$(ls -A "$root$path" 2>/dev/null)" ]; then overlay "$path"; fi
done

furnish() { # what the first boot makes of a copy of this machine
    # A host has Salt, but not the library: what is pip-installed on the master is not on minions.
    # Everything below $root is an overlay or a tmpfs, so nothing real is removed here.
    rm -rf "$root$site"/cpacman "$root$site"/cpacman-*.dist-info "$root$site"/__editable__*cpacman* \
        "$root/etc/apt" "$root/etc/debian_version" "$root/etc/dnf" "$root/etc/os-release" "$root/etc/rpm" \
        "$root/etc/salt" "$root/etc/yum.repos.d" \
        "$root"/var/cache/apt "$root"/var/cache/cpacman "$root"/var/cache/dnf "$root"/var/cache/salt \
        "$root"/var/lib/apt "$root"/var/lib/cpacman "$root"/var/lib/dnf "$root"/var/lib/dpkg \
        "$root"/var/lib/rpm "$root"/var/log/salt
    mkdir -p "$root/etc/rpm" "$root/etc/salt" "$root/var/lib/dnf" "$root/var/lib/rpm"
    mkdir -m 700 "$root/root/.ssh"
    chmod 700 "$root/root"

    cat >"$root/etc/os-release" <<EOF
NAME="AlmaLinux"
VERSION="9.4 (Seafoam Ocelot)"
ID="almalinux"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.4"
PLATFORM_ID="platform:el9"
PRETTY_NAME="AlmaLinux 9.4 (Seafoam Ocelot)"
EOF
    echo "AlmaLinux release 9.4 (Seafoam Ocelot)" >"$root/etc/redhat-release"
    echo '%_dbpath /var/lib/rpm' >"$root/etc/rpm/macros"
    echo "$name" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$root/etc/hosts"
    rm -f "$root/etc/resolv.conf"
    : >"$root/etc/resolv.conf"
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    rm -f "$root/usr/sbin/reboot"
    printf '#!/bin/sh\nkill -USR1 1\n' >"$root/usr/sbin/reboot"
    chmod 755 "$root/usr/sbin/reboot"
}

again=$root/etc/lab.booted
if [ ! -e "$again" ]; then furnish; fi
cat /proc/sys/kernel/random/uuid >"$root/run/lab.boot"
mount --bind "$root/run/lab.boot" "$root/proc/sys/kernel/random/boot_id"
# Later boots find all but what lies in memory on the disk.
(cd "$dir/files" && find . -type f) | while read -r file; do
    case $file in ./run/*) ;; *) if [ -e "$again" ]; then continue; fi ;; esac
    mkdir -p "$(dirname "$root/$file")"
    cp -p "$dir/files/$file" "$root/$file"
done
: >"$again"

hostname "$name"
cd "$root"
pivot_root . .
umount -l .
cd /
[ ! -x /etc/lab.init ] || exec /etc/lab.init
: >/run/lab.ready
reboot() {
    kill -9 -1 || :
    cat /proc/sys/kernel/random/uuid >/run/lab.boot
}
trap : TERM INT HUP
trap reboot USR1
while :; do
    sleep 3600 &
    wait || :
done
