// SPDX-License-Identifier: GPL-2.0
/*
 * Names that are held, like those of ramfs, and so are not the map's to take
 * away: those of what userspace made, and the directories above it (adopt.c).
 */
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "internal.h"

/*
 * Guards the lists. What userspace made in a directory changes under its
 * i_rwsem only; which of its directories are adopted does not.
 */
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

/**
 * mapdevfs_enlist() - put a dentry on the lists
 * @pin: to be filled in
 * @dentry: held by the caller, whose reference this is from now on
 * @dir: its directory
 * @adopted: it is one of the map
 *
 * Called under mapdevfs_pin_lock.
 */
void mapdevfs_enlist(struct mapdevfs_pin *pin, struct dentry *dentry,
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
	/* pairs with the dependent loads of who reads it under RCU */
	smp_store_release(&dentry->d_fsdata, pin);
}

/**
 * mapdevfs_delist() - take a dentry off the lists
 * @dentry: is on them; its reference is still to be dropped
 *
 * Called under mapdevfs_pin_lock.
 */
void mapdevfs_delist(struct dentry *dentry)
{
	struct mapdevfs_pin *pin = dentry->d_fsdata;

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
	struct mapdevfs_pin *pin = kzalloc(sizeof(*pin), GFP_KERNEL_ACCOUNT);
	int err;

	if (!pin)
		return -ENOMEM;
	mutex_lock(&mapdevfs_pin_lock);
	err = may_pin(dentry);
	if (!err)
		err = mapdevfs_adopt(dentry->d_parent);
	if (err) {
		kfree(pin);
	} else {
		mapdevfs_enlist(pin, dget(dentry), dir, false);
		d_instantiate(dentry, inode);
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
	const struct mapdevfs_pin *pin;
	bool users;

	rcu_read_lock();
	/* a directory may be adopted or abandoned in this moment */
	pin = READ_ONCE(dentry->d_fsdata);
	users = pin && !pin->adopted;
	rcu_read_unlock();
	return users;
}

/**
 * mapdevfs_unpin() - remove a name of userspace's
 * @dir: the directory, its i_rwsem held
 * @dentry: the name
 *
 * Return: 0, or -ENOTEMPTY.
 */
int mapdevfs_unpin(struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);

	mutex_lock(&mapdevfs_pin_lock);
	/* directories below it are adopted without its i_rwsem */
	if (!list_empty(&MAPDEVFS_I(inode)->pins)) {
		mutex_unlock(&mapdevfs_pin_lock);
		return -ENOTEMPTY;
	}
	mapdevfs_delist(dentry);
	mapdevfs_abandon(dentry->d_parent);
	mutex_unlock(&mapdevfs_pin_lock);
	mapdevfs_set_times(dir, current_time(dir));
	if (d_is_dir(dentry))
		clear_nlink(inode);
	else
		drop_nlink(inode);
	mapdevfs_touch_ctime(inode);
	dput(dentry);
	return 0;
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
	struct mapdevfs_pin *moved;
	int err;

	mutex_lock(&mapdevfs_pin_lock);
	err = mapdevfs_adopt(new->d_parent);
	if (err)
		goto unlock;
	moved = old->d_fsdata;
	if (d_really_is_positive(new)) {
		drop_nlink(d_inode(new));
		mapdevfs_touch_ctime(d_inode(new));
		mapdevfs_delist(new);
		dput(new);
	}
	list_move_tail(&moved->in_dir, &parent->pins);
	WRITE_ONCE(parent->pin_bits, parent->pin_bits | name_bit(&new->d_name));
	ihold(new_dir);
	iput(moved->dir);
	moved->dir = new_dir;
	moved->serial = ++last_serial;
	if (old->d_parent != new->d_parent)
		mapdevfs_abandon(old->d_parent);
unlock:
	mutex_unlock(&mapdevfs_pin_lock);
	return err;
}

static struct mapdevfs_pin *find_pin(struct inode *dir, const struct qstr *name)
{
	struct mapdevfs_pin *pin;

	list_for_each_entry(pin, &MAPDEVFS_I(dir)->pins, in_dir) {
		if (!pin->adopted && pin->dentry->d_name.len == name->len &&
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
 * Return: true when userspace has made something of this name, and not only
 * in the map's directory of it.
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
 * mapdevfs_next_pin() - what is held in a directory, one after another
 * @dir: the directory, its i_rwsem held
 * @serial: in: the last one's, 0 at the start; out: this one's
 * @held: filled in; @held->last is NULL at first each time i_rwsem is taken
 *
 * Return: false at the end.
 */
bool mapdevfs_next_pin(struct inode *dir, u64 *serial,
		       struct mapdevfs_held *held)
{
	struct list_head *pins = &MAPDEVFS_I(dir)->pins;
	struct mapdevfs_pin *pin;
	const struct inode *inode;
	bool found = false;

	mutex_lock(&mapdevfs_pin_lock);
	pin = list_prepare_entry(held->last, pins, in_dir);
	list_for_each_entry_continue(pin, pins, in_dir) {
		/* what userspace made stays there until i_rwsem is let go */
		if (!pin->adopted)
			held->last = pin;
		if (pin->serial <= *serial)
			continue;
		*serial = pin->serial;
		inode = d_inode(pin->dentry);
		held->ino = inode->i_ino;
		held->mode = inode->i_mode;
		held->adopted = pin->adopted;
		held->len = pin->dentry->d_name.len;
		memcpy(held->name, pin->dentry->d_name.name, held->len);
		found = true;
		break;
	}
	mutex_unlock(&mapdevfs_pin_lock);
	return found;
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
 * mapdevfs_rejoin_all() - see to what is held, when there is another map
 */
void mapdevfs_rejoin_all(void)
{
	struct mapdevfs_pin *pin;

	mutex_lock(&mapdevfs_pin_lock);
	list_for_each_entry(pin, &all_pins, all) {
		if (pin->adopted)
			mapdevfs_rejoin(pin->dentry);
	}
	mutex_unlock(&mapdevfs_pin_lock);
}

/**
 * mapdevfs_discard() - let go of a name that is not true any more
 * @dentry: the name
 *
 * Userspace may be making it its own in this moment: it either finds it
 * unhashed, or it has it and keeps it. A directory that stays is what the map
 * has under its name.
 *
 * Return: true when it is gone, with all that is below it and mounted there.
 */
bool mapdevfs_discard(struct dentry *dentry)
{
	bool gone;

	mutex_lock(&mapdevfs_pin_lock);
	gone = !mapdevfs_stays(dentry);
	if (gone)
		d_invalidate(dentry);
	else if (d_is_dir(dentry))
		mapdevfs_rejoin(dentry);
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
		mapdevfs_delist(dentry);
		dput(dentry);
	}
	mutex_unlock(&mapdevfs_pin_lock);
}
