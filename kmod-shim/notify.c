// SPDX-License-Identifier: GPL-2.0
/*
 * inotify hears of names that the daemon writes into the map, of which the
 * VFS hears nothing.
 */
#include <linux/fsnotify.h>

#include "internal.h"

static int is_place(struct inode *inode, void *data)
{
	const struct mapdevfs_inode *mi = MAPDEVFS_I(inode);
	const struct mapdevfs_place *place = data;

	return S_ISDIR(inode->i_mode) && mi->id == place->id &&
	       mi->space == place->space;
}

static u64 space_now(void)
{
	const struct mapdevfs_map *map;
	u64 space;

	rcu_read_lock();
	map = mapdevfs_map_of(0);
	space = map ? map->view.id_space : 0;
	rcu_read_unlock();
	return space;
}

/* the directory of an id, to be put, or NULL when it is not in memory */
static struct dentry *find_dir(struct super_block *sb, u64 id)
{
	struct mapdevfs_place place = { .space = space_now(), .id = id };
	struct dentry *dentry;
	struct inode *inode;

	if (id == MAPDEV_ID_ROOT)
		return dget(sb->s_root);
	inode = ilookup5(sb, (unsigned long)id, is_place, &place);
	if (!inode)
		return mapdevfs_find_pinned_dir(id);
	dentry = d_find_any_alias(inode);
	iput(inode);
	return dentry;
}

/* a directory that stayed when the map lost it has come back */
static void rejoin(struct dentry *child)
{
	mutex_lock(&mapdevfs_pin_lock);
	if (mapdevfs_stays(child))
		mapdevfs_rejoin(child);
	mutex_unlock(&mapdevfs_pin_lock);
}

/* ends the watches on a name that is gone, and what is cached of it */
static void forget(struct dentry *child)
{
	struct inode *inode = d_inode(child);

	if (!inode || mapdevfs_keeps_mount(child) || mapdevfs_still_true(child))
		return;
	ihold(inode);
	if (mapdevfs_discard(child))
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
	dir = find_dir(sb, what->parent);
	if (!dir)
		goto put_super;
	name.hash = full_name_hash(dir, name.name, name.len);
	child = d_lookup(dir, &name);
	if (child && d_is_dir(child) && (what->mask & MAPDEV_N_CREATE))
		rejoin(child);
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
