#!/bin/sh
# Starts mapdevd in shadow mode with a runtime folder and a bus of its own, and shows what it does.
# It needs no privilege, touches nothing outside that folder, and removes it at the end.
set -eu
cd "$(dirname "$0")/.."

mapdevd=target/release/mapdevd
if command -v cargo >/dev/null && { [ -w target ] || [ ! -e target ]; }; then
    scripts/need.sh gcc libc6-dev dbus-daemon
    cargo build --release --locked --bins
elif [ -x $mapdevd ]; then
    scripts/need.sh dbus-daemon
else
    echo "run: no $mapdevd and no way to build it: install the Rust toolchain (rustup.rs)" >&2
    exit 1
fi

parent=${XDG_RUNTIME_DIR:-/tmp}
[ -w "$parent" ] || parent=/tmp
folder=$(mktemp -d "$parent/mapdev-run.XXXXXX")
bus_pid='' mapdevd_pid=''
# shellcheck disable=SC2317 # called by trap
cleanup() {
    trap - EXIT INT TERM HUP
    for pid in $mapdevd_pid $bus_pid; do
        kill "$pid" 2>/dev/null || true
    done
    if [ -n "$mapdevd_pid" ]; then
        wait "$mapdevd_pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 0' INT
trap 'exit 143' TERM HUP

# the shipped bus policy, with the one who runs this in root's place
sed "s/<policy user=\"root\">/<policy user=\"$(id -un)\">/; /^<!DOCTYPE/,/>\$/d; /^<?xml/d" dbus/org.mapdev1.conf >"$folder/policy.conf"
cat >"$folder/bus.conf" <<EOF
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=$folder/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>$folder/policy.conf</include>
</busconfig>
EOF
# --fork returns once the bus listens
bus_pid=$(dbus-daemon --config-file="$folder/bus.conf" --fork --nopidfile --print-pid)

echo "bus:     busctl --address=unix:path=$folder/bus tree org.mapdev1"
echo "stop:    Ctrl-C"
echo
$mapdevd --mode shadow --present --runtime "$folder/run" --bus "unix:path=$folder/bus" &
mapdevd_pid=$!
status=0
wait "$mapdevd_pid" || status=$?
mapdevd_pid=
exit "$status"
