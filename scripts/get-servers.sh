#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# get-servers.sh FOLDER: Redis 8 and Valkey 8, to test with. Debian 12 has Redis 7.0; the packages of
# Debian 13 are taken from the same mirror, checked by apt as usual, and unpacked, not installed:
# FOLDER/redis and FOLDER/valkey get redis-server and the like, each run with that release's own loader and
# libraries. Valkey's programs go by Redis's names there, as the tests start them.
set -eu

folder=${1:?usage: get-servers.sh FOLDER}
suite=trixie
packages='redis-server redis-tools valkey-server valkey-tools'

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
    grep -E '/debian/?$' | head -n 1)
if [ -z "$mirror" ]; then
    echo 'get-servers.sh: apt knows no Debian mirror' >&2
    exit 1
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"

echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" \
    >"$work/sources.list"
cat >"$work/apt.conf" <<END
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$work";
Dir::State::Lists "$work/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$work/cache";
Acquire::Languages "none";
APT::Sandbox::User "";
END
APT_CONFIG=$work/apt.conf
export APT_CONFIG
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
libraries=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances $packages | grep '^lib' | sort -u)
# shellcheck disable=SC2086
(cd "$work" && apt-get download -qq $packages $libraries)
for package in "$work"/*.deb; do
    dpkg-deb -x "$package" "$work/root"
done

loader=$(find "$work/root/usr" -name 'ld-linux*.so.*' | head -n 1)
rm -rf "$folder/root"
mv "$work/root" "$folder/root"
loader=$folder/root${loader#"$work/root"}
libraries=$folder/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)

# wrap NAME PROGRAM: NAME, in a folder of its own, runs PROGRAM
wrap() {
    mkdir -p "${1%/*}"
    printf '#!/bin/sh\nexec "%s" --argv0 "%s" --library-path "%s" "%s" "$@"\n' \
        "$loader" "${1##*/}" "$libraries" "$2" >"$1"
    chmod +x "$1"
}
for name in server cli benchmark check-rdb check-aof; do
    wrap "$folder/redis/redis-$name" "$folder/root/usr/bin/redis-$name"
    wrap "$folder/valkey/redis-$name" "$folder/root/usr/bin/valkey-$name"
done
"$folder/redis/redis-server" --version
"$folder/valkey/redis-server" --version
