//! syncnetctl.

fn main() {}
