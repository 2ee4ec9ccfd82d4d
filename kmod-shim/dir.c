// SPDX-License-Identifier: GPL-2.0
/*
 * Names: looked up, looked at again when the map has changed, listed.
 *
 * Names of the map are dentries that nothing holds. Each remembers the state
 * of the map it was true for (d_time); a negative one too. What userspace
 * made is held (user.c) and always true; where both have a directory of the
 * same name, it is one directory with the children of both.
 */
#include <linux/fsnotify.h>
#include <linux/namei.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/xattr.h>

#include "internal.h"

/* looks at an entry that is being changed, before it counts as broken */
#define BUSY_ROUNDS	16
/* directories of userspace's in each other, with names of the map in them */
#define MAX_DEPTH	32
/* ids that a position of a listing can hold */
#define MAX_ID		BIT_ULL(61)

/*
 * An open directory. The map's part of the listing stands at `at`, which
 * belongs to `pos`. When a name did not fit into the caller's buffer it is
 * held, and comes first the next time.
 */
struct listing {
	struct mapdev_cursor at;
	loff_t pos;
	bool held;
	u64 held_id;
	u32 held_mode;
	u32 held_len;
	char name[MAPDEV_NAME_MAX + 1];
};

/* positions: 0 and 1 the dots, then even ones below an id, odd ones a pin's */
#define POS_MAP		2
#define POS_PINS	3

static loff_t pos_below(u64 id)
{
	return (loff_t)id * 2 + 2;
}

static loff_t pos_after_pin(u64 serial)
{
	return (loff_t)serial * 2 + 3;
}

/* a map that breaks these could lead a walk in a circle */
static bool is_sound(u64 parent, const struct mapdev_copy *copy)
{
	return copy->id > parent && copy->id < MAX_ID;
}

/**
 * mapdevfs_look() - find a name in the map
 * @parent: id of the directory
 * @name: the name
 * @copy: filled in when found
 *
 * Return: 0, -ENOENT, or -EIO when the map is broken here.
 */
int mapdevfs_look(u64 parent, const struct qstr *name,
		  struct mapdev_copy *copy)
{
	const struct mapdevfs_map *map;
	int ret, round;

	for (round = 0; round < BUSY_ROUNDS; round++) {
		rcu_read_lock();
		map = rcu_dereference(mapdevfs_map);
		ret = map ? mapdev_find(&map->view, parent, name->name,
					name->len, copy) : -ENOENT;
		rcu_read_unlock();
		if (!ret && !is_sound(parent, copy))
			return -EIO;
		if (ret != -EAGAIN)
			return ret;
		atomic64_inc(&mapdevfs_counters.busy);
		cond_resched();
	}
	return -EIO;
}

static int resolve(struct dentry *dir, u64 *id, u32 *cell, int depth)
{
	struct mapdevfs_inode *mi = MAPDEVFS_I(d_inode(dir));
	struct name_snapshot name;
	struct mapdev_copy copy = {};
	struct dentry *parent;
	int err;

	if (IS_ROOT(dir) || !mapdevfs_is_pinned(dir)) {
		*id = mi->id;
		*cell = mi->cell;
		return 0;
	}
	if (depth == MAX_DEPTH)
		return -ENOENT;
	parent = dget_parent(dir);
	err = resolve(parent, id, cell, depth + 1);
	dput(parent);
	if (err)
		return err;
	take_dentry_name_snapshot(&name, dir);
	err = mapdevfs_look(*id, &name.name, &copy);
	release_dentry_name_snapshot(&name);
	if (err)
		return err;
	if (!S_ISDIR(copy.mode))
		return -ENOENT;
	*id = copy.id;
	*cell = copy.cell;
	return 0;
}

/**
 * mapdevfs_resolve() - what a directory is in the map
 * @dir: the directory
 * @id: its id, filled in
 * @cell: its cell, filled in
 *
 * One that is held has the id that the map gives its name now.
 *
 * Return: 0, -ENOENT when the map has no such directory, or -EIO.
 */
int mapdevfs_resolve(struct dentry *dir, u64 *id, u32 *cell)
{
	return resolve(dir, id, cell, 0);
}

static unsigned long key_now(void)
{
	unsigned long key;

	rcu_read_lock();
	key = mapdevfs_key();
	rcu_read_unlock();
	return key;
}

/* the inode of a name that the map has; a link's target is read with it */
static struct inode *inode_of(struct super_block *sb, u64 parent,
			      const struct qstr *name,
			      struct mapdev_copy *copy)
{
	struct inode *inode;
	int err;

	if (!S_ISLNK(copy->mode))
		return mapdevfs_iget(sb, copy);
	copy->aux = kmalloc(MAPDEV_AUX_MAX + 1, GFP_KERNEL);
	if (!copy->aux)
		return ERR_PTR(-ENOMEM);
	/* it may be something else by now */
	err = mapdevfs_look(parent, name, copy);
	inode = err ? ERR_PTR(err) : mapdevfs_iget(sb, copy);
	kfree(copy->aux);
	copy->aux = NULL;
	return inode;
}

static struct dentry *mapdevfs_lookup(struct inode *dir, struct dentry *dentry,
				      unsigned int flags)
{
	struct mapdev_copy copy = {};
	struct inode *inode = NULL;
	struct dentry *alias;
	unsigned long key;
	u64 parent;
	u32 cell;
	int err;

	if (dentry->d_name.len > NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);
	atomic64_inc(&mapdevfs_counters.lookups);
	/* before the look: an older key than the look's is only too careful */
	key = key_now();
	err = mapdevfs_resolve(dentry->d_parent, &parent, &cell);
	if (!err)
		err = mapdevfs_look(parent, &dentry->d_name, &copy);
	if (!err)
		inode = inode_of(dir->i_sb, parent, &dentry->d_name, &copy);
	if (IS_ERR(inode)) {
		err = PTR_ERR(inode);
		inode = NULL;
	}
	if (err && err != -ENOENT)
		return ERR_PTR(err);
	dentry->d_time = key;
	alias = d_splice_alias(inode, dentry);
	if (!IS_ERR_OR_NULL(alias))
		WRITE_ONCE(alias->d_time, key);
	return alias;
}

/* whether the map says of a name what the dentry says */
static bool still_true(struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	struct mapdev_copy copy = {};
	struct name_snapshot name;
	struct dentry *parent;
	u64 id;
	u32 cell;
	int err;

	if (inode && S_ISLNK(inode->i_mode))
		copy.expect = inode->i_link;
	parent = dget_parent(dentry);
	err = mapdevfs_resolve(parent, &id, &cell);
	dput(parent);
	if (!err) {
		take_dentry_name_snapshot(&name, dentry);
		err = mapdevfs_look(id, &name.name, &copy);
		release_dentry_name_snapshot(&name);
	}
	if (err || !inode)
		return err == -ENOENT && !inode;
	if (!mapdevfs_describes(inode, &copy))
		return false;
	mapdevfs_refresh(inode, &copy);
	return true;
}

/**
 * mapdevfs_check() - whether a cached name is still true
 * @dentry: the name
 * @flags: of the walk
 *
 * Return: 1 if so, 0 if it is to be looked up anew, or -ECHILD.
 */
int mapdevfs_check(struct dentry *dentry, unsigned int flags)
{
	unsigned long key;

	/* 0 on a mount point would unmount it */
	if (mapdevfs_is_pinned(dentry) || d_mountpoint(dentry))
		return 1;
	key = key_now();
	if (likely(key == READ_ONCE(dentry->d_time)) &&
	    !(flags & LOOKUP_REVAL))
		return 1;
	if (flags & LOOKUP_RCU)
		return -ECHILD;
	atomic64_inc(&mapdevfs_counters.revalidations);
	if (!still_true(dentry)) {
		atomic64_inc(&mapdevfs_counters.invalidations);
		return 0;
	}
	WRITE_ONCE(dentry->d_time, key);
	return 1;
}

const struct dentry_operations mapdevfs_dops = {
	.d_revalidate	= mapdevfs_revalidate,
};

static int mapdevfs_open_dir(struct inode *inode, struct file *file)
{
	struct listing *list = kzalloc(sizeof(*list), GFP_KERNEL);

	file->private_data = list;
	return list ? 0 : -ENOMEM;
}

static int mapdevfs_release_dir(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

/* 1 for a child, 0 at the end, or an error */
static int next_child(struct listing *list, struct mapdev_copy *copy)
{
	const struct mapdevfs_map *map;
	int ret;

	for (;;) {
		rcu_read_lock();
		map = rcu_dereference(mapdevfs_map);
		ret = map ? mapdev_list_next(&map->view, &list->at, copy) : 0;
		rcu_read_unlock();
		if (ret == -ENOENT)
			return 0;
		if (ret != -EAGAIN)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
}

static bool is_name(const char *name, u32 len)
{
	u32 at;

	for (at = 0; at < len; at++) {
		if (name[at] == '/' || !name[at])
			return false;
	}
	return len &&
	       (name[0] != '.' || (len > 1 && (name[1] != '.' || len > 2)));
}

static bool emit_held(struct listing *list, struct dir_context *ctx)
{
	if (!dir_emit(ctx, list->name, list->held_len, list->held_id << 1,
		      (list->held_mode & S_IFMT) >> 12))
		return false;
	list->held = false;
	ctx->pos = pos_below(list->held_id);
	list->pos = ctx->pos;
	return true;
}

/* 1 when all was delivered, 0 when the buffer is full, or an error */
static int emit_map(struct file *file, struct dir_context *ctx)
{
	struct listing *list = file->private_data;
	struct dentry *dir = file->f_path.dentry;
	struct mapdev_copy copy = { .name = list->name, .no_attr = true };
	struct qstr name = {};
	u64 id;
	u32 cell;
	int ret;

	ret = mapdevfs_resolve(dir, &id, &cell);
	if (ret)
		return ret == -ENOENT ? 1 : ret;
	if (list->pos != ctx->pos || list->at.dir != id) {
		list->held = false;
		memset(&list->at, 0, sizeof(list->at));
		list->at.dir = id;
		list->at.dir_cell = cell;
		list->at.last = ctx->pos == POS_MAP ? ~0ULL :
				(u64)(ctx->pos - 2) / 2;
		list->pos = ctx->pos;
	}
	list->at.steps = 0;
	if (list->held && !emit_held(list, ctx))
		return 0;
	while ((ret = next_child(list, &copy)) == 1) {
		name.name = list->name;
		name.len = copy.name_len;
		if (!is_name(list->name, copy.name_len) ||
		    !is_sound(id, &copy))
			continue;
		if (READ_ONCE(MAPDEVFS_I(d_inode(dir))->pin_bits) &&
		    mapdevfs_has_pin(dir, &name))
			continue;
		list->held = true;
		list->held_id = copy.id;
		list->held_mode = copy.mode;
		list->held_len = copy.name_len;
		if (!emit_held(list, ctx))
			return 0;
	}
	return ret ? ret : 1;
}

static void emit_pins(struct file *file, struct dir_context *ctx)
{
	struct listing *list = file->private_data;
	u64 serial = (u64)(ctx->pos - POS_PINS) / 2;
	struct inode *inode;
	int len;

	/* the names of the map are all told, its buffer is free */
	list->held = false;
	while ((len = mapdevfs_next_pin(file_inode(file), &serial, list->name,
					&inode)) > 0) {
		if (!dir_emit(ctx, list->name, len, inode->i_ino,
			      (inode->i_mode & S_IFMT) >> 12))
			return;
		ctx->pos = pos_after_pin(serial);
	}
}

static int mapdevfs_iterate(struct file *file, struct dir_context *ctx)
{
	int ret;

	if (!dir_emit_dots(file, ctx))
		return 0;
	if (!(ctx->pos & 1)) {
		ret = emit_map(file, ctx);
		if (ret <= 0)
			return ret;
		ctx->pos = POS_PINS;
	}
	emit_pins(file, ctx);
	return 0;
}

static int is_dir_of_id(struct inode *inode, void *data)
{
	return S_ISDIR(inode->i_mode) && MAPDEVFS_I(inode)->id == *(u64 *)data;
}

/**
 * mapdevfs_find_dir() - the directory of an id, if it is in memory
 * @sb: the file system
 * @id: the map's id
 *
 * Return: the dentry, to be put, or NULL.
 */
struct dentry *mapdevfs_find_dir(struct super_block *sb, u64 id)
{
	struct dentry *dentry;
	struct inode *inode;

	if (id == MAPDEV_ID_ROOT)
		return dget(sb->s_root);
	inode = ilookup5(sb, (unsigned long)id, is_dir_of_id, &id);
	if (!inode)
		return mapdevfs_find_pinned_dir(id);
	dentry = d_find_any_alias(inode);
	iput(inode);
	return dentry;
}

/* ends the watches on a name that is gone, and what is cached of it */
static void forget(struct dentry *child)
{
	struct inode *inode = d_inode(child);

	if (!inode || still_true(child))
		return;
	ihold(inode);
	d_invalidate(child);
	fsnotify_inoderemove(inode);
	iput(inode);
}

/**
 * mapdevfs_notify() - tell inotify of a name that came or went
 * @what: the name, checked
 *
 * The map is written by its memory, of which the VFS hears nothing.
 *
 * Return: 0, or -EEXIST when userspace has made something of this name.
 */
int mapdevfs_notify(const struct mapdev_notify *what)
{
	struct qstr name = QSTR_INIT(what->name, what->name_len);
	struct super_block *sb = mapdevfs_get_super();
	struct dentry *dir, *child;
	int ret = 0;

	if (!sb)
		return 0;
	dir = mapdevfs_find_dir(sb, what->parent);
	if (!dir)
		goto put_super;
	name.hash = full_name_hash(dir, name.name, name.len);
	child = d_lookup(dir, &name);
	if (child && mapdevfs_is_pinned(child)) {
		if (!(what->mask & MAPDEV_N_ISDIR) || !d_is_dir(child))
			ret = -EEXIST;
		/* watchers saw it when userspace made it */
		goto put_child;
	}
	/* with an inode, since 6.1 looks into it */
	fsnotify_name(what->mask, d_inode(dir), FSNOTIFY_EVENT_INODE,
		      d_inode(dir), &name, 0);
	if (child && (what->mask & MAPDEV_N_DELETE))
		forget(child);
put_child:
	dput(child);
	dput(dir);
put_super:
	mapdevfs_put_super(sb);
	return ret;
}

const struct inode_operations mapdevfs_dir_iops = {
	.lookup		= mapdevfs_lookup,
	.create		= mapdevfs_create,
	.mkdir		= mapdevfs_mkdir,
	.mknod		= mapdevfs_mknod,
	.symlink	= mapdevfs_symlink,
	.link		= mapdevfs_link,
	.unlink		= mapdevfs_unlink,
	.rmdir		= mapdevfs_rmdir,
	.rename		= mapdevfs_rename,
	.setattr	= mapdevfs_setattr,
	.listxattr	= generic_listxattr,
	.set_acl	= mapdevfs_set_acl,
};

const struct file_operations mapdevfs_dir_fops = {
	.open		= mapdevfs_open_dir,
	.release	= mapdevfs_release_dir,
	.iterate_shared	= mapdevfs_iterate,
	.llseek		= generic_file_llseek,
	.read		= generic_read_dir,
	.fsync		= noop_fsync,
};
