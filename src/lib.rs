//! SyncNet: the chat that stays up during the outage. This page is the map of the house.
//!
//! ```text
//!  clients ── frames ──▶ ┌───────────── syncnetd ─────────────┐
//!  peers ─── frames ───▶ │ poll loop ─▶ node (pure)           │──▶ log writer: append, fdatasync
//!  peers ── datagrams ─▶ │   sockets     cluster · chat       │◀── log reader: history
//!                        └────────────────────────────────────┘──▶ log lines
//! ```
//!
//! # Threads
//!
//! One thread runs the poll loop. It owns every socket and the [`node`], and never blocks. Beside it: the log's writer (appends and
//! syncs), one that makes segments ahead of it, the log's reader (history), one that writes log lines, and one that looks up names of
//! hosts when there are any. They talk over bounded channels; a waker takes answers back into the loop. There is no async runtime.
//!
//! One turn of the loop: wait → read what is ready, a bounded amount from each connection → hand the inputs to the node →
//! gather all effects → one batch to the log writer, one frame to each peer, one write to each client that is ready.
//!
//! # Rooms
//!
//! Arrows point down: a room calls those below it, never one above or beside it. `tests/tidy.rs` sees to that, and to what a
//! pure room may not name.
//!
//! | room | what it is for |
//! |---|---|
//! | [`server`] | the poll loop, connections, peer links, datagrams, signals: everything that touches a socket |
//! | [`client`] | a connection with fail-over and an outbox, the programs on it, and the bench; its `core` is pure |
//! | [`node`] | pure. The heart: [`cluster`], [`chat`] and the sessions of clients; `step(now, input)`, `poll()`, `deadline()` |
//! | [`keep`] | housekeeping of the log: checkpoints, retention, repair of what only the disk knows |
//! | [`log`] | the append-only log: records, segments, recovery, index, and the two worker threads |
//! | [`wire`] | pure. Bytes ↔ values: frames, commands, datagrams, proofs of the secret |
//! | [`cluster`] | pure. Who is alive, who leads, what is committed |
//! | [`chat`] | pure. The replicated state: names, rooms, members, messages, sessions; `apply` is deterministic and can't fail |
//! | [`types`], [`limits`], [`rng`], [`machine`], [`mailbox`], [`config`], [`cli`] | the ground floor: newtypes, every bound, the seeded generator, what the system says of this process, channels to threads, the configuration, the command lines |
//!
//! # Where to begin
//!
//! [`types`] and [`limits`] for the words. [`node`] for the seam: what happens comes in as an `Input`, what should happen goes out
//! as an `Effect`, and nothing else passes. Then down one way of a message: [`wire::client`] (a command arrives), [`cluster`] (it
//! becomes an entry, is replicated and committed), [`log`] (it is durable), [`chat`] (it is applied), [`node::fanout`] (it reaches the
//! readers). [`server::poll`] puts a thread and sockets under it; `tests/sim` puts a simulator there instead.
//!
//! The programs in `bin/` are arguments, wiring and exit codes. The formats on the wire and on disk are in
//! `man/syncnet-protocol.7`.

pub mod chat;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod keep;
pub mod limits;
pub mod log;
pub mod machine;
pub mod mailbox;
pub mod node;
pub mod rng;
pub mod server;
pub mod types;
pub mod wire;
