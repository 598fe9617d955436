#!/usr/bin/env bash
#
# Runs a cluster of its own for as long as wanted, under mixed load and with faults, and looks for what grows:
#
#   scripts/soak.sh [--minutes M] [--seed N] [--keep]
#
# Without options: 60 minutes. Four users write all the time, a quarter of the lines to a room that is new, some read along, others come,
# read and go; every minute fifty connect, idle and leave again, and once in a while as much is written as the servers take. Each
# minute has a fault: a server is killed, asked to stop, or hung for some seconds (SIGSTOP). Only server2 is ever ended, so that the two
# others show what becomes of a process that runs for long; server3 leads most of the time. With retention = "8MiB".
#
# Once a minute, when the cluster is healthy again, a line tells of server1 and server3: memory, descriptors, threads, the size of the data
# directory, and how long the turns of the poll loop were (99.9 %, and the longest). At the end the last third is compared with the
# second: medians of memory, descriptors, threads and disk may not have grown, nor turns be twice as long. And every server must have the
# same history of each room, no server may have ended by itself, and no writer may have been refused or have given up. Exit status 0
# only if all holds.
#
# A quick run: scripts/soak.sh --minutes 6. Ends nothing that it didn't start, and removes its directory unless told to --keep it.

set -euo pipefail
# shellcheck source=trial.sh
. "$(dirname "${BASH_SOURCE[0]}")/trial.sh"

usage() {
    sed -n '3,20s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

minutes=60 seed=$(($(date +%s) % 32768))
while [[ $# -gt 0 ]]; do
    case $1 in
    --minutes | --seed)
        [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || usage 2
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --keep) keep=yes ;;
    -h | --help) usage 0 ;;
    *) usage 2 ;;
    esac
    shift
done
if ((minutes < 6)); then
    echo "--minutes takes 6 or more: two minutes are the least that can be compared with two before" >&2
    exit 2
fi
RANDOM=$seed

# Who is there: users who write, and rooms that they write to.
users=(ann bob cleo dora)
rooms=(alpha beta gamma)
watched=(server1 server3)

# --- Load --------------------------------------------------------------------------------------------------------------------------

# line_feed USER: some fifty lines a second.
# shellcheck disable=SC2317  # called in the background
line_feed() {
    local n=0
    while :; do
        n=$((n + 1))
        printf '%s %d %0*d\n' "$1" "$n" $((n % 300 + 1)) 0
        sleep 0.02
    done
}

start_writer() {
    local user=$1 room=$2
    mkfifo "$work/lines.$user"
    line_feed "$user" >"$work/lines.$user" 2>/dev/null &
    helpers+=("$!")
    feeders+=("$!")
    SYNCNET_KEY_FILE=$work/key.$user "$bin/syncnet" send --json --timeout 180 -u "$user" "$room" \
        <"$work/lines.$user" >"$work/acks.$user" 2>>"$work/send.log" &
    helpers+=("$!")
    writers[$user]=$!
}

# Somebody follows a room, loses the server whenever it goes, and finds another.
start_reader() {
    "$bin/syncnet" tail --wait "$1" </dev/null >/dev/null 2>>"$work/tail.log" &
    helpers+=("$!")
}

# Comes, reads what there is, writes a line to a room of its own, and goes.
pass_by() {
    local room=${rooms[RANDOM % ${#rooms[@]}]} user=passer-by$1
    "$bin/syncnet" tail --no-follow --timeout 60 --last 100 "$room" </dev/null >/dev/null 2>>"$work/tail.log" || fail "$user couldn't read $room"
    echo hello | SYNCNET_KEY_FILE=$work/key.passer-by "$bin/syncnet" send --timeout 60 -u "$user" "visit$1" >/dev/null 2>>"$work/send.log" ||
        fail "$user couldn't write to visit$1"
}

# burst: as much as the servers take, for three seconds.
burst() {
    "$bin/syncnetctl" bench publish --json --in-flight 256 --connections 8 --rooms 8 --seconds 3 "${addresses[@]}" >/dev/null 2>>"$work/bench.log" ||
        fail "bench publish: $(tail -n 1 "$work/bench.log")"
}

# --- Faults ------------------------------------------------------------------------------------------------------------------------

# hang ID: for some seconds.
hang() {
    kill -STOP "${pid_of[$1]}"
    sleep $((1 + RANDOM % 4))
    kill -CONT "${pid_of[$1]}"
}

disturb() {
    case $((RANDOM % 5)) in
    0) happened='server2 killed' && lose server2 && sleep $((1 + RANDOM % 5)) && start server2 ;;
    1)
        happened='server2 stopped'
        kill -TERM "${pid_of[server2]}"
        wait "${pid_of[server2]}" || fail "server2 was asked to stop and ended with $?"
        pid_of[server2]=''
        start server2
        ;;
    2) happened='server1 hung' && hang server1 ;;
    3) happened='server2 hung' && hang server2 ;;
    4) happened='server3 hung' && hang server3 ;;
    esac
}

# --- Measuring ---------------------------------------------------------------------------------------------------------------------

# The value of a key of /proc/PID/status.
status_of() { sed -n "s/^$2:[[:space:]]*\([0-9]*\).*/\1/p" "/proc/${pid_of[$1]}/status"; }

# turns ID FIELD: of the report of the last bench, in microseconds.
turns() {
    awk -v id="$1" -v field="$2" '{
        at = index($0, "\"id\":\"" id "\""); if (!at) exit
        rest = substr($0, at); at = index(rest, "\"turns_ms\":{"); rest = substr(rest, at)
        if (match(rest, "\"" field "\":[0-9.]+")) printf "%d", substr(rest, RSTART + length(field) + 3, RLENGTH - length(field) - 3) * 1000
    }' "$work/bench.json"
}

# One line of figures for each server that is watched: minute id KiB descriptors threads disk-KiB turns-us longest-us.
sample() {
    local id descriptors
    "$bin/syncnetctl" bench idle --json --connections 50 --seconds 2 "${addresses[@]}" >"$work/bench.json" 2>>"$work/bench.log" ||
        fail "bench idle: $(tail -n 1 "$work/bench.log")"
    # What it opened is closed a moment later.
    sleep 1
    for id in "${watched[@]}"; do
        descriptors=("/proc/${pid_of[$id]}/fd/"*)
        echo "$1 $id $(status_of "$id" VmRSS) ${#descriptors[@]} $(status_of "$id" Threads) $(du -sk "$work/$id" | cut -f 1) \
$(turns "$id" p99_9) $(turns "$id" max)" >>"$work/figures"
    done
    awk -v minute="$1" -v what="$2" '
        $1 == minute { printf "%s%6.1f %4d %4d %7.1f %8.1f %8.1f", n++ ? "   " : "", $3 / 1024, $4, $5, $6 / 1024, $7 / 1000, $8 / 1000 }
        END { printf "   %s\n", what }' "$work/figures" | sed "s/^/$(printf '%4d ' "$1")/"
}

# grown ID COLUMN NAME FACTOR MORE: the median of the last third may be at most FACTOR times that of the second, and MORE.
grown() {
    awk -v id="$1" -v column="$2" -v minutes="$minutes" '
        function median(list, n,   i, j, kept) {
            for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j - 1] > list[j]; j--) { kept = list[j]; list[j] = list[j - 1]; list[j - 1] = kept }
            return list[int((n + 1) / 2)]
        }
        $2 == id && $1 > minutes / 3 && $1 <= minutes * 2 / 3 { second[++s] = $column }
        $2 == id && $1 > minutes * 2 / 3 { last[++l] = $column }
        END { print s && l ? median(second, s) " " median(last, l) : "" }' "$work/figures" >"$work/medians"
    local before after
    read -r before after <"$work/medians" || { fail "$1: no figures of $3"; return; }
    echo "$1: $3: $before in the second third, $after in the last"
    awk -v before="$before" -v after="$after" -v factor="$4" -v more="$5" 'BEGIN { exit !(after <= before * factor + more) }' ||
        fail "$1: $3 grew from $before to $after"
}

check_alive() {
    local id
    for id in "${ids[@]}"; do
        kill -0 "${pid_of[$id]}" 2>/dev/null || die "$id has ended by itself"
    done
    for id in "${users[@]}"; do
        kill -0 "${writers[$id]}" 2>/dev/null || die "the writer $id has ended before its time"
    done
}

# --- The run -----------------------------------------------------------------------------------------------------------------------

declare -A writers=()
feeders=()
begin_trial soak 3
write_configuration soak <<'TOML'
[log]
segment_size = "1MiB"
checkpoint_every = 5000
retention = "8MiB"
TOML
for id in "${ids[@]}"; do start "$id"; done
settle
for ((n = 0; n < ${#users[@]}; n++)); do start_writer "${users[$n]}" "${rooms[n % ${#rooms[@]}]}"; done
for room in "${rooms[@]}"; do start_reader "$room"; done

echo "$minutes minutes, seed $seed; server1, then server3: memory MiB, descriptors, threads, disk MiB, turns' 99.9 % and longest in ms"
began=$SECONDS
for ((minute = 1; minute <= minutes; minute++)); do
    happened=nothing
    disturb
    settle
    check_alive
    pass_by "$minute"
    if ((minute % 5 == 0)); then burst; fi
    left=$((began + minute * 60 - SECONDS - 5))
    ((left <= 0)) || sleep "$left"
    settle
    sample "$minute" "$happened"
done

for pid in "${feeders[@]}"; do kill "$pid" 2>/dev/null || true; done
for user in "${users[@]}"; do
    code=0
    wait "${writers[$user]}" || code=$?
    ((code == 0)) || fail "the writer $user ended with $code"
    wrote=$(wc -l <"$work/acks.$user")
    ((wrote > minutes * 60)) || fail "the writer $user had only $wrote lines acknowledged"
    ! grep -qv '"seq":' "$work/acks.$user" || fail "a line of $user was refused: $(grep -v '"seq":' "$work/acks.$user" | head -n 1)"
done
settle

compare_histories "${rooms[@]}" "visit$minutes"
for room in "${rooms[@]}" "visit$minutes"; do
    [[ -s $work/history.$room.server1 ]] || fail "$room is empty"
done

for id in "${watched[@]}"; do
    grown "$id" 3 'memory (KiB)' 1.1 1024
    # Clients move from server to server, and the readers keep some files open.
    grown "$id" 4 descriptors 1 12
    grown "$id" 5 threads 1 0
    grown "$id" 6 'disk (KiB)' 1.1 2048
    grown "$id" 7 "turns' 99.9 % (us)" 2 1000
done
conclude
