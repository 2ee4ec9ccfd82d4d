// SPDX-License-Identifier: GPL-2.0
/*
 * Inodes of the map's objects, and their mode and owner, which the kernel
 * alone changes once the map is published.
 */
#include <linux/slab.h>

#include "internal.h"

/* the map's are even, userspace's are odd */
static ino_t map_ino(u64 id)
{
	return (ino_t)id << 1;
}

/**
 * mapdevfs_user_ino() - a number for an inode that userspace makes
 *
 * Return: one that no inode of the map has.
 */
ino_t mapdevfs_user_ino(void)
{
	static atomic_long_t last;

	return (ino_t)atomic_long_inc_return(&last) << 1 | 1;
}

struct inode_key {
	const struct mapdev_copy *copy;
	char *link;
};

static bool same_link(const struct inode *inode, const struct mapdev_copy *copy)
{
	if (copy->expect)
		return copy->expect == inode->i_link && copy->same_aux;
	return copy->aux && !strcmp(inode->i_link, copy->aux);
}

/**
 * mapdevfs_describes() - whether an inode is of the object that was copied
 * @inode: the inode
 * @copy: for a link with aux, or with the inode's link as expect
 *
 * A device that is replaced under the same name is another inode, so that
 * watches on the old one end with it.
 *
 * Return: true if nothing but attributes can differ.
 */
bool mapdevfs_describes(const struct inode *inode,
			const struct mapdev_copy *copy)
{
	const struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	umode_t type = copy->mode & S_IFMT;

	if (mi->space != copy->space || mi->id != copy->id ||
	    mi->cell != copy->cell || (inode->i_mode & S_IFMT) != type)
		return false;
	switch (type) {
	case S_IFCHR:
	case S_IFBLK:
		return inode->i_rdev == (dev_t)copy->rdev &&
		       mi->pending == !!(copy->flags & MAPDEV_E_PENDING);
	case S_IFLNK:
		return same_link(inode, copy);
	default:
		return true;
	}
}

static int key_matches(struct inode *inode, void *data)
{
	const struct inode_key *key = data;

	return mapdevfs_describes(inode, key->copy);
}

/* all that key_matches() looks at: others may compare before we are done */
static int key_take(struct inode *inode, void *data)
{
	struct inode_key *key = data;
	struct mapdevfs_inode *mi = MAPDEVFS_I(inode);

	inode->i_ino = map_ino(key->copy->id);
	/* before somebody finds it, who may give it an ACL */
	cache_no_acl(inode);
	inode->i_mode = key->copy->mode & (S_IFMT | S_IALLUGO);
	inode->i_rdev = (dev_t)key->copy->rdev;
	mi->space = key->copy->space;
	mi->id = key->copy->id;
	mi->cell = key->copy->cell;
	mi->pending = key->copy->flags & MAPDEV_E_PENDING;
	if (key->link) {
		inode->i_link = key->link;
		key->link = NULL;
	}
	return 0;
}

static void set_attributes(struct inode *inode, const struct mapdev_copy *copy)
{
	inode->i_mode = (inode->i_mode & S_IFMT) | (copy->mode & S_IALLUGO);
	inode->i_uid = make_kuid(&init_user_ns, copy->uid);
	inode->i_gid = make_kgid(&init_user_ns, copy->gid);
	/* all ones is nobody, and not to be written back */
	if (!uid_valid(inode->i_uid))
		inode->i_uid = GLOBAL_ROOT_UID;
	if (!gid_valid(inode->i_gid))
		inode->i_gid = GLOBAL_ROOT_GID;
	mapdevfs_set_times(inode, ns_to_timespec64(copy->stamp));
}

/**
 * mapdevfs_set_node() - make an inode a device node, fifo or socket
 * @inode: with its mode
 * @rdev: number of a device
 */
void mapdevfs_set_node(struct inode *inode, dev_t rdev)
{
	inode->i_op = &mapdevfs_node_iops;
	init_special_inode(inode, inode->i_mode, rdev);
}

static void dress(struct inode *inode, const struct mapdev_copy *copy)
{
	struct mapdevfs_inode *mi = MAPDEVFS_I(inode);

	set_attributes(inode, copy);
	switch (inode->i_mode & S_IFMT) {
	case S_IFDIR:
		/* 1: the number of directories in it is not known */
		inode->i_op = &mapdevfs_dir_iops;
		inode->i_fop = &mapdevfs_dir_fops;
		break;
	case S_IFLNK:
		inode->i_op = &mapdevfs_link_iops;
		inode->i_size = strlen(inode->i_link);
		break;
	default:
		mapdevfs_set_node(inode, inode->i_rdev);
		mi->number_fops = inode->i_fop;
		if (mi->pending)
			inode->i_fop = &mapdevfs_pending_fops;
		else if (S_ISBLK(inode->i_mode) &&
			 (copy->flags & MAPDEV_E_MODULE))
			inode->i_fop = &mapdevfs_block_fops;
		mapdevfs_meet_acls(inode);
	}
}

/**
 * mapdevfs_iget() - the inode of an object of the map
 * @sb: the file system
 * @copy: what the map says of it, for a link with aux
 * @now: the key of the map from before it was copied
 *
 * Return: the inode, or an error pointer.
 */
struct inode *mapdevfs_iget(struct super_block *sb,
			    const struct mapdev_copy *copy, unsigned long now)
{
	struct inode_key key = { .copy = copy };
	struct inode *inode;

	switch (copy->mode & S_IFMT) {
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
		break;
	case S_IFLNK:
		/* the VFS takes an empty link for a broken file system */
		if (!copy->aux || !copy->aux[0])
			return ERR_PTR(-EIO);
		key.link = kstrdup(copy->aux, GFP_KERNEL_ACCOUNT);
		if (!key.link)
			return ERR_PTR(-ENOMEM);
		break;
	default:
		return ERR_PTR(-EIO);
	}
	inode = iget5_locked(sb, (unsigned long)copy->id, key_matches,
			     key_take, &key);
	kfree(key.link);
	if (!inode)
		return ERR_PTR(-ENOMEM);
	if (mapdevfs_inode_is_new(inode)) {
		dress(inode, copy);
		WRITE_ONCE(MAPDEVFS_I(inode)->checked, now);
		unlock_new_inode(inode);
	} else {
		mapdevfs_refresh(inode, copy, now);
	}
	return inode;
}

static bool has_attributes(const struct inode *inode,
			   const struct mapdev_copy *copy)
{
	return (inode->i_mode & S_IALLUGO) == (copy->mode & S_IALLUGO) &&
	       from_kuid(&init_user_ns, inode->i_uid) == copy->uid &&
	       from_kgid(&init_user_ns, inode->i_gid) == copy->gid;
}

/**
 * mapdevfs_refresh() - take over attributes that the map has and the inode not
 * @inode: the inode
 * @copy: what was just read of its object
 * @key: the key of the map from before that
 *
 * The daemon's entry gave them, before anybody changed them.
 */
void mapdevfs_refresh(struct inode *inode, const struct mapdev_copy *copy,
		      unsigned long key)
{
	struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	struct mapdev_copy now = {};
	int err;

	if (has_attributes(inode, copy))
		goto checked;
	mutex_lock(&mapdevfs_attr_lock);
	/* the copy may be older than a chmod */
	err = mapdevfs_glance(inode, &now);
	if (!err)
		set_attributes(inode, &now);
	mutex_unlock(&mapdevfs_attr_lock);
	/* to be looked at again */
	if (err)
		return;
checked:
	WRITE_ONCE(mi->checked, key);
}

/**
 * mapdevfs_renew_locked() - mapdevfs_renew() for who changes the node
 * @inode: the inode; under mapdevfs_attr_lock
 *
 * Whoever has the old device open would else change the one that took its name.
 *
 * Return: 0, or -ESTALE, or -EIO when the map is broken here.
 */
int mapdevfs_renew_locked(struct inode *inode)
{
	struct mapdev_copy now = {};
	int err;

	if (!mapdevfs_is_maps_node(inode))
		return 0;
	err = mapdevfs_reread_locked(inode, &now);
	if (err == -ENOENT || (!err && !mapdevfs_describes(inode, &now)))
		return -ESTALE;
	if (!err && !has_attributes(inode, &now))
		set_attributes(inode, &now);
	return err;
}

/**
 * mapdevfs_store() - write what an inode has into the map
 * @inode: the inode; under mapdevfs_attr_lock
 * @what: MAPDEV_EV_*
 * @asked: the current process has changed it
 *
 * The daemon replaces a device without the lock. What was written in that
 * moment is the name's, and the inode of its new device is to be told.
 */
void mapdevfs_store(struct inode *inode, u32 what, bool asked)
{
	struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	struct mapdev_attr attr = {
		.mode = inode->i_mode & S_IALLUGO,
		.uid = from_kuid(&init_user_ns, inode->i_uid),
		.gid = from_kgid(&init_user_ns, inode->i_gid),
	};
	const struct mapdevfs_map *map;
	struct timespec64 ctime = mapdevfs_ctime(inode);

	attr.stamp = timespec64_to_ns(&ctime);
	rcu_read_lock();
	map = mapdevfs_map_of(mi->space);
	if (map && !mapdev_set_attr(&map->view, mi->id, mi->cell, &attr))
		mapdevfs_tell(mi->id, mi->cell, what, &attr, asked);
	rcu_read_unlock();
	if (mapdevfs_renew_locked(inode))
		mapdevfs_look_again();
}

/**
 * mapdevfs_become() - let the inode of a directory be that of another object
 * @inode: the inode, no name of which the map gives to another one
 * @place: the object; under mapdevfs_pin_lock
 *
 * Mode and owner stay what they were, as those of any directory that is not
 * empty, and the map is told.
 */
void mapdevfs_become(struct inode *inode, const struct mapdevfs_place *place)
{
	struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	struct mapdev_copy now = {};

	mutex_lock(&mapdevfs_attr_lock);
	inode->i_ino = map_ino(place->id);
	mi->space = place->space;
	mi->id = place->id;
	mi->cell = place->cell;
	if (!mapdevfs_reread_locked(inode, &now) &&
	    !has_attributes(inode, &now))
		mapdevfs_store(inode, MAPDEV_EV_MODE | MAPDEV_EV_UID |
			       MAPDEV_EV_GID, false);
	mutex_unlock(&mapdevfs_attr_lock);
}

/* as simple_setattr(), and the map is told; for an object of the map */
static int change_object(struct mapdevfs_idmap *idmap, struct dentry *dentry,
			 struct iattr *iattr)
{
	struct inode *inode = d_inode(dentry);
	umode_t mode;
	kuid_t uid;
	kgid_t gid;
	u32 what = 0;
	int err;

	mutex_lock(&mapdevfs_attr_lock);
	/* who owned a node that is gone does not own what came after it */
	err = mapdevfs_renew_locked(inode);
	if (!err)
		err = setattr_prepare(idmap, dentry, iattr);
	if (err)
		goto unlock;
	mode = inode->i_mode;
	uid = inode->i_uid;
	gid = inode->i_gid;
	err = mapdevfs_copy_attr(idmap, inode, iattr);
	if (err)
		goto unlock;
	if (mode != inode->i_mode)
		what |= MAPDEV_EV_MODE;
	if (!uid_eq(uid, inode->i_uid))
		what |= MAPDEV_EV_UID;
	if (!gid_eq(gid, inode->i_gid))
		what |= MAPDEV_EV_GID;
	if (what)
		mapdevfs_store(inode, what, true);
unlock:
	mutex_unlock(&mapdevfs_attr_lock);
	return err;
}

/* for what userspace made */
static int change_users(struct mapdevfs_idmap *idmap, struct dentry *dentry,
			struct iattr *iattr)
{
	struct inode *inode = d_inode(dentry);
	int err = setattr_prepare(idmap, dentry, iattr);

	if (!err && S_ISREG(inode->i_mode) && (iattr->ia_valid & ATTR_SIZE))
		err = mapdevfs_resize(inode, iattr->ia_size);
	return err ? err : mapdevfs_copy_attr(idmap, inode, iattr);
}

/**
 * mapdevfs_setattr() - chmod, chown and what else changes an inode
 * @idmap: of the mount
 * @dentry: the name
 * @iattr: what to change
 *
 * Return: 0 or an error.
 */
int mapdevfs_setattr(struct mapdevfs_idmap *idmap, struct dentry *dentry,
		     struct iattr *iattr)
{
	if (MAPDEVFS_I(d_inode(dentry))->id == MAPDEV_ID_FREE)
		return change_users(idmap, dentry, iattr);
	return change_object(idmap, dentry, iattr);
}

const struct inode_operations mapdevfs_node_iops = {
	.permission	= mapdevfs_may,
	.setattr	= mapdevfs_setattr,
	.listxattr	= mapdevfs_listxattr,
	.set_acl	= mapdevfs_set_acl,
};

const struct inode_operations mapdevfs_link_iops = {
	.get_link	= simple_get_link,
	.setattr	= mapdevfs_setattr,
};
