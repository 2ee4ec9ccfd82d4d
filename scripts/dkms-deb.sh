#!/bin/sh
# Packs the kernel module's source for DKMS: target/debian/mapdevfs-dkms_VERSION_all.deb
set -eu
cd "$(dirname "$0")/.."

scripts/need.sh dpkg-dev
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' kmod-shim/dkms.conf)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
source=$root/usr/src/mapdevfs-$version
doc=$root/usr/share/doc/mapdevfs-dkms
install -d "$root/DEBIAN"
install -D -m 0644 -t "$source" kmod-shim/*.[ch] kmod-shim/Kbuild kmod-shim/Makefile kmod-shim/dkms.conf
install -D -m 0644 kmod-shim/README "$doc/README"
install -D -m 0644 packaging/dkms/copyright "$doc/copyright"
sed "s/VERSION/$version/; s/^mapdev /mapdevfs-dkms /" packaging/debian/changelog | gzip -9n >"$doc/changelog.Debian.gz"
chmod 0644 "$doc/changelog.Debian.gz"
sed "s/VERSION/$version/" packaging/dkms/control >"$root/DEBIAN/control"
for script in postinst prerm; do
    sed "s/VERSION/$version/" "packaging/dkms/$script" >"$root/DEBIAN/$script"
    chmod 0755 "$root/DEBIAN/$script"
done
(cd "$root" && find usr -type f -exec md5sum {} +) >"$root/DEBIAN/md5sums"
mkdir -p target/debian
rm -f target/debian/mapdevfs-dkms_*.deb
dpkg-deb --root-owner-group --build "$root" "target/debian/mapdevfs-dkms_$version-1_all.deb"
