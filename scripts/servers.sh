# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# servers.sh: servers of a script's own. Sourced; needs bash.
#
# Whatever is started here is remembered by its process id and ended by servers_stop, which the
# script calls when it exits; nothing else is ever signalled. Servers run in a session of their own,
# so that Ctrl-C reaches the script alone, which then ends them in order.

servers_pids=()
servers_dir=$(mktemp -d "${TMPDIR:-/tmp}/nearside.XXXXXX")

# say_error TEXT...
say_error() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

# listening HOST PORT: does somebody accept connections there?
listening() {
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

# wait_until SECONDS COMMAND...: repeats COMMAND until it succeeds; fails after SECONDS
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}

# running PID
running() {
    kill -0 "$1" 2>/dev/null
}

# redis_answers PORT PID: is it our process that answers there?
redis_answers() {
    ! running "$2" || redis-cli -p "$1" INFO server | grep -q "^process_id:$2[[:space:]]*\$"
}

# start_redis: a redis-server of our own on a free loopback port; sets redis_port and redis_pid
start_redis() {
    local attempt
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        # Below the range the kernel takes ports of outgoing connections from.
        redis_port=$((20000 + RANDOM % 12000))
        listening 127.0.0.1 "$redis_port" && continue
        mkdir -p "$servers_dir/redis"
        setsid redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no \
            --dir "$servers_dir/redis" >"$servers_dir/redis.log" 2>&1 </dev/null &
        redis_pid=$!
        servers_pids+=("$redis_pid")
        if wait_until 10 redis_answers "$redis_port" "$redis_pid" && running "$redis_pid"; then
            return 0
        fi
    done
    say_error "no redis-server would start ($attempt attempts); the last one said:"
    cat "$servers_dir/redis.log" >&2
    return 1
}

# nearside_answers PORT PID: it answers, or will not any more
nearside_answers() {
    ! running "$2" || [ "$(redis-cli -p "$1" PING)" = PONG ]
}

# start_nearside BINARY PORT ARGUMENT...: on 127.0.0.1:PORT; sets nearside_pid and nearside_log
start_nearside() {
    local binary=$1 port=$2
    shift 2
    nearside_log=$servers_dir/nearside.log
    setsid "$binary" --set "proxy.listen=127.0.0.1:$port" "$@" >"$nearside_log" 2>&1 </dev/null &
    nearside_pid=$!
    servers_pids+=("$nearside_pid")
    if wait_until 15 nearside_answers "$port" "$nearside_pid" && running "$nearside_pid"; then
        return 0
    fi
    say_error 'nearside does not answer; it said:'
    cat "$nearside_log" >&2
    return 1
}

# stop_server PID: SIGTERM, SIGKILL after 10 s; returns its exit status
stop_server() {
    local i
    kill -TERM "$1" 2>/dev/null
    for ((i = 0; i < 200; i++)); do
        running "$1" || break
        sleep 0.05
    done
    kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# servers_stop: everything started here, last one first, and its files
servers_stop() {
    local i
    for ((i = ${#servers_pids[@]} - 1; i >= 0; i--)); do
        stop_server "${servers_pids[i]}"
    done
    servers_pids=()
    rm -rf "$servers_dir"
}
