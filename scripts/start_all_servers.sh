#!/usr/bin/env bash
#
# Builds the programs, starts every server of conf/cluster.toml on this machine in the background, and waits until the cluster is
# healthy: scripts/start_all_servers.sh [--wait SECS] [OPTIONS of syncnetd]
# Logs go to logs/ID.log, data to data/ID, process numbers to run/ID.pid. If the cluster doesn't come up, what was started here is
# stopped again. scripts/stop_all_servers.sh ends it.

set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

wait_s=15
if [[ ${1:-} == --wait && ${2:-} =~ ^[0-9]+$ ]]; then
    wait_s=$2
    shift 2
elif [[ ${1:-} == --wait || ${1:-} == --help || ${1:-} == -h ]]; then
    echo "usage: scripts/start_all_servers.sh [--wait SECS] [OPTIONS of syncnetd]"
    [[ $1 == --wait ]] && exit 2
    exit 0
fi

build
lock
mkdir -p "$root/logs" "$root/data"
mapfile -t ids < <(server_ids)
mapfile -t addresses < <(server_addresses)
if [[ ${#ids[@]} -eq 0 || ${#ids[@]} -ne ${#addresses[@]} ]]; then
    echo "conf/cluster.toml names ${#ids[@]} servers and ${#addresses[@]} addresses for clients: each [[server]] needs id, host and client_port." >&2
    exit 2
fi
servers=()
for address in "${addresses[@]}"; do servers+=(-s "$address"); done

status() {
    "$bin/syncnetctl" status --timeout 2 "${servers[@]}"
}

started=()
give_up() {
    local id
    echo >&2
    echo "$1" >&2
    for id in "${started[@]}"; do
        echo >&2
        echo "--- the end of logs/$id.log:" >&2
        tail -n 15 "$root/logs/$id.log" >&2 || true
    done
    stop_servers "${started[@]}" >&2
    exit 1
}
trap 'give_up "Interrupted."' INT TERM

for id in "${ids[@]}"; do
    if pid=$(running "$id"); then
        echo "$id is running already (pid $pid)"
        continue
    fi
    # A session of its own: Ctrl-C in this terminal is not meant for the servers.
    setsid "$bin/syncnetd" --config "$config" --server-id "$id" --data-dir "$root/data/$id" "$@" \
        </dev/null >>"$root/logs/$id.log" 2>&1 9>&- &
    pid=$!
    echo "$pid" >"$root/run/$id.pid"
    started+=("$id")
    echo "$id started (pid $pid)"
done

deadline=$((SECONDS + wait_s))
until status >/dev/null 2>&1; do
    for id in "${started[@]}"; do
        # setsid needs a moment to become syncnetd; the process number is the server's all the time.
        pid=$(<"$root/run/$id.pid")
        if ! kill -0 "$pid" 2>/dev/null; then
            code=0
            wait "$pid" || code=$?
            give_up "$id has ended with exit code $code."
        fi
    done
    ((SECONDS < deadline)) || { status || true; give_up "The cluster is not healthy after $wait_s seconds."; }
    sleep 0.2
done
trap - INT TERM

echo
status
programs=${bin#"$PWD"/}
{
    echo
    echo "Next:"
    printf '  %-42s %s\n' \
        "$programs/syncnet lobby" "chat in the lobby (/help for the commands, /quit to leave)" \
        "$programs/syncnetctl watch" "see the servers, every 5 seconds" \
        "scripts/stop_all_servers.sh" "stop them all"
}
