#!/usr/bin/env bash
#
# Runs a cluster of its own through many messages, restarts and a long absence, and proves that nothing was lost and nothing grew:
#
#   scripts/endurance.sh [--messages N] [--text-bytes N] [--retention SIZE] [--segment-size SIZE] [--checkpoint-every N]
#                        [--servers N] [--keep]
#
# Without options: 1000000 messages of 1500 bytes, 64MiB of retention, segments of 1MiB, a checkpoint every 1000 entries, 3 servers.
# Four users write to three rooms. At every twentieth of the messages a server is stopped (SIGTERM) or killed (SIGKILL) under load
# and started again, each in turn. The first server is away from a quarter to three quarters of the way: meanwhile the others must
# have removed what it misses, and it must come back by itself. In the end the history of every room is read from every server:
# it must be the same everywhere, without gaps behind what retention has removed, with each acknowledged message that wasn't
# removed once and in its writer's order. Prints disk use and memory of each server, and a verdict. Exit status 0 only if all holds,
# also that no data directory ever used more than two and a half times the retention and 16 MiB: a server that is filled keeps
# what it gets until it has made two checkpoints that are old enough.
#
# A quick run, which takes some 20 seconds: scripts/endurance.sh --messages 20000 --retention 4MiB
# Ends nothing that it didn't start, and removes its directory unless told to --keep it.

set -euo pipefail
# shellcheck source=trial.sh
. "$(dirname "${BASH_SOURCE[0]}")/trial.sh"

usage() {
    sed -n '3,18s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

# bytes SIZE: in bytes, as the configuration writes sizes.
bytes() {
    [[ $1 =~ ^([1-9][0-9]{0,8})(KiB|MiB|GiB)$ ]] || return 1
    case ${BASH_REMATCH[2]} in
    KiB) echo $((BASH_REMATCH[1] << 10)) ;;
    MiB) echo $((BASH_REMATCH[1] << 20)) ;;
    GiB) echo $((BASH_REMATCH[1] << 30)) ;;
    esac
}

messages=1000000 text_bytes=1500 retention=64MiB segment_size=1MiB checkpoint_every=1000 count=3
while [[ $# -gt 0 ]]; do
    name=${1#--}
    case $1 in
    --messages | --text-bytes | --checkpoint-every | --servers)
        [[ ${2:-} =~ ^[1-9][0-9]{0,8}$ ]] || usage 2
        [[ $1 == --servers ]] && name=count
        printf -v "${name//-/_}" %s "$2"
        shift
        ;;
    --retention | --segment-size)
        bytes "${2:-}" >/dev/null || usage 2
        printf -v "${name//-/_}" %s "$2"
        shift
        ;;
    --keep) keep=yes ;;
    -h | --help) usage 0 ;;
    *) usage 2 ;;
    esac
    shift
done
if ((count < 3 || count > 9)); then
    echo "--servers takes 3 to 9: with fewer, none can be away" >&2
    exit 2
fi
if ((messages < 1000 || text_bytes < 64 || text_bytes > 60000)); then
    echo "--messages takes 1000 or more, --text-bytes 64 to 60000" >&2
    exit 2
fi

bound=$((5 * $(bytes "$retention") / 2 + (16 << 20)))
steps=20
away=server1
# Who writes where: one user in two rooms, two users in one room.
streams=('ann alpha' 'ann beta' 'bob alpha' 'cleo beta' 'dora gamma')
rooms=(alpha beta gamma)

# --- Measuring ---------------------------------------------------------------------------------------------------------------------

declare -A disk=() disk_max=() rss_max=()

mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1048576 }'; }

# What each data directory takes on the disk now. Files come and go while du walks.
sample_disk() {
    local used path
    while read -r used path; do
        disk[$path]=$used
        ((used <= ${disk_max[$path]:-0})) || disk_max[$path]=$used
    done < <(cd "$work" && du -s -B1 "${ids[@]}" 2>/dev/null)
}

# sample_memory ID: the kernel keeps the peak of a process; it ends with the process, so it is read before a server is stopped.
sample_memory() {
    local key kib _
    while read -r key kib _; do
        if [[ $key == VmHWM: ]] && ((kib > ${rss_max[$1]:-0})); then rss_max[$1]=$kib; fi
    done <"/proc/${pid_of[$1]}/status"
}

# Counts what was acknowledged, in `acknowledged`; only what is new since the last time is read.
declare -A seen=()
acknowledged=0
count_acks() {
    local n size
    for n in "${!streams[@]}"; do
        size=$(stat -c %s "$work/acks.$n")
        ((size > ${seen[$n]:-0})) || continue
        acknowledged=$((acknowledged + $(tail -c "+$((${seen[$n]:-0} + 1))" "$work/acks.$n" | head -c "$((size - ${seen[$n]:-0}))" | wc -l)))
        seen[$n]=$size
    done
}

# A server that ends by itself, or a writer that does, is the end of the trial.
check_alive() {
    local id
    for id in "${ids[@]}"; do
        [[ -z ${pid_of[$id]} ]] || kill -0 "${pid_of[$id]}" 2>/dev/null || die "$id has ended by itself"
    done
    for id in "${helpers[@]}"; do
        kill -0 "$id" 2>/dev/null || die "a writer has ended before its time"
    done
}

# await_acks N: until that many messages are acknowledged in all.
await_acks() {
    local before=$acknowledged deadline=$((SECONDS + 120))
    while count_acks && ((acknowledged < $1)); do
        if ((acknowledged > before)); then
            before=$acknowledged deadline=$((SECONDS + 120))
        fi
        ((SECONDS < deadline)) || die "nothing was acknowledged for two minutes, after $acknowledged messages"
        check_alive
        sample_disk
        sleep 0.05
    done
    sample_disk
}

await_healthy() {
    local deadline=$((SECONDS + 120))
    until status >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { status || true; die "the cluster was not healthy within two minutes"; }
        check_alive
        sample_disk
        sleep 0.1
    done
}

# --- What is written ---------------------------------------------------------------------------------------------------------------

# The text of a line says whose it is, where and which, and is filled up to its length with something that differs from line to line.
# shellcheck disable=SC2016  # awk's own
text_function='
    BEGIN { while (length(filler) < bytes + 26) filler = filler "abcdefghijklmnopqrstuvwxyz" }
    function text(user, room, line) { return substr(user " " room " " line " " substr(filler, line % 26 + 1), 1, bytes) }'

input=() fed=()

start_writer() {
    local n=$1 user room descriptor
    read -r user room <<<"${streams[$n]}"
    mkfifo "$work/lines.$n"
    SYNCNET_KEY_FILE=$work/key.$user apart "$bin/syncnet" send --json --timeout 180 -u "$user" "$room" \
        <"$work/lines.$n" >"$work/acks.$n" 2>"$work/send.$n.log" &
    helpers+=("$!")
    exec {descriptor}>"$work/lines.$n"
    input[n]=$descriptor
    private+=("$descriptor")
    fed[n]=0
}

# feed TOTAL: gives the writers their lines up to that many in all.
feed() {
    local n user room upto
    for n in "${!streams[@]}"; do
        read -r user room <<<"${streams[$n]}"
        upto=$((($1 + n) / ${#streams[@]}))
        awk -v user="$user" -v room="$room" -v from="$((fed[n] + 1))" -v upto="$upto" -v bytes="$text_bytes" "$text_function"'
            BEGIN { for (line = from; line <= upto; line++) print text(user, room, line) }' >&"${input[n]}" &
        fed[n]=$upto
    done
}

# --- What happens to the servers ---------------------------------------------------------------------------------------------------

slowest_stop=0

# stop ID: asks it to stop, and it must within 5 seconds, with 0.
stop() {
    local asked code=0 took
    sample_memory "$1"
    asked=$(now)
    kill -TERM "${pid_of[$1]}"
    { wait "${pid_of[$1]}" || code=$?; } 2>/dev/null
    pid_of[$1]=''
    took=$((($(now) - asked) / 1000))
    ((took <= slowest_stop)) || slowest_stop=$took
    ((code == 0)) || die "$1 was asked to stop and ended with $code"
    ((took <= 5500)) || fail "$1 took $took ms to stop"
}

turn=0
declare -A killed=()
# disturb: the next server that runs is stopped or killed, and started again; the next time it is the other way.
disturb() {
    local id=${ids[turn % count]}
    turn=$((turn + 1))
    if [[ -z ${pid_of[$id]} ]]; then
        disturb
    elif [[ -z ${killed[$id]:-} ]]; then
        sample_memory "$id"
        lose "$id"
        killed[$id]=yes happened="$id killed"
        start "$id"
    else
        stop "$id"
        killed[$id]='' happened="$id stopped"
        start "$id"
    fi
}

# last_log ID: the end of its log, as it says itself.
last_log() { status 2>/dev/null | sed -n "s/.*\"id\":\"$1\"[^}]*\"last_log\":\([0-9]*\).*/\1/p"; }

# first_entry ID: the index of the first entry that stands in its log. A record's header has the length of its payload at byte 0, its
# kind at byte 12 (3 is an entry) and the index at byte 40.
first_entry() {
    local segment at=0 header
    segment=$(find "$work/$1/log" -name '*.seg' | sort | head -n 1)
    while read -r -a header < <(od -An -v -w64 -tu4 -j "$at" -N 64 "$segment") && ((${#header[@]} == 16 && header[3] % 256 > 0)); do
        if ((header[3] % 256 == 3)); then
            echo $((header[10] + (header[11] << 32)))
            return
        fi
        at=$((at + 64 + (header[0] + 7) / 8 * 8))
    done
    echo 0
}

# The others must have removed what comes after the end of the one that is away, or nothing is proved when it comes back.
await_removal() {
    local id deadline=$((SECONDS + 15)) first
    for id in "${ids[@]}"; do
        [[ $id != "$away" ]] || continue
        while first=$(first_entry "$id") && ((first <= away_end + 1)); do
            if ((SECONDS >= deadline)); then
                fail "$id still has what $away misses (entries from $first on, $away ends at $away_end): no checkpoint is needed"
                break
            fi
            sleep 0.2
        done
    done
}

# --- The run -----------------------------------------------------------------------------------------------------------------------

# report WHAT: how far it is, and what each directory takes.
report() {
    local id
    printf '%9d %7.1f' "$acknowledged" "$(awk -v us="$(($(now) - began))" 'BEGIN { print us / 1000000 }')"
    for id in "${ids[@]}"; do printf ' %9s' "$(mib "${disk[$id]:-0}")"; done
    printf '  %s\n' "$1"
}

begin_trial endurance "$count"
write_configuration endurance <<TOML
[log]
segment_size = "$segment_size"
checkpoint_every = $checkpoint_every
retention = "$retention"
TOML
for id in "${ids[@]}"; do start "$id"; done
settle

printf '%d messages of %d bytes, %d servers, retention %s, segments of %s, a checkpoint every %d entries\n' \
    "$messages" "$text_bytes" "$count" "$retention" "$segment_size" "$checkpoint_every"
printf '%9s %7s' messages seconds
for id in "${ids[@]}"; do printf ' %9s' "$id"; done
printf '  (MiB on disk)\n'

began=$(now)
for n in "${!streams[@]}"; do start_writer "$n"; done

for ((step = 1; step <= steps; step++)); do
    before=$acknowledged total=$((messages * step / steps)) back=''
    if ((step == steps / 4 + 1)); then
        await_healthy
        away_end=$(last_log "$away")
        stop "$away"
        report "$away is away"
    elif ((step == steps * 3 / 4 + 1)); then
        await_removal
        returned=$(now)
        start "$away"
        back=yes
        report "$away is started again"
    fi
    feed "$total"
    await_acks $((before + (total - before) / 4))
    disturb
    await_acks "$total"
    if [[ -n $back ]]; then
        await_healthy
        happened+="; $away has caught up after $(awk -v us="$(($(now) - returned))" 'BEGIN { printf "%.1f", us / 1000000 }') s"
    fi
    report "$happened"
done

for descriptor in "${private[@]}"; do exec {descriptor}>&-; done
private=()
for n in "${!streams[@]}"; do
    code=0
    wait "${helpers[$n]}" || code=$?
    ((code == 0)) || fail "the writer of ${streams[$n]} ended with $code"
done
helpers=()
ended=$(now)
await_healthy

# --- What came of it ---------------------------------------------------------------------------------------------------------------

compare_histories "${rooms[@]}"

# verify ROOM: acknowledgements against the history of server1. Each writer's lines are acknowledged in order, each once, under rising
# numbers; each number that isn't removed has that line, and no number more is there.
verify() {
    local n files=()
    for n in "${!streams[@]}"; do
        [[ ${streams[$n]} == *" $1" ]] && files+=("user=${streams[$n]% *}" "$work/acks.$n")
    done
    awk -v room="$1" -v bytes="$text_bytes" "$text_function"'
        function number(key) { return match($0, "\"" key "\":[0-9]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 : -1 }
        function wrong(what) { if (bad++ < 5) print room ": " what; }
        !history {
            line = number("line"); seq = number("seq")
            if (seq < 1) wrong("refused: " $0)
            if (line != lines[user] + 1) wrong(user " has line " line " acknowledged after line " lines[user] + 0)
            if (seq <= last[user]) wrong(user " has line " line " at " seq ", after " last[user])
            if (seq in owner) wrong(seq " is acknowledged twice")
            lines[user] = line; last[user] = seq; owner[seq] = user; at[seq] = line; acknowledged++
            next
        }
        /"gap":/ {
            if (read || number("from") != 1) wrong("a gap that is not at the beginning: " $0)
            removed = next_seq = number("to"); next
        }
        {
            seq = number("seq"); read++
            if (seq != next_seq + 1) wrong(seq " comes after " next_seq)
            next_seq = seq
            if (!(seq in owner)) wrong(seq " was never acknowledged: " substr($0, 1, 120))
            else if (!index($0, "\"user\":\"" owner[seq] "\",") || !index($0, "\"text\":\"" text(owner[seq], room, at[seq]) "\""))
                wrong(seq " is not line " at[seq] " of " owner[seq] ": " substr($0, 1, 120))
        }
        END {
            if (next_seq != acknowledged) wrong("ends at " next_seq + 0 " after " acknowledged " acknowledgements")
            printf "%s: %d acknowledged, %d removed, %d read\n", room, acknowledged, removed, read
            exit bad > 0
        }' "${files[@]}" history=1 "$work/history.$1.server1"
}

echo
gone=0
for room in "${rooms[@]}"; do
    verify "$room" || fail "the history of $room is not what was acknowledged"
    if head -n 1 "$work/history.$room.server1" | grep -q '"gap":'; then gone=$((gone + 1)); fi
done
((gone > 0)) || fail "retention has removed nothing"
((acknowledged == messages)) || fail "$acknowledged of $messages messages were acknowledged"

sample_disk
for id in "${ids[@]}"; do
    sample_memory "$id"
    printf '%s: disk %s MiB at most, %s MiB at the end; memory %s MiB at most\n' "$id" \
        "$(mib "${disk_max[$id]}")" "$(mib "${disk[$id]}")" "$(mib $((${rss_max[$id]} * 1024)))"
    ((${disk_max[$id]} <= bound)) || fail "$id used more than $(mib "$bound") MiB of disk"
    if [[ -n $(find "$work/$id/quarantine" -mindepth 1 2>/dev/null) ]]; then fail "$id has set something aside, though nothing was damaged"; fi
    if grep -q 'one of the two is damaged' "$work/$id.log"; then fail "$id saw a state that differs from its own"; fi
done
awk -v messages="$messages" -v us="$((ended - began))" -v stop="$slowest_stop" -v bound="$(mib "$bound")" 'BEGIN {
    printf "%.1f seconds, %.0f messages a second; the slowest stop took %d ms; the bound on disk use is %s MiB\n",
        us / 1000000, messages * 1000000 / us, stop, bound }'
conclude
