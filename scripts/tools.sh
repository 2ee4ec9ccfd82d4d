#!/bin/sh
# tools.sh NAME...: installs cargo-deny, cargo-deb or cargo-fuzz into target/tools, unless the right version is there.
# They run for a second and build for minutes, so they are built without optimisation.
set -eu
cd "$(dirname "$0")/.."

for name in "$@"; do
    case $name in
        cargo-deny) version=0.20.2 features='' ;;
        cargo-deb) version=3.8.0 features=lzma ;;
        cargo-fuzz) version=0.13.2 features='' ;;
        *) echo "tools: no such tool: $name" >&2; exit 1 ;;
    esac
    if grep -qs "\"$name $version " target/tools/.crates.toml; then
        continue
    fi
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0 \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 \
        CARGO_TARGET_DIR=target/tools/build \
        cargo install --locked --root target/tools --no-default-features --features "$features" "$name@$version"
    rm -rf target/tools/build
done
