//! A connection with fail-over and an outbox.
