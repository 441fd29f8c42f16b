# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
# A Debian userland for arm64 kernels, and what QEMU wants for them; for scripts/kernel, which sets $root, $userland,
# $mem, $out, $kernel. The packages are unpacked, nothing of them is run here; Python's come as wheels, at the versions
# of scripts/constraints.txt, into a .venv that stands for this host's in the guest.

# gcc and liburing are for the tests' peers
debian=(base-files bash busybox-static coreutils dash findutils gcc gzip hostname iproute2 kmod libc6-dev liburing-dev
    mount nftables procps python3 python3-bpfcc sed util-linux)
wheels() { # what setup.cfg names, and pytest
    "$root/.venv/bin/python" - "$root/setup.cfg" <<'PYTHON'
import configparser, sys
config = configparser.ConfigParser()
config.read(sys.argv[1])
print(*config["options"]["install_requires"].split(), "pytest")
PYTHON
}

unpack_debian() { # folder
    local part
    mkdir -p "$1"/{debs/partial,dev,etc,opt,out,proc,root,run,sys,tmp,usr/{bin,lib,sbin}}
    for part in bin lib sbin; do ln -s "usr/$part" "$1/$part"; done
    apt-get "${apt[@]}" -o Dir::Cache::Archives="$1/debs" install -d -y --no-install-recommends "${debian[@]}" \
        >/dev/null </dev/null || return
    for part in "$1"/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$part" | tar x -C "$1" --keep-directory-symlink || return
    done
    rm -rf "$1/debs"
    echo root:x:0:0:root:/root:/bin/bash >"$1/etc/passwd"
    echo nobody:x:65534:65534:nobody:/:/bin/false >>"$1/etc/passwd"
    echo root:x:0: >"$1/etc/group"
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$1/etc/hosts"
}

unpack_wheels() { # folder name...
    local into=$1/opt/venv python tag platforms=()
    shift
    python=$(basename "$(realpath "${into%/opt/venv}/usr/bin/python3")")
    for tag in manylinux2014 manylinux_2_17 manylinux_2_26 manylinux_2_27 manylinux_2_28; do
        platforms+=(--platform "${tag}_aarch64")
    done
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
        --no-compile --only-binary=:all: "${platforms[@]}" --python-version "${python#python}" \
        --target "$into/lib/$python/site-packages" -c "$root/scripts/constraints.txt" "$@" >&2 || return
    : >"$into/lib/$python/site-packages/weir.pth" # where the working tree is; written in the guest
    mkdir "$into/bin"
    ln -s /usr/bin/python3 "$into/bin/python"
    printf 'home = /usr/bin\ninclude-system-site-packages = true\n' >"$into/pyvenv.cfg"
    # bytecode is the same on all machines; emulated, it takes long
    ! command -v "$python" >/dev/null || "$python" -m compileall -q -s "${into%/opt/venv}" \
        "${into%/opt/venv}/usr/lib/python3" "${into%/opt/venv}/usr/lib/$python" "$into/lib" >/dev/null 2>&1 || :
}

userland_stamp() { cat - "$root"/scripts/{arm64.sh,constraints.txt} <<<"$(wheels)" | sha256sum; }
userland_lacks() { [ "$(userland_stamp)" != "$(cat "$userland/.stamp" 2>/dev/null)" ]; }

fetch_userland() { # made again when its parts change; the old one does when it cannot be
    local apt=() names stamp new=$userland.new
    read -ra names < <(wheels)
    stamp=$(userland_stamp)
    rm -rf "$new"
    apt_state
    if unpack_debian "$new" && unpack_wheels "$new" "${names[@]}"; then
        echo "$stamp" >"$new/.stamp"
        rm -rf "$userland"
        mv "$new" "$userland"
        return
    fi
    rm -rf "$new"
    [ -e "$userland/.stamp" ] || skip "its userland cannot be had"
    echo "userland for arm64: nothing newer can be had" >&2
}

# no pointer authentication, which is slow to emulate, but atomic instructions (LSE)
arm64_machine() {
    command -v qemu-system-aarch64 >/dev/null || skip "no qemu-system-aarch64 (scripts/setup --kernels installs it)"
    qemu=(qemu-system-aarch64 -M "virt,gic-version=3" -accel tcg -cpu neoverse-n1 -serial "file:$out/console.log"
        -chardev "stdio,id=o,signal=off" -device "pci-serial,chardev=o")
    console=ttyAMA0 said=ttyS0
}
