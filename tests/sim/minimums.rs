//! What the seeds of each mix must have seen, or their being green proves nothing: about half of what they see today (a third in the
//! swarm, whose seeds differ more), for each thousand seeds. A run of fewer is asked for its share.

use super::mixes::Mix;
use super::plan::SERVERS_REPAIR;

/// What so many seeds of a mix must have seen.
pub fn minimums(mix: Mix, seeds: u64) -> Vec<(&'static str, u64)> {
    if seeds < SEEDS_MIN {
        return vec![("worlds", seeds)];
    }
    let rates = match mix {
        Mix::Standard => STANDARD,
        Mix::Swarm => SWARM,
        Mix::Early => &[],
    };
    let awaited = if SERVERS_REPAIR { REPAIRS } else { &[] };
    let share = |&(what, rate): &(&'static str, u64)| (what, rate * seeds / 1000);
    // What is rare comes by chance: so much less is no surprise.
    let spread = |(what, least): (&'static str, u64)| (what, least.saturating_sub(3 * least.isqrt()));
    let mut minimums: Vec<_> = rates
        .iter()
        .chain(awaited)
        .map(share)
        .filter(|&(_, least)| least >= LEAST)
        .map(spread)
        .collect();
    if mix == Mix::Swarm {
        minimums.push(("worlds of seven servers", seeds / 100));
    }
    if mix != Mix::Early {
        // Long logs of small segments.
        minimums.push(("most segments of a log", 20));
    }
    minimums.push(("worlds", seeds));
    minimums
}

/// Fewer seeds than this may each have drawn the same.
const SEEDS_MIN: u64 = 50;
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
    ("admissions cut off", 240),
    ("batches torn at their first page", 95),
    ("bursts of commands cut in two", 50),
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
    ("elections beside a log with holes", 40),
    ("ends of all servers at once", 490),
    ("ends written anew", 4_600),
    ("entries committed", 340_000),
    ("fail-overs with messages in flight", 810),
    ("failed disks", 270),
    ("followers' disks that hung", 110),
    ("former directories that were back", 150),
    ("forwarded commands lost", 50),
    ("fresh lookups", 12_000),
    ("fresh readings", 29_000),
    ("full disks", 250),
    ("gaps recognised", 190),
    ("holes found at a start", 110),
    ("items cut in two", 770_000),
    ("items read", 5_200_000),
    ("keys recognised", 16_000),
    ("kills", 1_700),
    ("leaders asked as they woke", 60),
    ("leaders that hung", 120),
    ("leaders' disks that hung", 150),
    ("leaders cut off as they took office", 95),
    ("leaders killed when they were overruled", 150),
    ("link resets", 800),
    ("links given up for their silence", 300),
    ("links made", 15_000),
    ("logs compared at a start", 3_400),
    ("logs that rotted while their servers were down", 65),
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
    ("power cuts behind a failed sync", 110),
    ("power cuts behind a kill", 250),
    ("power cuts behind a restart", 190),
    ("reads from the log", 40_000),
    ("redirects", 7_500),
    ("refused at admission", 2_500),
    ("reports of live sessions", 29_000),
    ("resends asked for", 1_300),
    ("restarts with another configuration", 230),
    ("retries recognised", 140),
    ("rooms looked at behind what was trimmed", 1_600),
    ("segments that couldn't be made ahead", 42),
    ("servers that were whole again", 300),
    ("sessions expired", 110),
    ("sessions gone on with", 10_000),
    ("sessions opened", 7_300),
    ("slow disks", 250),
    ("stale lookups", 170),
    ("stale readings", 430),
    ("starts", 4_600),
    ("syncs that failed", 310),
    ("times that old segments went", 3_300),
    ("times of jitter", 250),
    ("torn ends cut off", 140),
    ("votes asked of former directories", 65),
    ("wall clocks that jumped", 230),
];

const SWARM: &[(&str, u64)] = &[
    ("batches torn at their first page", 40),
    ("changes of the settings", 210),
    ("client connections reset", 200),
    ("client operations", 1_800_000),
    ("clients closed", 5_500),
    ("clients crashed", 330),
    ("clients that hung", 300),
    ("clients that lost their server", 5_400),
    ("clients told of no quorum", 2_300),
    ("clocks at another rate", 330),
    ("datagrams lost", 81_000),
    ("datagrams repeated", 12_000),
    ("elections", 1_600),
    ("ends of all servers at once", 630),
    ("ends written anew", 4_300),
    ("entries committed", 1_300_000),
    ("fail-overs with messages in flight", 580),
    ("failed disks", 410),
    ("followers' disks that hung", 220),
    ("fresh lookups", 14_000),
    ("fresh readings", 18_000),
    ("full disks", 330),
    ("items cut in two", 1_400_000),
    ("items read", 35_000_000),
    ("keys recognised", 48_000),
    ("kills", 1_700),
    ("leaders that hung", 110),
    ("leaders' disks that hung", 130),
    ("leaders cut off as they took office", 40),
    ("leaders killed when they were overruled", 50),
    ("link resets", 1_000),
    ("links given up for their silence", 57),
    ("links made", 14_000),
    ("logs compared at a start", 2_600),
    ("messages acknowledged", 1_300_000),
    ("messages sent again with their keys", 66_000),
    ("messages submitted", 1_700_000),
    ("messages with keys", 56_000),
    ("multicast dead", 370),
    ("names released", 97),
    ("names taken", 51),
    ("old datagrams sent again", 5_100),
    ("one-way partitions", 250),
    ("orderly stops", 220),
    ("partial partitions", 270),
    ("partitions", 570),
    ("power cuts", 1_400),
    ("power cuts behind a failed sync", 43),
    ("power cuts behind a kill", 330),
    ("power cuts behind a restart", 100),
    ("reads from the log", 66_000),
    ("redirects", 5_900),
    ("refused at admission", 7_800),
    ("reports of live sessions", 6_600),
    ("resends asked for", 1_600),
    ("restarts with another configuration", 310),
    ("retries recognised", 720),
    ("rooms looked at behind what was trimmed", 800),
    ("segments that couldn't be made ahead", 240),
    ("sessions expired", 28),
    ("sessions gone on with", 4_500),
    ("sessions opened", 6_900),
    ("slow disks", 330),
    ("stale lookups", 3_100),
    ("stale readings", 3_200),
    ("starts", 4_300),
    ("syncs that failed", 270),
    ("times that old segments went", 1_300),
    ("times of jitter", 230),
    ("torn ends cut off", 70),
    ("wall clocks that jumped", 290),
    ("writes that waited for space", 160),
];
