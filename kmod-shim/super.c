// SPDX-License-Identifier: GPL-2.0
/*
 * The one instance of the file system, however often it is mounted.
 */
#include <linux/fs_context.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"

struct mapdevfs_map __rcu *mapdevfs_map;
unsigned long mapdevfs_epoch;
/* who changes attributes, and the map for another */
DEFINE_MUTEX(mapdevfs_attr_lock);
struct mapdevfs_counters mapdevfs_counters;

static struct kmem_cache *inode_cache;
static struct super_block *the_super;
static DEFINE_SPINLOCK(super_lock);

/**
 * mapdevfs_get_super() - hold the mounted file system
 *
 * Return: the super block, or NULL when it is mounted nowhere.
 */
struct super_block *mapdevfs_get_super(void)
{
	struct super_block *sb;

	spin_lock(&super_lock);
	sb = the_super;
	if (sb && !atomic_inc_not_zero(&sb->s_active))
		sb = NULL;
	spin_unlock(&super_lock);
	return sb;
}

/**
 * mapdevfs_put_super() - let go of what mapdevfs_get_super() gave
 * @sb: the super block
 */
void mapdevfs_put_super(struct super_block *sb)
{
	deactivate_super(sb);
}

static struct inode *mapdevfs_alloc_inode(struct super_block *sb)
{
	struct mapdevfs_inode *mi = alloc_inode_sb(sb, inode_cache, GFP_KERNEL);

	if (!mi)
		return NULL;
	mi->space = 0;
	mi->id = MAPDEV_ID_FREE;
	mi->checked = 0;
	mi->cell = 0;
	mi->pending = false;
	mi->kept = false;
	mi->acl = MAPDEVFS_ACL_NONE;
	mi->pin_bits = 0;
	mi->number_fops = NULL;
	INIT_LIST_HEAD(&mi->acl_list);
	INIT_LIST_HEAD(&mi->pins);
	return &mi->vfs_inode;
}

/* after a grace period: a walk under RCU may still read the link */
static void mapdevfs_free_inode(struct inode *inode)
{
	if (S_ISLNK(inode->i_mode))
		kfree(inode->i_link);
	kmem_cache_free(inode_cache, MAPDEVFS_I(inode));
}

static void inode_once(void *object)
{
	struct mapdevfs_inode *mi = object;

	inode_init_once(&mi->vfs_inode);
}

static const struct super_operations mapdevfs_sops = {
	.alloc_inode	= mapdevfs_alloc_inode,
	.free_inode	= mapdevfs_free_inode,
	/* an inode without a name is of no use, and would be stale */
	.drop_inode	= mapdevfs_just_drop,
	.evict_inode	= mapdevfs_evict_inode,
	.statfs		= mapdevfs_statfs,
};

static const struct xattr_handler *mapdevfs_xattrs[] = {
	MAPDEVFS_ACL_HANDLER,
	NULL
};

static int mapdevfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	const struct mapdev_copy root = {
		.id = MAPDEV_ID_ROOT,
		.cell = MAPDEV_ROOT_CELL,
		.mode = S_IFDIR | 0755,
	};
	struct inode *inode;

	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_magic = MAPDEVFS_MAGIC;
	sb->s_op = &mapdevfs_sops;
	sb->s_xattr = mapdevfs_xattrs;
	sb->s_time_gran = 1;
	sb->s_flags |= SB_POSIXACL | SB_NOATIME;
	mapdevfs_set_d_op(sb, &mapdevfs_dops);

	inode = mapdevfs_iget(sb, &root, 0);
	if (IS_ERR(inode))
		return PTR_ERR(inode);
	mapdevfs_set_times(inode, current_time(inode));
	sb->s_root = d_make_root(inode);
	if (!sb->s_root)
		return -ENOMEM;
	spin_lock(&super_lock);
	the_super = sb;
	spin_unlock(&super_lock);
	return 0;
}

static int mapdevfs_get_tree(struct fs_context *fc)
{
	return get_tree_single(fc, mapdevfs_fill_super);
}

static const struct fs_context_operations mapdevfs_context_ops = {
	.get_tree	= mapdevfs_get_tree,
};

static int mapdevfs_init_fs_context(struct fs_context *fc)
{
	fc->ops = &mapdevfs_context_ops;
	return 0;
}

/*
 * Only what userspace made is held: kill_litter_super() would drop
 * references of the map's dentries that nobody took.
 */
static void mapdevfs_kill_sb(struct super_block *sb)
{
	spin_lock(&super_lock);
	if (the_super == sb)
		the_super = NULL;
	spin_unlock(&super_lock);
	if (sb->s_root) {
		mapdevfs_drop_pins();
		mutex_lock(&mapdevfs_attr_lock);
		mapdevfs_end_acls();
		mutex_unlock(&mapdevfs_attr_lock);
	}
	kill_anon_super(sb);
}

static struct file_system_type mapdevfs_type = {
	.owner		= THIS_MODULE,
	.name		= "mapdevfs",
	.init_fs_context = mapdevfs_init_fs_context,
	.kill_sb	= mapdevfs_kill_sb,
};
MODULE_ALIAS_FS("mapdevfs");

static int __init mapdevfs_init(void)
{
	int ret = -ENOMEM;

	BUILD_BUG_ON(sizeof(struct mapdev_header) != MAPDEV_HDR_LEN);
	BUILD_BUG_ON(sizeof(struct mapdev_entry) != MAPDEV_ENTRY_SIZE);
	BUILD_BUG_ON(sizeof(struct mapdev_attr) != MAPDEV_ATTR_SIZE);
	BUILD_BUG_ON(sizeof(struct mapdev_chain) != MAPDEV_CHAIN_SIZE);

	inode_cache = kmem_cache_create("mapdevfs_inode",
					sizeof(struct mapdevfs_inode), 0,
					SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
					inode_once);
	if (!inode_cache)
		return ret;
	ret = mapdevfs_open_init();
	if (ret)
		goto no_open;
	ret = mapdevfs_ctl_init();
	if (ret)
		goto no_ctl;
	/* last: what is mounted already cannot be taken back */
	ret = register_filesystem(&mapdevfs_type);
	if (ret)
		goto no_filesystem;
	return 0;

no_filesystem:
	mapdevfs_ctl_exit();
no_ctl:
	mapdevfs_open_exit();
no_open:
	rcu_barrier();
	kmem_cache_destroy(inode_cache);
	return ret;
}

static void __exit mapdevfs_exit(void)
{
	unregister_filesystem(&mapdevfs_type);
	mapdevfs_ctl_exit();
	mapdevfs_open_exit();
	/* inodes are freed after a grace period */
	rcu_barrier();
	kmem_cache_destroy(inode_cache);
}

module_init(mapdevfs_init);
module_exit(mapdevfs_exit);
MODULE_AUTHOR("the mapdev authors");
MODULE_DESCRIPTION("/dev from a map that a device manager publishes");
MODULE_LICENSE("GPL");
