#!/bin/sh
# Explores three servers exhaustively, in a release build: every order of frames, syncs, time-outs, broken links and crashes.
#   scripts/explore.sh [--depth N] [--election highest|lcr] [--root NAME] [--bounds LIST] [--states N] [--seconds N]
#
#   --depth N      so many steps from each root (20)
#   --election E   one nomination only
#   --root NAME    one root only: gathered, settled, committed, divergent, figure8
#   --bounds LIST  how often things may happen, as crashes=2,timeouts=1; also resets, timers, proposals, stops, heartbeats.
#                  What isn't named doesn't happen. Without it each root is explored within the bounds of the test.
#   --states N     a search ends after so many states (40000000, which take some 6 GB)
#   --seconds N    or after so long (no bound)
#
# Each search prints what it met, and how many states were new at each depth. A broken promise ends it, with the shortest way to it.
set -eu
cd "$(dirname "$0")/.."
usage() {
    sed -n '3p' "$0" | sed 's/^# */usage: /' >&2
    exit 2
}
depth=20
states=40000000
election='' root='' bounds='' seconds=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case "$1" in
        --depth) depth=$2 ;;
        --election) election=$2 ;;
        --root) root=$2 ;;
        --bounds) bounds=$2 ;;
        --states) states=$2 ;;
        --seconds) seconds=$2 ;;
        *) usage ;;
    esac
    shift 2
done
if SYNCNET_EXPLORE_DEPTH=$depth SYNCNET_EXPLORE_STATES=$states SYNCNET_EXPLORE_ELECTION=$election SYNCNET_EXPLORE_ROOT=$root \
    SYNCNET_EXPLORE_BOUNDS=$bounds SYNCNET_EXPLORE_SECONDS=$seconds \
    cargo test --release --quiet --test exhaustive deeper -- --exact --nocapture; then
    echo "every promise was kept"
else
    echo "something was found, or could not be run: see above" >&2
    exit 1
fi
