//! The clocks of a machine: a monotonic one that begins anywhere at each start and runs fast or slow, and one on the wall that jumps.

use syncnet::types::{Now, Tick};

/// What the wall clocks begin with.
const WALL_MS: u64 = 1_790_000_000_000;
/// The rate of a clock that is right; a clock of twice the rate is fast.
pub const RIGHT: u64 = 1024;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// This moment of the world was that moment of the clock.
    world: Tick,
    own: u64,
    rate: u64,
    pub wall_skew_ms: i64,
}

impl Clock {
    pub const fn new() -> Clock {
        Clock {
            world: Tick(0),
            own: 0,
            rate: RIGHT,
            wall_skew_ms: 0,
        }
    }

    /// The machine starts: its clock begins somewhere else.
    pub fn start_at(&mut self, own: u64, now: Tick) {
        (self.world, self.own) = (now, own + now.0);
    }

    /// From now on it runs at this rate.
    pub fn run_at(&mut self, rate: u64, now: Tick) {
        (self.own, self.world) = (self.now(now).tick.0, now);
        self.rate = rate;
    }

    pub fn now(&self, world: Tick) -> Now {
        let wall = WALL_MS as i64 + self.wall_skew_ms + (world.0 / 1000) as i64;
        Now {
            tick: Tick(self.own + world.since(self.world).0 * self.rate / RIGHT),
            wall_ms: wall.max(1) as u64,
        }
    }

    /// When the clock will show this: not a moment earlier.
    pub fn world_time(&self, own: Tick) -> Tick {
        Tick(self.world.0 + (own.0.saturating_sub(self.own) * RIGHT).div_ceil(self.rate))
    }
}
