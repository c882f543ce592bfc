#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# deps.sh [build] [servers] [test] [bench]
#
# Installs the Debian packages that are missing, and hiredis (get-hiredis.sh), for
#     build    compiling Nearside (the default)
#     servers  a redis-server and redis-cli to try it with
#     test     everything scripts/check needs, the two above included
#     bench    everything scripts/bench needs, the first two and another proxy included
# Installs nothing and asks for no rights where all is there. Servers installed by this script are not
# started as services.
set -eu

build='gcc libc6-dev make pkg-config libev-dev libmimalloc-dev libinih-dev libxxhash-dev'
servers='redis-server redis-tools'
test="$build $servers libcriterion-dev clang clang-format clang-tidy libclang-rt-dev cppcheck
      valgrind python3 python3-redis php-cli php-redis ruby ruby-redis"
bench="$build $servers valgrind python3 nutcracker"
# Node from elsewhere brings its own npm, with which Debian's conflicts: any on the PATH will do.
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    test="$test nodejs npm ca-certificates"
fi

wanted=
for group in "${@:-build}"; do
    case $group in
    build) wanted="$wanted $build" ;;
    servers) wanted="$wanted $servers" ;;
    test) wanted="$wanted $test" ;;
    bench) wanted="$wanted $bench" ;;
    *)
        echo 'usage: deps.sh [build] [servers] [test] [bench]' >&2
        exit 2
        ;;
    esac
done

if ! command -v dpkg-query >/dev/null; then
    echo "deps.sh: this is no Debian; install what corresponds to:$wanted" >&2
    exit 1
fi

missing=
for package in $wanted; do
    case " $missing " in *" $package "*) continue ;; esac
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || :)
    [ "$status" = 'install ok installed' ] || missing="$missing $package"
done

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
fi

install_missing() {
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        $missing </dev/null
}

# A package asks this file whether its service may start: 101 is no. Ours goes away again; one that
# is there already is somebody's decision and stays.
policy=/usr/sbin/policy-rc.d
forbid_services() {
    [ ! -e "$policy" ] || return 0
    trap '$as_root rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
}

if [ -n "$missing" ]; then
    echo "installing:$missing"
    if [ -n "$as_root" ] && ! command -v sudo >/dev/null; then
        echo 'deps.sh: packages are missing and there is no sudo; as root, run:' >&2
        echo "    apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    case $missing in *redis-server* | *nutcracker*) forbid_services ;; esac
    # Without lists, or with old ones, apt does not find the packages: fetch them and try again.
    if ! install_missing; then
        $as_root apt-get update -q
        install_missing
    fi
fi

"$(dirname "$0")/get-hiredis.sh"
