#!/usr/bin/env bash
# try.sh: types into the machine of `make vm` as a person would, without a terminal, and looks at what it says.
# Prints lines of TAP; fails on `not ok` and when time is up.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=target/vm
mkdir -p $folder
said=$folder/try.console
failed=0

BINARIES=${1:-target/release}
export BINARIES
coproc vm { timeout --kill-after=5 "${VM_SECONDS:-240}" scripts/vm.sh 2>&1 | stdbuf -o0 tr -d '\r' | tee $said; }
vm_pid=$!
trap 'kill $vm_pid 2>/dev/null || true' EXIT

# reads until a prompt; what came is in $heard
hear() {
    local char line=''
    heard=''
    while IFS= read -r -N 1 -u "${vm[0]}" char; do
        heard+=$char
        case $char in $'\n') line='' ;; *) line+=$char ;; esac
        [ "$line" != 'vm# ' ] || return 0
    done
    return 1
}

# types COMMAND, and wants PATTERN in what is said
answers() {
    local name=$1 command=$2 pattern=$3
    count=$((count + 1))
    printf '%s\n' "$command" >&"${vm[1]}"
    if hear && grep -qE -- "$pattern" <<<"$heard"; then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name"
        printf '%s\n' "$heard" | sed 's/^/#   /'
        failed=1
    fi
}

count=1
begun=$SECONDS
if hear; then echo "ok 1 - make vm gives a prompt"; else
    echo "not ok 1 - make vm gives a prompt"
    tail -n 30 $said | sed 's/^/#   /'
    exit 1
fi
echo "# after $((SECONDS - begun)) s"
answers "/dev is the map" 'grep " /dev " /proc/mounts | tail -n 1' '^none /dev mapdevfs '
answers "the daemon serves it" 'mapdevctl shim status' '^ *map: served'
answers "looking loads nothing" 'ls -l /dev/net/tun; lsmod | grep -c ^tun' '^crw-{7} +1 user .*net/tun'
answers "opening loads" 'su user -c ": <>/dev/net/tun"; lsmod | grep ^tun' '^tun '
answers "a change of owner is told" 'chown user /dev/tty1; mapdevctl settle; mapdevctl map dump | grep -w tty1' 'kernel: uid 0'
answers "devtmpfs again" 'mapdevctl shim detach /dev; grep " /dev " /proc/mounts | tail -n 1' '^dev /dev devtmpfs'
answers "and the map" 'mapdevctl shim attach /dev; grep " /dev " /proc/mounts | tail -n 1' '^none /dev mapdevfs'
count=$((count + 1))
echo poweroff >&"${vm[1]}"
if wait $vm_pid; then echo "ok $count - poweroff ends it"; else
    echo "not ok $count - poweroff ends it"
    failed=1
fi
echo "1..$count"
exit $failed
