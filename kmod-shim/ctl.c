// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/mapdev: the daemon publishes its map, and hears what the kernel
 * changed in it.
 */
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>

#include "internal.h"

/* cells between two chances for others to run */
#define CARRY_BATCH	4096U
/* an odd number with its bits well spread: salts of maps lie far apart */
#if BITS_PER_LONG == 64
#define EPOCH_STEP	0x9e3779b97f4a7c15UL
#else
#define EPOCH_STEP	0x9e3779b9UL
#endif

/* the open device of the publisher; under mapdevfs_attr_lock */
static struct file *publisher;

static bool is_publisher(const struct file *file)
{
	return READ_ONCE(publisher) == file;
}

static ssize_t ctl_read(struct file *file, char __user *to, size_t size,
			loff_t *pos)
{
	if (!is_publisher(file))
		return -EPERM;
	return mapdevfs_read_events(to, size, !(file->f_flags & O_NONBLOCK));
}

static __poll_t ctl_poll(struct file *file, struct poll_table_struct *wait)
{
	if (!mapdevfs_poll_events(file, wait) || !is_publisher(file))
		return 0;
	return EPOLLIN | EPOLLRDNORM;
}

/* under mapdevfs_attr_lock */
static struct mapdevfs_map *swap_map(struct mapdevfs_map *map)
{
	struct mapdevfs_map *old;

	WRITE_ONCE(mapdevfs_epoch, mapdevfs_epoch + EPOCH_STEP);
	if (map)
		map->salt = mapdevfs_epoch;
	old = rcu_dereference_protected(mapdevfs_map,
					lockdep_is_held(&mapdevfs_attr_lock));
	rcu_assign_pointer(mapdevfs_map, map);
	return old;
}

/* under mapdevfs_attr_lock, so that nobody changes attributes meanwhile */
static void carry(const struct mapdevfs_map *from, struct mapdevfs_map *to)
{
	u32 cell;

	for (cell = 0; cell < from->view.n_entries; cell += CARRY_BATCH) {
		mapdev_carry(&from->view, &to->view, cell, CARRY_BATCH);
		cond_resched();
	}
}

static long publish(struct file *file, const void __user *from)
{
	struct mapdevfs_map *map, *old = NULL;
	struct mapdev_publish what;
	long ret = 0;

	if (copy_from_user(&what, from, sizeof(what)))
		return -EFAULT;
	if (what.flags & ~MAPDEV_PUB_CARRY)
		return -EINVAL;
	map = mapdevfs_map_make(what.fd, what.len);
	if (IS_ERR(map))
		return PTR_ERR(map);
	mutex_lock(&mapdevfs_attr_lock);
	old = rcu_dereference_protected(mapdevfs_map,
					lockdep_is_held(&mapdevfs_attr_lock));
	if (publisher && publisher != file) {
		ret = -EBUSY;
		old = map;
	} else if (old && !(what.flags & MAPDEV_PUB_CARRY) &&
		   what.expect_chg != MAPDEV_CHG_ANY &&
		   what.expect_chg != mapdevfs_changes) {
		/* the copy of the attributes is out of date */
		ret = -EAGAIN;
		old = map;
	} else {
		if (!old)
			mapdevfs_changes = READ_ONCE(map->view.hdr->chg);
		else if (what.flags & MAPDEV_PUB_CARRY &&
			 old->view.id_space == map->view.id_space)
			carry(old, map);
		/* before anybody reads this map */
		WRITE_ONCE(map->view.hdr->chg, mapdevfs_changes);
		old = swap_map(map);
		/* a new publisher has not heard what the last one was told */
		if (publisher != file)
			mapdevfs_forget_events();
		WRITE_ONCE(publisher, file);
		atomic64_inc(&mapdevfs_counters.publishes);
	}
	mutex_unlock(&mapdevfs_attr_lock);
	if (!ret) {
		synchronize_rcu();
		mapdevfs_rejoin_all();
		mapdevfs_settle_acls();
		wake_up_all(&mapdevfs_filled);
	}
	mapdevfs_map_free(old);
	return ret;
}

static long unpublish(struct file *file)
{
	struct mapdevfs_map *old = NULL;
	long ret = 0;

	mutex_lock(&mapdevfs_attr_lock);
	if (publisher && publisher != file) {
		ret = -EBUSY;
	} else {
		mapdevfs_end_acls();
		old = swap_map(NULL);
	}
	mutex_unlock(&mapdevfs_attr_lock);
	if (ret)
		return ret;
	synchronize_rcu();
	wake_up_all(&mapdevfs_filled);
	mapdevfs_map_free(old);
	return 0;
}

static u64 count(const atomic64_t *counter)
{
	return atomic64_read(counter);
}

static long get_stats(void __user *to)
{
	struct super_block *sb = mapdevfs_get_super();
	const struct mapdevfs_map *map;
	struct mapdev_stats stats = {};

	stats.lookups = count(&mapdevfs_counters.lookups);
	stats.revalidations = count(&mapdevfs_counters.revalidations);
	stats.invalidations = count(&mapdevfs_counters.invalidations);
	stats.busy = count(&mapdevfs_counters.busy);
	stats.pending_opens = count(&mapdevfs_counters.pending_opens);
	stats.loads = count(&mapdevfs_counters.loads);
	stats.timeouts = count(&mapdevfs_counters.timeouts);
	stats.publishes = count(&mapdevfs_counters.publishes);
	stats.syncs = count(&mapdevfs_counters.syncs);
	stats.notifies = count(&mapdevfs_counters.notifies);
	stats.events = count(&mapdevfs_counters.events);
	stats.overflows = count(&mapdevfs_counters.overflows);
	stats.collisions = count(&mapdevfs_counters.collisions);
	stats.publisher = !!READ_ONCE(publisher);
	stats.mounted = !!sb;
	if (sb)
		mapdevfs_put_super(sb);
	rcu_read_lock();
	stats.epoch = READ_ONCE(mapdevfs_epoch);
	map = rcu_dereference(mapdevfs_map);
	if (map) {
		stats.gen = mapdev_gen(&map->view);
		stats.chg = READ_ONCE(map->view.hdr->chg);
		stats.len = (u64)map->n_pages << PAGE_SHIFT;
		stats.entries = map->view.n_entries;
	}
	rcu_read_unlock();
	return copy_to_user(to, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static long sync_readers(void)
{
	atomic64_inc(&mapdevfs_counters.syncs);
	/* who writes attributes is no reader under RCU only */
	mutex_lock(&mapdevfs_attr_lock);
	mutex_unlock(&mapdevfs_attr_lock);
	synchronize_rcu_expedited();
	mapdevfs_settle_acls();
	wake_up_all(&mapdevfs_filled);
	return 0;
}

static long notify(const void __user *from)
{
	const u32 known = MAPDEV_N_CREATE | MAPDEV_N_DELETE | MAPDEV_N_ISDIR;
	struct mapdev_notify what;
	long ret;

	if (copy_from_user(&what, from, sizeof(what)))
		return -EFAULT;
	if (what.mask & ~known || !(what.mask & ~MAPDEV_N_ISDIR) ||
	    !what.name_len || what.name_len > MAPDEV_NAME_MAX)
		return -EINVAL;
	what.name[what.name_len] = '\0';
	if (strlen((char *)what.name) != what.name_len ||
	    strchr((char *)what.name, '/'))
		return -EINVAL;
	atomic64_inc(&mapdevfs_counters.notifies);
	ret = mapdevfs_notify(&what);
	if (what.mask & MAPDEV_N_DELETE)
		mapdevfs_settle_acls();
	wake_up_all(&mapdevfs_filled);
	return ret;
}

static long get_fd(struct file *file)
{
	const struct mapdevfs_map *map;
	struct file *memory = NULL;
	int fd;

	mutex_lock(&mapdevfs_attr_lock);
	if (publisher && publisher != file) {
		mutex_unlock(&mapdevfs_attr_lock);
		return -EBUSY;
	}
	map = rcu_dereference_protected(mapdevfs_map,
					lockdep_is_held(&mapdevfs_attr_lock));
	if (map)
		memory = get_file(map->file);
	mutex_unlock(&mapdevfs_attr_lock);
	if (!memory)
		return -ENODATA;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		fput(memory);
	else
		fd_install(fd, memory);
	return fd;
}

static long ctl_ioctl(struct file *file, unsigned int command,
		      unsigned long argument)
{
	void __user *pointer = (void __user *)argument;

	switch (command) {
	case MAPDEV_PUBLISH:
		return publish(file, pointer);
	case MAPDEV_UNPUBLISH:
		return unpublish(file);
	case MAPDEV_STATS:
		return get_stats(pointer);
	case MAPDEV_SYNC:
		return sync_readers();
	case MAPDEV_NOTIFY:
		return notify(pointer);
	case MAPDEV_GETFD:
		return get_fd(file);
	default:
		return -ENOTTY;
	}
}

/* of the initial user namespace: whoever writes the map is root */
static int ctl_open(struct inode *inode, struct file *file)
{
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	return nonseekable_open(inode, file);
}

/* the map stays: a daemon that was killed comes back to it */
static int ctl_release(struct inode *inode, struct file *file)
{
	mutex_lock(&mapdevfs_attr_lock);
	if (publisher == file)
		WRITE_ONCE(publisher, NULL);
	mutex_unlock(&mapdevfs_attr_lock);
	return 0;
}

static const struct file_operations ctl_fops = {
	.owner		= THIS_MODULE,
	.open		= ctl_open,
	.release	= ctl_release,
	.read		= ctl_read,
	.poll		= ctl_poll,
	.unlocked_ioctl	= ctl_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice ctl_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "mapdev",
	.mode	= 0600,
	.fops	= &ctl_fops,
};

/**
 * mapdevfs_ctl_init() - make the control device
 *
 * Return: 0 or an error.
 */
int mapdevfs_ctl_init(void)
{
	int err;

	err = mapdevfs_events_init();
	if (err)
		return err;
	err = misc_register(&ctl_device);
	if (err)
		mapdevfs_events_exit();
	return err;
}

/**
 * mapdevfs_ctl_exit() - remove the control device and the map
 *
 * The file system is mounted nowhere: nobody reads the map.
 */
void mapdevfs_ctl_exit(void)
{
	struct mapdevfs_map *old;

	misc_deregister(&ctl_device);
	mutex_lock(&mapdevfs_attr_lock);
	old = swap_map(NULL);
	mutex_unlock(&mapdevfs_attr_lock);
	synchronize_rcu();
	mapdevfs_map_free(old);
	mapdevfs_events_exit();
}
