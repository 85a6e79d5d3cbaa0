//! Every bound of the program that no directive sets, in one place.
//!
//! What a directive does set has its default in the directive table (`config::directives`).

/// Longest configuration file, bytes. A file beyond it is named and refused.
pub const CONFIG_FILE_BYTES: usize = 16 << 20;
/// Longest file of certificates or keys, bytes: a bundle of all public CAs has a quarter of a MiB. `/dev/zero` has an end, too.
pub const PEM_FILE_BYTES: u64 = 4 << 20;
/// Deepest nesting of `include`, so that a file that includes itself is an error and not a hang.
pub const INCLUDE_DEPTH: usize = 32;
/// Deepest nesting of blocks in a configuration file.
pub const BLOCK_DEPTH: usize = 64;
/// Files read for one configuration, all includes together.
pub const CONFIG_FILES: usize = 10_000;
/// Most worker threads (`worker_processes`).
pub const WORKERS: usize = 1_024;
/// Lines of the error log about one file that a reload cannot use; the rest are counted.
pub const RELOAD_LINES: usize = 200;
/// How often the main thread looks whether a file that is read again has been read, milliseconds.
pub const RELOAD_POLL_MS: u64 = 2;
/// Seconds between two looks at the files of `ssl_certificate_watch`; they must have been left alone for so long.
pub const CERTIFICATE_WATCH_SECS: u64 = 2;
/// Errors printed for one configuration; the rest are counted.
pub const DIAGNOSTICS: usize = 100;

/// Internal redirects (`rewrite ... last`, `error_page`, `try_files`) of one request; nginx's figure.
pub const INTERNAL_REDIRECTS: u8 = 10;
/// Longest value a template may expand to, bytes: nothing longer can be a header field.
pub const EXPANSION_BYTES: usize = 64 << 10;
/// Nesting of one variable's value within another (a map whose value names a map ...).
pub const VARIABLE_DEPTH: u8 = 16;

/// Smallest zone of `limit_conn_zone` and `limit_req_zone`, bytes: nginx's eight pages.
pub const LIMIT_ZONE_BYTES: usize = 32 << 10;
/// What a key of `limit_conn` is reckoned to take of its zone, bytes. Its entry in a map that has just grown takes 57.
pub const CONNECTION_KEY_BYTES: usize = 64;
/// The same of `limit_req`: 48 of its own, and its entry of up to 39 in such a map.
pub const REQUEST_KEY_BYTES: usize = 128;
/// How long no request must have come of a key of `limit_req` before it may be forgotten without need, milliseconds; nginx's figure.
pub const REQUEST_KEY_IDLE_MS: u64 = 60_000;
/// Longest wait that `limit_req` may ask of a request, seconds: few clients wait that long, and each holds a connection.
pub const REQUEST_DELAY_SECS: u64 = 600;

/// Upgrade requests a worker has under way at once, from their head to their 101: a second or two of what a core can do. Each takes 13 kB,
/// measured with 4,000 that wait for their backend: 110 MB. Past it clients are told to come again.
pub const HANDSHAKES_PENDING: usize = 8_192;
/// How often the log has a line about upgrade requests that were refused for their number, milliseconds.
pub const BRAKE_LINE_MS: u64 = 1_000;
/// Longest turn that a crowd refused by `upgrade_rate` is spread over, seconds: a larger one comes back more than once.
pub const RETRY_SPREAD_SECS: u64 = 60;

/// Longest PROXY protocol header, bytes; nginx's figure. What balancers send stays below 600: a client's certificate is not in it, only
/// its name.
pub const PROXY_HEADER_BYTES: usize = 4 << 10;
/// Bytes a client may send behind its upgrade request before the backend has answered 101.
pub const EARLY_BYTES: usize = 64 << 10;
/// Longest line of chunk size and extensions, bytes (nginx gives it one buffer; extensions are dropped).
pub const CHUNK_LINE_BYTES: usize = 4 << 10;
/// Trailer section of a chunked body, bytes; trailers are read and dropped.
pub const TRAILER_BYTES: usize = 16 << 10;
/// Interim (1xx) answers a backend may send before its final one.
pub const INTERIM_RESPONSES: usize = 16;
/// Fields of a backend's response head.
pub const RESPONSE_FIELDS: usize = 200;

/// Scratch buffer of a worker, bytes. DESIGN's measurement: 256 KiB copies at 0.22 to 0.25 s/GiB,
/// 64 KiB at 0.26 to 0.30, and it still fits a core's L2 cache.
pub const SCRATCH_BYTES: usize = 256 << 10;
/// Bytes that all tunnels of a worker may hold for readers that do not take them, before each is given less at a time: a sender that
/// reads of its tunnels fill the scratch holds 256 KiB for each direction, and a thousand of them are no reason to grow by half a gigabyte.
pub const HELD_BYTES: usize = 64 << 20;
/// What one read takes then, bytes, so that each stuck direction adds no more: nginx's buffers are as large.
pub const CROWDED_READ_BYTES: usize = 16 << 10;
/// Size asked of the kernel for a pooled pipe, bytes (F_SETPIPE_SZ, pipe(7)); the kernel's unprivileged
/// limit is `/proc/sys/fs/pipe-max-size`, 1 MiB by default. A refusal falls back to what the pipe has.
pub const PIPE_BYTES: usize = 1 << 20;
/// Frames followed ahead of one splice: a full pipe of those that are just long enough for it.
pub const HEADS_AHEAD: usize = 128;
/// Longest `busy_poll`, microseconds: what has not come by then will not be missed.
pub const BUSY_POLL_US: u64 = 10_000;
/// How long a worker that spliced and would sleep now lets more gather first, microseconds. Measured: 50 takes a quarter to two
/// fifths off the CPU a GiB (larger splices, fewer wake-ups) and leaves the throughput; 100 costs throughput.
pub const BULK_NAP_US: u64 = 50;
/// How long an end may take to answer a close frame of ours before its connection is closed, seconds: a slow network's round trip
/// and a busy backend; libraries wait 2 (Chromium) to 10 (Python's websockets).
pub const CLOSE_ANSWER_SECS: u64 = 5;
/// How long a tunnel that has lived as long as it may goes on for the sake of a frame that is under way, seconds.
pub const FRAME_END_SECS: u64 = 30;
/// Places of the table looked at in a row while tunnels are drained, before other work gets its turn: well below a millisecond.
pub const DRAIN_PLACES_PER_TURN: u32 = 256;
/// How often a worker that ends looks for tunnels that came late, milliseconds: handshakes that were under way.
pub const DRAIN_SWEEP_MS: u64 = 1_000;
/// How long before a worker ends its last tunnels are closed, milliseconds: a close frame and a FIN to each.
pub const DRAIN_MARGIN_MS: u64 = 200;
/// How long a connection that has said nothing yet is waited for once the worker takes no more, milliseconds.
pub const LAST_REQUEST_MS: u64 = 1_000;
/// How long `stop` waits for answers to its close frames and for requests to end, milliseconds.
pub const STOP_LINGER_MS: u64 = 500;
/// Empty pipes a worker keeps for the next bulk transfer: 2 descriptors each.
pub const PIPES_POOLED: usize = 32;
/// Pipes a worker may have in use at once; past it bulk transfers go through the scratch buffer.
pub const PIPES_IN_USE: usize = 512;
/// Ready sockets taken from the kernel in one batch.
pub const EVENTS_PER_BATCH: usize = 512;
/// Batches handled before other tasks of the worker get their turn.
pub const BATCHES_PER_TURN: usize = 4;
/// Turns in a row that take a full share of events and put deadlines off, since more events wait: 32,768 of them, which is more than a
/// worker that was stopped for a while finds.
pub const TURNS_IN_A_HURRY: u32 = 16;
/// Bytes one half of a tunnel may move before the other ready tunnels get their turn: one full pipe.
pub const BYTES_PER_TURN: usize = 1 << 20;
/// Bytes all tunnels of a worker may move before its tasks get their turn: a few milliseconds' worth.
pub const BYTES_PER_ROUND: usize = 16 << 20;
/// Reads of a task in a row that find something, before the other tasks get their turn: at most 1 MiB.
pub const READS_PER_TURN: u32 = 16;
/// Connections taken from one listener in a row before other work gets its turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Connections one worker may have handed to another that has not looked at them yet; past it, it serves them itself.
pub const HANDED_WAITING: usize = 256;
/// Tunnels that a worker that leaves hands over before its others get their turn: two epoll_ctl(2) each here and there.
pub const TUNNELS_PER_MOVE: usize = 256;
/// Workers whose connections are compared at an accept: with more workers it is the neighbours', each a cache line to fetch.
pub const LOADS_COMPARED: usize = 32;
/// Idle connections to backends that a worker keeps for one upstream (`keepalive`): they are looked through for each request.
pub const KEPT_CONNECTIONS: usize = 4_096;
/// Source addresses of one `proxy_bind`: each has its own range of ports, so these are 28 million connections to each backend address.
pub const SOURCE_ADDRESSES: usize = 1_024;
/// Source addresses that are tried for one connection: the kernel looks through all ports of one before it says that none is free, up
/// to a millisecond. Those known to be used up are not asked and do not count.
pub const SOURCES_TRIED: usize = 8;
/// Pairs of a source address and a backend's whose ports are counted; past it a connection is made and not counted.
pub const PORT_TUPLES: usize = 16_384;
/// Bytes read of `ip_local_port_range` and of `ip_local_reserved_ports`: a few hundred parts.
pub const PORT_FILE_BYTES: usize = 4 << 10;
/// What of ports and source addresses waits to be said in the error log; it is said with the next connection.
pub const PORT_REMARKS: usize = 64;
/// How long a listener rests after the kernel had no descriptor or memory for a connection, milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// How long no call must have failed before a shortage of descriptors or memory is over, milliseconds: longer than a listener rests, so
/// that one which comes and goes with every connection is one.
pub const SHORTAGE_QUIET_MS: u64 = 3_000;
/// Seconds between two lines that say that it goes on.
pub const SHORTAGE_REPORT_SECS: u64 = 60;
/// How long a taken address is tried again at start, milliseconds: the ports of a process that owned an io_uring stay bound a
/// moment after its exit, until the kernel has torn the ring down.
pub const BIND_RETRY_MS: u64 = 1_000;
/// Bytes read and dropped from a client that is sent a refusal while it is still sending.
pub const LINGER_BYTES: usize = 1 << 20;
/// How long that may take, seconds (nginx's `lingering_timeout`).
pub const LINGER_SECS: u64 = 5;
/// How long close_notify waits for a client that takes nothing, seconds (nginx's default `send_timeout`).
pub const LAST_WORD_SECS: u64 = 60;
/// Most bytes a task takes from a socket at once: heads and bodies of plain HTTP. Tunnels take [`SCRATCH_BYTES`].
pub const STREAM_READ_BYTES: usize = 64 << 10;

/// Connections, requests and ends of tunnels that make a burst: what they leave behind is worth giving back.
pub const BURST: u64 = 64;
/// How long none of them must have come before a worker gives memory back, milliseconds: long enough that it never does under load,
/// where it would only have to ask for it again.
pub const REST_AFTER_MS: u64 = 500;

/// Resolution of every deadline, milliseconds.
pub const TICK_MS: u64 = 100;
/// Ticks that pass unheard before the clock counts as having jumped: a turn takes a few milliseconds.
pub const JUMP_TICKS: u64 = 5;

/// Log records that may wait for the writer; past it they are lost, and counted.
pub const LOG_QUEUE_RECORDS: usize = 65_536;
/// Bytes of log records that may wait for the writer, whatever their number: a disk that hangs must not eat the memory.
pub const LOG_QUEUE_BYTES: usize = 64 << 20;
/// How long the log writer gathers lines after a write before the next one, milliseconds: at most 200 writes a second a file.
pub const LOG_GATHER_MS: u64 = 5;
/// Bytes of lines gathered for one write(2), where no `buffer=` says how many.
pub const LOG_WRITE_BYTES: usize = 256 << 10;
/// Bytes of lines that may wait for the reader of a pipe, a terminal or a socket: a burst; past it lines are lost, and counted.
pub const LOG_BACKLOG_BYTES: usize = 1 << 20;
/// Bytes given to a pipe at once: PIPE_BUF, what is written whole or not at all (pipe(7)), and does not wait where poll(2) saw room.
pub const LOG_PIPE_BYTES: usize = 4096;
/// How long until a pipe that was full is tried again, milliseconds.
pub const LOG_RETRY_MS: u64 = 20;
/// How long the end of the program waits for the log writer, milliseconds.
pub const LOG_FLUSH_MS: u64 = 1000;
/// Shortest `access_log_interval`, seconds: a line about every tunnel, that often, is what it costs.
pub const LOG_INTERVAL_SECS: u64 = 1;
/// Open tunnels that a worker tells of in one tick: those that came together are due together, and wait for the next one.
pub const LOG_INTERVALS_PER_TICK: usize = 1024;
/// Bytes that a value may have in a JSON line which would be longer than [`LOG_RECORD_BYTES`], tried in turn: cut in the middle it
/// would be no JSON.
pub const LOG_JSON_VALUE_BYTES: [usize; 2] = [1024, 64];
/// Seconds between two messages about lines that one log lost.
pub const LOG_LOSS_REPORT_SECS: u64 = 60;
/// The same once a line could be written again, seconds.
pub const LOG_RECOVERY_REPORT_SECS: u64 = 3;
/// Longest single log record, bytes; a longer one is cut.
pub const LOG_RECORD_BYTES: usize = 16 << 10;

/// Addresses one backend name may resolve to.
pub const ADDRESSES_PER_NAME: usize = 64;
/// Seconds the helper thread may take to resolve one name during start.
pub const RESOLVE_TIMEOUT_SECS: u64 = 30;

/// Different reasons a worker counts (refusals; closes); past it they are counted together as `other`. The program has
/// some hundred of them.
pub const COUNTED_REASONS: usize = 192;

/// Counts by server block, or by address of a backend, that are kept over reloads, so that names that come and go do not fill the
/// memory.
pub const TALLIES_KEPT: usize = 10_000;
/// Server blocks, and addresses of backends, that a status names: what reads it keeps a series for each.
pub const STATUS_ROWS: usize = 1_000;

/// Tunnels of each kind that a status names: the oldest, the busiest.
pub const SURVEY_TUNNELS: usize = 20;
/// Places of its table a worker looks at in a turn when it is asked for those: some tens of microseconds.
pub const SURVEY_PLACES_PER_TURN: u32 = 512;
/// How long what was found is told again, milliseconds: however many ask, the tables are walked once a second.
pub const SURVEY_KEPT_MS: u64 = 900;
/// How long a worker that asked the others waits for the last of them, milliseconds.
pub const ERRAND_WAIT_MS: u64 = 1_000;
/// How long a tunnel that is closed by hand may take to end the frame that is under way, seconds.
pub const ADMIN_CLOSE_SECS: u64 = 5;

/// Bytes of a pid file that are read: the longest pid has 7 digits (PID_MAX_LIMIT is 2^22).
pub const PID_FILE_BYTES: u64 = 64;
/// How much longer than `upgrade_timeout` `-s upgrade` waits for an answer, seconds.
pub const ANSWER_WAIT_SECS: u64 = 5;
/// How long SIGUSR2 to a new process waits for the old one to let go of it, milliseconds: `-s upgrade` twice in a row.
pub const LET_GO_WAIT_MS: u64 = 2_000;
/// How long the start waits until every worker has taken its first turn, seconds.
pub const START_WAIT_SECS: u64 = 10;
/// How often the start looks whether that is so, microseconds.
pub const START_POLL_US: u64 = 200;
/// How long `stop` waits for the workers before the process ends without them, seconds.
pub const STOP_WAIT_SECS: u64 = 5;
/// Descriptors kept free of connections for each process: logs, pid file, epoll, resolver, standard streams.
pub const NOFILE_RESERVE: u64 = 64;
/// How often the main thread looks whether every worker lives, milliseconds.
pub const SUPERVISE_MS: u64 = 500;
/// The same while workers are told to end, milliseconds.
pub const STOP_POLL_MS: u64 = 10;

/// Connections the demo's backend serves at once.
pub const DEMO_CONNECTIONS: usize = 256;
/// Largest message of the demo's backend, bytes.
pub const DEMO_MESSAGE_BYTES: usize = 1 << 20;
/// Largest request head of the demo's backend, bytes.
pub const DEMO_HEAD_BYTES: usize = 32 << 10;
/// Header fields of a request to the demo's backend.
pub const DEMO_FIELDS: usize = 128;
/// Chat lines that may wait for one slow reader before it is let go.
pub const DEMO_OUTBOX_LINES: usize = 64;
/// Longest name in the demo's chat, characters.
pub const DEMO_NAME_CHARS: usize = 32;
/// How long the demo's backend waits for a request head, or for a reader to take a message, seconds.
pub const DEMO_WAIT_SECS: u64 = 10;

/// Ciphertext kept while a handshake message is cut into several records, bytes: rustls takes messages of up to 64 KiB (a long
/// certificate chain), and their records' heads and tags come on top.
pub const TLS_PENDING_BYTES: usize = 128 << 10;
/// Longest handshake message behind the handshake (a ticket), bytes: rustls' own bound.
pub const TLS_MESSAGE_BYTES: usize = 64 << 10;
/// Records in a row that bring no data (empty ones, warnings, key updates) a peer may send; OpenSSL's and BoringSSL's figure.
pub const TLS_FRUITLESS_RECORDS: u32 = 32;
/// Longest ClientHello, bytes with its records' heads. Browsers send under 2 KiB, with post-quantum key shares included.
pub const TLS_HELLO_BYTES: usize = 16 << 10;
/// Threads that resolve backend names at the same time.
pub const RESOLVERS: usize = 32;
/// Size of one compiled regular expression, bytes: a counted repetition of a repetition is refused and not tried.
pub const REGEX_PROGRAM_BYTES: usize = 2 << 20;
/// Automaton states an expression may cache for each thread that runs it, bytes; a full cache begins anew.
pub const REGEX_CACHE_BYTES: usize = 1 << 20;

/// Bytes read of one file of /proc or /sys by `doctor`.
pub const HOST_FILE_BYTES: u64 = 1 << 20;
/// Most tunnels whose needs are reckoned: a hundred times what one host has carried.
pub const DOCTOR_TUNNELS: u64 = 100_000_000;
/// Largest answer of a status location that `longsplice top` reads: thousands of backends are some hundred kilobytes.
pub const STATUS_ANSWER_BYTES: usize = 16 << 20;
/// Longest wait of `longsplice top` for an answer, or for the next piece of one.
pub const STATUS_ANSWER_MS: u64 = 5_000;
