// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* packet.h: the headers of a packet at a cgroup_skb hook, where data starts with the IP header. */
#ifndef WEIR_PACKET_H
#define WEIR_PACKET_H

#include "sock.h"

struct datagram {
	u8 laddr[16];
	u8 raddr[16];
	u16 lport;
	u16 rport;
	u32 bytes;
	u32 count;
	u8 family;
};

/* Where the header of `proto` starts behind IPv6's and its extensions; 0 if there is none. */
static __always_inline u32 v6_payload(struct __sk_buff *skb, u8 next, u8 proto)
{
	u32 at = 40;
	u8 ext[2];

	/* hop-by-hop, routing, fragment, destination options (RFC 8200 4) */
	for (u32 i = 0; i < 4; i++) {
		if (next == proto)
			return at;
		if (next != 0 && next != 43 && next != 44 && next != 60)
			return 0;
		if (bpf_skb_load_bytes(skb, at, ext, 2))
			return 0;
		at += next == 44 ? 8 : (ext[1] + 1) * 8;
		next = ext[0];
	}
	return next == proto ? at : 0;
}

/* Where the TCP header starts, 0 if this is no TCP. */
static __always_inline u32 tcp_header(struct __sk_buff *skb)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;

	if (p + 20 > end)
		return 0;
	if (p[0] >> 4 == 4)
		return p[9] == IPPROTO_TCP ? (p[0] & 15) * 4 : 0;
	if (p[0] >> 4 != 6 || p[6] == IPPROTO_UDP)
		return 0;
	return p[6] == IPPROTO_TCP ? 40 : v6_payload(skb, p[6], IPPROTO_TCP);
}

/* The helper's socket is the kernel's struct sock, but the verifier allows no arithmetic on it:
 * copied through the stack it is a plain address.
 */
static __always_inline struct sock *plain_sock(struct bpf_sock *sk)
{
	struct bpf_sock *on_stack = sk;
	struct sock *plain = NULL;

	read_kernel(&plain, sizeof(plain), &on_stack);
	return plain;
}

/* Where the UDP header starts, 0 if this is no UDP; fills addresses as on the packet. */
static __always_inline u32 udp_header(struct __sk_buff *skb, u8 *saddr, u8 *daddr, u8 *family)
{
	u8 *p = (u8 *)(long)skb->data, *end = (u8 *)(long)skb->data_end;

	if (p + 20 > end)
		return 0;
	if (p[0] >> 4 == 4) {
		if (p[9] != IPPROTO_UDP)
			return 0;
		map_v4(saddr, *(u32 *)(p + 12));
		map_v4(daddr, *(u32 *)(p + 16));
		*family = 4;
		return (p[0] & 15) * 4;
	}
	if (p[0] >> 4 != 6 || p[6] == IPPROTO_TCP || p + 40 > end)
		return 0;
	__builtin_memcpy(saddr, p + 8, 16);
	__builtin_memcpy(daddr, p + 24, 16);
	*family = 6;
	return v6_payload(skb, p[6], IPPROTO_UDP);
}

#endif
