// SPDX-License-Identifier: GPL-2.0
/*
 * Directories of the map that userspace makes something in: they are held as
 * long as there is something (adopted), and with them those above.
 */
#include <linux/slab.h>

#include "internal.h"

static int adopt_one(struct dentry *dir, struct dentry *parent)
{
	struct mapdevfs_pin *pin;

	/*
	 * Somebody works in a directory that is gone: the map's is unhashed,
	 * and userspace's would be held if it were not removed.
	 */
	if (d_unhashed(dir) || MAPDEVFS_I(d_inode(dir))->id == MAPDEV_ID_FREE)
		return -ENOENT;
	pin = kzalloc(sizeof(*pin), GFP_KERNEL_ACCOUNT);
	if (!pin)
		return -ENOMEM;
	/*
	 * The map may give this id to another name, if it is broken: that one
	 * gets an inode of its own, and this dentry stays.
	 */
	remove_inode_hash(d_inode(dir));
	mapdevfs_enlist(pin, dget(dir), d_inode(parent), true);
	return 0;
}

/**
 * mapdevfs_adopt() - hold a directory of the map, and those above it
 * @dir: the directory
 *
 * Called under mapdevfs_pin_lock. A broken map moves directories that are not
 * held yet, therefore dget_parent().
 *
 * Return: 0, or an error, upon which all is as before.
 */
int mapdevfs_adopt(struct dentry *dir)
{
	struct dentry *parent, *at = dget(dir);
	int err = 0;

	while (!err && !IS_ROOT(at) && !mapdevfs_is_pinned(at)) {
		parent = dget_parent(at);
		err = adopt_one(at, parent);
		dput(at);
		at = parent;
	}
	dput(at);
	if (err)
		mapdevfs_abandon(dir);
	return err;
}

static bool is_to_be_abandoned(const struct dentry *dir)
{
	const struct mapdevfs_pin *pin = dir->d_fsdata;

	return pin && pin->adopted &&
	       list_empty(&MAPDEVFS_I(d_inode(dir))->pins);
}

/**
 * mapdevfs_abandon() - let go of directories that hold nothing any more
 * @dir: the first one; those above it follow
 *
 * Called under mapdevfs_pin_lock.
 */
void mapdevfs_abandon(struct dentry *dir)
{
	struct dentry *parent, *at = dget(dir);
	struct inode *inode;

	while (is_to_be_abandoned(at)) {
		parent = dget_parent(at);
		inode = d_inode(at);
		mapdevfs_delist(at);
		/* found by its id again, if that is not taken */
		__insert_inode_hash(inode, MAPDEVFS_I(inode)->id);
		/* the list's, and the one of this walk */
		dput(at);
		dput(at);
		at = parent;
	}
	dput(at);
}
