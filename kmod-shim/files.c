// SPDX-License-Identifier: GPL-2.0
/*
 * Regular files that userspace makes. Their contents are pages of memory, as
 * in ramfs, but together no more than a limit.
 */
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/statfs.h>
#include <linux/uio.h>

#include "internal.h"

static unsigned int max_files_kib = 16384;
module_param(max_files_kib, uint, 0644);
MODULE_PARM_DESC(max_files_kib,
		 "KiB that files which userspace makes may have together (default 16384)");

/* pages that all files would have without holes; changes under i_rwsem */
static atomic_long_t charged;

static long pages_of(loff_t size)
{
	return (long)DIV_ROUND_UP_ULL((u64)size, PAGE_SIZE);
}

static long limit(void)
{
	return READ_ONCE(max_files_kib) >> (PAGE_SHIFT - 10);
}

/* false when the limit would be passed; giving back always works */
static bool charge(long pages)
{
	long used = atomic_long_read(&charged);

	do {
		if (pages > 0 && pages > limit() - used)
			return false;
	} while (!atomic_long_try_cmpxchg(&charged, &used, used + pages));
	return true;
}

/* a file that seems to have no blocks is all hole to who copies it */
static void show_charged(struct inode *inode)
{
	loff_t pages = pages_of(i_size_read(inode));

	inode_set_bytes(inode, pages << PAGE_SHIFT);
}

/**
 * mapdevfs_resize() - truncate a file, or make it longer
 * @inode: the file, its i_rwsem held
 * @size: its new size
 *
 * Return: 0 or -ENOSPC.
 */
int mapdevfs_resize(struct inode *inode, loff_t size)
{
	if (!charge(pages_of(size) - pages_of(i_size_read(inode))))
		return -ENOSPC;
	truncate_setsize(inode, size);
	show_charged(inode);
	return 0;
}

static ssize_t write_charged(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	long before = pages_of(i_size_read(inode));
	ssize_t ret = generic_write_checks(iocb, from);
	long after;

	if (ret <= 0)
		return ret;
	after = max(before, pages_of(iocb->ki_pos + ret));
	if (!charge(after - before))
		return -ENOSPC;
	ret = __generic_file_write_iter(iocb, from);
	/* less may have been written */
	charge(pages_of(i_size_read(inode)) - after);
	show_charged(inode);
	return ret;
}

static ssize_t mapdevfs_write(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t ret;

	inode_lock(inode);
	ret = write_charged(iocb, from);
	inode_unlock(inode);
	return ret;
}

const struct file_operations mapdevfs_file_fops = {
	.read_iter	= generic_file_read_iter,
	.write_iter	= mapdevfs_write,
	.mmap		= generic_file_mmap,
	.fsync		= noop_fsync,
	.splice_read	= mapdevfs_splice_read,
	.splice_write	= iter_file_splice_write,
	.llseek		= generic_file_llseek,
};

/**
 * mapdevfs_evict_inode() - the last name and user of an inode are gone
 * @inode: the inode
 */
void mapdevfs_evict_inode(struct inode *inode)
{
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	if (S_ISREG(inode->i_mode))
		charge(-pages_of(i_size_read(inode)));
}

/**
 * mapdevfs_statfs() - what of the limits is used
 * @dentry: anything of the file system
 * @stat: filled in
 *
 * Return: 0.
 */
int mapdevfs_statfs(struct dentry *dentry, struct kstatfs *stat)
{
	unsigned long names, max_names;
	long used = atomic_long_read(&charged);

	simple_statfs(dentry, stat);
	stat->f_blocks = limit();
	stat->f_bfree = max(limit() - used, 0L);
	stat->f_bavail = stat->f_bfree;
	names = mapdevfs_count_pins(&max_names);
	stat->f_files = max_names;
	stat->f_ffree = max_names > names ? max_names - names : 0;
	return 0;
}
