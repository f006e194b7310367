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

# need_private: mounts that end with the command.
need_private() {
    [ "$(id -u)" = 0 ] || skip "only root may mount"
    unshare --mount --pid --fork --mount-proc true 2>/dev/null || skip "this machine gives no private mounts"
}

# need_disk: what a FUSE disk takes.
need_disk() {
    need_private
    [ -c /dev/fuse ] || skip "there is no /dev/fuse"
    [ -c /dev/loop-control ] || skip "there are no loop devices"
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
    [[ " $* " != *" power_disk "* ]] || [ -x "${POWER_DISK:-}" ] || skip "power_disk was not built: there is no libfuse3-dev"
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

# need_machine: what a virtual machine takes. Sets POWER_KERNEL, and POWER_MODULES, the folder of its drivers.
need_machine() {
    local name
    command -v qemu-system-x86_64 >/dev/null || skip "there is no qemu-system-x86_64"
    command -v busybox >/dev/null || skip "there is no busybox"
    if ! compgen -G "$POWER_CACHE/kernel/boot/vmlinuz-*" >/dev/null; then
        rm -rf "$POWER_CACHE/kernel" "$POWER_CACHE/download"
        mkdir -p "$POWER_CACHE/download"
        name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }')
        say "fetching ${name:-a kernel}" >&2
        (cd "$POWER_CACHE/download" && apt-get -q download "${name:-linux-image-cloud-amd64}") >/dev/null 2>&1 ||
            skip "there is no kernel to boot: apt-get download linux-image-cloud-amd64 has failed"
        dpkg -x "$POWER_CACHE"/download/*.deb "$POWER_CACHE/kernel"
        rm -rf "$POWER_CACHE/download"
    fi
    POWER_KERNEL=$(compgen -G "$POWER_CACHE/kernel/boot/vmlinuz-*" | tail -1)
    POWER_MODULES=$(compgen -G "$POWER_CACHE/kernel/lib/modules/*/kernel/drivers" | tail -1)
    export POWER_KERNEL POWER_MODULES
}

# put_libraries FOLDER FILE...: the shared libraries that these programs and libraries load, where they are here.
put_libraries() {
    local folder=$1 library
    shift
    { ldd "$@" 2>/dev/null || true; } | { grep -o '/[^ ]*\.so[^ ]*' || true; } | sort -u | while read -r library; do
        [ -f "$folder$library" ] || install -D "$library" "$folder$library"
    done
}

# put_programs FOLDER PROGRAM...: into its bin/, with their libraries.
put_programs() {
    local folder=$1
    shift
    mkdir -p "$folder"/{bin,proc,sys,dev,tmp}
    cp "$@" "$folder/bin"
    put_libraries "$folder" "$@"
}

# pack_initramfs FOLDER: what a machine begins with. Sets POWER_INITRAMFS.
pack_initramfs() {
    export POWER_INITRAMFS=$scratch/initramfs
    (cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$POWER_INITRAMFS"
}
