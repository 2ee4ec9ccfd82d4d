// SPDX-License-Identifier: GPL-2.0
/*
 * Opening a name whose module is not loaded.
 *
 * The VFS has checked permission when it comes here: who may not open the
 * name loads nothing. A name without a number (pending) asks for its module,
 * waits until the daemon has filled in the number, and sends the walk round
 * again, which checks permission again.
 */
#include <linux/completion.h>
#include <linux/kmod.h>
#include <linux/module.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "internal.h"

static unsigned int open_timeout_ms = 10000;
module_param(open_timeout_ms, uint, 0644);
MODULE_PARM_DESC(open_timeout_ms,
		 "how long an open waits for a module and its number (default 10000)");

DECLARE_WAIT_QUEUE_HEAD(mapdevfs_filled);

/*
 * A module that is being asked for, one for each alias: however many open the
 * name, one modprobe runs. The result is as of request_module(), once done.
 */
struct load {
	struct work_struct work;
	struct list_head in_flight;
	struct completion done;
	refcount_t refs;
	int result;
	char alias[];
};

static struct workqueue_struct *loaders;
static LIST_HEAD(loads_in_flight);
static DEFINE_SPINLOCK(loads_lock);

static void put_load(struct load *load)
{
	if (refcount_dec_and_test(&load->refs))
		kfree(load);
}

static void run_load(struct work_struct *work)
{
	struct load *load = container_of(work, struct load, work);

	atomic64_inc(&mapdevfs_counters.loads);
	load->result = request_module("%s", load->alias);
	spin_lock(&loads_lock);
	list_del(&load->in_flight);
	spin_unlock(&loads_lock);
	complete_all(&load->done);
	put_load(load);
}

static struct load *find_load(const char *alias)
{
	struct load *load;

	list_for_each_entry(load, &loads_in_flight, in_flight) {
		if (!strcmp(load->alias, alias)) {
			refcount_inc(&load->refs);
			return load;
		}
	}
	return NULL;
}

/* joins the load of an alias, or starts it */
static struct load *get_load(const char *alias)
{
	size_t size = strlen(alias) + 1;
	struct load *fresh, *load;

	fresh = kmalloc(struct_size(fresh, alias, size), GFP_KERNEL);
	if (!fresh)
		return NULL;
	memcpy(fresh->alias, alias, size);
	INIT_WORK(&fresh->work, run_load);
	init_completion(&fresh->done);
	/* the worker's and the caller's */
	refcount_set(&fresh->refs, 2);
	spin_lock(&loads_lock);
	load = find_load(alias);
	if (!load)
		list_add(&fresh->in_flight, &loads_in_flight);
	spin_unlock(&loads_lock);
	if (load) {
		kfree(fresh);
		return load;
	}
	queue_work(loaders, &fresh->work);
	return fresh;
}

/* one that is gone may have come back under another id */
static bool is_pending(int err, const struct mapdev_copy *copy)
{
	return !err && (copy->flags & MAPDEV_E_PENDING);
}

/* for a condition that is waited for: it must not sleep */
static bool is_filled(const struct inode *inode)
{
	struct mapdev_copy copy = { .no_attr = true };
	int err = mapdevfs_glance(inode, &copy);

	return err != -EAGAIN && !is_pending(err, &copy);
}

/*
 * The waits have functions of their own, so that /proc/PID/wchan tells which
 * of them an open is in.
 *
 * Asks for a module and waits until modprobe has ended, killable. What is left
 * of the time goes back into @left. 0 when it ended well, -ENXIO when not, or
 * -ETIMEDOUT, -EINTR or -ENOMEM.
 */
static noinline int wait_for_load(const char *alias, long *left)
{
	struct load *load = get_load(alias);
	int err;

	if (!load)
		return -ENOMEM;
	*left = wait_for_completion_killable_timeout(&load->done, *left);
	if (*left < 0)
		err = -EINTR;
	else if (!*left)
		err = -ETIMEDOUT;
	else
		err = load->result ? -ENXIO : 0;
	put_load(load);
	return err;
}

/* no module, or no number in time */
static int give_up(int err)
{
	if (err == -ETIMEDOUT)
		atomic64_inc(&mapdevfs_counters.timeouts);
	return -ENXIO;
}

/* waits for the module and then for the daemon, together no longer than that */
static noinline int wait_for_number(const struct inode *inode,
				    const char *alias)
{
	long left = msecs_to_jiffies(READ_ONCE(open_timeout_ms));
	int err = wait_for_load(alias, &left);

	if (!err) {
		left = wait_event_killable_timeout(mapdevfs_filled,
						   is_filled(inode), left);
		err = left > 0 ? 0 : left < 0 ? -EINTR : -ETIMEDOUT;
	}
	if (err == -EINTR || err == -ENOMEM)
		return err;
	return is_filled(inode) ? -EOPENSTALE : give_up(err);
}

static int mapdevfs_open_pending(struct inode *inode, struct file *file)
{
	struct mapdev_copy copy = { .no_attr = true };
	int ret;

	atomic64_inc(&mapdevfs_counters.pending_opens);
	copy.aux = kmalloc(MAPDEV_AUX_MAX + 1, GFP_KERNEL);
	if (!copy.aux)
		return -ENOMEM;
	ret = mapdevfs_reread(inode, &copy);
	if (ret != -EIO && !is_pending(ret, &copy))
		ret = -EOPENSTALE;
	else if (!ret)
		ret = copy.aux[0] ? wait_for_number(inode, copy.aux) : -ENXIO;
	kfree(copy.aux);
	return ret;
}

const struct file_operations mapdevfs_pending_fops = {
	.owner	= THIS_MODULE,
	.open	= mapdevfs_open_pending,
	.llseek	= noop_llseek,
};

/*
 * A block device with a static number: newer kernels may be built without
 * loading its module by themselves.
 */
static int mapdevfs_open_block(struct inode *inode, struct file *file)
{
	const struct file_operations *fops = MAPDEVFS_I(inode)->number_fops;
	long left = msecs_to_jiffies(READ_ONCE(open_timeout_ms));
	char alias[48];
	int err;

	/* builtin: no module's count to take */
	replace_fops(file, fops);
	err = fops->open(inode, file);
	if (err != -ENXIO && err != -ENODEV)
		return err;
	snprintf(alias, sizeof(alias), "block-major-%u-%u",
		 imajor(inode), iminor(inode));
	err = wait_for_load(alias, &left);
	if (err == -EINTR || err == -ENOMEM)
		return err;
	if (err)
		give_up(err);
	/* it may have been loaded by something else */
	return fops->open(inode, file);
}

const struct file_operations mapdevfs_block_fops = {
	.owner	= THIS_MODULE,
	.open	= mapdevfs_open_block,
	.llseek	= noop_llseek,
};

/**
 * mapdevfs_open_init() - make what loads modules
 *
 * Return: 0 or an error.
 */
int mapdevfs_open_init(void)
{
	loaders = alloc_workqueue("mapdevfs_load", WQ_UNBOUND, 0);
	return loaders ? 0 : -ENOMEM;
}

/**
 * mapdevfs_open_exit() - wait for loads that nobody waits for any more
 */
void mapdevfs_open_exit(void)
{
	destroy_workqueue(loaders);
}
