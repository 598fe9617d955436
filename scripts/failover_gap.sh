#!/usr/bin/env bash
#
# Measures how long a client that writes all the time gets no acknowledgement while the leader is lost:
#
#   scripts/failover_gap.sh [--runs N] [--hang] [--servers N] [--client follower|leader] [--rate LINES_A_SECOND]
#
# Starts a cluster of its own (3 servers unless told otherwise) in a temporary directory on free ports, with default timing, and
# sends to it without a pause. In each run the leader is killed (SIGKILL) or, with --hang, stopped (SIGSTOP); when messages flow
# again it is started or continued, and the next run begins when the cluster is healthy and the first server leads again.
# --client says which server the client is connected to when a run begins: losing its own server as well costs it a new connection.
# Prints the longest gap between acknowledgements of every run, in milliseconds, the median and the worst. Exit status 0 only if
# every message was acknowledged. Ends nothing that it didn't start, and leaves nothing behind.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
bin=${SYNCNET_BIN:-$root/target/release}

usage() {
    sed -n '3,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

runs=10 fault=kill servers=3 client=follower rate=500
while [[ $# -gt 0 ]]; do
    case $1 in
    --runs | --servers | --rate)
        [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || usage 2
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --client)
        [[ ${2:-} == follower || ${2:-} == leader ]] || usage 2
        client=$2
        shift
        ;;
    --hang) fault=hang ;;
    -h | --help) usage 0 ;;
    *) usage 2 ;;
    esac
    shift
done
if ((servers < 3 || servers > 9)); then
    echo "--servers takes 3 to 9: with fewer, nobody can replace a leader" >&2
    exit 2
fi

if [[ -z ${SYNCNET_BIN:-} ]]; then
    (cd "$root" && cargo build --release --locked --bins --target-dir "$root/target")
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/syncnet-failover.XXXXXX")
declare -A pid_of=()
feeder='' sender=''

# shellcheck disable=SC2317  # called by the trap
cleanup() {
    local pid
    trap - EXIT
    for pid in "$feeder" "$sender" "${pid_of[@]}"; do
        [[ -n $pid ]] && kill -KILL "$pid" 2>/dev/null
    done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

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

write_configuration() {
    local n
    cat <<TOML
[cluster]
name = "failover-gap"
[heartbeat]
multicast = "239.255.83.78:$((base + 40))"
TOML
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
}

start() {
    "$bin/syncnetd" --config "$work/cluster.toml" --server-id "$1" --data-dir "$work/$1" \
        </dev/null >>"$work/$1.log" 2>&1 &
    pid_of[$1]=$!
}

addresses=()
status() {
    "$bin/syncnetctl" status --json --timeout 2 "${addresses[@]}"
}

# Waits until the cluster is healthy under its preferred leader: the highest ring position.
settle() {
    local deadline=$((SECONDS + 60)) json
    until json=$(status 2>/dev/null) && [[ $json == *"\"leader\":\"server$servers\""* ]]; do
        ((SECONDS < deadline)) || { status || true; die "the cluster was not healthy within 60 seconds"; }
        sleep 0.1
    done
    # Leadership has come home: let the last gap of that pass.
    sleep 0.5
}

now() { echo "${EPOCHREALTIME/[.,]/}"; }

# The time of the last acknowledgement.
last_ack() { tail -n 1 "$work/acks" 2>/dev/null | cut -d ' ' -f 1; }

choose_ports
write_configuration >"$work/cluster.toml"
for ((n = 1; n <= servers; n++)); do addresses+=(-s "127.0.0.1:$((base + n))"); done
for ((n = 1; n <= servers; n++)); do start "server$n"; done
settle

# A line every so often, without starting a process for each wait: reading from a pipe that stays silent is a sleep.
mkfifo "$work/silence" "$work/lines" "$work/answers"
feed() {
    local n=0 pause _
    pause=$(printf '0.%06d' $((1000000 / rate)))
    ((rate > 1)) || pause=1
    exec 4<>"$work/silence"
    while [[ ! -e $work/stop ]]; do
        n=$((n + 1))
        echo "line $n"
        read -r -t "$pause" -u 4 _ || true
    done
    echo "$n" >"$work/fed"
}

# Each acknowledgement: when it came, and how long after the one before, in microseconds.
note() {
    local line at before=0
    while IFS= read -r line; do
        at=${EPOCHREALTIME/[.,]/}
        [[ $line == *'"seq":'* ]] || { echo "refused: $line" >&2; continue; }
        ((before > 0)) || before=$at
        echo "$at $((at - before))"
        before=$at
    done
}

# With --only the client stays with the servers named, in that order; all are named.
to=()
if [[ $client == leader ]]; then
    for ((n = servers; n >= 1; n--)); do to+=(-s "127.0.0.1:$((base + n))"); done
else
    to=("${addresses[@]}")
fi
export SYNCNET_KEY_FILE=$work/key
feed >"$work/lines" &
feeder=$!
"$bin/syncnet" send --json --only --timeout 60 -u failover "${to[@]}" gap <"$work/lines" >"$work/answers" 2>"$work/send.log" &
sender=$!
note <"$work/answers" >"$work/acks" 2>>"$work/send.log" &
noter=$!

leader=server$servers
printf '%d runs: the leader of %d servers is lost by %s, the client is connected to %s\n' "$runs" "$servers" "$fault" "$client"
gaps=()
for ((run = 1; run <= runs; run++)); do
    settle
    lost=$(now)
    if [[ $fault == kill ]]; then
        kill -KILL "${pid_of[$leader]}"
        { wait "${pid_of[$leader]}" || true; } 2>/dev/null
    else
        kill -STOP "${pid_of[$leader]}"
    fi
    # Messages must flow again for a second before the run counts as over.
    resumed=$lost deadline=$((SECONDS + 60))
    while ((resumed < lost + 1000000)) || ((resumed < $(now) - 200000)); do
        kill -0 "$sender" 2>/dev/null || die "the client has ended"
        ((SECONDS < deadline)) || die "no acknowledgements for a minute after the leader was lost"
        sleep 0.2
        resumed=$(last_ack)
    done
    gap=$(awk -v from="$lost" '$1 > from && $2 > worst { worst = $2 } END { printf "%.1f", worst / 1000 }' "$work/acks")
    gaps+=("$gap")
    printf 'run %2d: %8s ms\n' "$run" "$gap"
    if [[ $fault == kill ]]; then
        start "$leader"
    else
        kill -CONT "${pid_of[$leader]}"
    fi
done
settle

touch "$work/stop"
wait "$feeder" && feeder=''
code=0
wait "$sender" || code=$?
sender=''
wait "$noter" || true
fed=$(<"$work/fed")
acknowledged=$(wc -l <"$work/acks")

printf '%s\n' "${gaps[@]}" | sort -n | awk '
    { gap[NR] = $1 }
    END {
        median = NR % 2 ? gap[(NR + 1) / 2] : (gap[NR / 2] + gap[NR / 2 + 1]) / 2
        printf "median: %.1f ms, worst: %.1f ms\n", median, gap[NR]
    }'
printf 'acknowledged: %d of %d messages\n' "$acknowledged" "$fed"
if ((code != 0 || acknowledged != fed)); then
    die "not every message was acknowledged (syncnet send ended with $code)"
fi
