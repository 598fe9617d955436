# shellcheck shell=bash
#
# What the start and stop scripts share: where things are, and which processes are ours.
#
# SYNCNET_BIN names a directory with the programs; without it they are built from here.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
config=$root/conf/cluster.toml
# shellcheck disable=SC2034  # for those that source this
bin=${SYNCNET_BIN:-$root/target/release}

# The ids of the servers in the configuration, one a line.
server_ids() {
    sed -n 's/^[[:space:]]*id[[:space:]]*=[[:space:]]*"\([^"]*\)".*/\1/p' "$config"
}

# host:port of every server's clients, one a line.
server_addresses() {
    awk -F'=' '
        function value(text) { sub(/#.*/, "", text); gsub(/[[:space:]"]/, "", text); return text }
        function flush() { if (host != "" && port != "") print (host ~ /:/ ? "[" host "]" : host) ":" port; host = port = "" }
        /^[[:space:]]*\[/                      { flush() }
        /^[[:space:]]*host[[:space:]]*=/        { host = value($2) }
        /^[[:space:]]*client_port[[:space:]]*=/ { port = value($2) }
        END                                     { flush() }
    ' "$config"
}

# Builds the programs, unless SYNCNET_BIN says where they are.
build() {
    [[ -n ${SYNCNET_BIN:-} ]] && return
    if ! command -v cargo >/dev/null; then
        echo "There is no cargo here: install Rust (https://rustup.rs), or name the programs' directory in SYNCNET_BIN." >&2
        return 1
    fi
    # A target directory of the user's own choice would put the programs where this script doesn't look.
    (cd "$root" && cargo build --release --locked --bins --target-dir "$root/target")
}

# running ID: prints the pid of the server that these scripts started here, or fails. A pid file proves nothing by itself, the
# number may be another's by now: only a syncnetd on our data directory counts.
running() {
    local id=$1 pid arguments=()
    { read -r pid <"$root/run/$id.pid"; } 2>/dev/null || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    { mapfile -d '' -t arguments <"/proc/$pid/cmdline"; } 2>/dev/null || return 1
    [[ ${#arguments[@]} -gt 0 && ${arguments[0]##*/} == syncnetd ]] || return 1
    local at
    for ((at = 1; at + 1 < ${#arguments[@]}; at++)); do
        if [[ ${arguments[at]} == --data-dir && ${arguments[at + 1]} == "$root/data/$id" ]]; then
            echo "$pid"
            return 0
        fi
    done
    return 1
}

# ask_to_stop ID: prints the pid of the server that was asked, or fails because there is none.
ask_to_stop() {
    local pid
    pid=$(running "$1") || return 1
    # A process that was stopped with SIGSTOP takes SIGTERM only once it goes on.
    kill -TERM "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true
    echo "$pid"
}

# await_stop ID PID: waits until that server has ended, insists after 6 seconds, and removes the pid file.
await_stop() {
    local id=$1 pid=$2 waited=0
    while [[ $(running "$id") == "$pid" ]] && ((waited < 60)); do
        sleep 0.1
        waited=$((waited + 1))
    done
    if [[ $(running "$id") == "$pid" ]]; then
        echo "$id (pid $pid) did not stop within 6 seconds: killing it." >&2
        kill -KILL "$pid" 2>/dev/null || true
        while [[ $(running "$id") == "$pid" ]]; do sleep 0.05; done
    fi
    rm -f "$root/run/$id.pid"
}

# stop_servers ID…: all at once, so that leadership doesn't wander from one to the next. Says what it stopped; counts it in `stopped`.
stop_servers() {
    local id pid asked=()
    stopped=0
    for id; do
        if pid=$(ask_to_stop "$id"); then
            asked+=("$id" "$pid")
        else
            rm -f "$root/run/$id.pid"
        fi
    done
    set -- "${asked[@]}"
    while [[ $# -gt 0 ]]; do
        await_stop "$1" "$2"
        echo "$1 stopped"
        stopped=$((stopped + 1))
        shift 2
    done
}

# Takes the lock that keeps two of these scripts from starting and stopping the same servers at once; held until the script ends.
# Servers are started with descriptor 9 closed, so that they don't hold it.
lock() {
    mkdir -p "$root/run"
    exec 9>"$root/run/lock"
    if ! flock -w 60 9; then
        echo "Another start or stop script has been at work for a minute: see run/lock." >&2
        return 1
    fi
}
