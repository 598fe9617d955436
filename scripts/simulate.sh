#!/bin/sh
# Runs many seeds of the simulator in a release build, on all cores.
#   scripts/simulate.sh [--seeds N] [--from SEED] [--jobs N]
set -eu
cd "$(dirname "$0")/.."
seeds=1000
from=1
jobs=$(nproc 2>/dev/null || echo 1)
while [ $# -gt 0 ]; do
    case "$1" in
        --seeds) seeds=$2; shift 2 ;;
        --from) from=$2; shift 2 ;;
        --jobs) jobs=$2; shift 2 ;;
        *) echo "usage: scripts/simulate.sh [--seeds N] [--from SEED] [--jobs N]" >&2; exit 2 ;;
    esac
done
echo "$seeds seeds from $from, $jobs at a time"
if SYNCNET_SEEDS=$seeds SYNCNET_FROM=$from SYNCNET_JOBS=$jobs \
    cargo test --release --quiet --test simulator many -- --exact --nocapture; then
    echo "all $seeds seeds kept every promise"
else
    echo "some seeds failed: each has a line above that replays it" >&2
    exit 1
fi
