#!/bin/sh
# Lets every kind of fault happen to clusters of real processes, again and again, in network namespaces of their own, in a release build.
# People write and read all the while; it prints what each fault has cost, and at the end a table. It fails if a promise is broken, or
# if a kind of fault was never seen: seeing all of them takes about three minutes. Needs root, ip, nft, nsenter and loop devices.
#   scripts/torture.sh [--minutes M] [--seed N] [--servers 3|5] [--only TEXT]
# --only takes the faults whose names contain the text. The same seed draws the same faults in the same order; what they meet depends
# on the machine. What it makes is called syncnet-rig-PID-N and goes with it; what a killed run left behind is removed by the next one.
# The logs of the last cluster's servers stay in target/torture.
set -eu
cd "$(dirname "$0")/.."
usage="usage: scripts/torture.sh [--minutes M] [--seed N] [--servers 3|5] [--only TEXT]"
minutes=10
seed=$(date +%s)
servers=3
only=
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes|--seed|--servers|--only) [ $# -ge 2 ] || { echo "$usage" >&2; exit 2; } ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    [ "$1" = --only ] || case "$2" in
        ''|*[!0-9]*) echo "$usage" >&2; exit 2 ;;
    esac
    case "$1" in
        --minutes) minutes=$2 ;;
        --seed) seed=$2 ;;
        --servers) servers=$2 ;;
        --only) only=$2 ;;
    esac
    shift 2
done
case "$servers" in
    3|5) ;;
    *) echo "$usage" >&2; exit 2 ;;
esac
[ "$minutes" -gt 0 ] || { echo "$usage" >&2; exit 2; }
rm -rf target/torture
echo "$minutes minutes, $servers servers, seed $seed"
if SYNCNET_MINUTES=$minutes SYNCNET_SEED=$seed SYNCNET_SERVERS=$servers SYNCNET_ONLY=$only SYNCNET_LOGS=$PWD/target/torture \
    cargo test --release --locked --quiet --test torture long -- --exact --nocapture; then
    echo "every promise was kept for $minutes minutes"
else
    echo "failed: the lines above say how; scripts/torture.sh --minutes $minutes --servers $servers --seed $seed draws the same faults" >&2
    exit 1
fi
