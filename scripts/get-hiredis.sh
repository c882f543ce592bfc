#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# get-hiredis.sh
#
# Makes hiredis >= 1.0 available to the build (Debian 12 has 0.14, which knows no RESP3).
# Does nothing where the distribution's libhiredis-dev is new enough, or where .deps has it already.
# Otherwise: fetches Debian 13's package and unpacks it into .deps (nothing is installed). Where there
# is none for this architecture, or it does not link here, builds Debian 13's source package there.
# apt verifies either by the archive's signature. No root needed. The Makefile finds .deps by itself.
# Newer fixes: remove .deps and run this again.
set -eu

suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
cd "$(dirname "$0")/.."
prefix=$PWD/.deps

installed() {
    pkg-config --atleast-version=1.0 hiredis 2>/dev/null
}

# A program that needs hiredis 1.x compiles and links with what is in folder $1.
usable() {
    archive=$(find "$1" -name libhiredis.a 2>/dev/null | head -n 1)
    [ -n "$archive" ] || return 1
    ${CC:-gcc} -isystem "$1/usr/include" -x c -o /dev/null - -x none "$archive" <<'X'
#include <hiredis/hiredis.h>
int main(void)
{
    hiredisResetAllocators();
    return HIREDIS_MAJOR >= 1 && redisReaderCreate() != 0;
}
X
}

if installed; then
    echo "hiredis $(pkg-config --modversion hiredis), the distribution's"
    exit 0
fi
if usable "$prefix"; then
    echo "hiredis >= 1.0, in .deps"
    exit 0
fi
if [ ! -e "$keyring" ]; then
    echo "get-hiredis.sh: $keyring is missing: install debian-archive-keyring, or hiredis >= 1.0" >&2
    exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"

# An apt of its own, so that the machine's configuration of packages stays as it is; proxies and
# the like (apt.conf.d) still count.
cat >"$work/apt.conf" <<X
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "/dev/null";
Dir::Cache "$work/cache";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "root";
X

# The mirror this machine uses for Debian, then the public one.
mirrors() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep -E '/debian/?$' | sort -u || :
    echo http://deb.debian.org/debian
}

# fetch_index KIND MIRROR: KIND is deb or deb-src
fetch_index() {
    echo "$1 [signed-by=$keyring] $2 $suite main" >"$work/sources.list"
    APT_CONFIG=$work/apt.conf apt-get update -q -o APT::Update::Error-Mode=any
}

unpack_package() {
    fetch_index deb "$1" || return 1
    (cd "$work" && APT_CONFIG=$work/apt.conf apt-get download -q libhiredis-dev) || return 1
    dpkg -x "$work"/libhiredis-dev_*.deb "$work/root" && usable "$work/root"
}

build_source() {
    fetch_index deb-src "$1" || return 1
    (cd "$work" && APT_CONFIG=$work/apt.conf apt-get source -q --download-only hiredis) || return 1
    mkdir -p "$work/source"
    tar -xf "$work"/hiredis_*.orig.tar.* -C "$work/source" --strip-components=1 || return 1
    make -C "$work/source" static >/dev/null || return 1
    rm -rf "$work/root"
    mkdir -p "$work/root/usr/include/hiredis" "$work/root/usr/lib"
    cp -r "$work/source"/*.h "$work/source/adapters" "$work/root/usr/include/hiredis"
    cp "$work/source/libhiredis.a" "$work/root/usr/lib" && usable "$work/root"
}

for way in unpack_package build_source; do
    for mirror in $(mirrors); do
        if $way "$mirror" >&2; then
            rm -rf "$prefix"
            mv "$work/root" "$prefix"
            echo "hiredis >= 1.0, now in .deps ($suite, $way)"
            exit 0
        fi
    done
done
echo "get-hiredis.sh: cannot get hiredis from $suite of any Debian mirror; see above" >&2
exit 1
