#!/bin/sh
# fuzz.sh SECONDS | RUNSx [TARGET]: runs each target of fuzz/ for so long, or so often (10000000x); the kernel's
# reader of the map, which is C (target `kernel`), with Debian's clang. The others begin with what fuzz/seed.rs
# writes, and go on with what earlier runs found in fuzz/corpus.
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
scripts/tools.sh cargo-fuzz
export PATH="$PWD/target/tools/bin:$PATH"
# a stable compiler knows the options of sanitizers as well, and takes them of who says so
export RUSTC_BOOTSTRAP=1
for target in ${2:-$(cargo fuzz list)}; do
    echo "== $target, $1"
    dictionary=
    [ ! -e "fuzz/$target.dict" ] || dictionary=-dict=fuzz/$target.dict
    case $target in
        modinfo | probe) mkdir -p "fuzz/corpus/$target" ;;
        *) (cd fuzz && cargo run --quiet --bin seed -- "corpus/$target") ;;
    esac
    # shellcheck disable=SC2086 # there may be none
    cargo fuzz run "$target" -- "$limit" $dictionary -print_final_stats=1
done
