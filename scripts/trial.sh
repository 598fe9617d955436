# shellcheck shell=bash
#
# A cluster of its own for trials: on free ports of this machine, in a temporary directory, with default timing. To be sourced.
#
# SYNCNET_BIN names a directory with the programs; without it they are built from here. Whoever sources this calls begin_trial,
# writes a configuration with write_configuration, starts servers with start, says what is wrong with fail, and ends with conclude.
# Processes that are put into `helpers`, the servers and the directory end with the script, however it ends; nothing else is touched.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bin=${SYNCNET_BIN:-$root/target/release}

work='' base=0 servers=0 keep=''
ids=() addresses=() helpers=() private=() failures=()
declare -A pid_of=()

# begin_trial NAME SERVERS: makes `work`, finds the ports, and fills `ids` and `addresses` (options -s of all servers).
begin_trial() {
    local n
    servers=$2
    if [[ -z ${SYNCNET_BIN:-} ]]; then
        (cd "$root" && cargo build --release --locked --bins --target-dir "$root/target")
    fi
    work=$(mktemp -d "${TMPDIR:-/tmp}/syncnet-$1.XXXXXX")
    trap end_trial EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    choose_ports
    SYNCNET_SERVERS=''
    for ((n = 1; n <= servers; n++)); do
        ids+=("server$n")
        addresses+=(-s "127.0.0.1:$((base + n))")
        SYNCNET_SERVERS+="127.0.0.1:$((base + n)),"
    done
    export SYNCNET_SERVERS
}

# With `keep`, the directory stays.
# shellcheck disable=SC2317  # called by the trap
end_trial() {
    local pid
    trap - EXIT
    for pid in "${helpers[@]}" "${pid_of[@]}"; do
        # One that has ended already is no reason to leave the others.
        [[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    if [[ -n $keep ]]; then
        echo "kept: $work"
    else
        rm -rf "$work"
    fi
}

die() {
    echo "$1" >&2
    local log
    for log in "$work"/*.log; do
        [[ -e $log ]] || continue
        echo "--- the end of ${log##*/}:" >&2
        tail -n 10 "$log" >&2
    done
    exit 1
}

# fail WHAT: notes what is wrong, and goes on.
fail() {
    failures+=("$1")
    echo "FAILED: $1"
}

# conclude: the verdict, and the end.
conclude() {
    if ((${#failures[@]} > 0)); then
        printf '\nFAILED:\n'
        printf '  %s\n' "${failures[@]}"
        exit 1
    fi
    printf '\nPASSED\n'
}

# Whether no socket of this machine has one of the ports.
free() {
    local port
    for port; do
        if grep -qi ":$(printf %04X "$port") " /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 2>/dev/null; then
            return 1
        fi
    done
}

# Below the range from which the system gives ports to outgoing connections.
choose_ports() {
    local try
    for ((try = 0; try < 200; try++)); do
        base=$((12000 + RANDOM % 180 * 100))
        # shellcheck disable=SC2046
        free $(seq "$base" $((base + 40))) && return
    done
    die "no free ports"
}

# write_configuration NAME: what stands on standard input goes between the cluster and its servers.
write_configuration() {
    local n
    {
        printf '[cluster]\nname = "%s"\n[heartbeat]\nmulticast = "239.255.83.78:%d"\n' "$1" $((base + 40))
        cat
        for ((n = 1; n <= servers; n++)); do
            cat <<TOML
[[server]]
id = "server$n"
ring_position = $((n - 1))
host = "127.0.0.1"
client_port = $((base + n))
http_port = $((base + 10 + n))
heartbeat_port = $((base + 20 + n))
peer_port = $((base + 30 + n))
TOML
        done
    } >"$work/cluster.toml"
}

# apart COMMAND…: runs it without the descriptors in `private`: who reads from a pipe sees its end only when nobody else holds it.
apart() {
    local descriptor
    for descriptor in "${private[@]}"; do exec {descriptor}>&-; done
    exec "$@"
}

# start ID: its log goes on in the same file.
start() {
    apart "$bin/syncnetd" --config "$work/cluster.toml" --server-id "$1" --data-dir "$work/$1" \
        </dev/null >>"$work/$1.log" 2>&1 &
    pid_of[$1]=$!
}

# lose ID: ends a server without any notice.
lose() {
    kill -KILL "${pid_of[$1]}"
    { wait "${pid_of[$1]}" || true; } 2>/dev/null
    pid_of[$1]=''
}

status() {
    "$bin/syncnetctl" status --json --timeout 2 "${addresses[@]}"
}

# settle: waits until the cluster is healthy under its preferred leader: the highest ring position.
settle() {
    local deadline=$((SECONDS + 60)) json
    until json=$(status 2>/dev/null) && [[ $json == *"\"leader\":\"server$servers\""* ]]; do
        ((SECONDS < deadline)) || { status || true; die "the cluster was not healthy within 60 seconds"; }
        sleep 0.1
    done
}

# Microseconds since 1970.
now() { echo "${EPOCHREALTIME/[.,]/}"; }

# history ID ROOM FILE: all that can be read of it there. Healthy or not, a server that was just started may still be asking the
# leader whether there is more, and say so with 4.
history() {
    local deadline=$((SECONDS + 30)) code
    while :; do
        code=0
        "$bin/syncnet" tail --only -s "127.0.0.1:$((base + ${1#server}))" --json --no-follow --timeout 60 --after 0 "$2" \
            >"$3" 2>>"$work/tail.log" || code=$?
        ((code != 0)) || return 0
        ((code == 4 && SECONDS < deadline)) || die "$2 can't be read from $1: syncnet tail ended with $code"
        unsure=$((unsure + 1))
        sleep 0.2
    done
}

# compare_histories ROOM…: reads each from every server, into history.ROOM.ID; it must be the same everywhere. Retention may remove
# more between two readings: then it is read again.
compare_histories() {
    local try room id moved unsure=0
    for ((try = 0; try < 10; try++)); do
        for room; do
            for id in "${ids[@]}"; do history "$id" "$room" "$work/history.$room.$id"; done
            history server1 "$room" "$work/history.$room.again"
        done
        moved=''
        for room; do
            cmp -s "$work/history.$room.server1" "$work/history.$room.again" || moved=yes
        done
        [[ -n $moved ]] || break
        sleep 1
    done
    [[ -z $moved ]] || fail "the histories don't come to rest"
    ((unsure == 0)) || echo "note: of a healthy cluster, $unsure readings ended with 4: no quorum"
    for room; do
        for id in "${ids[@]:1}"; do
            cmp "$work/history.$room.server1" "$work/history.$room.$id" || fail "$room differs between server1 and $id"
        done
    done
}
