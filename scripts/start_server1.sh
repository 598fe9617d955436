#!/usr/bin/env bash
# Runs server1 in the foreground, in a window of its own; Ctrl-C stops it. Options are those of syncnetd.
exec "$(dirname "${BASH_SOURCE[0]}")/start_server.sh" server1 "$@"
