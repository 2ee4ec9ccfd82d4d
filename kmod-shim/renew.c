// SPDX-License-Identifier: GPL-2.0
/*
 * Whether an inode still is what it was: asked of the map by its id, whatever
 * its name is.
 */
#include "internal.h"

/**
 * mapdevfs_glance() - what the map says of the object of an inode, at one look
 * @inode: the inode
 * @copy: filled in when found
 *
 * Return: 0, -ENOENT, or -EAGAIN when it is being changed.
 */
int mapdevfs_glance(const struct inode *inode, struct mapdev_copy *copy)
{
	const struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	const struct mapdevfs_map *map;
	int ret = -ENOENT;

	rcu_read_lock();
	map = mapdevfs_map_of(mi->space);
	if (map)
		ret = mapdev_by_id(&map->view, mi->id, mi->cell, copy);
	rcu_read_unlock();
	copy->space = mi->space;
	return ret;
}

/* -EAGAIN when it is being changed at every look */
static int look(const struct inode *inode, struct mapdev_copy *copy)
{
	int ret, round;

	for (round = 0; round < MAPDEVFS_BUSY_ROUNDS; round++) {
		ret = mapdevfs_glance(inode, copy);
		if (ret != -EAGAIN)
			break;
		atomic64_inc(&mapdevfs_counters.busy);
		cond_resched();
	}
	return ret;
}

/**
 * mapdevfs_reread() - what the map says of the object of an inode
 * @inode: the inode
 * @copy: filled in when found
 *
 * Return: 0, -ENOENT, or -EIO when the map is broken here.
 */
int mapdevfs_reread(const struct inode *inode, struct mapdev_copy *copy)
{
	int ret = look(inode, copy);

	if (ret != -EAGAIN)
		return ret;
	/* who changes attributes may have been scheduled away */
	mutex_lock(&mapdevfs_attr_lock);
	ret = mapdevfs_glance(inode, copy);
	mutex_unlock(&mapdevfs_attr_lock);
	return ret == -EAGAIN ? -EIO : ret;
}

/**
 * mapdevfs_reread_locked() - mapdevfs_reread() under mapdevfs_attr_lock
 * @inode: the inode
 * @copy: filled in when found; its attributes hold until the lock is released
 *
 * Return: 0, -ENOENT, or -EIO when the map is broken here.
 */
int mapdevfs_reread_locked(const struct inode *inode, struct mapdev_copy *copy)
{
	int ret;

	lockdep_assert_held(&mapdevfs_attr_lock);
	ret = look(inode, copy);
	return ret == -EAGAIN ? -EIO : ret;
}

/**
 * mapdevfs_look_again() - make all that was read of the map be read anew
 *
 * Called under mapdevfs_attr_lock, after what has changed.
 */
void mapdevfs_look_again(void)
{
	struct mapdevfs_map *map;

	map = rcu_dereference_protected(mapdevfs_map,
					lockdep_is_held(&mapdevfs_attr_lock));
	if (!map)
		return;
	/* pairs with mapdevfs_key_now(): who sees it sees the change */
	smp_store_release(&map->salt, map->salt + 1);
}

/**
 * mapdevfs_renew() - see to it that a node of the map still is what it was
 * @inode: the node
 * @may_sleep: false in a walk under RCU
 *
 * An inode outlives its name by a descriptor of it, through which /proc opens
 * it again. Its number may be another device's by then.
 *
 * Return: 0, or -ESTALE, upon which the VFS looks names up anew, or an error.
 */
int mapdevfs_renew(struct inode *inode, bool may_sleep)
{
	unsigned long key = mapdevfs_key_now();
	struct mapdev_copy copy = {};
	int err;

	if (likely(key == READ_ONCE(MAPDEVFS_I(inode)->checked)))
		return 0;
	if (!may_sleep)
		return -ECHILD;
	err = mapdevfs_reread(inode, &copy);
	if (err == -ENOENT || (!err && !mapdevfs_describes(inode, &copy)))
		return -ESTALE;
	if (!err)
		mapdevfs_refresh(inode, &copy, key);
	return err;
}

/**
 * mapdevfs_may() - whether somebody may use a node
 * @idmap: of the mount
 * @inode: the node
 * @mask: for what
 *
 * Nobody has rights that he had to what the node was before.
 *
 * Return: 0 or an error.
 */
int mapdevfs_may(struct mapdevfs_idmap *idmap, struct inode *inode, int mask)
{
	const struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	int err = 0;

	if (unlikely(mapdevfs_key_now() != READ_ONCE(mi->checked)) &&
	    mapdevfs_is_maps_node(inode))
		err = mapdevfs_renew(inode, !(mask & MAY_NOT_BLOCK));
	return err ? err : generic_permission(idmap, inode, mask);
}
