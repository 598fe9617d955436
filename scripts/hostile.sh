#!/usr/bin/env bash
#
# Attacks a cluster of its own for a while, in ten ways one after the other, beside a client that goes on as usual: how long its
# acknowledgements take, without an attack and under each, and what the server needs. Fails if the median is more than twice what it was,
# if a message is lost, or if memory grows. The same attacks run for a moment in `cargo test`.
#
#     scripts/hostile.sh [--minutes M] [--decoders RUNS]
#
# --minutes   how long, all attacks together (5)
# --decoders  also give each decoder so many bad inputs, with another seed each time

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    sed -n '3,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

minutes=5 decoders=''
while (($# > 0)); do
    case $1 in
    --minutes)
        minutes=${2:?--minutes needs a number}
        shift
        ;;
    --decoders)
        decoders=${2:?--decoders needs a number}
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "unknown option $1; --help lists them" >&2
        exit 2
        ;;
    esac
    shift
done

if [[ -n $decoders ]]; then
    seed=$((RANDOM * 32768 * 1000 + RANDOM * 1000))
    echo "decoders: $decoders inputs each, from SYNCNET_DECODER_SEED=$seed on"
    SYNCNET_DECODER_RUNS=$decoders SYNCNET_DECODER_SEED=$seed cargo test --release --locked --test decoders
fi
SYNCNET_HOSTILE_MINUTES=$minutes cargo test --release --locked --test processes -- \
    --ignored --exact hostile::hostile_for_long --nocapture
