#!/usr/bin/env bash
# dkms.sh PACKAGE.deb: installs mapdevfs-dkms in a Debian with DKMS and the headers of two kernels, stable's
# and its backports', and looks at what was built; removes it again. Then once more where mapdev, whose package
# is in the same folder, is in the initramfs. Prints lines of TAP. Wants root.
#
# The Debian is made once and kept in target/vm; what is written to it is thrown away.
# shellcheck disable=SC2317 # called by check
set -euo pipefail
cd "$(dirname "$0")/.."

deb=$(realpath "$1")
folder=$PWD/target/vm
mirror=http://deb.debian.org/debian

make_base() {
    echo "# making a Debian with DKMS, once"
    rm -rf "$base.new"
    # a second kernel's headers beside the first's: its package by its own name
    # shellcheck disable=SC2016 # mmdebstrap expands its $1
    mmdebstrap --quiet --variant=minbase --include=dkms,gcc,make,linux-headers-cloud-amd64,initramfs-tools \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook="echo 'deb $mirror bookworm-backports main' >\"\$1/etc/apt/sources.list.d/backports.list\"" \
        --customize-hook='chroot "$1" apt-get -qq update' \
        --customize-hook='chroot "$1" apt-get -qq -y install -t bookworm-backports linux-headers-cloud-amd64 >/dev/null' \
        --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
        bookworm "$base.new"
    mv "$base.new" "$base"
}

base=$folder/dkms-$( declare -f make_base | sha256sum | cut -c1-12)
mkdir -p "$folder"
[ -d "$base" ] || make_base

if [ "${INSIDE:-}" != yes ]; then
    exec env INSIDE=yes unshare --mount --propagation private "$0" "$deb"
fi
work=$(mktemp -d)
trap 'umount -R "$work/root" 2>/dev/null; umount "$work"; rmdir "$work"' EXIT
mount -t tmpfs work "$work"
mkdir "$work"/{root,upper,work}
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
root=$work/root
mount -t proc proc "$root/proc"
cp "$deb" "$root/root/mapdevfs.deb"
dpkg-deb -x "${deb%/*}"/mapdev_*.deb "$root"

count=0 failed=0
check() {
    local name=$1
    shift
    count=$((count + 1))
    if "$@" >"$work/said" 2>&1; then echo "ok $count - $name"; else
        echo "not ok $count - $name"
        sed 's/^/#   /' "$work/said"
        failed=1
    fi
}
releases() { (cd "$root/lib/modules" && ls -d ./*-amd64/build) | cut -d/ -f2; }
built() {
    local file
    chroot "$root" dkms status
    file=$(find "$root/lib/modules/$1/updates" -name 'mapdevfs.ko*' | grep .) || {
        cat "$root"/var/lib/dkms/mapdevfs/*/build/make.log
        return 1
    }
    modinfo -F vermagic "$file" | grep "^$1 "
}
initramfs_made() {
    local release boot=$root/boot
    for release in $(releases); do
        # of a kernel whose headers alone are there
        [ -e "$boot/config-$release" ] || echo CONFIG_RD_GZIP=y >"$boot/config-$release"
        [ -e "$boot/vmlinuz-$release" ] || : >"$boot/vmlinuz-$release"
        chroot "$root" update-initramfs -c -k "$release" || return 1
    done
}
# of how many kernels it is in the initramfs
in_initramfs() {
    local image found=0
    for image in "$root"/boot/initrd.img-*; do
        ! chroot "$root" lsinitramfs "/boot/${image##*/}" | grep "/$1\$" || found=$((found + 1))
    done
    echo "in $found"
    [ "$found" -eq "$2" ]
}
in_each() { in_initramfs "$1" "$(releases | wc -l)"; }
in_none() { in_initramfs "$1" 0; }
mapdev_wanted() { sed -i "s/^MAPDEV=.*/MAPDEV=$1/" "$root/etc/mapdev/initramfs.conf"; }
none_left() { [ -z "$(find "$root/lib/modules" "$root/usr/src" -name 'mapdevfs*')" ]; }

check "there are the headers of two kernels" [ "$(releases | wc -l)" -ge 2 ]
check "the package installs" chroot "$root" dpkg -i /root/mapdevfs.deb
for release in $(releases); do
    check "DKMS has built the module for $release" built "$release"
done
check "the package is removed" chroot "$root" dpkg -P mapdevfs-dkms
check "nothing is left" none_left
mapdev_wanted yes
check "an initramfs with mapdevd is made for each kernel" initramfs_made
check "mapdevd is in them" in_each mapdevd
check "there is no module for it" in_none mapdevfs.ko
check "the package installs, and makes them anew" chroot "$root" dpkg -i /root/mapdevfs.deb
check "each with the module" in_each mapdevfs.ko
check "the package is removed" chroot "$root" dpkg -r mapdevfs-dkms
check "and the module is gone from each initramfs" in_none mapdevfs.ko
mapdev_wanted no
check "where mapdev is not in the initramfs, the package installs" chroot "$root" dpkg -i /root/mapdevfs.deb
check "and leaves the initramfs alone" in_none mapdevfs.ko
rm "$root/usr/sbin/update-initramfs"
mapdev_wanted yes
check "without update-initramfs it installs too" chroot "$root" dpkg -i /root/mapdevfs.deb
echo "1..$count"
exit $failed
