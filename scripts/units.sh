#!/bin/sh
# Has systemd read the units, as shipped and with the drop-ins of active mode, and holds the shipped
# service to its exposure score.
set -eu
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
verify() {
    # the binary need not be installed here: any executable stands for it
    for unit in units/mapdevd.service units/mapdevd-kernel.socket; do
        sed 's|^ExecStart=.*|ExecStart=/bin/true|' $unit >"$folder/${unit##*/}"
    done
    said=$(systemd-analyze verify --man=no "$folder/mapdevd.service" "$folder/mapdevd-kernel.socket" 2>&1) || true
    [ -z "$said" ] || { echo "$said"; exit 1; }
}

verify
systemd-analyze security --offline=true --threshold=25 --no-pager "$folder/mapdevd.service" | tail -n 1
cp -r packaging/active/*.d "$folder/"
verify
echo "active drop-ins are well-formed"
