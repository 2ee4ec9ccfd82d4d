#!/bin/sh
# fuzz.sh SECONDS: runs each target of fuzz/ for so long; the kernel's reader of the map, which is C,
# with Debian's clang.
set -eu
cd "$(dirname "$0")/.."

[ -d fuzz ] || { echo "fuzz: there is no fuzz/ folder" >&2; exit 1; }
if command -v clang >/dev/null; then
    echo "== kernel/map_fuzz, $1 s"
    mkdir -p target/fuzz/map
    clang -std=gnu11 -g -O1 -Wall -Wextra -Werror -fsanitize=fuzzer,address,undefined \
        -fno-sanitize-recover=undefined -o target/fuzz/map_fuzz fuzz/kernel/map_fuzz.c
    target/fuzz/map_fuzz -max_total_time="$1" -max_len=512 -artifact_prefix=target/fuzz/ target/fuzz/map
else
    echo "fuzz: kernel/map_fuzz is left out: it wants clang and libclang-rt-14-dev" >&2
fi
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for target in $(cargo +nightly fuzz list); do
    echo "== $target, $1 s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$1" -print_final_stats=1
done
