#!/usr/bin/env bash
# kernels.sh: Debian's kernels of stable and of its backports with all their modules, and their headers,
# unpacked in target/kernels/SUITE. Nothing is installed; depmod has been run. Prints the folders.
# With `source`: the source of the newer one, unpacked in target/kernels/source; prints that.
set -euo pipefail
cd "$(dirname "$0")/.."

suites=(bookworm bookworm-backports)
folder=$PWD/target/kernels
mirror=http://deb.debian.org/debian
mkdir -p "$folder"

# a list of packages of its own: the machine may not know the backports
lists() {
    local state=$folder/apt suite
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    for suite in "${suites[@]}"; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$state/sources.list"
    apt=(-o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" -qq update
}

# the packages that one depends on
needs() { apt-cache "${apt[@]}" show "$2/$1" | sed -n 's/^Depends: //p' | head -n 1 | grep -o 'linux-[^ ,]*'; }

unpack() {
    local suite=$1 root=$folder/$1.new package path
    local packages=()
    for package in $(needs "$suite" linux-image-amd64) $(needs "$suite" linux-headers-amd64); do
        packages+=("$package")
        case $package in linux-headers-*)
            mapfile -t -O "${#packages[@]}" packages < <(needs "$suite" "$package" | grep -v compiler) ;;
        esac
    done
    rm -rf "$root"
    mkdir -p "$root"
    (cd "$root" && apt-get "${apt[@]}" -qq download "${packages[@]/%//$suite}")
    for package in "$root"/*.deb; do dpkg-deb -x "$package" "$root"; done
    rm "$root"/*.deb
    local modules=("$root"/lib/modules/*)
    for path in "${modules[@]}"; do
        [ -d "$path/kernel" ] && depmod -b "$root" "${path##*/}"
    done
    rm -rf "${folder:?}/$suite"
    mv "$root" "$folder/$suite"
}

apt=()
if [ "${1:-}" = source ]; then
    if [ ! -d "$folder/source" ]; then
        lists
        rm -rf "$folder/source.new"
        mkdir "$folder/source.new"
        # the package's folder and the kernel's own have names in common
        mkdir "$folder/source.new/package"
        (cd "$folder/source.new/package" && apt-get "${apt[@]}" -qq download "linux-source-6.12/${suites[1]}" && dpkg-deb -x ./*.deb .) >&2
        tar -xf "$folder"/source.new/package/usr/src/*.tar.xz -C "$folder/source.new" --strip-components=1
        rm -r "$folder/source.new/package"
        mv "$folder/source.new" "$folder/source"
    fi
    echo "$folder/source"
    exit
fi
for suite in "${suites[@]}"; do
    if [ ! -d "$folder/$suite" ]; then
        [ ${#apt[@]} -gt 0 ] || lists
        unpack "$suite" >&2
    fi
    echo "$folder/$suite"
done
