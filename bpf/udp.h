// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* udp.h: UDP payload and datagrams by flow, with the addresses that were on the packet.
 *
 * Why cgroup_skb: it sees each datagram once, on its socket, with true addresses: unconnected
 * sockets, sendmmsg, GSO before it is cut up, multicast, IP fragments as one. It runs for TCP
 * packets too: those leave after looking at one byte of the header.
 * What it misses: datagrams that find no socket, or that the socket's own filter drops first;
 * received ones are counted as they reach the socket, also those its full buffer then drops.
 */
#ifndef WEIR_UDP_H
#define WEIR_UDP_H

#include "packet.h"
#ifdef WEIR_REQUESTS
#include "dns.h"
#endif

struct udp_sock_state {
	u64 place; /* of the last flow: slot, and above it the slot's generation; 0: none yet */
	u64 sent;
	u64 received;
	u64 born_ns;
	u64 cgroup;
	u32 netns;  /* 0: not seen on a packet yet */
	u8 role;    /* 0: not known before the first packet */
	u8 settled; /* the last flow was placed twice at the same slot */
	u8 pad[2];
	u8 laddr[16]; /* last flow, for the views; two threads may mix it up */
	u8 raddr[16];
	u16 lport;
	u16 rport;
	struct owner owner;
#ifdef WEIR_REQUESTS
	struct dns_state dns;
#endif
};
BPF_SK_STORAGE(udp_socks, struct udp_sock_state);

static __always_inline struct weir_slot *udp_place(struct udp_sock_state *u, struct datagram *d,
						   u64 now)
{
	struct weir_edge e = {};

	e.port = u->role == WEIR_SOURCE ? d->rport : d->lport;
	if (!port_in_scope(e.port))
		return NULL;
	__builtin_memcpy(e.laddr, d->laddr, 16);
	__builtin_memcpy(e.raddr, d->raddr, 16);
	__builtin_memcpy(u->laddr, d->laddr, 16);
	__builtin_memcpy(u->raddr, d->raddr, 16);
	u->lport = d->lport;
	u->rport = d->rport;
	e.cgroup = u->cgroup;
	e.netns = u->netns;
	e.family = d->family;
	e.proto = IPPROTO_UDP;
	e.role = u->role;
#ifdef WEIR_BY_PROCESS
	__builtin_memcpy(e.comm, u->owner.comm, WEIR_COMM);
#endif
	edge_nat(&e, d->lport, d->rport);
	fold_remote(&e);
	u32 slot = slot_of(&e, u->owner.tgid, now);
	struct weir_slot *s = slot_at(slot);

	if (s) {
		u64 place = (u64)s->generation << 32 | slot;

		/* a first datagram goes out before its translation is known: it is asked for twice */
		u->settled = u->place == place;
		u->place = place;
	}
	return s;
}

static __always_inline int same(const u8 *a, const u8 *b)
{
	const u64 *x = (const u64 *)a, *y = (const u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

/* The last flow's slot if this datagram is of the same flow. The slot's own key is compared, not
 * a copy in the socket's state, since two threads may send to two peers on one socket at once.
 */
static __always_inline struct weir_slot *udp_known(struct udp_sock_state *u, struct datagram *d,
						   u64 place)
{
	struct weir_slot *s = place ? slot_at((u32)place) : NULL;

	if (!s || !u->settled || s->state != WEIR_USED || s->generation != place >> 32 ||
	    s->key.raddr_bits != 128)
		return NULL;
	if (s->key.port != (u->role == WEIR_SOURCE ? d->rport : d->lport))
		return NULL;
	return same(s->key.raddr, d->raddr) && same(s->key.laddr, d->laddr) ? s : NULL;
}

/* The flow's place; 0 if there is none. */
static __always_inline u64 udp_count(struct udp_sock_state *u, struct datagram *d, int sends,
				     u64 now)
{
	u64 place = ONCE(u->place);

	if (!u->role) /* the end that sends first is the source */
		u->role = sends ? WEIR_SOURCE : WEIR_DESTINATION;
	struct weir_slot *s = udp_known(u, d, place);

	if (!s) {
		s = udp_place(u, d, now);
		place = u->place;
	}
	if (!s)
		return 0;
	if (sends) {
		ADD(s->sent_bytes, d->bytes);
		ADD(s->sent_datagrams, d->count);
		ADD(u->sent, d->bytes);
	} else {
		ADD(s->received_bytes, d->bytes);
		ADD(s->received_datagrams, d->count);
		ADD(u->received, d->bytes);
	}
	s->active_ns = now;
	return place;
}

#ifdef WEIR_REQUESTS
static __always_inline int is_multicast(const u8 *addr)
{
	return is_mapped(addr) ? addr[12] >> 4 == 14 : addr[0] == 0xff;
}

static __always_inline void udp_request(struct __sk_buff *skb, u32 at, struct udp_sock_state *u,
					struct datagram *d, u64 place, u64 now)
{
	struct dns_key k = {.socket = (u64)u, .rport = d->rport};

	if (u->dns.tries >= DNS_TRIES || d->bytes < sizeof(struct dns_header) ||
	    is_multicast(d->raddr))
		return;
#ifdef WEIR_REQUEST_PORTS
	u16 port = u->role == WEIR_SOURCE ? d->rport : d->lport;

	if (request_ports.lookup(&port))
		return;
#endif
	__builtin_memcpy(k.raddr, d->raddr, 16);
	dns_datagram(skb, at, &u->dns, &k, place, now);
}
#endif

static __always_inline u32 udp_netns(struct bpf_sock *sk)
{
	struct net *net = PROBE(plain_sock(sk), __sk_common.skc_net.net);

	return net ? PROBE(net, ns.inum) : 0;
}

static __always_inline struct udp_sock_state *udp_state(struct bpf_sock *sk, int sends)
{
	struct udp_sock_state *u = udp_socks.sk_storage_get(sk, 0, 0);

	if (u && u->netns)
		return u;
	u32 netns = udp_netns(sk);
#ifdef WEIR_SCOPE_NETNS
	if (!scope_netns.lookup(&netns))
		return NULL;
#endif
	u = udp_socks.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!u) {
		event(WEIR_EV_UDP_FAILED);
		return NULL;
	}
	u->netns = netns;
	u->cgroup = bpf_sk_cgroup_id(sk);
	if (!u->born_ns)
		u->born_ns = bpf_ktime_get_ns();
	/* a datagram leaves in its sender's context; one that arrives, in anybody's */
	if (sends && !u->owner.tgid)
		current_owner(&u->owner);
	return u;
}

static __always_inline void udp_packet(struct __sk_buff *skb, int sends)
{
	struct datagram d = {};
	u16 ports[2];
	u32 at = sends ? udp_header(skb, d.laddr, d.raddr, &d.family)
		       : udp_header(skb, d.raddr, d.laddr, &d.family);

	if (!at)
		return;
	if (bpf_skb_load_bytes(skb, at, ports, 4)) {
		event(WEIR_EV_PACKET_UNREADABLE);
		return;
	}
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;

	if (!sk)
		return;
	struct udp_sock_state *u = udp_state(sk, sends);

	if (!u)
		return;
	d.lport = bpf_ntohs(sends ? ports[0] : ports[1]);
	d.rport = bpf_ntohs(sends ? ports[1] : ports[0]);
	d.bytes = skb->len - at - 8;
	d.count = skb->gso_size ? (d.bytes + skb->gso_size - 1) / skb->gso_size : 1;
	u64 now = bpf_ktime_get_ns(), place = udp_count(u, &d, sends, now);

#ifdef WEIR_REQUESTS
	udp_request(skb, at + 8, u, &d, place, now);
#endif
}

/* cgroup_skb/egress: returns 1 (pass) on every path. */
int udp_egress(struct __sk_buff *skb)
{
	udp_packet(skb, 1);
	return 1;
}

/* cgroup_skb/ingress: returns 1 (pass) on every path. */
int udp_ingress(struct __sk_buff *skb)
{
	udp_packet(skb, 0);
	return 1;
}

/* cgroup/sock_create: who opened a UDP socket, since a server's first datagram arrives in a
 * softirq. Once a socket; returns 1 (allow) on every path.
 */
int udp_create(struct bpf_sock *ctx)
{
	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	struct udp_sock_state *u = udp_socks.sk_storage_get(ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (u) {
		u->born_ns = bpf_ktime_get_ns();
		current_owner(&u->owner);
	} else {
		event(WEIR_EV_UDP_FAILED);
	}
	return 1;
}

#endif
