// SPDX-License-Identifier: GPL-2.0
/*
 * ACLs. They live with their inode, which is held as long as it has one.
 *
 * An ACL is one device's: it ends when the name is another device's, or has no
 * number any more. One that was set before there was a number goes over to the
 * first device that comes, and to no other. The mask of an ACL stands in the
 * mode as the group's bits, and the mode stays with the name: the group keeps
 * of them what the ACL gave to it.
 */
#include <linux/ktime.h>

#include "internal.h"

/* inodes that are kept for their ACL; under mapdevfs_attr_lock */
static LIST_HEAD(acl_inodes);

static void hold(struct mapdevfs_inode *mi)
{
	if (mi->acl == MAPDEVFS_ACL_NONE) {
		ihold(&mi->vfs_inode);
		list_add(&mi->acl_list, &acl_inodes);
	}
	mi->acl = MAPDEVFS_ACL_HELD;
}

/* the bits of a mode that the group has when the ACL is gone; never more */
static umode_t mode_without(const struct posix_acl *acl, umode_t mode)
{
	const struct posix_acl_entry *entry, *end;
	umode_t group = 0;

	FOREACH_ACL_ENTRY(entry, acl, end) {
		if (entry->e_tag == ACL_GROUP_OBJ)
			group = entry->e_perm << 3;
	}
	return mode & ~(0070 & ~group);
}

static void drop(struct mapdevfs_inode *mi)
{
	struct inode *inode = &mi->vfs_inode;
	struct posix_acl *acl;

	if (mi->acl == MAPDEVFS_ACL_NONE)
		return;
	acl = get_cached_acl(inode, ACL_TYPE_ACCESS);
	/* none is left if somebody has removed it, and set the mode */
	if (acl)
		inode->i_mode = mode_without(acl, inode->i_mode);
	posix_acl_release(acl);
	set_cached_acl(inode, ACL_TYPE_ACCESS, NULL);
	mi->acl = MAPDEVFS_ACL_NONE;
	list_del_init(&mi->acl_list);
	iput(&mi->vfs_inode);
}

/* under mapdevfs_attr_lock */
static int change_acl(struct mapdevfs_idmap *idmap, struct inode *inode,
		      struct posix_acl *acl)
{
	bool is_maps = MAPDEVFS_I(inode)->id != MAPDEV_ID_FREE;
	umode_t mode;
	int err;

	err = mapdevfs_renew_locked(inode);
	if (err)
		return err;
	/* the VFS asked for the owner before he was looked up */
	if (mapdevfs_is_maps_node(inode) &&
	    !inode_owner_or_capable(idmap, inode))
		return -EPERM;
	mode = inode->i_mode;
	if (acl) {
		err = posix_acl_update_mode(idmap, inode, &mode, &acl);
		if (err)
			return err;
	}
	mapdevfs_touch_ctime(inode);
	if (mode != inode->i_mode) {
		inode->i_mode = mode;
		if (is_maps)
			mapdevfs_store(inode, MAPDEV_EV_MODE, true);
	}
	set_cached_acl(inode, ACL_TYPE_ACCESS, acl);
	/* not its last reference: the caller came with a dentry */
	if (is_maps && !acl)
		drop(MAPDEVFS_I(inode));
	else if (is_maps)
		hold(MAPDEVFS_I(inode));
	return 0;
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
	int err;

	if (type != ACL_TYPE_ACCESS)
		return -EOPNOTSUPP;
	mutex_lock(&mapdevfs_attr_lock);
	err = change_acl(idmap, inode, acl);
	mutex_unlock(&mapdevfs_attr_lock);
	return err;
}

/**
 * mapdevfs_copy_attr() - setattr_copy(), and an ACL follows a new mode
 * @idmap: of the mount
 * @inode: what is changed
 * @iattr: the change
 *
 * Return: 0, or -ENOMEM, upon which nothing has changed.
 */
int mapdevfs_copy_attr(struct mapdevfs_idmap *idmap, struct inode *inode,
		       const struct iattr *iattr)
{
	struct posix_acl *acl = NULL;
	int err = 0;

	if (iattr->ia_valid & ATTR_MODE)
		acl = get_cached_acl(inode, ACL_TYPE_ACCESS);
	if (acl)
		err = __posix_acl_chmod(&acl, GFP_KERNEL, iattr->ia_mode);
	if (err)
		return err;
	setattr_copy(idmap, inode, iattr);
	if (acl)
		set_cached_acl(inode, ACL_TYPE_ACCESS, acl);
	posix_acl_release(acl);
	return 0;
}

/**
 * mapdevfs_listxattr() - which extended attributes there are
 * @dentry: what is asked about
 * @list: where their names go, each with its NUL
 * @size: room for them, or 0 to ask how much they need
 *
 * Return: bytes of their names, or -ERANGE when there is no room for them.
 */
ssize_t mapdevfs_listxattr(struct dentry *dentry, char *list, size_t size)
{
	static const char name[] = XATTR_NAME_POSIX_ACL_ACCESS;
	struct posix_acl *acl;

	acl = get_cached_acl(d_inode(dentry), ACL_TYPE_ACCESS);
	if (!acl)
		return 0;
	posix_acl_release(acl);
	if (size && size < sizeof(name))
		return -ERANGE;
	if (size)
		memcpy(list, name, sizeof(name));
	return sizeof(name);
}

/* in the map: the mode is the name's, which stays */
static void restore_mode(struct mapdevfs_inode *mi,
			 const struct mapdev_copy *now)
{
	struct posix_acl *acl = get_cached_acl(&mi->vfs_inode, ACL_TYPE_ACCESS);
	struct mapdev_attr attr = {
		.uid = now->uid, .gid = now->gid, .stamp = ktime_get_real_ns(),
	};
	struct mapdevfs_map *map;

	if (!acl)
		return;
	attr.mode = mode_without(acl, now->mode & S_IALLUGO);
	posix_acl_release(acl);
	if (attr.mode == (now->mode & S_IALLUGO))
		return;
	map = rcu_dereference_protected(mapdevfs_map,
					lockdep_is_held(&mapdevfs_attr_lock));
	if (mapdev_set_attr(&map->view, mi->id, mi->cell, &attr))
		return;
	rcu_read_lock();
	mapdevfs_tell(mi->id, mi->cell, MAPDEV_EV_MODE, &attr, false);
	rcu_read_unlock();
	/* the object's inode has the mode of before, until it is looked at */
	mapdevfs_look_again();
}

static int is_now(struct inode *inode, mapdevfs_hashval id, void *now)
{
	return mapdevfs_describes(inode, now) && igrab(inode);
}

/* the device has come: its inode gets the ACL, if it is in memory by now */
static void pass_on(struct mapdevfs_inode *mi, struct mapdev_copy *now)
{
	struct inode *heir = find_inode_nowait(mi->vfs_inode.i_sb,
					       (unsigned long)mi->id, is_now,
					       now);
	struct posix_acl *acl;

	mi->acl = MAPDEVFS_ACL_DUE;
	mi->heir = (dev_t)now->rdev;
	if (!heir)
		return;
	mi->acl = MAPDEVFS_ACL_PASSED;
	if (MAPDEVFS_I(heir)->acl == MAPDEVFS_ACL_NONE) {
		acl = get_cached_acl(&mi->vfs_inode, ACL_TYPE_ACCESS);
		set_cached_acl(heir, ACL_TYPE_ACCESS, acl);
		posix_acl_release(acl);
		hold(MAPDEVFS_I(heir));
	}
	iput(heir);
}

/*
 * What becomes of an ACL by what the map says now. One that is passed on stays
 * where it was until nobody reads what was replaced (@in_use is false).
 */
static void settle(struct mapdevfs_inode *mi, bool in_use)
{
	struct inode *inode = &mi->vfs_inode;
	struct mapdev_copy now = {};
	bool is_it;
	int err = mapdevfs_reread_locked(inode, &now);

	if (err == -EIO)
		return;
	if (err) {
		/* a directory that is adopted stays, though the map has lost it */
		if (!S_ISDIR(inode->i_mode) || !inode_unhashed(inode))
			drop(mi);
		return;
	}
	is_it = mapdevfs_describes(inode, &now);
	if (is_it && mi->acl == MAPDEVFS_ACL_HELD)
		return;
	if (!is_it && mi->pending && !(now.flags & MAPDEV_E_PENDING) &&
	    !((inode->i_mode ^ now.mode) & S_IFMT) &&
	    (mi->acl == MAPDEVFS_ACL_HELD || mi->heir == (dev_t)now.rdev)) {
		if (mi->acl != MAPDEVFS_ACL_PASSED)
			pass_on(mi, &now);
		if (mi->acl == MAPDEVFS_ACL_PASSED && !in_use)
			drop(mi);
		return;
	}
	if (mi->acl != MAPDEVFS_ACL_PASSED)
		restore_mode(mi, &now);
	drop(mi);
}

/**
 * mapdevfs_meet_acls() - see to ACLs that a new inode's object has had
 * @inode: a device node of the map
 */
void mapdevfs_meet_acls(struct inode *inode)
{
	const struct mapdevfs_inode *mine = MAPDEVFS_I(inode);
	struct mapdevfs_inode *mi, *next;

	if (list_empty(&acl_inodes))
		return;
	mutex_lock(&mapdevfs_attr_lock);
	list_for_each_entry_safe(mi, next, &acl_inodes, acl_list) {
		if (mi != mine && mi->id == mine->id &&
		    mi->cell == mine->cell && mi->space == mine->space)
			settle(mi, true);
	}
	mutex_unlock(&mapdevfs_attr_lock);
}

/**
 * mapdevfs_settle_acls() - see to all ACLs, when nobody reads what was replaced
 */
void mapdevfs_settle_acls(void)
{
	struct mapdevfs_inode *mi, *next;

	mutex_lock(&mapdevfs_attr_lock);
	list_for_each_entry_safe(mi, next, &acl_inodes, acl_list)
		settle(mi, false);
	mutex_unlock(&mapdevfs_attr_lock);
}

/**
 * mapdevfs_end_acls() - end all ACLs
 *
 * Called under mapdevfs_attr_lock, while the map is still there.
 */
void mapdevfs_end_acls(void)
{
	struct mapdevfs_inode *mi, *next;

	list_for_each_entry_safe(mi, next, &acl_inodes, acl_list) {
		struct mapdev_copy now = {};

		if (mi->acl != MAPDEVFS_ACL_PASSED &&
		    !mapdevfs_reread_locked(&mi->vfs_inode, &now))
			restore_mode(mi, &now);
		drop(mi);
	}
}
