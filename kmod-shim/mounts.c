// SPDX-License-Identifier: GPL-2.0
/*
 * What is mounted on names: the names go with the devices, and what is mounted
 * on them goes with the names. A directory rather stays.
 */
#include "internal.h"

/**
 * mapdevfs_keeps_mount() - whether what is mounted on a name keeps the name
 * @dentry: the name, not held
 *
 * A name that goes takes with it what is mounted on it, in every mount
 * namespace. With a device that is as it should be, and as devtmpfs has it; a
 * directory rather stays, and is what the map has under this name. No name
 * goes like that because there is no map for a while.
 *
 * Return: true when it stays.
 */
bool mapdevfs_keeps_mount(const struct dentry *dentry)
{
	return d_mountpoint(dentry) &&
	       (d_is_dir(dentry) || !rcu_access_pointer(mapdevfs_map));
}

/*
 * The directory in @dir that comes after @last, whose reference is dropped, or
 * the first one; NULL at the end. No further than a name that keeps a mount.
 */
static struct dentry *next_dir(struct dentry *dir, struct dentry *last,
			       bool *kept)
{
	struct dentry *child, *next = NULL;

	spin_lock(&dir->d_lock);
	child = last ? mapdevfs_next_child(last) : mapdevfs_first_child(dir);
	for (; child && !next && !*kept; child = mapdevfs_next_child(child)) {
		*kept = mapdevfs_keeps_mount(child);
		if (*kept || !d_is_dir(child))
			continue;
		spin_lock_nested(&child->d_lock, DENTRY_D_LOCK_NESTED);
		/* one that is unhashed may be about to be freed */
		if (!d_unhashed(child))
			next = dget_dlock(child);
		spin_unlock(&child->d_lock);
	}
	spin_unlock(&dir->d_lock);
	dput(last);
	return next;
}

/* looks at all that is in memory below a directory */
static bool keeps_mount_below(struct dentry *top)
{
	struct dentry *at = top, *last = NULL, *next;
	bool kept = false;

	for (;;) {
		next = next_dir(at, last, &kept);
		if (next) {
			at = next;
			last = NULL;
		} else if (at != top) {
			/* held since the way down */
			last = at;
			at = at->d_parent;
		} else {
			return kept;
		}
	}
}

/**
 * mapdevfs_stays() - whether a name is kept when the map has lost it
 * @dentry: the name
 *
 * Called under mapdevfs_pin_lock, without which no directory moves. What is
 * being mounted below it in this moment may be missed.
 *
 * Return: true when it is held, or something is mounted on it or below it.
 */
bool mapdevfs_stays(struct dentry *dentry)
{
	bool kept;

	if (mapdevfs_is_pinned(dentry))
		return true;
	kept = mapdevfs_keeps_mount(dentry);
	if (!d_is_dir(dentry))
		return kept;
	kept = kept || keeps_mount_below(dentry);
	WRITE_ONCE(MAPDEVFS_I(d_inode(dentry))->kept, kept);
	return kept;
}
