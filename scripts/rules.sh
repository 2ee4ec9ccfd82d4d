#!/usr/bin/env bash
# rules.sh: the udev rules of Debian packages that ship some, in target/rules/PACKAGE/FILE. Nothing is
# installed. Prints the folder.
set -euo pipefail
cd "$(dirname "$0")/.."

# those that are asked for most, and others that are small to fetch
packages=(
    alsa-utils bluez btrfs-progs dmsetup kpartx libgphoto2-6 libinput-bin libmtp-common libsane1 lvm2 mdadm
    modemmanager multipath-tools network-manager nvme-cli open-iscsi openocd open-vm-tools rdma-core
    sg3-utils-udev steam-devices stlink-tools thunderbolt-tools udev udisks2 upower usbmuxd
    android-sdk-platform-tools-common argyll avrdude bolt bridge-utils colord concordance-common
    console-setup-linux ddcutil dfu-util driverctl feedbackd gfs2-utils hdmi2usb-udev hdparm i2c-tools
    iio-sensor-proxy inputattach ir-keytable joystick ledger-wallets-udev libairspy0 libbladerf2 libccid
    libfprint-2-2 libhackrf0 libmirisdr0 libnitrokey-common libopenni2-0 librtlsdr0 libsigrok4
    libticables2-8 libwacom-common libyubikey-udev limesuite-udev liquidctl media-player-info mtkbabel
    mutter-common nfs-common nut-ipmi pcmciautils pipewire-bin projecteur sane-utils scdaemon solaar
    spice-vdagent srptools sunxi-tools teensy-loader-cli tpm-udev triggerhappy udftools usb-modeswitch-data
    usbrelay xr-hardware
)
folder=$PWD/target/rules
stamp=$folder/.packages

if [ "$(cat "$stamp" 2>/dev/null)" != "${packages[*]}" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    rm -rf "$folder"
    mkdir -p "$folder"
    # no or old package lists: fetch them once and try again
    fetch() { (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "${packages[@]}"); }
    fetch 2>/dev/null || { apt-get -qq update && fetch; }
    for package in "$work"/*.deb; do
        name=${package##*/}
        name=${name%%_*}
        mkdir "$folder/$name"
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$folder/$name" --transform 's|.*/||' --wildcards \
            --no-anchored '*/udev/rules.d/*.rules' 2>/dev/null || rmdir --ignore-fail-on-non-empty "$folder/$name"
    done
    echo "${packages[*]}" >"$stamp"
fi
echo "$folder"
