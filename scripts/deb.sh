#!/bin/sh
# Packs what `make generated` built: target/debian/mapdev_VERSION_ARCH.deb
set -eu
cd "$(dirname "$0")/.."

scripts/need.sh dpkg-dev
scripts/tools.sh cargo-deb
mkdir -p target/debian
rm -f target/debian/mapdev_*.deb
target/tools/bin/cargo-deb --no-build --locked --quiet --strip
ls target/debian/mapdev_*.deb
