#!/bin/sh
# fuzz.sh SECONDS | RUNSx [TARGET]: runs each target of fuzz/ for so long, or so often (10000000x); the kernel's
# reader of the map, which is C (target `kernel`), with Debian's clang.
set -eu
cd "$(dirname "$0")/.."

[ -d fuzz ] || { echo "fuzz: there is no fuzz/ folder" >&2; exit 1; }
case $1 in
    *x) limit=-runs=${1%x} ;;
    *) limit=-max_total_time=$1 ;;
esac
if [ "${2:-kernel}" = kernel ]; then
    if command -v clang >/dev/null; then
        echo "== kernel/map_fuzz, $1"
        mkdir -p target/fuzz/map
        clang -std=gnu11 -g -O1 -Wall -Wextra -Werror -fsanitize=fuzzer,address,undefined \
            -fno-sanitize-recover=undefined -o target/fuzz/map_fuzz fuzz/kernel/map_fuzz.c
        target/fuzz/map_fuzz "$limit" -max_len=512 -print_final_stats=1 -artifact_prefix=target/fuzz/ target/fuzz/map
    else
        echo "fuzz: kernel/map_fuzz is left out: it wants clang and libclang-rt-14-dev" >&2
    fi
    [ $# -eq 1 ] || exit 0
fi
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for target in ${2:-$(cargo +nightly fuzz list)}; do
    echo "== $target, $1"
    cargo +nightly fuzz run "$target" -- "$limit" -print_final_stats=1
done
