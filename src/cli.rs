//! One option table per program.
