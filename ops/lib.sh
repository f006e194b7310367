# lib.sh - what the shell commands of ops/ share. To be sourced, by bash, with `set -euo pipefail`.
# shellcheck shell=bash

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# say SENTENCE: tells the reader what happens; fail SENTENCE: says why it ends here.
say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# packages_of SECTION...: the package names of these sections of ops/packages.
packages_of() {
    local section
    for section in "$@"; do
        sed -n "/^\[$section\]/,/^\[/ s/^\([a-z0-9][a-z0-9.+-]*\) .*/\1/p" "$repository/ops/packages"
    done
}

# missing_packages NAME...: those that are not installed.
missing_packages() {
    local name
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s\n' "$name"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 126
    fi
}

# install_packages SECTION...: installs what is missing of these sections of ops/packages, and nothing when all is there.
install_packages() {
    local names missing log
    names=$(packages_of "$@")
    command -v dpkg-query >/dev/null ||
        fail "this is not Debian; install these by other means, and build with cmake --preset release:" $names
    missing=$(missing_packages $names)
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        fail "these packages are missing, and there is no sudo; as root: apt-get install" $missing
    say "installing" $missing
    log=$(mktemp)
    # A fresh system has no package lists, an old one stale lists: look for new ones only when the first try fails.
    if ! quiet_apt install -y --no-install-recommends $missing >"$log" 2>&1 &&
        ! { quiet_apt update && quiet_apt install -y --no-install-recommends $missing; } >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "apt-get could not install:" $missing
    fi
    rm -f "$log"
}

quiet_apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@"
}

# build PRESET [CMAKE OPTION...]: configures and builds in build/PRESET, with a line of progress on a terminal and silence
# elsewhere; all output when it fails.
build() {
    local preset=$1 folder log
    shift
    folder=$repository/build/$preset
    mkdir -p "$folder"
    log=$folder/build.log
    (cd "$repository" && cmake --preset "$preset" "$@") >"$log" 2>&1 || show_and_fail "$log" "cmake could not configure $preset"
    if [ -t 1 ]; then
        cmake --build "$folder" 2>&1 | tee -a "$log" | progress || show_and_fail "$log" "the build of $preset failed"
    else
        cmake --build "$folder" >>"$log" 2>&1 || show_and_fail "$log" "the build of $preset failed"
    fi
}

show_and_fail() {
    tail -n 60 "$1" >&2
    fail "$2 (all of it: $1)"
}

# progress: ninja's "[12/90] ..." lines as one line that changes.
progress() {
    local line
    while IFS= read -r line; do
        case $line in
        \[*/*\]*) printf '\r\033[K  building %s' "${line%%]*}]" ;;
        esac
    done
    printf '\r\033[K'
}
