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
# shellcheck source=trial.sh
. "$(dirname "${BASH_SOURCE[0]}")/trial.sh"

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

# Leadership has come home: let the last gap of that pass, too.
quiet() {
    settle
    sleep 0.5
}

# The time of the last acknowledgement.
last_ack() { tail -n 1 "$work/acks" 2>/dev/null | cut -d ' ' -f 1; }

begin_trial failover "$servers"
write_configuration failover-gap </dev/null
for id in "${ids[@]}"; do start "$id"; done
quiet

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
helpers+=("$feeder")
"$bin/syncnet" send --json --only --timeout 60 -u failover "${to[@]}" gap <"$work/lines" >"$work/answers" 2>"$work/send.log" &
sender=$!
helpers+=("$sender")
note <"$work/answers" >"$work/acks" 2>>"$work/send.log" &
noter=$!

leader=server$servers
printf '%d runs: the leader of %d servers is lost by %s, the client is connected to %s\n' "$runs" "$servers" "$fault" "$client"
gaps=()
for ((run = 1; run <= runs; run++)); do
    quiet
    lost=$(now)
    if [[ $fault == kill ]]; then
        lose "$leader"
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
quiet

touch "$work/stop"
wait "$feeder" || true
code=0
wait "$sender" || code=$?
helpers=()
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
