/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of mapdevfs know of each other.
 *
 * Locks, outermost first: a directory's i_rwsem (the VFS's), then
 * mapdevfs_pin_lock, then mapdevfs_attr_lock. The map is read under RCU.
 */
#ifndef MAPDEVFS_INTERNAL_H
#define MAPDEVFS_INTERNAL_H

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "compat.h"
#include "map.h"

/* looks at an entry that is being changed, before it counts as broken */
#define MAPDEVFS_BUSY_ROUNDS	16

#define MAPDEVFS_MAGIC	0x6d617064	/* "mapd" */

/**
 * struct mapdevfs_map - the published map
 * @view: the reader's
 * @salt: makes generations of different maps differ; one more makes all that
 *	was read be read anew
 * @file: the daemon's memory, so that it can have it back
 * @pages: held as long as the map
 */
struct mapdevfs_map {
	struct mapdev_view view;
	unsigned long salt;
	struct file *file;
	struct page **pages;
	unsigned long n_pages;
};

/**
 * struct mapdevfs_place - a directory as the map knows it
 * @space: the id space that @id is of; 0 for the root, which every map has
 * @id: the directory
 * @cell: its cell
 */
struct mapdevfs_place {
	u64 space;
	u64 id;
	u32 cell;
};

/**
 * enum mapdevfs_acl - what an inode's ACL is
 * @MAPDEVFS_ACL_NONE: there is none
 * @MAPDEVFS_ACL_HELD: its own
 * @MAPDEVFS_ACL_DUE: that of the device which has come, once it has an inode
 * @MAPDEVFS_ACL_PASSED: that device's, which has it
 */
enum mapdevfs_acl {
	MAPDEVFS_ACL_NONE,
	MAPDEVFS_ACL_HELD,
	MAPDEVFS_ACL_DUE,
	MAPDEVFS_ACL_PASSED,
};

/**
 * struct mapdevfs_inode - an inode of the file system
 * @space: the id space that @id is of; 0 for the root, which every map has
 * @id: the map's object, 0 for what userspace made
 * @checked: the state of the map in which it was seen to be this object
 * @cell: the object's cell
 * @pending: a name without a number yet
 * @kept: a directory that stays for what is mounted on it or below it
 * @acl: of one of the map: what its ACL is; under mapdevfs_attr_lock
 * @heir: the device that has come, if @acl is due or passed on to it
 * @acl_list: inodes that are kept for their ACL
 * @pins: of a directory: what userspace made in it
 * @pin_bits: of a directory: a bit for each hash of a name in @pins
 * @number_fops: the kernel's own operations of a device node
 */
struct mapdevfs_inode {
	struct inode vfs_inode;
	u64 space;
	u64 id;
	unsigned long checked;
	u32 cell;
	bool pending;
	bool kept;
	enum mapdevfs_acl acl;
	dev_t heir;
	struct list_head acl_list;
	struct list_head pins;
	unsigned long pin_bits;
	const struct file_operations *number_fops;
};

/**
 * struct mapdevfs_pin - a dentry of userspace's, held like those of ramfs
 * @dentry: held; its d_fsdata points back here
 * @dir: inode of the directory, held
 * @in_dir: on the directory's list, in the order of @serial
 * @all: on the file system's list
 * @serial: position in a listing
 * @adopted: a directory of the map that is held for what lies below it
 * @warned: a collision with a name of the map was reported
 */
struct mapdevfs_pin {
	struct dentry *dentry;
	struct inode *dir;
	struct list_head in_dir;
	struct list_head all;
	u64 serial;
	bool adopted;
	bool warned;
	struct rcu_head rcu;
};

/**
 * struct mapdevfs_held - a name that is held, for a listing
 * @last: what userspace made, from where the next one is looked for
 * @mode: of its inode
 * @adopted: as of its pin
 * @len: bytes of @name, which does not end with NUL
 */
struct mapdevfs_held {
	struct mapdevfs_pin *last;
	u64 ino;
	umode_t mode;
	bool adopted;
	u32 len;
	char name[NAME_MAX];
};

struct mapdevfs_counters {
	atomic64_t lookups;
	atomic64_t revalidations;
	atomic64_t invalidations;
	atomic64_t busy;
	atomic64_t pending_opens;
	atomic64_t loads;
	atomic64_t timeouts;
	atomic64_t publishes;
	atomic64_t syncs;
	atomic64_t notifies;
	atomic64_t events;
	atomic64_t overflows;
	atomic64_t collisions;
};

static inline struct mapdevfs_inode *MAPDEVFS_I(const struct inode *inode)
{
	return container_of(inode, struct mapdevfs_inode, vfs_inode);
}

/* ids that a position of a listing can hold */
#define MAPDEVFS_MAX_ID	BIT_ULL(61)

/* a map that breaks these could lead a walk in a circle */
static inline bool mapdevfs_is_sound(u64 parent, const struct mapdev_copy *copy)
{
	return copy->id > parent && copy->id < MAPDEVFS_MAX_ID;
}

/* a device node of the map, and none that userspace made */
static inline bool mapdevfs_is_maps_node(const struct inode *inode)
{
	return MAPDEVFS_I(inode)->id != MAPDEV_ID_FREE &&
	       (S_ISCHR(inode->i_mode) || S_ISBLK(inode->i_mode));
}

static inline bool mapdevfs_is_pinned(const struct dentry *dentry)
{
	return READ_ONCE(dentry->d_fsdata);
}

/* a directory that is what the map has under its name, whatever its id was */
static inline bool mapdevfs_goes_by_name(const struct dentry *dir)
{
	return mapdevfs_is_pinned(dir) || d_mountpoint(dir) ||
	       READ_ONCE(MAPDEVFS_I(d_inode(dir))->kept);
}

/* super.c */
extern struct mapdevfs_map __rcu *mapdevfs_map;
extern unsigned long mapdevfs_epoch;
extern struct mutex mapdevfs_attr_lock;
extern struct mapdevfs_counters mapdevfs_counters;
struct super_block *mapdevfs_get_super(void);
void mapdevfs_put_super(struct super_block *sb);

/**
 * mapdevfs_key_now() - what a dentry of the map is valid for
 *
 * Taken before the look at the map whose outcome it dates. Never 0, so that a
 * dentry with d_time 0 is always looked up anew. Part of every look-up and
 * open, hence the kind of RCU that is no call.
 *
 * Return: a number that changes with every change of names.
 */
static inline unsigned long mapdevfs_key_now(void)
{
	const struct mapdevfs_map *map;
	unsigned long key;

	rcu_read_lock_sched();
	map = rcu_dereference_sched(mapdevfs_map);
	if (likely(map)) {
		key = (unsigned long)mapdev_gen(&map->view);
		/* pairs with mapdevfs_look_again() */
		key += smp_load_acquire(&map->salt);
	} else {
		key = READ_ONCE(mapdevfs_epoch);
	}
	rcu_read_unlock_sched();
	return key << 1 | 1;
}

/**
 * mapdevfs_map_of() - the map, if the ids of a space are its own
 * @space: the id space, 0 for any
 *
 * After its map was lost a daemon gives out ids from the beginning again,
 * which then are other objects'. Called under RCU.
 *
 * Return: the published map, or NULL.
 */
static inline const struct mapdevfs_map *mapdevfs_map_of(u64 space)
{
	const struct mapdevfs_map *map = rcu_dereference(mapdevfs_map);

	return map && (!space || space == map->view.id_space) ? map : NULL;
}

/* memory.c */
struct mapdevfs_map *mapdevfs_map_make(int fd, u64 len);
void mapdevfs_map_free(struct mapdevfs_map *map);

/* inode.c */
struct inode *mapdevfs_iget(struct super_block *sb,
			    const struct mapdev_copy *copy,
			    unsigned long key);
bool mapdevfs_describes(const struct inode *inode,
			const struct mapdev_copy *copy);
void mapdevfs_refresh(struct inode *inode, const struct mapdev_copy *copy,
		      unsigned long key);
int mapdevfs_renew_locked(struct inode *inode);
void mapdevfs_store(struct inode *inode, u32 what, bool asked);
void mapdevfs_become(struct inode *inode, const struct mapdevfs_place *place);
int mapdevfs_setattr(struct mapdevfs_idmap *idmap, struct dentry *dentry,
		     struct iattr *iattr);
void mapdevfs_set_node(struct inode *inode, dev_t rdev);
ino_t mapdevfs_user_ino(void);
extern const struct inode_operations mapdevfs_node_iops;
extern const struct inode_operations mapdevfs_link_iops;

/* renew.c */
int mapdevfs_glance(const struct inode *inode, struct mapdev_copy *copy);
int mapdevfs_reread(const struct inode *inode, struct mapdev_copy *copy);
int mapdevfs_reread_locked(const struct inode *inode, struct mapdev_copy *copy);
void mapdevfs_look_again(void);
int mapdevfs_renew(struct inode *inode, bool may_sleep);
int mapdevfs_may(struct mapdevfs_idmap *idmap, struct inode *inode, int mask);

/* acl.c */
int mapdevfs_copy_attr(struct mapdevfs_idmap *idmap, struct inode *inode,
		       const struct iattr *iattr);
ssize_t mapdevfs_listxattr(struct dentry *dentry, char *list, size_t size);
void mapdevfs_meet_acls(struct inode *inode);
void mapdevfs_settle_acls(void);
void mapdevfs_end_acls(void);

/* names.c */
extern const struct dentry_operations mapdevfs_dops;
extern const struct inode_operations mapdevfs_dir_iops;
int mapdevfs_still_true(struct dentry *dentry);
int mapdevfs_look(const struct mapdevfs_place *dir, const struct qstr *name,
		  struct mapdev_copy *copy);
int mapdevfs_resolve(struct dentry *dir, struct mapdevfs_place *place);

/* mounts.c */
bool mapdevfs_keeps_mount(const struct dentry *dentry);
bool mapdevfs_stays(struct dentry *dentry);

/* list.c */
extern const struct file_operations mapdevfs_dir_fops;

/* notify.c */
int mapdevfs_notify(const struct mapdev_notify *what);

/* user.c */
int mapdevfs_create(struct mapdevfs_idmap *idmap, struct inode *dir,
		    struct dentry *dentry, umode_t mode, bool excl);
int mapdevfs_mknod(struct mapdevfs_idmap *idmap, struct inode *dir,
		   struct dentry *dentry, umode_t mode, dev_t rdev);
int mapdevfs_symlink(struct mapdevfs_idmap *idmap, struct inode *dir,
		     struct dentry *dentry, const char *target);
int mapdevfs_link(struct dentry *old, struct inode *dir,
		  struct dentry *dentry);
int mapdevfs_unlink(struct inode *dir, struct dentry *dentry);
int mapdevfs_rmdir(struct inode *dir, struct dentry *dentry);
int mapdevfs_rename(struct mapdevfs_idmap *idmap, struct inode *old_dir,
		    struct dentry *old, struct inode *new_dir,
		    struct dentry *new, unsigned int flags);

/* pins.c */
extern struct mutex mapdevfs_pin_lock;
int mapdevfs_pin(struct inode *dir, struct dentry *dentry,
		 struct inode *inode);
void mapdevfs_enlist(struct mapdevfs_pin *pin, struct dentry *dentry,
		     struct inode *dir, bool adopted);
void mapdevfs_delist(struct dentry *dentry);
bool mapdevfs_is_users(const struct dentry *dentry);
int mapdevfs_unpin(struct inode *dir, struct dentry *dentry);
int mapdevfs_move_pin(struct dentry *old, struct inode *new_dir,
		      struct dentry *new);
bool mapdevfs_has_pin(struct dentry *dir, const struct qstr *name);
bool mapdevfs_next_pin(struct inode *dir, u64 *serial,
		       struct mapdevfs_held *held);
struct dentry *mapdevfs_find_pinned_dir(u64 id);
void mapdevfs_rejoin_all(void);
bool mapdevfs_discard(struct dentry *dentry);
unsigned long mapdevfs_count_pins(unsigned long *limit);
void mapdevfs_drop_pins(void);

/* adopt.c */
int mapdevfs_adopt(struct dentry *dir);
void mapdevfs_abandon(struct dentry *dir);
void mapdevfs_rejoin(struct dentry *dir);

/* files.c */
extern const struct file_operations mapdevfs_file_fops;
int mapdevfs_resize(struct inode *inode, loff_t size);
void mapdevfs_evict_inode(struct inode *inode);
int mapdevfs_statfs(struct dentry *dentry, struct kstatfs *stat);

/* open.c */
extern wait_queue_head_t mapdevfs_filled;
extern const struct file_operations mapdevfs_pending_fops;
extern const struct file_operations mapdevfs_block_fops;
int mapdevfs_open_init(void);
void mapdevfs_open_exit(void);

/* ctl.c */
int mapdevfs_ctl_init(void);
void mapdevfs_ctl_exit(void);

/* events.c */
extern u64 mapdevfs_changes;
int mapdevfs_events_init(void);
void mapdevfs_events_exit(void);
void mapdevfs_tell(u64 id, u32 cell, u32 what, const struct mapdev_attr *attr,
		   bool asked);
ssize_t mapdevfs_read_events(char __user *to, size_t size, bool wait);
bool mapdevfs_poll_events(struct file *file, struct poll_table_struct *table);
void mapdevfs_forget_events(void);

#endif /* MAPDEVFS_INTERNAL_H */
