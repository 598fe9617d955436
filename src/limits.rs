//! Every bound, with what it costs and why it is that much. What a stranger can grow is bounded here or nowhere.

use crate::types::Span;

/// Servers in a cluster. More voters make every commit wait for more disks; five survive two failures already.
pub const SERVERS_MAX: usize = 9;
/// Bytes of a server's id: it is kept inline in every message that names a server.
pub const SERVER_ID_BYTES_MAX: usize = 23;
/// Bytes of a cluster's name.
pub const CLUSTER_NAME_BYTES_MAX: usize = 64;
/// The shortest `heartbeat_interval`: below it, heartbeats cost more than they find out sooner.
pub const HEARTBEAT_INTERVAL_MIN: Span = Span::from_ms(10);
/// The longest interval or time-out of a configuration: what is longer is a mistake in the unit.
pub const TIMING_MAX: Span = Span::from_ms(3_600_000);
/// Bytes of a file with a secret: many times more than any secret has.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of the shortest cluster secret: as many as the hash that it keys.
pub const SECRET_BYTES_MIN: usize = 32;

// --- Chat ---------------------------------------------------------------------------------------

/// Bytes of a user's name (UTF-8). Fits a column of a terminal in most scripts.
pub const NAME_BYTES_MAX: usize = 32;
/// Bytes of a room's name (UTF-8).
pub const ROOM_NAME_BYTES_MAX: usize = 64;
/// Bytes of a topic (UTF-8).
pub const TOPIC_BYTES_MAX: usize = 1024;
/// The largest `message_size_max` that a configuration may ask for, in bytes.
pub const MESSAGE_BYTES_CEILING: usize = 256 * 1024;
/// The `message_size_max` of a configuration that says nothing, in bytes.
pub const MESSAGE_BYTES_DEFAULT: usize = 64 * 1024;
/// Rooms of a cluster: some 300 bytes each.
pub const ROOMS_MAX: usize = 65_536;
/// Rooms that one session is in.
pub const ROOMS_PER_SESSION_MAX: usize = 256;
/// Sessions of a cluster, live and silent: some 300 bytes each.
pub const SESSIONS_MAX: usize = 100_000;
/// Outcomes kept for one session until its client has acknowledged them; also how many commands a client
/// may have unacknowledged. 1,024 fill a 100 ms round trip at 10,000 messages a second.
pub const SESSION_RESULTS_MAX: usize = 1024;
/// Idempotency keys kept by a cluster: some 100 bytes each.
pub const DEDUP_KEYS_MAX: usize = 1_000_000;
/// How far ahead of the cluster's Lamport clock a client's may be before it is clamped.
pub const LAMPORT_STEP_MAX: u64 = 1 << 20;
/// Sessions named in one Touch entry; a server with more sends several.
pub const TOUCH_SESSIONS_MAX: usize = 1024;
/// Log age without a sign of life after which a session's name is free for others.
pub const NAME_RELEASE: Span = Span::from_ms(60_000);
/// Log age after which a silent session and an idempotency key are forgotten, if nobody says otherwise.
pub const SESSION_EXPIRY_DEFAULT: Span = Span::from_ms(24 * 3_600_000);
/// How long idempotency keys that have run out may wait for others, so that one entry forgets many.
pub const FORGET_KEYS_INTERVAL: Span = Span::from_ms(60_000);
/// Idempotency keys that one entry forgets: some 5 ms; what is left is due again at once.
pub const FORGET_KEYS_MAX: usize = 8192;
/// How often a server reports its live sessions; several of these fit in `NAME_RELEASE`.
pub const TOUCH_INTERVAL: Span = Span::from_ms(20_000);
/// Log age advances by at most this much a step, so that a leader that was asleep expires nobody.
pub const AGE_STEP_MAX: Span = Span::from_ms(1_000);

/// Bytes of one row of the state's image: what a reader of a checkpoint holds at once.
pub const IMAGE_ROW_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the head of a checkpoint: the members entry and a few numbers.
pub const CHECKPOINT_HEAD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 1024;
/// Outcomes in one row: with the longest names and topics some 40 KiB.
pub const IMAGE_OUTCOMES_MAX: usize = 32;
/// Names of people in one row: at most 20 KiB.
pub const IMAGE_NAMES_MAX: usize = 256;
/// Idempotency keys in one row: at most 25 KiB.
pub const IMAGE_KEYS_MAX: usize = 256;

// --- Frames -------------------------------------------------------------------------------------

/// Bytes of a frame between client and server, without its length.
pub const CLIENT_FRAME_BYTES_MAX: usize = MESSAGE_BYTES_CEILING + 4096;
/// Bytes of a frame between servers, without its length.
pub const PEER_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a datagram: one Ethernet frame with room for tunnels.
pub const DATAGRAM_BYTES_MAX: usize = 1200;
/// Bytes of an entry's payload: a message and its head.
pub const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_CEILING + 2048;

// --- Replication --------------------------------------------------------------------------------

/// Bytes of entries that a leader sends ahead of a follower's answers.
pub const INFLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of entries in one append to a follower.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of entries of which a follower with unreadable entries can't tell yet whether its log agrees with them.
pub const UNDECIDED_BYTES_MAX: usize = 8 * APPEND_BYTES_MAX;
/// What an entry costs in a frame or in memory beside its payload, in bytes.
pub const ENTRY_OVERHEAD_BYTES: usize = 48;
/// Entries in one append to a follower.
pub const APPEND_ENTRIES_MAX: usize = 8192;
/// Bytes of recent entries kept in memory for followers and for applying.
pub const ENTRY_CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that a leader has proposed and not yet seen committed; beyond it, it takes no more commands.
pub const UNCOMMITTED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of forwarded commands that a leader holds while it takes office or hands over.
pub const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of commands that a server has accepted from its clients and not yet applied; beyond it, it reads no more of them.
pub const UNAPPLIED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Of these, from one connection: one writer alone can't keep the others from being heard.
pub const UNAPPLIED_BYTES_PER_CONNECTION_MAX: usize = 1024 * 1024;
/// Appends handed to the log writer and not yet persisted; beyond it, nothing is proposed (votes still find room).
pub const UNPERSISTED_APPENDS_MAX: usize = 1024;
/// Replicas compare digests of their state at every index that this divides.
pub const DIGEST_EVERY: u64 = 1024;
/// After so many vain tries a server stops asking at once and in others' place, and its waits grow no longer.
pub const ELECTION_BACKOFF_MAX: u32 = 3;
/// Own digests kept for comparing: heartbeats of replicas that are a little behind or ahead still find their index.
pub const DIGESTS_KEPT: usize = 8;
/// How long a read question waits for a majority before it is answered that there is none.
pub const READ_TIMEOUT: Span = Span::from_ms(1_500);
/// How long a preferred server must be fit and caught up before it is handed the lead: a link that comes and goes moves nothing.
pub const PREFERRED_AFTER: Span = Span::from_ms(2_000);
/// How many entries a server may be behind and still count as caught up: a fraction of a second of full load.
pub const CAUGHT_UP_ENTRIES: u64 = 1024;
/// How long a leader that stops tries to hand over: less than the 5 s that a stop may take.
pub const HAND_OVER_TIMEOUT: Span = Span::from_ms(2_000);
/// How often an unformed server says for whom it waits.
pub const FORMATION_REPORT_INTERVAL: Span = Span::from_ms(5_000);
/// Read questions (`tail --no-follow` and the like) waiting for a majority; beyond it the next is refused.
pub const READS_WAITING_MAX: usize = 4096;
/// Entries that can't be read and are asked for at once.
pub const FETCH_ENTRIES_MAX: usize = 1024;
/// Bytes of entries in one answer to a server that can't read its own (one entry more if that alone is larger): one read of the disk.
pub const FETCH_BYTES_MAX: usize = 256 * 1024;
/// A server that was asked for entries and hasn't answered by then is passed over for the next.
pub const FETCH_TIMEOUT: Span = Span::from_ms(1_000);
/// The rest after all servers were asked for entries in vain; a new link ends it.
pub const FETCH_REST: Span = Span::from_ms(1_000);
/// Bytes of a checkpoint in one frame. One piece at a time is on its way to a server, so that appends are never far behind.
pub const CHECKPOINT_PIECE_BYTES_MAX: usize = 256 * 1024;
/// After so long without an answer a server is asked again how much of a checkpoint it has.
pub const CHECKPOINT_TIMEOUT: Span = Span::from_ms(2_000);
/// The rest before a leader that has no checkpoint to send looks again.
pub const CHECKPOINT_REST: Span = Span::from_ms(1_000);

/// Bytes of memory that is kept between two turns for gathering what comes in one: the next turn's share is about the same.
pub const PIECES_KEPT_BYTES: usize = 256 * 1024;

/// Entries applied in a turn: some 10 ms; what is left is applied in the next.
pub const APPLIES_PER_TURN: usize = 8192;

// --- The log ------------------------------------------------------------------------------------

/// Bytes of a record's header on disk.
pub const RECORD_HEADER_BYTES: usize = 64;
/// The smallest `segment_size`, in bytes: the largest record must fit.
pub const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;
/// The largest `segment_size`, in bytes: offsets in a segment are 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The `segment_size` of a configuration that says nothing, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// Segments of the smallest `retention` that is a size: what is given up goes in whole ones.
pub const RETENTION_SEGMENTS_MIN: u64 = 4;
/// The shortest `retention` that is an age: below it, readers that reconnect would miss what they were sent a moment ago.
pub const RETENTION_AGE_MIN: Span = Span::from_ms(60_000);
/// Bytes that one answer of the reader thread holds at most (one entry more if that alone is larger).
pub const READ_BYTES_MAX: usize = 256 * 1024;
/// Jobs waiting for the reader thread.
pub const READ_JOBS_MAX: usize = 4096;
/// Entries or items that one answer of the reader thread holds at most: bounds the places looked up for one question.
pub const READ_ENTRIES_MAX: usize = 4096;
/// Bytes read from a segment at once: neighbours come along for the price of one system call.
pub const READ_WINDOW_BYTES: u64 = 256 * 1024;
/// Two records that are wanted and lie closer than this are read at once; beyond it, reading what lies between costs more than a call.
pub const READ_GAP_BYTES: u64 = 32 * 1024;
/// Segments that the reader keeps open.
pub const READ_FILES_MAX: usize = 16;
/// Index files that the reader keeps open.
pub const READ_INDEXES_MAX: usize = 16;
/// Blocks of 4 KiB that each of these keeps in memory: 2 MiB for all.
pub const INDEX_BLOCKS_KEPT: usize = 32;
/// Segments with items that one answer goes through: finding the next costs up to a dozen blocks of each of a dozen index files.
pub const READ_SEGMENTS_MAX: usize = 16;
/// Records behind one that can't be read that are looked at, so that what can't be read either is asked for in one go.
pub const DAMAGE_LOOKAHEAD: usize = 256;
/// Bytes of a block of a checkpoint file.
pub const CHECKPOINT_BLOCK_BYTES: usize = 64 * 1024;
/// Answers of the log's threads that wait for the loop. Each is at most `READ_BYTES_MAX`, so 64 cost 16 MiB.
pub const ANSWERS_MAX: usize = 64;
/// Places in the channel to the log writer beyond `UNPERSISTED_APPENDS_MAX`, so that a vote finds room when proposals don't.
pub const APPEND_PLACES_FOR_VOTES: usize = 64;
/// Bytes that the log writer gathers before it writes and syncs. More would make everybody wait for the last to come.
pub const LOG_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the disk that segments leave free, so that a server whose log has filled the disk can still count its starts, note what it
/// knows and end a checkpoint that it has begun.
pub const DISK_KEPT_FREE_BYTES: u64 = 1024 * 1024;
/// Bytes that must be free beside two segments for a server to lead: others write to the disk too, and a leader that stops at a full one
/// makes everybody wait for an election. Lead is taken again only when as much again is free, so that it doesn't go to and fro.
pub const DISK_MARGIN_BYTES: u64 = 8 * 1024 * 1024;
/// How often the free space is looked at: one call of the system.
pub const DISK_LOOK: Span = Span::from_ms(1_000);
/// The rest before a write is tried again for which there was no space.
pub const DISK_FULL_REST: Span = Span::from_ms(500);
/// Bytes of a record's payload: an entry's, or the head of a segment with the members of every group.
pub const RECORD_PAYLOAD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 64 * 1024;
/// Bytes that can stand behind the last synced position after a crash: a full batch, one record more, and what rides along.
/// Recovery wipes so much.
pub const LOG_UNSYNCED_BYTES_MAX: usize = LOG_BATCH_BYTES_MAX + 2 * RECORD_PAYLOAD_BYTES_MAX;
/// Damaged places that a recovery names one by one: more tell nobody more, and each costs a line.
pub const DAMAGED_PLACES_MAX: usize = 64;
/// Damaged places that a look at a directory from outside names one by one, at about 200 bytes of memory each; the rest is counted.
pub const OFFLINE_PLACES_MAX: usize = 10_000;
/// How long the log writer is without work before it seals what it has synced.
pub const SEAL_AFTER: Span = Span::from_ms(50);
/// What the system reads and writes of a file at least; or a multiple of that.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of the next segment that are written in one step: so much a write of the log may have to wait for.
pub const PREWRITE_STEP_BYTES: usize = 256 * 1024;
/// Bytes of the next segment after which they are synced: so much, at most, a sync of the log may have to wait for, where the disk has a
/// cache of its own, or the file system takes direct writes for others.
pub const PREWRITE_SYNC_BYTES: usize = 4 * 1024 * 1024;
/// The rest between two such steps, unless the current segment fills faster.
pub const PREWRITE_PAUSE: Span = Span::from_ms(5);
/// The rest after a step that failed (the disk is full): the writer itself ends the process if it comes to that.
pub const PREWRITE_RETRY: Span = Span::from_ms(1_000);

// --- Housekeeping ---------------------------------------------------------------------------------

/// While proposals come as often as this, followers learn of a commit with the next append; if none follows, after this time.
pub const COMMIT_HOLD: Span = Span::from_ms(1);
/// Items that may wait for the next question to the reading thread.
pub const INDEX_ITEMS_HELD: usize = 1024;
/// Checkpoints that are kept, if no retention removes them before: each may be as large as the state.
pub const CHECKPOINTS_KEPT: usize = 8;
/// Jobs waiting for the housekeeper.
pub const KEEP_JOBS_MAX: usize = 64;
/// How long it takes to look at everything that is on the disk: damage is found while others still hold the same.
pub const SCRUB_PERIOD: Span = Span::from_ms(3 * 24 * 3_600_000);
/// The longest rest between two looks at something.
pub const SCRUB_REST_MAX: Span = Span::from_ms(60_000);
/// While it rests, the housekeeper looks so often whether a reader has found an index file damaged. It costs a look at a lock.
pub const KEEP_LOOK: Span = Span::from_ms(100);
/// Bytes of a segment that are looked at in one step.
pub const SCRUB_STEP_BYTES: usize = 64 * 1024;

// --- Fan-out ------------------------------------------------------------------------------------

/// Bytes of the live tail of one room and encoding.
pub const TAIL_BYTES_MAX: usize = 256 * 1024;
/// Bytes of all tails and of all blocks read from disk together.
pub const BLOCKS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 256;

// --- The poll loop ------------------------------------------------------------------------------

/// Events taken from one poll.
pub const EVENTS_PER_TURN: usize = 1024;
/// Bytes read from one connection in a turn; what is left waits on the ready list.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Bytes read from one peer link in a turn: one full append and more.
pub const PEER_READ_BYTES_PER_TURN: usize = 2 * 1024 * 1024;
/// Bytes of items sent to one connection in a turn.
pub const SEND_BYTES_PER_TURN: usize = 256 * 1024;
/// Connections accepted in a turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Connections accepted at the peer port in a turn: fewer than half of `HANDSHAKES_MAX`, so that one that is new can say hello before newer ones push it out.
pub const PEER_ACCEPTS_PER_TURN: usize = 12;
/// Datagrams read in a turn.
pub const DATAGRAMS_PER_TURN: usize = 256;
/// Bytes of answers waiting for one client; a client that lets more pile up isn't read from until it has taken them.
pub const OUTPUT_BYTES_MAX: usize = 512 * 1024;
/// What the system is asked to hold, in each direction, of what one side of a client's connection has sent and the other hasn't taken; it
/// makes that twice as much, for what it adds itself. Left to itself it goes up to 4 MiB and more, and a thousand clients that read
/// nothing use up what it has for all sockets (an eleventh of the memory, `tcp_mem`): the servers' own links then crawl. With this, so
/// many as 700 a GiB of the machine's memory may stop reading. A client gets some 64 KiB a round trip at least.
pub const CLIENT_SOCKET_BYTES: usize = 64 * 1024;
/// Bytes of frames waiting for one peer; what doesn't fit is dropped, and the link is reset so that both sides know.
pub const PEER_OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Memory that an empty buffer of a link keeps, in bytes; there are two a link.
pub const LINK_BYTES_KEPT: usize = 1024 * 1024;
/// Connections of clients, if the descriptor limit allows.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Where the descriptor limit allows less than so many, it is worth a warning.
pub const CONNECTIONS_FEW: usize = 256;
/// Connections of clients from one address that isn't loopback.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 1_000;
/// Descriptors held back for servers, the log and what every process has open: clients never get them, so that a server that is full still
/// links and writes.
pub const DESCRIPTORS_RESERVED: usize = 192;
/// Of these, what isn't a link or a file of the two readers: standard streams, listeners, poll, wakers, signals, lock, the segments that
/// are written and made, what the housekeeper writes, clients that are being turned away.
pub const DESCRIPTORS_FIXED: usize = 40;
/// How long the log waits for a descriptor when there is none, before that counts as a disk that failed.
pub const DESCRIPTORS_PATIENCE: Span = Span::from_ms(10_000);
/// The rest between two tries.
pub const DESCRIPTORS_RETRY: Span = Span::from_ms(20);
/// Bytes of the first frame of a client, without its length: a hello and a long name of a program.
pub const HELLO_BYTES_MAX: usize = 1024;
/// A connection that has not finished its hello by then is closed.
pub const HELLO_TIMEOUT: Span = Span::from_ms(5_000);
/// How long a listener rests when the system has no descriptor left.
pub const ACCEPT_REST: Span = Span::from_ms(100);
/// How long an orderly stop may take: less than the 5 s that are promised.
pub const STOP_TIMEOUT: Span = Span::from_ms(4_000);
/// How long a server without a leader waits before it tells its clients that there is no quorum.
pub const NO_QUORUM_NOTICE: Span = Span::from_ms(1_000);
/// Frames taken from one client in a turn: one full window of commands.
pub const FRAMES_PER_TURN: usize = 1024;
/// Requests other than commands taken from one client in a turn: each may have an answer as large as a frame.
pub const QUESTIONS_PER_TURN: usize = 8;
/// Requests other than commands taken from all clients in a turn: a fraction of a millisecond, so that a crowd that asks without end doesn't
/// hold up what others say. Those that are left go first in the next.
pub const CLIENT_QUESTIONS_PER_TURN: usize = 64;
/// Frames taken from all clients in a turn: some tens of milliseconds of work, so that heartbeats are never late for them.
pub const CLIENT_FRAMES_PER_TURN: usize = 16_384;
/// Connections at the peer port whose handshake isn't done; one more pushes out the oldest that has not said hello. Each costs a descriptor and `HANDSHAKE_BYTES_MAX`.
pub const HANDSHAKES_MAX: usize = 32;
/// Bytes of a frame of the handshake between servers.
pub const HANDSHAKE_BYTES_MAX: usize = 4096;
/// A server that can't be reached is dialled at least so often.
pub const DIAL_REST_MAX: Span = Span::from_ms(1_000);
/// A connection that was told why it ends has so long to take it.
pub const LINGER_TIMEOUT: Span = Span::from_ms(2_000);
/// The same complaint about datagrams is logged at most so often.
pub const COMPLAINT_INTERVAL: Span = Span::from_ms(60_000);
/// Turns of the poll loop are counted by their lengths for so long, and for as long again after that.
pub const TURNS_COUNTED_FOR: Span = Span::from_ms(60_000);
/// A turn that begins so much later than its deadline was held up: what waits is read before anybody is suspected.
pub const LATE_WAKE: Span = Span::from_ms(20);
/// Rounds of reading after a late wake: 16 full rounds are more than socket buffers hold.
pub const CATCH_UP_ROUNDS: usize = 16;
/// Log lines waiting for the log file; beyond it they are counted and dropped.
pub const LOG_LINES_MAX: usize = 8192;

// --- Clients ------------------------------------------------------------------------------------

/// Servers that a client keeps in mind: what is given and what it learns.
pub const CLIENT_SERVERS_MAX: usize = 32;
/// Commands that wait unsent in a client's outbox, behind those that are on the way; beyond it the program must wait.
pub const CLIENT_WAITING_MAX: usize = 1024;
/// Bytes of texts in a client's outbox beyond which the program must wait.
pub const CLIENT_WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of texts that a client sends ahead of the acknowledgements (one command always goes).
pub const CLIENT_INFLIGHT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Questions of a client without an answer yet; the next is refused.
pub const CLIENT_QUESTIONS_MAX: usize = 64;
/// Events waiting for a client's program; beyond it the connection isn't read, and the server reads on from its log later.
pub const CLIENT_EVENTS_MAX: usize = 4096;
/// Calls of a program waiting for its client's thread.
pub const CLIENT_CALLS_MAX: usize = 64;
/// Bytes that a client reads from its connection in a turn.
pub const CLIENT_READ_BYTES_PER_TURN: usize = 256 * 1024;
/// A connection that isn't made by then is given up for the next server. Longer than any round trip on earth.
pub const CLIENT_CONNECT_TIMEOUT: Span = Span::from_ms(1_000);
/// A server that hasn't answered the hello by then is given up for the next one.
pub const CLIENT_HELLO_TIMEOUT: Span = Span::from_ms(1_000);
/// The longest rest after the first round of attempts that failed; doubles with each round.
pub const CLIENT_BACKOFF_MIN: Span = Span::from_ms(50);
/// The longest rest after any round of attempts.
pub const CLIENT_BACKOFF_MAX: Span = Span::from_ms(1_000);
/// A connection that was silent for so long, although an answer is due, is pinged. A server answers a ping at once, even one that waits for
/// its disk or for a leader.
pub const CLIENT_SILENCE: Span = Span::from_ms(500);
/// The same while more than `CLIENT_LARGE_BYTES` are on the way to the server: a ping comes behind them.
pub const CLIENT_SILENCE_LARGE: Span = Span::from_ms(1_500);
/// Bytes of texts on the way that take a slow line longer than a ping should wait.
pub const CLIENT_LARGE_BYTES: usize = 32 * 1024;
/// A connection that only follows is pinged when it was silent for so long.
pub const CLIENT_IDLE_PING: Span = Span::from_ms(2_000);
/// A server that doesn't answer a ping by then hangs: the next one is tried.
pub const CLIENT_PONG_TIMEOUT: Span = Span::from_ms(1_000);
/// How long a client stays with a server without a quorum before it asks the others again: longer than that server takes
/// to answer that it can't know, or the client would always leave before the answer.
pub const CLIENT_QUORUM_RETRY: Span = Span::from_ms(2_000);
/// Rest before a question, subscription or opening that a server had no room for is tried again.
pub const CLIENT_BUSY_REST: Span = Span::from_ms(200);
/// The shortest rest between two repetitions that servers ask for without an acknowledgement in between; doubles up to
/// `CLIENT_BACKOFF_MAX`. The first is free.
pub const CLIENT_RESEND_REST: Span = Span::from_ms(20);
/// Commands without any acknowledgement for so long are sent again on the same connection: a server on the way may have
/// lost them with its own link. Harmless, since a repetition is recognised.
pub const CLIENT_RESEND_AFTER: Span = Span::from_ms(2_500);
/// How long closing a session may take before the client ends without.
pub const CLIENT_CLOSE_TIMEOUT: Span = Span::from_ms(2_000);
/// Lines of standard input read ahead of what can be sent.
pub const CLIENT_LINES_AHEAD_MAX: usize = 256;
/// Texts that the chat holds for a room that it is still joining.
pub const CLIENT_HELD_TEXTS_MAX: usize = 256;
/// Lines that the chat keeps as its history.
pub const CLIENT_HISTORY_LINES_MAX: usize = 1000;

const _: () = assert!(APPEND_BYTES_MAX + PAYLOAD_BYTES_MAX + 65_536 <= PEER_FRAME_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX + PAYLOAD_BYTES_MAX + 65_536 <= PEER_FRAME_BYTES_MAX);
const _: () = assert!(CHECKPOINT_PIECE_BYTES_MAX + 4096 <= PEER_FRAME_BYTES_MAX);
const _: () = assert!(RECORD_PAYLOAD_BYTES_MAX < SEGMENT_BYTES_MIN as usize / 2);
const _: () = assert!(MESSAGE_BYTES_DEFAULT <= MESSAGE_BYTES_CEILING);
const _: () = assert!(IMAGE_OUTCOMES_MAX * (TOPIC_BYTES_MAX + ROOM_NAME_BYTES_MAX + 64) < IMAGE_ROW_BYTES_MAX);
const _: () = assert!(IMAGE_NAMES_MAX * (2 * NAME_BYTES_MAX + 8) < IMAGE_ROW_BYTES_MAX);
const _: () = assert!(IMAGE_KEYS_MAX * 128 < IMAGE_ROW_BYTES_MAX);
const _: () = assert!(ROOMS_PER_SESSION_MAX * 9 + 1024 < IMAGE_ROW_BYTES_MAX);
const _: () = assert!(CLIENT_FRAME_BYTES_MAX <= OUTPUT_BYTES_MAX);
const _: () = assert!(TOUCH_INTERVAL.0 * 2 < NAME_RELEASE.0);
const _: () = assert!(CLIENT_QUORUM_RETRY.0 > READ_TIMEOUT.0);
const _: () = assert!(CLIENT_FRAME_BYTES_MAX > PAYLOAD_BYTES_MAX);
const _: () = assert!(PEER_ACCEPTS_PER_TURN * 2 < HANDSHAKES_MAX);
const _: () = assert!(
    DESCRIPTORS_RESERVED
        >= HANDSHAKES_MAX + 2 * SERVERS_MAX + 2 * (READ_FILES_MAX + READ_INDEXES_MAX) + DESCRIPTORS_FIXED
);
