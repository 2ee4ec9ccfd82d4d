// SPDX-License-Identifier: GPL-2.0
/*
 * Names that are held, like those of ramfs, and so are not the map's to take
 * away: those of what userspace made.
 *
 * A directory of the map that userspace makes something in is held too
 * (adopted); it is let go when it is empty of such things again.
 */
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "internal.h"

/* guards the lists; a directory's own also changes under its i_rwsem only */
DEFINE_MUTEX(mapdevfs_pin_lock);
static LIST_HEAD(all_pins);
static u64 last_serial;
/* names of userspace's */
static unsigned long n_names;

static unsigned int max_names = 65536;
module_param(max_names, uint, 0644);
MODULE_PARM_DESC(max_names,
		 "how many names userspace may make (default 65536)");

/* one of the bits of pin_bits: most names are told apart without a lock */
static unsigned long name_bit(const struct qstr *name)
{
	const unsigned char *bytes = name->name;
	unsigned int sum = name->len * 31;

	if (name->len)
		sum += bytes[0] * 7 + bytes[name->len - 1];
	return 1UL << sum % BITS_PER_LONG;
}

static struct mapdevfs_pin *pin_of(const struct dentry *dentry)
{
	return dentry->d_fsdata;
}

/* puts a dentry on the lists; the caller holds it */
static void enlist(struct mapdevfs_pin *pin, struct dentry *dentry,
		   struct inode *dir, bool adopted)
{
	struct mapdevfs_inode *parent = MAPDEVFS_I(dir);

	pin->dentry = dentry;
	pin->dir = dir;
	ihold(dir);
	pin->serial = ++last_serial;
	pin->adopted = adopted;
	n_names += !adopted;
	list_add_tail(&pin->in_dir, &parent->pins);
	list_add_tail(&pin->all, &all_pins);
	WRITE_ONCE(parent->pin_bits,
		   parent->pin_bits | name_bit(&dentry->d_name));
	WRITE_ONCE(dentry->d_fsdata, pin);
}

/* takes a dentry off the lists; its reference is still to be dropped */
static void delist(struct dentry *dentry)
{
	struct mapdevfs_pin *pin = pin_of(dentry);

	n_names -= !pin->adopted;
	list_del(&pin->in_dir);
	list_del(&pin->all);
	if (list_empty(&MAPDEVFS_I(pin->dir)->pins))
		WRITE_ONCE(MAPDEVFS_I(pin->dir)->pin_bits, 0);
	WRITE_ONCE(dentry->d_fsdata, NULL);
	/* the name may be the map's now */
	WRITE_ONCE(dentry->d_time, 0);
	iput(pin->dir);
	kfree_rcu(pin, rcu);
}

/* holds a directory of the map, and those above it */
static int adopt(struct dentry *dir)
{
	struct mapdevfs_pin *pin;

	for (; !IS_ROOT(dir) && !mapdevfs_is_pinned(dir); dir = dir->d_parent) {
		/* somebody works in a directory that is gone */
		if (d_unhashed(dir))
			return -ENOENT;
		pin = kzalloc(sizeof(*pin), GFP_KERNEL);
		if (!pin)
			return -ENOMEM;
		/*
		 * The map may give this id to another name, if it is broken:
		 * that one gets an inode of its own, and this dentry stays.
		 */
		remove_inode_hash(d_inode(dir));
		dget(dir);
		enlist(pin, dir, d_inode(dir->d_parent), true);
	}
	return 0;
}

/* lets go of adopted directories that hold nothing of userspace's any more */
static void abandon(struct dentry *dir)
{
	struct dentry *parent;
	struct inode *inode;

	while (!IS_ROOT(dir) && mapdevfs_is_pinned(dir) &&
	       pin_of(dir)->adopted &&
	       list_empty(&MAPDEVFS_I(d_inode(dir))->pins)) {
		parent = dir->d_parent;
		inode = d_inode(dir);
		delist(dir);
		/* found by its id again, if that is not taken */
		__insert_inode_hash(inode, MAPDEVFS_I(inode)->id);
		/* not the last one: the caller holds what is below it */
		dput(dir);
		dir = parent;
	}
}

static int may_pin(const struct dentry *dentry)
{
	/* the map has changed, and somebody else has noticed it first */
	if (d_unhashed(dentry))
		return -ESTALE;
	return n_names < READ_ONCE(max_names) ? 0 : -ENOSPC;
}

/**
 * mapdevfs_pin() - make a name of userspace's: it gets an inode and is held
 * @dir: the directory, its i_rwsem held
 * @dentry: the name, negative
 * @inode: what it is a name of
 *
 * Return: 0, when the name has taken over the inode, or an error.
 */
int mapdevfs_pin(struct inode *dir, struct dentry *dentry, struct inode *inode)
{
	struct mapdevfs_pin *pin = kzalloc(sizeof(*pin), GFP_KERNEL);
	int err;

	if (!pin)
		return -ENOMEM;
	mutex_lock(&mapdevfs_pin_lock);
	err = may_pin(dentry);
	if (!err)
		err = adopt(dentry->d_parent);
	if (err) {
		abandon(dentry->d_parent);
		kfree(pin);
	} else {
		enlist(pin, dentry, dir, false);
		d_instantiate(dentry, inode);
		dget(dentry);
		mapdevfs_set_times(dir, current_time(dir));
	}
	mutex_unlock(&mapdevfs_pin_lock);
	return err;
}

/**
 * mapdevfs_is_users() - whether userspace has made a name
 * @dentry: the name
 *
 * Return: false for what is the map's, also when it is held.
 */
bool mapdevfs_is_users(const struct dentry *dentry)
{
	return mapdevfs_is_pinned(dentry) && !pin_of(dentry)->adopted;
}

/**
 * mapdevfs_unpin() - let go of a name of userspace's that is removed
 * @dir: the directory, its i_rwsem held
 * @dentry: the name
 */
void mapdevfs_unpin(struct inode *dir, struct dentry *dentry)
{
	mutex_lock(&mapdevfs_pin_lock);
	delist(dentry);
	abandon(dentry->d_parent);
	mutex_unlock(&mapdevfs_pin_lock);
	mapdevfs_set_times(dir, current_time(dir));
	mapdevfs_touch_ctime(d_inode(dentry));
	dput(dentry);
}

/**
 * mapdevfs_move_pin() - let a name of userspace's be another one
 * @old: the name, in a directory whose i_rwsem is held
 * @new_dir: the directory it goes to, likewise
 * @new: the other name; what userspace made there is removed
 *
 * Return: 0 or an error.
 */
int mapdevfs_move_pin(struct dentry *old, struct inode *new_dir,
		      struct dentry *new)
{
	struct mapdevfs_inode *parent = MAPDEVFS_I(new_dir);
	struct mapdevfs_pin *moved = pin_of(old);
	int err;

	mutex_lock(&mapdevfs_pin_lock);
	err = adopt(new->d_parent);
	if (err) {
		abandon(new->d_parent);
		goto unlock;
	}
	if (d_really_is_positive(new)) {
		drop_nlink(d_inode(new));
		delist(new);
		dput(new);
	}
	list_move_tail(&moved->in_dir, &parent->pins);
	WRITE_ONCE(parent->pin_bits, parent->pin_bits | name_bit(&new->d_name));
	ihold(new_dir);
	iput(moved->dir);
	moved->dir = new_dir;
	moved->serial = ++last_serial;
	if (old->d_parent != new->d_parent)
		abandon(old->d_parent);
unlock:
	mutex_unlock(&mapdevfs_pin_lock);
	return err;
}

static struct mapdevfs_pin *find_pin(struct inode *dir, const struct qstr *name)
{
	struct mapdevfs_pin *pin;

	list_for_each_entry(pin, &MAPDEVFS_I(dir)->pins, in_dir) {
		if (pin->dentry->d_name.len == name->len &&
		    !memcmp(pin->dentry->d_name.name, name->name, name->len))
			return pin;
	}
	return NULL;
}

/**
 * mapdevfs_has_pin() - whether a name of the map is hidden by userspace's
 * @dir: the directory, its i_rwsem held
 * @name: the name
 *
 * Says so in the log, once for each name that is not a directory.
 *
 * Return: true when userspace has made something of this name.
 */
bool mapdevfs_has_pin(struct dentry *dir, const struct qstr *name)
{
	struct inode *inode = d_inode(dir);
	struct mapdevfs_pin *pin;
	bool warn = false;

	if (!(READ_ONCE(MAPDEVFS_I(inode)->pin_bits) & name_bit(name)))
		return false;
	mutex_lock(&mapdevfs_pin_lock);
	pin = find_pin(inode, name);
	if (pin && !pin->warned && !d_is_dir(pin->dentry)) {
		pin->warned = true;
		warn = true;
	}
	mutex_unlock(&mapdevfs_pin_lock);
	if (warn) {
		atomic64_inc(&mapdevfs_counters.collisions);
		pr_warn_ratelimited("mapdevfs: %.*s: what userspace made hides a device\n",
				    (int)name->len, name->name);
	}
	return pin;
}

/**
 * mapdevfs_next_pin() - what userspace made in a directory, one after another
 * @dir: the directory, its i_rwsem held
 * @serial: in: the last one's, 0 at the start; out: this one's
 * @name: room for NAME_MAX bytes
 * @inode: out: its inode, which is held by its dentry
 *
 * Return: length of the name, 0 at the end.
 */
int mapdevfs_next_pin(struct inode *dir, u64 *serial, char *name,
		      struct inode **inode)
{
	struct mapdevfs_pin *pin;
	int len = 0;

	mutex_lock(&mapdevfs_pin_lock);
	list_for_each_entry(pin, &MAPDEVFS_I(dir)->pins, in_dir) {
		if (pin->serial <= *serial)
			continue;
		*serial = pin->serial;
		*inode = d_inode(pin->dentry);
		len = pin->dentry->d_name.len;
		memcpy(name, pin->dentry->d_name.name, len);
		break;
	}
	mutex_unlock(&mapdevfs_pin_lock);
	return len;
}

/**
 * mapdevfs_find_pinned_dir() - the held directory that has an id in the map
 * @id: the id
 *
 * Return: the dentry, to be put, or NULL.
 */
struct dentry *mapdevfs_find_pinned_dir(u64 id)
{
	struct dentry *found = NULL;
	struct mapdevfs_pin *pin;
	struct mapdevfs_place place;

	mutex_lock(&mapdevfs_pin_lock);
	list_for_each_entry(pin, &all_pins, all) {
		if (d_is_dir(pin->dentry) &&
		    !mapdevfs_resolve(pin->dentry, &place) &&
		    place.id == id) {
			found = dget(pin->dentry);
			break;
		}
	}
	mutex_unlock(&mapdevfs_pin_lock);
	return found;
}

/**
 * mapdevfs_discard() - let go of a name that is not true any more
 * @dentry: the name
 *
 * Userspace may be making it its own in this moment: it either finds it
 * unhashed, or it has it and keeps it.
 *
 * Return: true when it is gone, with all that is below it and mounted there.
 */
bool mapdevfs_discard(struct dentry *dentry)
{
	bool gone;

	mutex_lock(&mapdevfs_pin_lock);
	gone = !mapdevfs_is_pinned(dentry);
	if (gone)
		d_invalidate(dentry);
	mutex_unlock(&mapdevfs_pin_lock);
	return gone;
}

/**
 * mapdevfs_count_pins() - how many names userspace has made
 * @limit: filled in: how many it may make
 *
 * Return: the count.
 */
unsigned long mapdevfs_count_pins(unsigned long *limit)
{
	*limit = READ_ONCE(max_names);
	return READ_ONCE(n_names);
}

/**
 * mapdevfs_drop_pins() - let go of everything, at the last unmount
 */
void mapdevfs_drop_pins(void)
{
	struct dentry *dentry;

	mutex_lock(&mapdevfs_pin_lock);
	while (!list_empty(&all_pins)) {
		/* the youngest first: nothing below it is left */
		dentry = list_last_entry(&all_pins, struct mapdevfs_pin,
					 all)->dentry;
		delist(dentry);
		dput(dentry);
	}
	mutex_unlock(&mapdevfs_pin_lock);
}
