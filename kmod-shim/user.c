// SPDX-License-Identifier: GPL-2.0
/*
 * What userspace makes in /dev: directories to mount on, sockets,
 * links, fifos, files. It lives in dentries that are held, as in ramfs.
 *
 * A directory of the map that userspace makes something in is held too
 * (adopted), so that the map cannot take it away; it is let go when it is
 * empty of such things again.
 */
#include <linux/fsnotify.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "internal.h"

/* guards the lists; a directory's own also changes under its i_rwsem only */
DEFINE_MUTEX(mapdevfs_pin_lock);
static LIST_HEAD(all_pins);
static u64 last_serial;

static const struct file_operations mapdevfs_file_fops = {
	.read_iter	= generic_file_read_iter,
	.write_iter	= generic_file_write_iter,
	.mmap		= generic_file_mmap,
	.fsync		= noop_fsync,
	.splice_read	= mapdevfs_splice_read,
	.splice_write	= iter_file_splice_write,
	.llseek		= generic_file_llseek,
};

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

/* makes a name of userspace's: the dentry gets the inode and is held */
static int hold(struct inode *dir, struct dentry *dentry, struct inode *inode)
{
	struct mapdevfs_pin *pin = kzalloc(sizeof(*pin), GFP_KERNEL);
	int err;

	if (!pin)
		return -ENOMEM;
	mutex_lock(&mapdevfs_pin_lock);
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

static int make(struct mapdevfs_idmap *idmap, struct inode *dir,
		struct dentry *dentry, umode_t mode, dev_t rdev,
		const char *target)
{
	struct inode *inode = new_inode(dir->i_sb);
	int err;

	if (!inode)
		return -ENOMEM;
	inode->i_ino = mapdevfs_user_ino();
	/* with ACLs, the umask is left to the file system */
	if (!target)
		mode &= ~current_umask();
	inode_init_owner(idmap, inode, dir, mode);
	mapdevfs_set_times(inode, current_time(inode));
	cache_no_acl(inode);
	switch (mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &mapdevfs_node_iops;
		inode->i_fop = &mapdevfs_file_fops;
		inode->i_mapping->a_ops = &ram_aops;
		mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
		mapping_set_unevictable(inode->i_mapping);
		break;
	case S_IFDIR:
		inode->i_op = &mapdevfs_dir_iops;
		inode->i_fop = &mapdevfs_dir_fops;
		break;
	case S_IFLNK:
		inode->i_op = &mapdevfs_link_iops;
		inode->i_link = kstrdup(target, GFP_KERNEL_ACCOUNT);
		if (!inode->i_link) {
			iput(inode);
			return -ENOMEM;
		}
		inode->i_size = strlen(target);
		break;
	default:
		mapdevfs_set_node(inode, rdev);
	}
	err = hold(dir, dentry, inode);
	if (err)
		iput(inode);
	return err;
}

/**
 * mapdevfs_create() - make a file
 * @idmap: of the mount
 * @dir: the directory
 * @dentry: the name
 * @mode: of the file
 * @excl: not used: the VFS saw that there is none
 *
 * Return: 0 or an error.
 */
int mapdevfs_create(struct mapdevfs_idmap *idmap, struct inode *dir,
		    struct dentry *dentry, umode_t mode, bool excl)
{
	return make(idmap, dir, dentry, mode | S_IFREG, 0, NULL);
}

/**
 * mapdevfs_make_dir() - make a directory
 * @idmap: of the mount
 * @dir: the directory above it
 * @dentry: the name
 * @mode: of the directory
 *
 * Return: 0 or an error.
 */
int mapdevfs_make_dir(struct mapdevfs_idmap *idmap, struct inode *dir,
		      struct dentry *dentry, umode_t mode)
{
	return make(idmap, dir, dentry, mode | S_IFDIR, 0, NULL);
}

/**
 * mapdevfs_mknod() - make a socket, fifo or device node
 * @idmap: of the mount
 * @dir: the directory
 * @dentry: the name
 * @mode: type and permissions
 * @rdev: number of a device
 *
 * Return: 0 or an error.
 */
int mapdevfs_mknod(struct mapdevfs_idmap *idmap, struct inode *dir,
		   struct dentry *dentry, umode_t mode, dev_t rdev)
{
	return make(idmap, dir, dentry, mode, rdev, NULL);
}

/**
 * mapdevfs_symlink() - make a symbolic link
 * @idmap: of the mount
 * @dir: the directory
 * @dentry: the name
 * @target: where it leads
 *
 * Return: 0 or an error.
 */
int mapdevfs_symlink(struct mapdevfs_idmap *idmap, struct inode *dir,
		     struct dentry *dentry, const char *target)
{
	return make(idmap, dir, dentry, S_IFLNK | 0777, 0, target);
}

/**
 * mapdevfs_link() - make another name of something that userspace made
 * @old: one name
 * @dir: the directory
 * @dentry: the other name
 *
 * Return: 0 or an error.
 */
int mapdevfs_link(struct dentry *old, struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(old);
	int err;

	if (!mapdevfs_is_pinned(old))
		return -EPERM;
	ihold(inode);
	err = hold(dir, dentry, inode);
	if (err) {
		iput(inode);
		return err;
	}
	inc_nlink(inode);
	mapdevfs_touch_ctime(inode);
	return 0;
}

static bool is_users(const struct dentry *dentry)
{
	return mapdevfs_is_pinned(dentry) && !pin_of(dentry)->adopted;
}

static void unpin(struct inode *dir, struct dentry *dentry)
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
 * mapdevfs_unlink() - remove a name, unless it is the map's
 * @dir: the directory
 * @dentry: the name
 *
 * Return: 0 or -EPERM.
 */
int mapdevfs_unlink(struct inode *dir, struct dentry *dentry)
{
	if (!is_users(dentry))
		return -EPERM;
	drop_nlink(d_inode(dentry));
	unpin(dir, dentry);
	return 0;
}

/**
 * mapdevfs_rmdir() - remove a directory, unless the map has it too
 * @dir: the directory above it
 * @dentry: the name
 *
 * Return: 0 or an error.
 */
int mapdevfs_rmdir(struct inode *dir, struct dentry *dentry)
{
	u64 id;
	u32 cell;

	if (!is_users(dentry))
		return -EPERM;
	if (!list_empty(&MAPDEVFS_I(d_inode(dentry))->pins))
		return -ENOTEMPTY;
	/* the map has no empty directories */
	if (!mapdevfs_resolve(dentry, &id, &cell))
		return -ENOTEMPTY;
	clear_nlink(d_inode(dentry));
	unpin(dir, dentry);
	return 0;
}

/**
 * mapdevfs_rename() - rename something of userspace's that is no directory
 * @idmap: of the mount
 * @old_dir: the directory it is in
 * @old: its name
 * @new_dir: the directory it goes to
 * @new: its new name
 * @flags: RENAME_NOREPLACE, which the VFS has seen to, or 0
 *
 * Return: 0 or an error; mv(1) takes -EXDEV to mean that it shall copy.
 */
int mapdevfs_rename(struct mapdevfs_idmap *idmap, struct inode *old_dir,
		    struct dentry *old, struct inode *new_dir,
		    struct dentry *new, unsigned int flags)
{
	struct mapdevfs_pin *moved;
	int err;

	if (flags & ~RENAME_NOREPLACE)
		return -EINVAL;
	if (!is_users(old) || (d_really_is_positive(new) && !is_users(new)))
		return -EPERM;
	if (d_is_dir(old))
		return -EXDEV;
	mutex_lock(&mapdevfs_pin_lock);
	err = adopt(new->d_parent);
	if (err) {
		abandon(new->d_parent);
		mutex_unlock(&mapdevfs_pin_lock);
		return err;
	}
	if (d_really_is_positive(new)) {
		drop_nlink(d_inode(new));
		delist(new);
		dput(new);
	}
	moved = pin_of(old);
	list_move_tail(&moved->in_dir, &MAPDEVFS_I(new_dir)->pins);
	WRITE_ONCE(MAPDEVFS_I(new_dir)->pin_bits,
		   MAPDEVFS_I(new_dir)->pin_bits | name_bit(&new->d_name));
	ihold(new_dir);
	iput(moved->dir);
	moved->dir = new_dir;
	moved->serial = ++last_serial;
	if (old_dir != new_dir)
		abandon(old->d_parent);
	mutex_unlock(&mapdevfs_pin_lock);
	mapdevfs_set_times(old_dir, current_time(old_dir));
	mapdevfs_set_times(new_dir, current_time(new_dir));
	mapdevfs_touch_ctime(d_inode(old));
	return 0;
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
	u64 other;
	u32 cell;

	mutex_lock(&mapdevfs_pin_lock);
	list_for_each_entry(pin, &all_pins, all) {
		if (d_is_dir(pin->dentry) &&
		    !mapdevfs_resolve(pin->dentry, &other, &cell) &&
		    other == id) {
			found = dget(pin->dentry);
			break;
		}
	}
	mutex_unlock(&mapdevfs_pin_lock);
	return found;
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
