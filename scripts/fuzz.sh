#!/bin/sh
# fuzz.sh SECONDS: runs each target of fuzz/ for so long.
set -eu
cd "$(dirname "$0")/.."

[ -d fuzz ] || { echo "fuzz: there is no fuzz/ folder" >&2; exit 1; }
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for target in $(cargo +nightly fuzz list); do
    echo "== $target, $1 s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$1" -print_final_stats=1
done
