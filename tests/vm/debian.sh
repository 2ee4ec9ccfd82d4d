# shellcheck shell=bash
# debian.sh, read by run.sh and dev.sh after machine.sh: machines with Debian's systemd as first process. Their
# base system is an archive that is made once and kept in target/vm; what a test adds is laid over it.

debian_suite=bookworm
# what mapdev needs, and programs that use /dev
debian_packages=systemd,systemd-sysv,udev,dbus,polkitd,kmod,login,procps,cryptsetup-bin,mdadm,lvm2,fuse3,bindfs,nbd-client,nbd-server,tmux,initramfs-tools

# shellcheck disable=SC2016 # mmdebstrap expands its $1
make_base() {
    echo "# making the base system, once"
    local excluded=() path
    for path in doc man locale info zoneinfo lintian bug; do
        excluded+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    mmdebstrap --quiet --variant=minbase "--include=$debian_packages" "${excluded[@]}" \
        --customize-hook='echo 0123456789abcdef0123456789abcdef >"$1/etc/machine-id"' \
        --customize-hook='rm -rf "$1"/usr/lib/x86_64-linux-gnu/gconv "$1"/usr/lib/udev/hwdb.d "$1"/var/cache/* "$1"/var/lib/apt/lists/*' \
        "$debian_suite" "${work:?}/base.tar"
    bsdtar -cf "$work/base.cpio" --format=newc "@$work/base.tar"
    rm "$work/base.tar"
    mv "$work/base.cpio" "$base"
}

# another list of packages, or another way to make it, is another base
base=${folder:?}/base-$( (declare -f make_base; echo "$debian_packages") | sha256sum | cut -c1-12).cpio
[ -e "$base" ] || make_base

# new_overlay SCRIPT: an empty $guest to be laid over the base; SCRIPT runs when the machine is up, and the
# machine ends with it
new_overlay() {
    rm -rf "${guest:?}"
    mkdir -p "$guest"/{root,etc/systemd/system,usr/lib}
    install -m 0755 "$1" "$guest/root/guest.sh"
    cp tests/vm/tap.sh "$guest/root/"
    cat >"$guest/etc/systemd/system/mapdev-check.service" <<'UNIT'
[Unit]
Description=mapdev's checks
After=multi-user.target dbus.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/root/guest.sh
StandardOutput=file:/dev/ttyS1
StandardError=journal+console
Environment=LC_ALL=C SYSTEMD_PAGER= SYSTEMD_COLORS=0 HOME=/root
UNIT
}

# install_mapdev FOLDER: the programs of FOLDER in $guest, as its device manager, and the map as its /dev
install_mapdev() {
    local unit
    install -D -m 0755 -s "$1/mapdevd" "$guest/usr/sbin/mapdevd"
    install -D -m 0755 -s "$1/mapdevctl" "$guest/usr/bin/mapdevctl"
    install -D -m 0755 -s "$1/mapdev-probe" "$guest/usr/lib/mapdev/mapdev-probe"
    install -D -m 0644 -t "$guest/usr/lib/systemd/system" units/mapdevd.service units/mapdevd-kernel.socket
    install -D -m 0644 -t "$guest/usr/share/dbus-1/system.d" dbus/org.mapdev1.conf
    install -D -m 0644 -t "$guest/usr/share/dbus-1/system-services" dbus/org.mapdev1.service
    install -D -m 0644 -t "$guest/usr/share/polkit-1/actions" dbus/org.mapdev1.policy
    # as packaging/active says
    cp -r packaging/active/* "$guest/usr/lib/systemd/system/"
    install -d "$guest/etc/mapdev" "$guest/etc/systemd/system/sysinit.target.wants"
    printf 'mode = "active"\nmount-dev = true\n' >"$guest/etc/mapdev/mapdev.toml"
    for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket; do
        ln -s /dev/null "$guest/etc/systemd/system/$unit"
    done
    ln -s /usr/lib/systemd/system/mapdevd.service "$guest/etc/systemd/system/sysinit.target.wants/"
    ln -s /usr/lib/systemd/system/mapdevd.service "$guest/etc/systemd/system/dbus-org.mapdev1.service"
    install -D -m 0755 packaging/initramfs/hook "$guest/usr/share/initramfs-tools/hooks/mapdev"
    install -D -m 0755 -t "$guest/usr/share/mapdev/initramfs" packaging/initramfs/init-top packaging/initramfs/init-bottom
}

# add_shim RELEASE
add_shim() {
    install -D -m 0644 -t "$guest/lib/modules/$1/extra" "target/shim/$1/mapdevfs/mapdevfs.ko"
}

# pack_overlay RELEASE: base and $guest into the initramfs
pack_overlay() {
    usr_merge "$1"
    (cd "$guest" && find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0) >"$work/overlay.cpio"
    # archives may follow each other, each at a multiple of four bytes
    cat "$base" "$work/overlay.cpio" >"$work/initrd"
}

# usr_merge RELEASE: in the base, /lib is a link
usr_merge() {
    mv "$guest/lib" "$guest/usr/lib.new"
    cp -r "$guest/usr/lib.new/." "$guest/usr/lib/"
    rm -r "$guest/usr/lib.new"
    depmod -b "$guest/usr" "$1"
}

# shellcheck disable=SC2034 # of who reads this
debian_words="rdinit=/sbin/init systemd.wants=mapdev-check.service systemd.mask=serial-getty@ttyS0.service systemd.mask=getty@tty1.service"
