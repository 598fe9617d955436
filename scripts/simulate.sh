#!/bin/sh
# Runs many seeds of the simulator in a release build, on all cores, and says at the end what they have seen and how fast it went.
# It fails if a seed breaks a promise, or if so many seeds have not seen enough of each fault.
#   scripts/simulate.sh [--mix standard|swarm|both] [--seeds N] [--from SEED] [--jobs N]
# --seeds is for each mix. To make the list of faults of one failing seed shorter:
#   scripts/simulate.sh --shrink SEED --mix standard|swarm|early
set -eu
cd "$(dirname "$0")/.."
usage="usage: scripts/simulate.sh [--mix standard|swarm|both] [--seeds N] [--from SEED] [--jobs N] | --shrink SEED --mix MIX"
mix=both
seeds=1000
from=1
shrink=
jobs=$(nproc 2>/dev/null || echo 1)
while [ $# -gt 0 ]; do
    case "$1" in
        --mix|--seeds|--from|--jobs|--shrink) [ $# -ge 2 ] || { echo "$usage" >&2; exit 2; } ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    case "$1" in
        --mix) mix=$2 ;;
        --seeds) seeds=$2 ;;
        --from) from=$2 ;;
        --jobs) jobs=$2 ;;
        --shrink) shrink=$2 ;;
    esac
    shift 2
done
case "$mix" in
    standard|swarm|early|both) ;;
    *) echo "$usage" >&2; exit 2 ;;
esac
case "$seeds$from$jobs$shrink" in
    *[!0-9]*) echo "$usage" >&2; exit 2 ;;
esac
export SYNCNET_MIX="$mix"
if [ -n "$shrink" ]; then
    [ "$mix" != both ] || { echo "which mix is seed $shrink of? $usage" >&2; exit 2; }
    SYNCNET_SHRINK=1 SYNCNET_SEED=$shrink cargo test --release --quiet --test simulator shrink -- --exact --nocapture
    exit
fi
echo "$seeds seeds from $from, mix $mix, $jobs at a time"
if SYNCNET_SEEDS=$seeds SYNCNET_FROM=$from SYNCNET_JOBS=$jobs \
    cargo test --release --quiet --test simulator many -- --exact --nocapture; then
    echo "all $seeds seeds of each mix ($mix) kept every promise"
else
    echo "some seeds failed, or saw too little: the lines above say which, and how to replay them" >&2
    exit 1
fi
