#!/usr/bin/env bash
#
# Runs one server of conf/cluster.toml in the foreground: scripts/start_server.sh ID [OPTIONS of syncnetd]
# Its log lines go to this window and to logs/ID.log, its data to data/ID. Ctrl-C stops it.

set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [[ $# -lt 1 || $1 == -* ]]; then
    echo "usage: scripts/start_server.sh ID [OPTIONS of syncnetd]" >&2
    echo "the servers of conf/cluster.toml: $(server_ids | tr '\n' ' ')" >&2
    exit 2
fi
id=$1
shift
if ! server_ids | grep -qxF -- "$id"; then
    echo "$id is not a server of conf/cluster.toml; there are: $(server_ids | tr '\n' ' ')" >&2
    exit 2
fi

build
lock
if pid=$(running "$id"); then
    echo "$id is running already (pid $pid). To stop it: scripts/stop_all_servers.sh $id" >&2
    exit 3
fi
mkdir -p "$root/logs" "$root/data"
# exec keeps the process number, so the number of this shell is the server's. tee ignores Ctrl-C, to write the last lines too.
echo "$$" >"$root/run/$id.pid"
echo "$id: configuration conf/cluster.toml, data data/$id, log logs/$id.log. Ctrl-C stops it."
exec "$bin/syncnetd" --config "$config" --server-id "$id" --data-dir "$root/data/$id" "$@" \
    9>&- 2> >(exec tee -ia "$root/logs/$id.log" 9>&- >&2)
