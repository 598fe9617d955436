//! What the seeds of each mix must have seen, or their being green proves nothing: about half of what they see today, for each thousand
//! seeds. A run of fewer is asked for its share.

use super::mixes::Mix;
use super::plan::SERVERS_REPAIR;

/// What so many seeds of a mix must have seen.
pub fn minimums(mix: Mix, seeds: u64) -> Vec<(&'static str, u64)> {
    let rates = match mix {
        Mix::Standard => STANDARD,
        Mix::Swarm | Mix::Early => SWARM,
    };
    let awaited = if SERVERS_REPAIR { REPAIRS } else { &[] };
    let share = |&(what, rate): &(&'static str, u64)| (what, rate * seeds / 1000);
    let mut minimums: Vec<_> = rates
        .iter()
        .chain(awaited)
        .map(share)
        .filter(|&(_, least)| least >= LEAST)
        .collect();
    if mix != Mix::Early && seeds >= 20 {
        // Long logs of small segments, and short waits.
        minimums.push(("most segments of a log", 20));
    }
    minimums.push(("worlds", seeds));
    minimums
}

/// What is expected less often than this may not come at all.
const LEAST: u64 = 10;

/// What servers that repair themselves must have done, in both mixes. To be counted where it is done.
const REPAIRS: &[(&str, u64)] = &[
    ("checkpoints made", 500),
    ("checkpoint transfers", 50),
    ("segments deleted", 500),
    ("bits flipped", 50),
    ("repairs", 25),
    ("disks lost", 50),
    ("rejoins", 25),
];

const STANDARD: &[(&str, u64)] = &[
    ("changes of the settings", 220),
    ("client connections reset", 250),
    ("client operations", 370_000),
    ("clients closed", 4_300),
    ("clients crashed", 260),
    ("clients that hung", 270),
    ("clients that lost their server", 7_400),
    ("clients told of no quorum", 2_600),
    ("clocks at another rate", 260),
    ("datagrams lost", 200_000),
    ("datagrams repeated", 71_000),
    ("elections", 2_800),
    ("ends of all servers at once", 490),
    ("ends written anew", 4_600),
    ("entries committed", 340_000),
    ("fail-overs with messages in flight", 810),
    ("failed disks", 270),
    ("followers' disks that hung", 110),
    ("fresh lookups", 12_000),
    ("fresh readings", 29_000),
    ("full disks", 250),
    ("items cut in two", 770_000),
    ("items read", 5_200_000),
    ("keys recognised", 16_000),
    ("kills", 1_700),
    ("leaders that hung", 120),
    ("leaders' disks that hung", 150),
    ("link resets", 800),
    ("links given up for their silence", 300),
    ("links made", 15_000),
    ("messages acknowledged", 270_000),
    ("messages sent again with their keys", 22_000),
    ("messages submitted", 280_000),
    ("messages with keys", 24_000),
    ("multicast dead", 230),
    ("names released", 210),
    ("names taken", 26),
    ("old datagrams sent again", 4_000),
    ("one-way partitions", 260),
    ("orderly stops", 220),
    ("partial partitions", 240),
    ("partitions", 490),
    ("power cuts", 1_100),
    ("power cuts behind a kill", 250),
    ("reads from the log", 40_000),
    ("redirects", 7_500),
    ("refused at admission", 2_500),
    ("reports of live sessions", 29_000),
    ("resends asked for", 1_300),
    ("restarts with another configuration", 230),
    ("retries recognised", 140),
    ("segments that couldn't be made ahead", 42),
    ("sessions expired", 110),
    ("sessions gone on with", 10_000),
    ("sessions opened", 7_300),
    ("slow disks", 250),
    ("stale lookups", 170),
    ("stale readings", 430),
    ("starts", 4_600),
    ("times of jitter", 250),
    ("torn ends cut off", 13),
    ("wall clocks that jumped", 230),
];

const SWARM: &[(&str, u64)] = &[
    ("changes of the settings", 320),
    ("client connections reset", 300),
    ("client operations", 2_800_000),
    ("clients closed", 8_300),
    ("clients crashed", 500),
    ("clients that hung", 450),
    ("clients that lost their server", 8_100),
    ("clients told of no quorum", 3_500),
    ("clocks at another rate", 500),
    ("commands held back", 3_900),
    ("datagrams lost", 120_000),
    ("datagrams repeated", 18_000),
    ("elections", 2_500),
    ("ends of all servers at once", 950),
    ("ends written anew", 6_400),
    ("entries committed", 2_000_000),
    ("fail-overs with messages in flight", 870),
    ("failed disks", 610),
    ("followers' disks that hung", 330),
    ("fresh lookups", 21_000),
    ("fresh readings", 27_000),
    ("full disks", 500),
    ("items cut in two", 2_100_000),
    ("items read", 53_000_000),
    ("keys recognised", 72_000),
    ("kills", 2_600),
    ("leaders that hung", 160),
    ("leaders' disks that hung", 200),
    ("link resets", 1_600),
    ("links given up for their silence", 86),
    ("links made", 21_000),
    ("messages acknowledged", 1_900_000),
    ("messages sent again with their keys", 99_000),
    ("messages submitted", 2_600_000),
    ("messages with keys", 85_000),
    ("multicast dead", 560),
    ("names released", 140),
    ("names taken", 76),
    ("old datagrams sent again", 7_600),
    ("one-way partitions", 380),
    ("orderly stops", 340),
    ("partial partitions", 410),
    ("partitions", 860),
    ("power cuts", 2_200),
    ("power cuts behind a kill", 490),
    ("reads from the log", 99_000),
    ("redirects", 8_900),
    ("refused at admission", 11_000),
    ("reports of live sessions", 9_900),
    ("resends asked for", 2_500),
    ("restarts with another configuration", 470),
    ("retries recognised", 2_800),
    ("segments that couldn't be made ahead", 360),
    ("sessions expired", 43),
    ("sessions gone on with", 6_800),
    ("sessions opened", 10_000),
    ("slow disks", 490),
    ("stale lookups", 4_700),
    ("stale readings", 4_900),
    ("starts", 6_400),
    ("times of jitter", 350),
    ("torn ends cut off", 75),
    ("wall clocks that jumped", 440),
];
