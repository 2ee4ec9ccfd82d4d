/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What map.c takes from the kernel, for userspace.
 */
#ifndef MAPDEV_MAP_USER_H
#define MAPDEV_MAP_USER_H

#include <errno.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

typedef __u64 u64;
typedef __u32 u32;
typedef __u16 u16;

#define S_IALLUGO	07777

#define READ_ONCE(x)	__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
/* pairs with a release store of the writer */
#define smp_load_acquire(p)	__atomic_load_n((p), __ATOMIC_ACQUIRE)
/* pairs with an acquire load of readers */
#define smp_store_release(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)
/* pairs with smp_wmb() or a release fence */
#define smp_rmb()	__atomic_thread_fence(__ATOMIC_ACQUIRE)
/* pairs with smp_rmb() */
#define smp_wmb()	__atomic_thread_fence(__ATOMIC_RELEASE)
#define cpu_relax()	__atomic_signal_fence(__ATOMIC_SEQ_CST)
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define fallthrough	__attribute__((__fallthrough__))

#endif /* MAPDEV_MAP_USER_H */
