#!/bin/sh
# generate.sh FOLDER: what mapdevctl knows of itself: man pages and shell completions.
set -eu
cd "$(dirname "$0")/.."

out=$1
cargo build --release --locked --bins
mkdir -p "$out/man"
target/release/mapdevctl man "$out/man"
for shell in bash zsh fish; do
    target/release/mapdevctl completions "$shell" >"$out/mapdevctl.$shell"
done
