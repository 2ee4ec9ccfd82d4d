#!/bin/bash
# Runs inside the machine of dev.sh, as root: /dev is the map, and ordinary programs use it. One line a check, in
# TAP's form, with what was said where one fails.
set -u
# shellcheck source=tests/vm/tap.sh
. /root/tap.sh
said=/run/said
# until udev's cookies are answered
export DM_DISABLE_UDEV=1
cd /root || exit 1

# within COMMAND...: until it is true, for at most 20 s
within() {
    local tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            echo "not within 20 s: $*"
            "$@"
            return 1
        fi
        sleep 0.2
    done
}
is() { [ "$1" = "$2" ] || { echo "is '$1', wanted '$2'"; return 1; }; }
kind() { findmnt -n -o FSTYPE --target "$1" | tail -n 1; }
useradd -m user 2>/dev/null || echo 'user:x:1000:1000::/home/user:/bin/bash' >>/etc/passwd
as_user() { runuser -u user -- "$@"; }

# --- how it came to be
is_map() { is "$(stat -f -c %t /dev)" 6d617064; }
active() { is "$(systemctl is-active mapdevd)" active; }
everything_up() { is "$(systemctl --failed --plain --no-legend | grep -v mapdev-check)" ""; }
one_namespace() { is "$(readlink "/proc/$(systemctl show -P MainPID mapdevd)/ns/mnt")" "$(readlink /proc/1/ns/mnt)"; }
all_there() {
    local name
    for name in null zero full random urandom tty console ptmx pts/ptmx fd stdin stdout stderr core shm mqueue hugepages log \
        loop-control fuse net/tun char/1:3; do
        [ -e "/dev/$name" ] || { echo "no /dev/$name"; return 1; }
    done
    is "$(kind /dev/pts) $(kind /dev/shm) $(kind /dev/mqueue)" "devpts tmpfs mqueue"
}
check "mapdevd is the device manager" active
check "/dev is the map" is_map
check "it was mounted in the machine's namespace" one_namespace
check "all that Debian puts there is there" all_there
check "no unit has failed" everything_up

# --- programs
one='' two='' three='' four=''
image() { truncate -s "$2" "$1" && losetup -f --show "$1"; }
login() {
    mkdir -p /run/systemd/system/getty@tty2.service.d
    printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin user --noclear %%I linux\n' \
        >/run/systemd/system/getty@tty2.service.d/test.conf
    systemctl daemon-reload
    systemctl start getty@tty2.service
    within owned_by_user
}
owned_by_user() { is "$(stat -c %U /dev/tty2)" user; }
told() { is "$(mapdevctl --json info tty2 | grep -o '"origin":"[a-z]*"')" '"origin":"kernel"'; }
in_map() { is "$(mapdevctl map dump --numeric | awk -F '\t' '$6 == "tty2" { print $2, $9 }' | cut -d' ' -f1-3)" "1000 kernel: uid"; }
# more names than there is room for: the map is published anew
republish() {
    local publications n
    mkdir -p /etc/mapdev/policy.d
    { echo 'schema = 1'
        for n in $(seq 800); do
            printf '[[rule]]\nid = "n%s"\nmatch.devname = "many/name%s"\nset = { module = "nbd" }\n' "$n" "$n"
        done; } >/etc/mapdev/policy.d/50-many.toml
    publications=$(mapdevctl shim status | sed -n 's/^publications\t//p')
    mapdevctl reload && mapdevctl settle
    [ -e /dev/many/name800 ] || { echo "no /dev/many/name800"; return 1; }
    [ "$(mapdevctl shim status | sed -n 's/^publications\t//p')" -gt "$publications" ] || { echo "still $publications"; return 1; }
}
check "1. agetty and login take a terminal, and its owner changes" login
check "c6: the daemon tells of it as the kernel's change" within told
check "c6: the map has the new owner" in_map
check "c6: the map is published anew" republish
check "c6: the terminal's owner is kept" owned_by_user
systemctl stop getty@tty2.service
udev() { udevadm info /dev/null | grep -x 'E: DEVNAME=/dev/null' && udevadm info --export-db | grep -c '^P:'; }
check "2. udevadm info" udev
# who listens hears of devices: systemd itself, and udevadm
mkdir -p /run/udev/rules.d
echo 'SUBSYSTEM=="mem", KERNEL=="full", PROGRAM="/bin/sleep 1"' >/run/udev/rules.d/50-test.rules
triggered() { udevadm control --reload && timeout 20 udevadm trigger --settle --action=change /sys/class/mem/full; }
settled() {
    echo change >/sys/class/mem/full/uevent && timeout 20 udevadm settle && [ ! -e /run/udev/queue ]
}
plugged() {
    local disk unit
    truncate -s 1M plugged && disk=$(losetup -f --show plugged) && unit=dev-${disk#/dev/}.device &&
        timeout 20 udevadm wait --initialized=yes "$disk" && within systemctl is-active "$unit" &&
        losetup -d "$disk" && within gone "$unit"
}
gone() { is "$(systemctl is-active "$1")" inactive; }
check "2. udevadm trigger waits until it is done" triggered
check "2. udevadm settle" settled
check "2. systemd has a unit for a disk that comes, as long as it is there" plugged
loops() {
    # opening the name loads the module
    rmmod loop 2>/dev/null
    ! grep -q '^loop ' /proc/modules || { echo "loop is loaded and used"; return 1; }
    one=$(image one 32M) && two=$(image two 32M) && three=$(image three 64M) && four=$(image four 64M) &&
        losetup -l && is "$(blockdev --getsz "$one")" 65536
}
check "3. losetup loads its module and attaches files" loops
blocks() { lsblk -n -o NAME,TYPE,SIZE "$one" && lsblk -n -o NAME,TYPE,SIZE "$one" | grep -q 'loop *32M'; }
check "4. lsblk" blocks
crypt() {
    echo secret | cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 256 --hash sha256 "$one" secret &&
        [ -b /dev/mapper/secret ] && dd if=/dev/zero of=/dev/mapper/secret bs=64k count=4 conv=fsync &&
        ! cmp -n 4096 "$one" /dev/zero && cryptsetup status secret && cryptsetup close secret && within test ! -e /dev/mapper/secret
}
check "5. cryptsetup opens and closes an encrypted disk" crypt
raid() {
    mdadm --create /dev/md0 --run --level=1 --metadata=1.2 --raid-devices=2 "$one" "$two" &&
        mdadm --detail /dev/md0 && dd if=/dev/zero of=/dev/md0 bs=64k count=4 conv=fsync && mdadm --stop /dev/md0
}
check "6. mdadm makes and stops a mirror" raid
volumes() {
    local config=(--config 'devices{use_devicesfile=0} activation{udev_sync=0 udev_rules=0} backup{backup=0 archive=0}')
    vgcreate "${config[@]}" vg "$three" "$four" && lvcreate "${config[@]}" -y -Zn -L 8M -n lv vg && lvs "${config[@]}" &&
        [ -b /dev/vg/lv ] && dd if=/dev/zero of=/dev/vg/lv bs=64k count=4 conv=fsync &&
        vgchange "${config[@]}" -an vg && within test ! -e /dev/vg/lv
}
check "7. lvm makes, activates and deactivates a volume" volumes
fuse_mount() {
    mkdir -p /home/user/etc && chown user /home/user /home/user/etc &&
        as_user bindfs --no-allow-other /etc /home/user/etc && cmp /etc/passwd <(as_user cat /home/user/etc/passwd) &&
        as_user fusermount3 -u /home/user/etc
}
check "8. a user mounts a file system with fuse" fuse_mount
network_disk() {
    printf '[generic]\nallowlist = true\n[disk]\nexportname = /root/four\ncopyonwrite = false\n' >/run/nbd.conf
    chmod 0666 /root/four && chmod 0755 /root
    nbd-server -C /run/nbd.conf && modprobe nbd nbds_max=2 &&
        within nbd-client -N disk 127.0.0.1 /dev/nbd0 && within test "$(blockdev --getsz /dev/nbd0)" -eq 131072 &&
        cmp -n 65536 /dev/nbd0 /root/four && nbd-client -d /dev/nbd0
}
check "9. nbd-client attaches a disk of the network" network_disk
terminal() {
    # whose settings last as long as somebody has it open
    exec 5<>/dev/tty3
    stty -F /dev/tty3 -echo && stty -F /dev/tty3 -a | grep -- '-echo ' && stty -F /dev/tty3 sane
}
check "10. stty sets a terminal" terminal
new_terminal() { as_user script -qc 'tty && echo writable >/dev/tty' /dev/null | tr -d '\r' | tr '\n' ' ' | grep -x '/dev/pts/[0-9]* writable '; }
tmux_works() {
    as_user tmux new-session -d 'tty >/tmp/tmux-tty; sleep 20' && within test -s /tmp/tmux-tty &&
        grep '^/dev/pts/' /tmp/tmux-tty && as_user tmux kill-server
}
check "11. script opens a new terminal" new_terminal
check "11. tmux, too" tmux_works
logs() { logger -t mapdev-check "word $1" && within sh -c "journalctl -t mapdev-check -o cat | grep -qx 'word $1'"; }
check "12. logger writes to /dev/log" logs one

# --- there and back while all of it runs
printf '[Service]\nExecStart=/bin/sleep 1000\nPrivateTmp=yes\n' >/run/systemd/system/private.service
systemctl daemon-reload && systemctl start private.service
inside() { is "$(stat -f -c %t "/proc/$(systemctl show -P MainPID private)/root/dev")" "$1"; }
mkdir /dev/mine && echo text >/dev/mine/file && ln -s ../null /dev/mine/link
python_free_socket() { systemd-run --unit=listener --socket-property=ListenStream=/dev/listener --property=StandardInput=socket /bin/echo hello; }
check "a socket of userspace's in /dev" python_free_socket
mounts() { findmnt -rn -o TARGET,FSTYPE | grep '^/dev/' | sort -u; }
mounts >/run/mounts.before
same_mounts() { mounts | grep -v '^/dev/listener ' >/run/mounts.now && diff <(grep -v '^/dev/listener ' /run/mounts.before) /run/mounts.now; }
mine() { is "$(cat /dev/mine/file) $(readlink /dev/mine/link)" "text ../null" && [ -S /dev/listener ]; }
switch() { mapdevctl shim "$1" /dev; }
is_devtmpfs() { is "$(stat -f -c %T /dev)" tmpfs; }
check "a service with mounts of its own has the map" inside 6d617064
check "/dev becomes devtmpfs while everything runs" switch detach
check "that is so" is_devtmpfs
check "in the service, too" inside 1021994
check "with the same mounts" same_mounts
check "and what userspace made" mine
check "a new terminal" new_terminal
check "logger" logs two
check "/dev becomes the map again" switch attach
check "that is so, once more" is_map
check "with the same mounts" same_mounts
check "and what userspace made" mine
check "a new terminal" new_terminal
check "logger" logs three
check "no unit has failed" everything_up

# --- the daemon dies
main_pid() { systemctl show -P MainPID mapdevd; }
another() { active && [ "$(main_pid)" != 0 ] && [ "$(main_pid)" != "$1" ]; }
dies() {
    local before
    before=$(main_pid)
    systemctl kill -s KILL mapdevd && head -c 1 /dev/zero >/dev/null && within another "$before"
}
same() { within mapdevctl status && is "$(stat -c %U /dev/tty2 2>&1)" "$1"; }
chown user /dev/tty2
check "the daemon is killed and comes back" dies
check "it goes on with the same owners" same user
check "the kernel kept the map" sh -c 'journalctl -u mapdevd -o cat | grep -q "goes on with the map of the last run"'

journalctl -b -u mapdevd --no-pager -o short-monotonic | grep -v 'many/name' | head -n 60 | sed 's/^/#   /'
systemd-analyze 2>&1 | sed 's/^/# /' | head -n 2
echo "1..$count"
