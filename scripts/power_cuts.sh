#!/bin/sh
# Cuts the power of real servers, of the release build, again and again while two programs write, and checks after each few cuts that
# everything that was acknowledged can be read at every server. Says at the end what the cuts have met; fails if anything was lost,
# if a server ended or found damage, or if 100 cuts or more haven't seen every kind of cut and loss.
#   scripts/power_cuts.sh [--cuts N] [--seed N]
# Without options: 1000 cuts, seed 1. Every 100 cuts a new cluster begins, with the next seed. About a second for each cut.
# Needs /dev/fuse, and to be root or to have fusermount3 (package fuse3).
set -eu
cd "$(dirname "$0")/.."
usage="usage: scripts/power_cuts.sh [--cuts N] [--seed N]"
cuts=1000
seed=1
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "$usage" >&2; exit 2; }
    case "$2" in
        ''|*[!0-9]*) echo "$usage" >&2; exit 2 ;;
    esac
    case "$1" in
        --cuts) cuts=$2 ;;
        --seed) seed=$2 ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    shift 2
done
echo "$cuts power cuts, from seed $seed"
if SYNCNET_CUTS=$cuts SYNCNET_SEED=$seed cargo test --release --quiet --locked --test power_cuts many -- --exact --nocapture; then
    echo "nothing that was acknowledged was lost"
else
    echo "something was lost, or the cuts saw too little, or can't be made here: see above" >&2
    exit 1
fi
