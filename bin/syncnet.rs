//! syncnet.

fn main() {}
