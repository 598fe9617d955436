//! The promises, kept by real processes: what a user relies on when servers are killed, hung, stopped and started, when programs
//! are misused, and when strangers talk to the ports.

mod support;

#[path = "processes/bench.rs"]
mod bench;
#[path = "processes/contract.rs"]
mod contract;
#[path = "processes/damage.rs"]
mod damage;
#[path = "processes/faults.rs"]
mod faults;
#[path = "processes/hostile.rs"]
mod hostile;
#[path = "processes/intruders.rs"]
mod intruders;
#[path = "processes/space.rs"]
mod space;
#[path = "processes/strangers.rs"]
mod strangers;
