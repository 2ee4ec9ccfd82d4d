// SPDX-License-Identifier: GPL-2.0
/*
 * ACLs. They live with their inode, which is held as long as it has one.
 */
#include "internal.h"

/* inodes that are kept for their ACL; under mapdevfs_attr_lock */
static LIST_HEAD(acl_inodes);

/* an ACL lives with its inode, which therefore must not go */
static void hold_for_acl(struct inode *inode, bool hold)
{
	struct mapdevfs_inode *mi = MAPDEVFS_I(inode);

	if (mi->id == MAPDEV_ID_FREE || mi->acl_held == hold)
		return;
	mi->acl_held = hold;
	if (hold) {
		ihold(inode);
		list_add(&mi->acl_list, &acl_inodes);
	} else {
		list_del_init(&mi->acl_list);
		/* not the last one: the caller came with a dentry */
		iput(inode);
	}
}

/**
 * mapdevfs_change_acl() - set or remove an ACL
 * @idmap: of the mount
 * @inode: what it is for
 * @acl: NULL to remove it
 * @type: only ACL_TYPE_ACCESS
 *
 * Return: 0 or an error.
 */
int mapdevfs_change_acl(struct mapdevfs_idmap *idmap, struct inode *inode,
			struct posix_acl *acl, int type)
{
	umode_t mode = inode->i_mode;
	int err;

	if (type != ACL_TYPE_ACCESS)
		return -EOPNOTSUPP;
	if (mapdevfs_is_maps_node(inode)) {
		err = mapdevfs_renew(inode, true);
		if (err)
			return err;
		/* the VFS asked for the owner before he was looked up */
		if (!inode_owner_or_capable(idmap, inode))
			return -EPERM;
	}
	if (acl) {
		err = posix_acl_update_mode(idmap, inode, &mode, &acl);
		if (err)
			return err;
	}
	mutex_lock(&mapdevfs_attr_lock);
	mapdevfs_touch_ctime(inode);
	if (mode != inode->i_mode) {
		inode->i_mode = mode;
		if (MAPDEVFS_I(inode)->id != MAPDEV_ID_FREE)
			mapdevfs_store(inode, MAPDEV_EV_MODE);
	}
	set_cached_acl(inode, type, acl);
	hold_for_acl(inode, acl);
	mutex_unlock(&mapdevfs_attr_lock);
	return 0;
}

/**
 * mapdevfs_drop_acls() - let go of inodes that were kept for their ACL
 * @all: also those whose object still is in the map
 */
void mapdevfs_drop_acls(bool all)
{
	struct mapdevfs_inode *mi, *next;
	const struct mapdevfs_map *map;
	LIST_HEAD(gone);

	mutex_lock(&mapdevfs_attr_lock);
	rcu_read_lock();
	list_for_each_entry_safe(mi, next, &acl_inodes, acl_list) {
		map = mapdevfs_map_of(mi->space);
		if (!all && map &&
		    mapdev_owns_cell(&map->view, mi->id, mi->cell))
			continue;
		list_move(&mi->acl_list, &gone);
	}
	rcu_read_unlock();
	list_for_each_entry_safe(mi, next, &gone, acl_list) {
		list_del_init(&mi->acl_list);
		mi->acl_held = false;
		iput(&mi->vfs_inode);
	}
	mutex_unlock(&mapdevfs_attr_lock);
}
