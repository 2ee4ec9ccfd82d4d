/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the map is read: copy first, then check the copy.
 *
 * The files map*.c need nothing of the kernel but the barriers below, so that
 * the very same code runs in userspace under a fuzzer.
 */
#ifndef MAPDEV_MAP_H
#define MAPDEV_MAP_H

#ifdef __KERNEL__
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/stat.h>
#include <linux/string.h>
#include <linux/types.h>
#include <asm/barrier.h>
#include <asm/processor.h>
#else
#include "map_user.h"
#endif
#include "mapdev_abi.h"

/**
 * struct mapdev_view - a map in memory, its header checked
 * @hdr: where it begins; only the counters are read after the check
 */
struct mapdev_view {
	struct mapdev_header *hdr;
	struct mapdev_entry *entries;
	u32 *index;
	struct mapdev_attr *attrs;
	struct mapdev_chain *chains;
	u64 *strings;
	u64 strings_len;
	u64 seed[2];
	u64 id_space;
	u32 n_entries;
	u32 n_buckets;
	u32 max_probe;
};

/**
 * struct mapdev_copy - what an entry said at one moment
 * @name: set by the caller: NULL, or room for MAPDEV_NAME_MAX + 1 bytes
 * @aux: set by the caller: NULL, or room for MAPDEV_AUX_MAX + 1 bytes
 * @expect: set by the caller: NULL, or a string that aux is compared with
 * @no_attr: set by the caller: the attribute cell is of no interest
 * @space: for the caller: the id space of the map
 * @same_aux: out: aux is @expect
 * @mode: type and permissions; the latter, like owner and stamp, from the
 *	attribute cell where that holds
 */
struct mapdev_copy {
	char *name;
	char *aux;
	const char *expect;
	bool no_attr;
	bool same_aux;
	u64 space;
	u64 id;
	u64 parent;
	u64 stamp;
	u32 number;
	u32 flags;
	u32 mode;
	u32 uid;
	u32 gid;
	u32 rdev;
	u32 cell;
	u32 name_off;
	u32 aux_off;
	u16 name_len;
	u16 aux_len;
};

/**
 * struct mapdev_cursor - where a listing stands
 * @dir, @dir_cell: the directory
 * @last: only ids below it are delivered; all ones at the start
 *
 * The rest is map.c's, zero at the start.
 */
struct mapdev_cursor {
	u64 dir;
	u64 last;
	u64 bound;
	u32 dir_cell;
	u32 next;
	u32 restarts;
	u32 steps;
	bool walking;
};

int mapdev_view_init(struct mapdev_view *view, void *base, u64 len);
int mapdev_find(const struct mapdev_view *view, u64 parent, const char *name,
		u32 len, struct mapdev_copy *copy);
int mapdev_by_id(const struct mapdev_view *view, u64 id, u32 cell,
		 struct mapdev_copy *copy);
int mapdev_list_next(const struct mapdev_view *view, struct mapdev_cursor *at,
		     struct mapdev_copy *copy);
bool mapdev_owns_cell(const struct mapdev_view *view, u64 id, u32 cell);
int mapdev_set_attr(const struct mapdev_view *view, u64 id, u32 cell,
		    const struct mapdev_attr *attr);
void mapdev_carry(const struct mapdev_view *from, const struct mapdev_view *to,
		  u32 first, u32 count);

/* what the writer did before it stored this, is seen after it */
static inline u32 mapdev_load32(const u32 *at)
{
	/* pairs with the daemon's stores with release */
	return smp_load_acquire(at);
}

static inline u64 mapdev_load64(const u64 *at)
{
	/* pairs with the daemon's stores with release */
	return smp_load_acquire(at);
}

/* between a copy and the load that checks it */
static inline void mapdev_copied(void)
{
	/* pairs with the release fence after an odd seq or a freed cell */
	smp_rmb();
}

static inline u64 mapdev_gen(const struct mapdev_view *view)
{
	/* pairs with the daemon's release: the change is seen with its count */
	return smp_load_acquire(&view->hdr->gen);
}

#endif /* MAPDEV_MAP_H */
