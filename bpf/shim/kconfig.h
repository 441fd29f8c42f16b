// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* kconfig.h: BCC includes this first of all. It stands in for the kernel's headers: fixed
 * types and UAPI numbers here, kernel structs and helper numbers in weir_kernel.h, which
 * agent/weir/kernel/headers.py writes from BTF.
 */
#ifndef WEIR_SHIM_H
#define WEIR_SHIM_H

/* Keeps out the copies of linux/bpf.h that BCC and the kernel bring. */
#define __LINUX_BPF_H__
#define _UAPI__LINUX_BPF_H__
#define CONFIG_BPF_SYSCALL
#define CONFIG_FUNCTION_TRACER
#define BPF_NO_PRESERVE_ACCESS_INDEX

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u8 u8;
typedef __s8 s8;
typedef __u16 u16;
typedef __s16 s16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
typedef int pid_t;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

/* UAPI (linux/bpf.h): flags of maps and helpers. */
enum { BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 4 };
enum {
	BPF_F_NO_PREALLOC = 1,
	BPF_F_NO_COMMON_LRU = 2,
	BPF_F_CLONE = 512,
	BPF_F_MMAPABLE = 1024,
};
enum { BPF_SK_STORAGE_GET_F_CREATE = 1 };
#define BPF_F_INDEX_MASK  0xffffffffULL
#define BPF_F_CURRENT_CPU BPF_F_INDEX_MASK
#define BPF_PSEUDO_MAP_FD 1

/* Named by BCC's helpers.h, used by none of Weir's programs. */
struct bpf_stack_build_id {
	__s32 status;
	__u8 build_id[20];
	__u64 offset;
};
struct bpf_sock_tuple;
struct bpf_sysctl;
struct bpf_spin_lock;
struct bpf_pidns_info;
struct btf_ptr;
struct bpf_redir_neigh;
struct xdp_md;

#include "weir_kernel.h"

#define __always_inline inline __attribute__((always_inline))

#endif
