# power.sh - what the commands of this folder share. To be sourced, by bash, with `set -euo pipefail`.
# shellcheck shell=bash
# shellcheck source=ops/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../../ops/lib.sh"

here=$repository/tests/faults/power
build=${BUILD:-$repository/build/release}
export POWER_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/mneme-power
scratch=$(mktemp -d /tmp/mp.XXXX)
inner=

leave() {
    [ -z "$inner" ] || kill -KILL "$inner" 2>/dev/null || true
    [ -z "$inner" ] || wait "$inner" 2>/dev/null || true
    rm -rf "$scratch"
}
trap leave EXIT
trap 'exit 143' TERM HUP
trap 'exit 130' INT

# skip SENTENCE: this machine cannot.
skip() {
    echo "skipped: $*"
    exit 77
}

# need_disk: what a FUSE disk takes, with private mounts.
need_disk() {
    [ "$(id -u)" = 0 ] || skip "only root may mount"
    [ -c /dev/fuse ] || skip "there is no /dev/fuse"
    [ -c /dev/loop-control ] || skip "there are no loop devices"
    unshare --mount --pid --fork --mount-proc true 2>/dev/null || skip "this machine gives no private mounts"
}

# programs TARGET...: builds them, in $BUILD, unless ctest has told where they are.
programs() {
    if [ -z "${MNEMED:-}" ]; then
        install_packages build test power
        [ -f "$build/CMakeCache.txt" ] || cmake -G Ninja -S "$repository" -B "$build" -DCMAKE_BUILD_TYPE=Release >/dev/null
        cmake "$build" >/dev/null
        cmake --build "$build" --target "$@" >&2
        export MNEMED=$build/bin/mnemed POWER_DISK=$build/tests/faults/power/power_disk
    fi
    [ -x "${POWER_DISK:-}" ] || skip "power_disk was not built: there is no libfuse3-dev"
}

# in_private PROGRAM ARGUMENT...: runs it in a machine within the machine, with mounts, a /dev/shm and process numbers of its
# own, and $POWER_WORK to work in. When it ends, or this command does, however that may be, nothing of them is left.
in_private() {
    local status=0
    export POWER_WORK=$scratch/w
    mkdir "$POWER_WORK"
    export MNEME_TEST_DIR=$POWER_WORK PYTHONDONTWRITEBYTECODE=1
    export PYTHONPATH=$here:$repository/tests/system
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child --mount-proc bash -c '
        mount -t tmpfs -o mode=0700 power "$POWER_WORK"
        mount -t tmpfs power /dev/shm
        cp /proc/sys/kernel/random/boot_id "$POWER_WORK/boot_id"
        mount --bind "$POWER_WORK/boot_id" /proc/sys/kernel/random/boot_id
        "$@" # this shell stays: orphans are its children
        exit $?' bash "$@" &
    inner=$!
    wait "$inner" || status=$?
    return "$status"
}
