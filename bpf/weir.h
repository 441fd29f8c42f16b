// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* weir.h: the whole contract between the kernel side and user space.
 *
 * agent/weir/kernel/layout.py describes the same structs as numpy dtypes; the
 * loader turns those into static asserts that are compiled with this file, so a
 * difference is a failed load, never a wrong number. Addresses are 16 bytes in
 * network order, IPv4 as v4-mapped (RFC 4291 2.5.5.2). Ports are host order.
 */
#ifndef WEIR_H
#define WEIR_H

/* The pins' folder carries this number: raise it when a struct here changes. */
#define WEIR_ABI 3

enum weir_role { WEIR_SOURCE = 1, WEIR_DESTINATION = 2 };

/* Why a connect did not get through; the order is that of weir_slot.failed. */
enum weir_failure {
	WEIR_REFUSED,
	WEIR_TIMEOUT,
	WEIR_UNREACHABLE,
	WEIR_RESET,
	WEIR_ABORTED, /* the application closed the socket while connecting */
	WEIR_LOCAL,   /* no local port was free (EADDRNOTAVAIL) */
	WEIR_FAILURES
};

/* What the kernel side could not do, or did in a second-best way: one counter each. */
enum weir_event {
	WEIR_EV_SLOT_OVERFLOW,     /* no free slot: counted in slot 0 */
	WEIR_EV_STORAGE_FAILED,    /* no memory for a connection's state */
	WEIR_EV_UNTRACKED,         /* connection counted only when it closed */
	WEIR_EV_LATE_CLOSE,        /* close seen by tcp_destroy_sock, not by its state change */
	WEIR_EV_LISTENER_FULL,     /* listener table full: owner of accepted sockets unknown */
	WEIR_EV_CLAIM_LOST,        /* two readers met on one connection; the later one yields */
	WEIR_EV_RESET_UNMATCHED,   /* reset sent or received without a known connection */
	WEIR_EV_PACKET_UNREADABLE, /* UDP packet whose headers could not be read */
	WEIR_EV_UDP_FAILED,        /* no memory for a UDP socket's state: packet not counted */
	WEIR_EV_CONNECTION_LIMIT,  /* more connections than the table may hold */
	WEIR_EV_REQUEST_OVERFLOW,  /* no free row: the request is counted in row 0 */
	WEIR_EV_REQUEST_LATE,      /* a request's edge was gone when it was answered: not counted */
	WEIR_EV_REQUEST_UNPARSED, /* a request or an answer of a known protocol that could not be read */
	WEIR_EV_TALK_FAILED, /* no memory for a conversation's state: its requests are not counted */
	WEIR_EVENTS
};

#define WEIR_COMM 16

/* The unit of aggregation. Zero it before filling: it is compared as bytes. */
struct weir_edge {
	__u8 laddr[16];
	__u8 raddr[16];   /* all zero behind raddr_bits; who is there really, where there is NAT */
	__u8 dialled[16]; /* what the client dialled, where that was translated; else all zero */
	__u64 cgroup;     /* cgroup v2 id of the socket */
	__u32 netns;      /* inode number of the network namespace */
	__u16 port;       /* service port: remote one of a source, local one of a destination */
	__u8 family;      /* 4 or 6; a v4-mapped connection is 4 */
	__u8 proto;       /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 role;        /* enum weir_role of the local end */
	__u8 raddr_bits;  /* 128: one address; less: folded into a network; 0: all of them */
	__u16 dialled_port; /* host order */
	__u8 pad[4];
	char comm[WEIR_COMM]; /* process name (thread group leader), unless compiled out */
};

/* Log-linear: 4 buckets an octave, unit 4 microseconds, last one 117 s and more. */
#define WEIR_BUCKETS 96

enum weir_slot_state { WEIR_FREE, WEIR_USED, WEIR_RETIRING };

/* One edge's counters, in an mmap-able array; slot 0 takes what found no slot. */
struct weir_slot {
	struct weir_edge key;
	__u32 state; /* enum weir_slot_state; user space writes RETIRING, the kernel the rest */
	__u32 generation; /* one more each time the slot is freed; with the state one aligned u64 */
	__u64 born_ns;    /* CLOCK_MONOTONIC */
	__u64 active_ns;  /* CLOCK_MONOTONIC of the last count */
	__u32 tgid;       /* process of the first connection, 0 if not known */
	__u32 pad;
	__u64 sent_bytes; /* payload leaving the local end */
	__u64 received_bytes;
	__u64 sent_datagrams; /* UDP only */
	__u64 received_datagrams;
	__u64 opened; /* established since Weir looks (a source opened, a destination accepted) */
	__u64 closed; /* ended, of those that were established */
	__u64 live;   /* established now, those older than Weir included */
	__u64 retransmitted; /* TCP segments */
	__u64 resets_sent;
	__u64 resets_received;
	__u64 failed[WEIR_FAILURES];
	__u64 rtt_sum_us;
	__u64 connect_sum_us;
	__u64 rtt[WEIR_BUCKETS];     /* samples of the kernel's smoothed RTT */
	__u64 connect[WEIR_BUCKETS]; /* SYN sent to established, sources only */
};

/* How a request's protocol is called in a row. */
enum weir_protocol {
	WEIR_PROTO_NONE,
	WEIR_PROTO_TCP, /* turns of a conversation that is not understood */
	WEIR_PROTO_HTTP,
	WEIR_PROTO_DNS,
	WEIR_PROTO_REDIS,
	WEIR_PROTO_HTTP2,
	WEIR_PROTO_GRPC,
	WEIR_PROTO_POSTGRESQL,
	WEIR_PROTO_MYSQL,
	WEIR_PROTOCOLS,
	/* programs that go on for a protocol's own */
	WEIR_READER_END = WEIR_PROTOCOLS,
	WEIR_READER_H2_RESULTS,
	WEIR_READER_H2_END,
	WEIR_READER_H2_PATH,
	WEIR_READER_H2_UPGRADE,
	WEIR_READER_DEFERS,
	WEIR_READER_DEFERRED,
	WEIR_READER_TLS,
	WEIR_READER_SEGMENTS,
	WEIR_READERS
};

/* Methods of HTTP; the others (RFC 9110 9.1, IANA's registry) are one. */
enum weir_method {
	WEIR_METHOD_NONE,
	WEIR_METHOD_OTHER,
	WEIR_METHOD_GET,
	WEIR_METHOD_HEAD,
	WEIR_METHOD_POST,
	WEIR_METHOD_PUT,
	WEIR_METHOD_DELETE,
	WEIR_METHOD_CONNECT,
	WEIR_METHOD_OPTIONS,
	WEIR_METHOD_TRACE,
	WEIR_METHOD_PATCH,
	WEIR_METHODS
};

/* What is counted together: requests of one edge with one result. */
struct weir_request_key {
	__u32 slot;
	__u32 generation; /* the slot's */
	__u16 status; /* as the protocol has it (DNS: response code + 1); 0: never answered, or not known */
	__u16 route;
	__u8 protocol; /* enum weir_protocol */
	__u8 method; /* enum weir_method; of DNS the type that was asked for (0: above 255); of Redis enum redis_method; of databases enum sql_method */
	__u8 pad[2];
};

/* Exponential buckets, 16 an octave: bounds are 2^(i/16) seconds, those of Prometheus's native histograms
 * of schema 4. Bucket 0 ends at 2^(-20 + 1/16) s (1 microsecond), the last one begins at 2^(6 - 1/16) s.
 */
#define WEIR_DURATIONS 416

/* One row of requests, in an mmap-able array; row 0 takes what found no row. */
struct weir_requests {
	struct weir_request_key key;
	__u32 state;      /* enum weir_slot_state */
	__u32 generation; /* one more each time the row is freed; with the state one aligned u64 */
	__u64 born_ns;    /* CLOCK_MONOTONIC */
	__u64 active_ns;
	__u64 untimed; /* requests without a duration: never answered */
	__u64 sum_ns;  /* of all durations */
	__u64 duration[WEIR_DURATIONS];
};

/* What `weir tap` asks for, in an array of one. */
struct weir_tap {
	__u64 until_ns; /* CLOCK_MONOTONIC; 0: nothing */
	__u64 left;     /* requests to be told until it asks again */
	__u64 skipped;  /* requests that were not told */
};

/* What the agent takes away for a while, having too much to do, in an array of one. Times end by themselves. */
struct weir_shed {
	__u64 requests_until_ns; /* CLOCK_MONOTONIC; no TCP connection's requests are read; 0: they are */
	__u64 pauses;            /* how often that was so */
	__u64 tap_until_ns; /* nobody is told of single requests */
};

#define WEIR_LINE 128

/* A request's first bytes, zeros behind them. */
struct weir_line {
	__u8 bytes[WEIR_LINE];
};

/* One request, in a ring buffer. */
struct weir_tapped {
	struct weir_request_key key;
	__u64 ended_ns;        /* CLOCK_MONOTONIC */
	__u64 took_ns;         /* ~0: never answered */
	struct weir_line line; /* all zero: not known */
};

/* One live socket, written by the iterators for the views (never for metrics). */
struct weir_record {
	__u8 laddr[16];
	__u8 raddr[16];   /* UDP: the last peer */
	__u64 socket;     /* kernel address: an identity, not to be shown */
	__u64 sent_bytes; /* since Weir looks */
	__u64 received_bytes;
	__u64 born_ns; /* CLOCK_MONOTONIC; when Weir first saw it */
	__u64 cgroup;
	__u32 netns;
	__u32 tgid; /* 0 if not known */
	__u32 slot;
	__u32 retransmitted;
	__u32 srtt_us; /* 0 if not known */
	__u16 lport;
	__u16 rport;
	__u8 state; /* TCP_ESTABLISHED..., 0 for UDP */
	__u8 proto;
	__u8 family;
	__u8 role;
	__u32 pad;
	char comm[WEIR_COMM];
};

#endif
