# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
# Debian's kernel packages without touching the host's apt; for scripts/kernel and scripts/netdevsim, which
# set $series and $cache, and $machine (Debian's name, such as arm64) where it is not amd64.

skip() { echo "SKIPPED: kernel $series: $*" >&2; exit 77; }

apt_state() { # apt's options for an own state: nothing of the host's changes
    local machine=${machine:-amd64} state=$cache/apt mirror suite
    [ "$machine" = amd64 ] || state+=-$machine
    mkdir -p "$state"/{lists,cache}/partial
    mirror=${DEBIAN_MIRROR:-$({ grep -rhoPs '(^URIs: *|^deb .*)\Khttps?://\S+/debian/?(?=\s|$)' \
        /etc/apt/sources.list{,.d} || :; } | head -n 1)}
    [ -n "$mirror" ] || skip "no Debian mirror in /etc/apt (DEBIAN_MIRROR=URL names one)"
    mirror=${mirror%/}
    : >"$state/status"
    for suite in "$mirror bookworm" "$mirror-security bookworm-security" "$mirror-security bullseye-security" \
        "$mirror trixie-backports"; do
        echo "deb [arch=$machine signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $suite main"
    done >"$state/sources.list"
    apt=(-qq -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o APT::Architecture="$machine" -o APT::Architectures="$machine" -o Dir::State::status="$state/status"
        -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root
        -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
    flock "$cache/apt.lock" apt-get "${apt[@]}" update >&2 || : # a suite that is gone must not stop the others
}
