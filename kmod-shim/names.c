// SPDX-License-Identifier: GPL-2.0
/*
 * Names: looked up, and looked at again when the map has changed.
 *
 * Names of the map are dentries that nothing holds. Each remembers the state
 * of the map it was true for (d_time); a negative one too. What userspace
 * made is held (pins.c) and always true; where both have a directory of the
 * same name, it is one directory with the children of both.
 */
#include <linux/namei.h>
#include <linux/slab.h>
#include <linux/xattr.h>

#include "internal.h"

/* directories of userspace's in each other, with names of the map in them */
#define MAX_DEPTH	32

static int look_once(const struct mapdevfs_place *dir, const struct qstr *name,
		     struct mapdev_copy *copy)
{
	const struct mapdevfs_map *map;
	int ret = -ENOENT;

	rcu_read_lock();
	map = mapdevfs_map_of(dir->space);
	if (map) {
		ret = mapdev_find(&map->view, dir->id, name->name, name->len,
				  copy);
		copy->space = map->view.id_space;
	}
	rcu_read_unlock();
	if (!ret && !mapdevfs_is_sound(dir->id, copy))
		return -EIO;
	return ret;
}

/**
 * mapdevfs_look() - find a name in the map
 * @dir: the directory
 * @name: the name
 * @copy: filled in when found
 *
 * Return: 0, -ENOENT, or -EIO when the map is broken here.
 */
int mapdevfs_look(const struct mapdevfs_place *dir, const struct qstr *name,
		  struct mapdev_copy *copy)
{
	int ret, round;

	for (round = 0; round < MAPDEVFS_BUSY_ROUNDS; round++) {
		ret = look_once(dir, name, copy);
		if (ret != -EAGAIN)
			return ret;
		atomic64_inc(&mapdevfs_counters.busy);
		cond_resched();
	}
	/* who changes attributes may have been scheduled away */
	mutex_lock(&mapdevfs_attr_lock);
	ret = look_once(dir, name, copy);
	mutex_unlock(&mapdevfs_attr_lock);
	return ret == -EAGAIN ? -EIO : ret;
}

/* one step down: what a directory is that the map has under its name */
static int step(struct mapdevfs_place *place, struct dentry *dir)
{
	struct mapdev_copy copy = { .no_attr = true };
	struct name_snapshot name;
	int err;

	take_dentry_name_snapshot(&name, dir);
	err = mapdevfs_look(place, &name.name, &copy);
	release_dentry_name_snapshot(&name);
	if (err)
		return err;
	if (!S_ISDIR(copy.mode))
		return -ENOENT;
	place->space = copy.space;
	place->id = copy.id;
	place->cell = copy.cell;
	return 0;
}

/**
 * mapdevfs_resolve() - what a directory is in the map
 * @dir: the directory
 * @place: filled in
 *
 * One that stays has the id that the map gives its name now.
 *
 * Return: 0, -ENOENT when the map has no such directory, or -EIO.
 */
int mapdevfs_resolve(struct dentry *dir, struct mapdevfs_place *place)
{
	struct dentry *by_name[MAX_DEPTH], *at = dget(dir);
	const struct mapdevfs_inode *mi;
	int depth = 0, err = 0;

	/* up to one that has an id of its own */
	while (!IS_ROOT(at) && mapdevfs_goes_by_name(at)) {
		if (depth == MAX_DEPTH) {
			err = -ENOENT;
			break;
		}
		by_name[depth++] = at;
		at = dget_parent(at);
	}
	mi = MAPDEVFS_I(d_inode(at));
	place->space = mi->space;
	place->id = mi->id;
	place->cell = mi->cell;
	dput(at);
	/* and down again */
	while (depth) {
		at = by_name[--depth];
		if (!err)
			err = step(place, at);
		dput(at);
	}
	return err;
}

/*
 * The inode of a name that the map has, no directory; the target of a link is
 * read with it.
 */
static struct inode *inode_of(struct super_block *sb,
			      const struct mapdevfs_place *dir,
			      const struct qstr *name,
			      struct mapdev_copy *copy, unsigned long key)
{
	struct inode *inode;
	int err;

	if (!S_ISLNK(copy->mode))
		return mapdevfs_iget(sb, copy, key);
	copy->aux = kmalloc(MAPDEV_AUX_MAX + 1, GFP_KERNEL);
	if (!copy->aux)
		return ERR_PTR(-ENOMEM);
	/* it may be something else by now */
	err = mapdevfs_look(dir, name, copy);
	/* upon which the VFS looks again; see splice_dir() */
	if (!err && S_ISDIR(copy->mode))
		err = -ESTALE;
	inode = err ? ERR_PTR(err) : mapdevfs_iget(sb, copy, key);
	kfree(copy->aux);
	copy->aux = NULL;
	return inode;
}

/*
 * A directory whose inode has another name in memory is moved here from there.
 * That can be one that was let go of and has come back; a broken map gives one
 * id to several. Under the lock none moves that is being adopted: those that
 * are found have not been, and what is adopted is not found.
 */
static struct dentry *splice_dir(struct super_block *sb, struct dentry *dentry,
				 const struct mapdev_copy *copy,
				 unsigned long key)
{
	struct dentry *alias;

	mutex_lock(&mapdevfs_pin_lock);
	alias = d_splice_alias(mapdevfs_iget(sb, copy, key), dentry);
	mutex_unlock(&mapdevfs_pin_lock);
	if (!IS_ERR_OR_NULL(alias))
		WRITE_ONCE(alias->d_time, key);
	return alias;
}

static struct dentry *mapdevfs_lookup(struct inode *dir, struct dentry *dentry,
				      unsigned int flags)
{
	struct mapdevfs_place place;
	struct mapdev_copy copy = {};
	struct inode *inode = NULL;
	unsigned long key;
	int err;

	if (dentry->d_name.len > NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);
	atomic64_inc(&mapdevfs_counters.lookups);
	/* before the look: an older key than the look's is only too careful */
	key = mapdevfs_key_now();
	dentry->d_time = key;
	err = mapdevfs_resolve(dentry->d_parent, &place);
	if (!err)
		err = mapdevfs_look(&place, &dentry->d_name, &copy);
	if (!err && S_ISDIR(copy.mode))
		return splice_dir(dir->i_sb, dentry, &copy, key);
	if (!err)
		inode = inode_of(dir->i_sb, &place, &dentry->d_name, &copy,
				 key);
	if (IS_ERR(inode)) {
		err = PTR_ERR(inode);
		inode = NULL;
	}
	if (err && err != -ENOENT)
		return ERR_PTR(err);
	return d_splice_alias(inode, dentry);
}

/**
 * mapdevfs_still_true() - whether the map says of a name what the dentry says
 * @dentry: the name, not held
 *
 * Return: 1 if so, 0 when it is to be looked up anew, -EIO when the map
 * cannot be read there: that is no reason to let go of a name.
 */
int mapdevfs_still_true(struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	unsigned long key = mapdevfs_key_now();
	struct mapdevfs_place place;
	struct mapdev_copy copy = {};
	struct name_snapshot name;
	struct dentry *parent;
	int err;

	if (inode && S_ISLNK(inode->i_mode))
		copy.expect = inode->i_link;
	parent = dget_parent(dentry);
	err = mapdevfs_resolve(parent, &place);
	dput(parent);
	if (!err) {
		take_dentry_name_snapshot(&name, dentry);
		err = mapdevfs_look(&place, &name.name, &copy);
		release_dentry_name_snapshot(&name);
	}
	if (err && err != -ENOENT)
		return err;
	if (err || !inode)
		return err && !inode;
	if (!mapdevfs_describes(inode, &copy))
		return 0;
	mapdevfs_refresh(inode, &copy, key);
	return 1;
}

/**
 * mapdevfs_check() - whether a cached name is still true
 * @dentry: the name
 * @flags: of the walk
 *
 * Return: 1 if so, 0 if it is to be looked up anew, or an error.
 */
int mapdevfs_check(struct dentry *dentry, unsigned int flags)
{
	unsigned long key;
	int ret;

	if (mapdevfs_is_pinned(dentry))
		return 1;
	key = mapdevfs_key_now();
	if (likely(key == READ_ONCE(dentry->d_time)) &&
	    !(flags & LOOKUP_REVAL))
		return 1;
	if (flags & LOOKUP_RCU)
		return -ECHILD;
	if (mapdevfs_keeps_mount(dentry))
		return 1;
	atomic64_inc(&mapdevfs_counters.revalidations);
	ret = mapdevfs_still_true(dentry);
	if (ret > 0)
		WRITE_ONCE(dentry->d_time, key);
	if (ret)
		return ret;
	if (!mapdevfs_discard(dentry))
		return 1;
	atomic64_inc(&mapdevfs_counters.invalidations);
	return 0;
}

const struct dentry_operations mapdevfs_dops = {
	.d_revalidate	= mapdevfs_revalidate,
};

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
	.listxattr	= mapdevfs_listxattr,
	.set_acl	= mapdevfs_set_acl,
};
