// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* kernel.h: the kernel's constants. Its structs come from BTF (shim/kconfig.h), or where a kernel
 * has none, with all else from its own headers (WEIR_HEADERS, agent/weir/kernel/installed.py).
 */
#ifndef WEIR_KERNEL_H
#define WEIR_KERNEL_H

#ifdef WEIR_HEADERS
#ifdef WEIR_OPAQUE
/* UAPI structs that newer headers use and an older BCC, which brings its own linux/bpf.h, lacks. */
struct bpf_wq {
	__u64 opaque[2];
} __attribute__((aligned(8)));
struct bpf_rb_root {
	__u64 opaque[2];
} __attribute__((aligned(8)));
struct bpf_rb_node {
	__u64 opaque[4];
} __attribute__((aligned(8)));
struct bpf_refcount {
	__u32 opaque[1];
} __attribute__((aligned(4)));
#endif

#include <linux/cgroup.h>
#include <linux/errno.h>
#include <linux/fdtable.h>
#include <linux/in.h>
#include <linux/kernfs.h>
#include <linux/sched.h>
#include <linux/skbuff.h>
#include <linux/socket.h>
#include <linux/tcp.h>
#include <net/inet_sock.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp_states.h>
#include <uapi/linux/bpf.h>

/* Names that Weir uses for its own. */
#undef swap
#define cgroup_id weir_cgroup_id
#else
#define AF_INET     2
#define AF_INET6    10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

#define ENETUNREACH  101
#define ECONNRESET   104
#define ETIMEDOUT    110
#define ECONNREFUSED 111
#define EHOSTUNREACH 113
#endif

#endif
