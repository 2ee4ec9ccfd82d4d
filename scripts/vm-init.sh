#!/bin/sh
# The first process of the machine that vm.sh boots.
export PATH=/sbin:/bin:/usr/bin HOME=/home TERM=linux
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs -o nosuid dev /dev
mount -t tmpfs -o mode=0755 run /run
mkdir /dev/pts /dev/shm /run/dbus
mount -t devpts -o ptmxmode=0666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
for link in "fd /proc/self/fd" "stdin /proc/self/fd/0" "stdout /proc/self/fd/1" "stderr /proc/self/fd/2"; do
    ln -s "${link#* }" "/dev/${link%% *}"
done
hostname vm
dbus-daemon --config-file=/etc/bus.conf --fork
mapdevd >/run/mapdevd.log 2>&1 &
tries=0
until mapdevctl settle >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { cat /run/mapdevd.log; break; }
    sleep 0.1
done
cat <<TEXT

Linux $(uname -r); /dev is $(grep -c ' /dev mapdevfs' /proc/mounts | sed 's/^0$/not the map/; s/^[1-9].*/the map/'). Try:
  mapdevctl shim status                   what the kernel serves
  lsmod; ls -l /dev/net/tun; lsmod        looking at a name loads nothing
  su user -c ': <>/dev/net/tun'; lsmod    who may open it, loads its module
  chown user /dev/tty1; mapdevctl explain tty1
  mapdevctl map dump | grep zram0         a name without a number yet
  mapdevctl shim detach /dev              devtmpfs again, while it runs; attach: the map
  cat /run/mapdevd.log; poweroff
TEXT
cd /home || true
# what busybox's halt, poweroff and reboot tell the first process
trap 'busybox halt -f' USR1
trap 'busybox poweroff -f' USR2
trap 'busybox reboot -f' TERM
PS1='vm# ' setsid cttyhack sh </dev/ttyS0 >/dev/ttyS0 2>&1 &
wait $!
busybox poweroff -f
