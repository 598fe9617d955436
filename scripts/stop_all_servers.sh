#!/usr/bin/env bash
#
# Stops the servers that the start scripts of this directory started, and nothing else: scripts/stop_all_servers.sh [ID…]
# Asks with SIGTERM, insists with SIGKILL after 6 seconds. With nothing to stop, it says so and succeeds.

set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    echo "usage: scripts/stop_all_servers.sh [ID…]"
    exit 0
fi

lock
if [[ $# -gt 0 ]]; then
    ids=("$@")
else
    # Also those that have left the configuration since they were started.
    mapfile -t ids < <({
        server_ids
        for file in "$root"/run/*.pid; do [[ -e $file ]] && basename "$file" .pid; done
    } | awk '!seen[$0]++')
fi

for id in "${ids[@]}"; do
    if [[ ! $id =~ ^[A-Za-z0-9._-]+$ ]]; then
        echo "$id is not the id of a server" >&2
        exit 2
    fi
    if [[ ! -e $root/run/$id.pid ]] && ! server_ids | grep -qxF -- "$id"; then
        echo "There is no server $id in conf/cluster.toml; it has: $(server_ids | paste -sd ' ')" >&2
        exit 2
    fi
done
stop_servers "${ids[@]}"
((stopped > 0)) || echo "Nothing to stop: no server that was started here is running."
