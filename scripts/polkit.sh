#!/bin/sh
# Installs dbus/org.mapdev1.policy into a scratch polkit, in a mount namespace of its own, and asks a
# real polkitd for every action: one word that polkit does not know makes it ignore the whole file.
# Then compares the actions with those that the source names.
set -eu
cd "$(dirname "$0")/.."

if [ "${1:-}" != inside ]; then
    exec unshare --mount --propagation private "$0" inside
fi

ids=$(sed -n 's/.*<action id="\([^"]*\)".*/\1/p' dbus/org.mapdev1.policy)
policy=$PWD/dbus/org.mapdev1.policy
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/actions
cp "$policy" /run/actions/
mount --bind /run/actions /usr/share/polkit-1/actions

bus_pid=$(dbus-daemon --system --fork --nopidfile --print-pid)
# started by its path, since nothing activates services here; it ends with its bus
polkitd=$(sed -n 's/^Exec=\([^ ]*\).*/\1/p' /usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service)
"$polkitd" --no-debug >/run/polkitd.log 2>&1 &
polkitd_pid=$!
trap 'kill $polkitd_pid $bus_pid 2>/dev/null || true' EXIT

status=0
tries=0
until pkaction >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -le 50 ] || { echo "polkitd does not answer" >&2; exit 1; }
    sleep 0.1
done
for id in $ids; do
    if answer=$(pkaction --verbose --action-id "$id" 2>&1); then
        echo "$answer" | awk -v id="$id" '/implicit/ { w = w " " $3 } END { print id ":" w }'
    else
        echo "polkit does not know $id: $answer"
        status=1
    fi
done
if grep -i 'error\|warning' /run/polkitd.log; then status=1; fi

if [ -e src/bus/polkit.rs ]; then
    named=$(grep -oh 'org\.mapdev1\.[a-z][a-z-]*' src/bus/polkit.rs | sort -u)
    for id in $named; do
        echo "$ids" | grep -qx "$id" || { echo "$id is in src/bus/polkit.rs but not in the .policy file"; status=1; }
    done
fi
exit $status
