//! The only place that reads clocks. They are read once a turn (once more after a long catching up) and handed down, so that
//! all decisions of a turn agree on the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::{Now, Tick};

/// The clocks of this process: ticks count from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// What the clocks say.
    #[must_use]
    pub fn now(&self) -> Now {
        let elapsed = self.start.elapsed().as_micros();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        Now {
            tick: Tick(u64::try_from(elapsed).unwrap_or(u64::MAX)),
            wall_ms: u64::try_from(wall).unwrap_or(u64::MAX),
        }
    }
}
