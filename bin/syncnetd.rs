//! syncnetd.

fn main() {}
