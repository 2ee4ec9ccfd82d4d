/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The bytes of the map of /dev, as daemon, readers and
 * kernel share them.
 *
 * This header is the definition; src/map/layout.rs mirrors it and
 * tests/map_abi.rs compares every offset.
 *
 * Byte order is native; a reader of another byte order sees a foreign
 * magic. Areas start at multiples of 64, the length is a multiple of the
 * page. A reader trusts nothing: every number is checked where it is used.
 *
 * Who writes: the kernel alone writes attribute cells and the counter chg,
 * the daemon all the rest. Without the kernel module the daemon stands in
 * for the kernel.
 *
 * Entries are never edited while they are reachable. The daemon fills a free
 * entry (seq odd, data, seq even with release), stores the index slot with
 * release, then the chain cell, frees the old entry (its id becomes 0, again
 * between an odd and an even seq), and raises gen. A reader loads the slot and
 * then seq with acquire, copies, has a read barrier, and compares seq; on a
 * mismatch it reads the slot again, at most MAPDEV_RETRIES times. It goes on to
 * the next slot only if behind this one is another name and, in this order,
 * slot and seq are still the same: the entry may have been freed and used anew
 * for the very name it looks for. The index slot of a name stays where it is
 * as long as the name exists, so that a search cannot miss it.
 *
 * Children of a directory
 * -----------------------
 * Each object has one cell number from birth to death: the number of its
 * attribute cell and of its chain cell. A directory's chain cell holds the
 * first child (head), each child's the next one. Cells and not entries are
 * chained, because a replacement brings a new entry and keeps the cell: it
 * costs one store (chain.entry), and the order of the chain never changes.
 *
 * A child is put in front only, and its id is the highest ever given out.
 * So ids strictly fall along every chain, and a child's id is above its
 * directory's. Three things follow:
 *  - no loop: a reader that insists on falling ids ends, and a walk that
 *    goes down insists on rising ones; in addition it takes at most
 *    n_entries steps;
 *  - the last id delivered is a cursor: a reader that finds its ground
 *    changed starts again at the head and delivers only lower ids. It gives
 *    nothing twice and misses no entry that existed all the while, since
 *    nothing is ever put in behind another. The same id serves readdir as
 *    position;
 *  - a cell used anew betrays itself: its id is higher than the last one.
 *
 * chain.id is the check of a cell, as seq is of an entry: the daemon zeroes
 * it before the cell can be used anew, and an id is never used twice. The
 * reader loads id with acquire, copies the entry (its id, cell and parent
 * must agree), loads next, has a read barrier, and compares id. Otherwise a
 * cell that was used anew as the last of another directory would end the
 * list too early.
 *
 * Cost to the daemon: two stores to insert (it remembers who stands before
 * whom), two to remove.
 */
#ifndef MAPDEV_ABI_H
#define MAPDEV_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>
#ifndef __KERNEL__
#include <stddef.h>
#endif

/* "mapdev", line feed, 1 */
#define MAPDEV_MAGIC		0x6d61706465760a01ULL
#define MAPDEV_VERSION		1U

#define MAPDEV_HDR_LEN		256U
#define MAPDEV_ENTRY_SIZE	64U
#define MAPDEV_ATTR_SIZE	32U
#define MAPDEV_CHAIN_SIZE	32U
#define MAPDEV_ALIGN		64U

#define MAPDEV_MAX_PROBE	128U	/* what the daemon keeps to */
#define MAPDEV_PROBE_CAP	256U	/* what a reader accepts */
#define MAPDEV_MAX_ENTRIES	1048576U
#define MAPDEV_NAME_MAX		255U
#define MAPDEV_AUX_MAX		4095U
#define MAPDEV_RETRIES		8U

/* index slots: free, once used, else entry number + 1 */
#define MAPDEV_SLOT_EMPTY	0U
#define MAPDEV_SLOT_TOMBSTONE	0xffffffffU

#define MAPDEV_ID_FREE		0ULL
#define MAPDEV_ID_ROOT		1ULL
#define MAPDEV_ROOT_ENTRY	0U
#define MAPDEV_ROOT_CELL	0U

/* gen: this map was replaced by another, ask the daemon for it */
#define MAPDEV_GEN_REPLACED	0xffffffffffffffffULL

/* entry.flags: where a name comes from */
#define MAPDEV_E_BUILTIN	0x1U	/* of a driver in the kernel image */
#define MAPDEV_E_MODULE		0x2U	/* of a module that is not loaded */
#define MAPDEV_E_LIVE		0x4U	/* a device exists */
#define MAPDEV_E_PENDING	0x8U	/* no number yet; aux is the alias */

/* entry.rdev: as the kernel's MKDEV */
#define MAPDEV_MINOR_BITS	20U

/**
 * struct mapdev_header - the first 256 bytes
 * @seed, @seed2: key of SipHash-2-4 over the parent's id (8 bytes, little
 *	endian) and the name; slot = hash & (n_buckets - 1), then the next ones
 * @id_space: a random number, not 0: maps with the same one are one after
 *	another of the same writer, and an id means the same object in all
 * @last_id: the highest id ever given out, so that a restarted daemon gives
 *	out none twice
 *
 * Bytes 0-127 never change. gen and chg have a cache line each.
 */
struct mapdev_header {
	__u64 magic;
	__u32 version;
	__u32 hdr_len;
	__u64 total_len;
	__u32 n_entries;
	__u32 entry_size;
	__u64 entries_off;
	__u32 n_buckets;
	__u32 max_probe;
	__u64 index_off;
	__u64 attrs_off;
	__u64 strings_off;
	__u64 strings_len;
	__u64 seed;
	__u64 chains_off;
	__u64 seed2;
	__u32 attr_size;
	__u32 chain_size;
	__u64 id_space;
	__u64 reserved0;
	__u64 gen;
	__u64 last_id;
	__u64 reserved1[6];
	__u64 chg;
	__u64 reserved2[7];
};

/**
 * struct mapdev_entry - one name, the daemon's
 * @name_off, @aux_off: bytes from strings_off, multiples of 8
 * @mode: type, and the permissions that hold until a chmod
 * @cell: number of the attribute and chain cells
 * @stamp: nanoseconds since 1970
 */
struct mapdev_entry {
	__u32 seq;
	__u32 flags;
	__u64 id;
	__u64 parent;
	__u32 name_off;
	__u16 name_len;
	__u16 aux_len;
	__u32 aux_off;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 rdev;
	__u32 cell;
	__u64 stamp;
};

/**
 * struct mapdev_attr - mode and owner of an object, the kernel's
 * @mode: permission bits only
 * @id: the cell counts only for the object of this id
 */
struct mapdev_attr {
	__u32 seq;
	__u32 mode;
	__u64 id;
	__u32 uid;
	__u32 gid;
	__u64 stamp;
};

/**
 * struct mapdev_chain - an object's place among its siblings, the daemon's
 * @entry: entry number + 1
 * @next: cell number + 1 of the next sibling, 0 at the end
 * @head: of a directory, cell number + 1 of the first child
 */
struct mapdev_chain {
	__u64 id;
	__u32 entry;
	__u32 next;
	__u32 head;
	__u32 reserved[3];
};

/*
 * The control device, /dev/mapdev
 * -------------------------------
 * For CAP_SYS_ADMIN of the initial user namespace. Whoever published last is
 * the publisher until it closes the device; the map is served on after that.
 */

/* publish.flags: what the kernel changed since is carried over by the kernel */
#define MAPDEV_PUB_CARRY	0x1U

/* publish.expect_chg: publish whatever the kernel changed */
#define MAPDEV_CHG_ANY		0xffffffffffffffffULL

/**
 * struct mapdev_publish - the memory of a map
 * @fd: a memory file of mode 0400 that belongs to root and is open for
 *	writing, sealed against F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL only
 * @flags: MAPDEV_PUB_*
 * @len: its length
 * @expect_chg: chg of the published map before its attributes were copied
 */
struct mapdev_publish {
	__s32 fd;
	__u32 flags;
	__u64 len;
	__u64 expect_chg;
};

/**
 * struct mapdev_notify - a name that came or went, for inotify
 * @parent: id of the directory
 * @mask: MAPDEV_N_*
 */
struct mapdev_notify {
	__u64 parent;
	__u32 mask;
	__u32 name_len;
	__u8 name[MAPDEV_NAME_MAX + 1U];
};

/* notify.mask: as inotify(7) has them */
#define MAPDEV_N_CREATE		0x00000100U
#define MAPDEV_N_DELETE		0x00000200U
#define MAPDEV_N_ISDIR		0x40000000U

/**
 * struct mapdev_stats - counts since the module was loaded
 * @epoch: changes with each map that is published or withdrawn
 * @gen, @chg, @len, @entries: of the published map, 0 without one
 * @publisher: whether one has the device open
 * @mounted: whether the file system is mounted somewhere
 * @reserved: 0
 * @lookups: names looked up that were not in the kernel's memory
 * @revalidations: names in its memory compared with the map, as it had changed
 * @invalidations: names of these that were not true any more
 * @busy: looks that found an entry in the middle of a change
 * @pending_opens: opens of a name without a number
 * @loads: modules asked for
 * @timeouts: opens that gave up waiting for a module or a number
 * @publishes: maps published
 * @syncs: calls of MAPDEV_SYNC
 * @notifies: calls of MAPDEV_NOTIFY
 * @events: changes of mode and owner, told or dropped
 * @overflows: how often events were dropped
 * @collisions: names of the map that are hidden by userspace's
 */
struct mapdev_stats {
	__u64 epoch;
	__u64 gen;
	__u64 chg;
	__u64 len;
	__u32 entries;
	__u32 publisher;
	__u32 mounted;
	__u32 reserved;
	__u64 lookups;
	__u64 revalidations;
	__u64 invalidations;
	__u64 busy;
	__u64 pending_opens;
	__u64 loads;
	__u64 timeouts;
	__u64 publishes;
	__u64 syncs;
	__u64 notifies;
	__u64 events;
	__u64 overflows;
	__u64 collisions;
};

/* event.what: one or more */
#define MAPDEV_EV_MODE		0x1U
#define MAPDEV_EV_UID		0x2U
#define MAPDEV_EV_GID		0x4U
/* events were dropped: compare everything; alone, the rest is 0 */
#define MAPDEV_EV_OVERFLOW	0x80000000U

/**
 * struct mapdev_event - what read() gives: an attribute that was changed
 * @id: the object
 * @cell: its cell
 * @chg: the count of this change
 * @stamp: nanoseconds since 1970
 * @mode: permission bits
 * @pid, @by: process and user who changed it; 0 when the kernel did by itself,
 *	as an ACL ended, or a directory that had stayed came back
 */
struct mapdev_event {
	__u64 id;
	__u64 chg;
	__u64 stamp;
	__u32 what;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 pid;
	__u32 by;
	__u32 cell;
	__u32 reserved;
};

#define MAPDEV_IOC_MAGIC	0xb7

/* EAGAIN: chg is another by now; EBUSY: another publisher has the device */
#define MAPDEV_PUBLISH		_IOW(MAPDEV_IOC_MAGIC, 1, struct mapdev_publish)
#define MAPDEV_UNPUBLISH	_IO(MAPDEV_IOC_MAGIC, 2)
#define MAPDEV_STATS		_IOR(MAPDEV_IOC_MAGIC, 3, struct mapdev_stats)
/*
 * Waits until no reader holds what was replaced, wakes opens that wait, and
 * ends ACLs of devices that are gone; for when a name's device came or went.
 */
#define MAPDEV_SYNC		_IO(MAPDEV_IOC_MAGIC, 4)
/* EEXIST: userspace made something of this name, which stays */
#define MAPDEV_NOTIFY		_IOW(MAPDEV_IOC_MAGIC, 5, struct mapdev_notify)
/* a descriptor of the published memory; ENODATA without any */
#define MAPDEV_GETFD		_IO(MAPDEV_IOC_MAGIC, 6)

#endif /* MAPDEV_ABI_H */
