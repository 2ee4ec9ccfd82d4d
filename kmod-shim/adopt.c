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
	 * gets an inode of its own, and this dentry stays where it is.
	 */
	remove_inode_hash(d_inode(dir));
	mapdevfs_enlist(pin, dget(dir), d_inode(parent), true);
	return 0;
}

/**
 * mapdevfs_adopt() - hold a directory of the map, and those above it
 * @dir: the directory
 *
 * Called under mapdevfs_pin_lock, without which no directory is moved.
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

/**
 * mapdevfs_rejoin() - let a directory be what the map has under its name
 * @dir: a directory that stays, see mapdevfs_stays()
 *
 * Called under mapdevfs_pin_lock. The map can lose one that stays, and have it
 * again as another object. Its watches stay, and its number is that of its name.
 */
void mapdevfs_rejoin(struct dentry *dir)
{
	struct inode *inode = d_inode(dir);
	const struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	struct mapdevfs_place place;
	bool hashed;

	if (mi->id == MAPDEV_ID_FREE || mapdevfs_resolve(dir, &place) ||
	    (mi->space == place.space && mi->id == place.id &&
	     mi->cell == place.cell))
		return;
	hashed = !inode_unhashed(inode);
	if (hashed)
		remove_inode_hash(inode);
	mapdevfs_become(inode, &place);
	if (hashed)
		__insert_inode_hash(inode, place.id);
}
