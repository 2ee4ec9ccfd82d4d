#!/bin/sh
# need.sh PACKAGE...: installs the Debian packages that are missing; without root, names them and stops.
set -eu

missing=
for package in "$@"; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

command="apt-get install --no-install-recommends -y$missing"
if [ "$(id -u)" -ne 0 ]; then
    echo "missing packages:$missing" >&2
    echo "install them with:  sudo $command" >&2
    exit 1
fi

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of words
if ! $command >"$log" 2>&1; then
    # no or old package lists: fetch them once and try again
    { apt-get update && $command; } >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
fi
