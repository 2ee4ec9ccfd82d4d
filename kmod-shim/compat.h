/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The only place that asks for the kernel's version.
 *
 * Tried with 6.1 and 6.12; what came after is written after the headers and
 * marked with the release.
 */
#ifndef MAPDEVFS_COMPAT_H
#define MAPDEVFS_COMPAT_H

#include <linux/fs.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/shmem_fs.h>
#include <linux/version.h>
#include <linux/xattr.h>

#define MAPDEVFS_SINCE(major, minor) \
	(KERNEL_VERSION(major, minor, 0) <= LINUX_VERSION_CODE)

#if MAPDEVFS_SINCE(6, 3)
#define mapdevfs_idmap	mnt_idmap
#else
#define mapdevfs_idmap	user_namespace
#endif

/* what the operations below come down to */
int mapdevfs_change_acl(struct mapdevfs_idmap *idmap, struct inode *inode,
			struct posix_acl *acl, int type);
int mapdevfs_check(struct dentry *dentry, unsigned int flags);
int mapdevfs_make_dir(struct mapdevfs_idmap *idmap, struct inode *dir,
		      struct dentry *dentry, umode_t mode);

#if MAPDEVFS_SINCE(6, 4)
#define MAPDEVFS_ACL_HANDLER	(&nop_posix_acl_access)
#else
#define MAPDEVFS_ACL_HANDLER	(&posix_acl_access_xattr_handler)
#endif

#if MAPDEVFS_SINCE(6, 2)
static inline int mapdevfs_set_acl(struct mapdevfs_idmap *idmap,
				   struct dentry *dentry,
				   struct posix_acl *acl, int type)
{
	return mapdevfs_change_acl(idmap, d_inode(dentry), acl, type);
}
#else
static inline int mapdevfs_set_acl(struct mapdevfs_idmap *idmap,
				   struct inode *inode,
				   struct posix_acl *acl, int type)
{
	return mapdevfs_change_acl(idmap, inode, acl, type);
}
#endif

#if MAPDEVFS_SINCE(6, 7)
static inline void mapdevfs_set_times(struct inode *inode,
				      struct timespec64 ts)
{
	inode_set_atime_to_ts(inode, ts);
	inode_set_mtime_to_ts(inode, ts);
	inode_set_ctime_to_ts(inode, ts);
}
#else
static inline void mapdevfs_set_times(struct inode *inode,
				      struct timespec64 ts)
{
	inode->i_atime = ts;
	inode->i_mtime = ts;
#if MAPDEVFS_SINCE(6, 6)
	inode_set_ctime_to_ts(inode, ts);
#else
	inode->i_ctime = ts;
#endif
}
#endif

static inline void mapdevfs_touch_ctime(struct inode *inode)
{
#if MAPDEVFS_SINCE(6, 6)
	inode_set_ctime_current(inode);
#else
	inode->i_ctime = current_time(inode);
#endif
}

static inline struct timespec64 mapdevfs_ctime(const struct inode *inode)
{
#if MAPDEVFS_SINCE(6, 6)
	return inode_get_ctime(inode);
#else
	return inode->i_ctime;
#endif
}

#if MAPDEVFS_SINCE(6, 14)
static inline int mapdevfs_revalidate(struct inode *dir,
				      const struct qstr *name,
				      struct dentry *dentry,
				      unsigned int flags)
{
	return mapdevfs_check(dentry, flags);
}
#else
static inline int mapdevfs_revalidate(struct dentry *dentry,
				      unsigned int flags)
{
	return mapdevfs_check(dentry, flags);
}
#endif

#if MAPDEVFS_SINCE(6, 15)
static inline struct dentry *mapdevfs_mkdir(struct mapdevfs_idmap *idmap,
					    struct inode *dir,
					    struct dentry *dentry,
					    umode_t mode)
{
	return ERR_PTR(mapdevfs_make_dir(idmap, dir, dentry, mode));
}
#else
static inline int mapdevfs_mkdir(struct mapdevfs_idmap *idmap,
				 struct inode *dir, struct dentry *dentry,
				 umode_t mode)
{
	return mapdevfs_make_dir(idmap, dir, dentry, mode);
}
#endif

static inline void mapdevfs_set_d_op(struct super_block *sb,
				     const struct dentry_operations *ops)
{
#if MAPDEVFS_SINCE(6, 17)
	set_default_d_op(sb, ops);
#else
	sb->s_d_op = ops;
#endif
}

#if MAPDEVFS_SINCE(6, 18)
#define mapdevfs_just_drop	inode_just_drop
#else
#define mapdevfs_just_drop	generic_delete_inode
#endif

static inline bool mapdevfs_inode_is_new(struct inode *inode)
{
#if MAPDEVFS_SINCE(6, 19)
	return inode_state_read_once(inode) & I_NEW;
#else
	return inode->i_state & I_NEW;
#endif
}

/* by what the kernel's hash has inodes: as wide as their number, since 7.1 u64 */
#define mapdevfs_hashval	typeof_member(struct inode, i_ino)

#if MAPDEVFS_SINCE(6, 5)
#define mapdevfs_splice_read	filemap_splice_read
#else
#define mapdevfs_splice_read	generic_file_splice_read
#endif

/* a directory's names in memory, one after another, under its d_lock */
#if MAPDEVFS_SINCE(6, 8)
#define mapdevfs_first_child	d_first_child
#define mapdevfs_next_child	d_next_sibling
#else
static inline struct dentry *mapdevfs_first_child(struct dentry *dir)
{
	return list_first_entry_or_null(&dir->d_subdirs, struct dentry,
					d_child);
}

static inline struct dentry *mapdevfs_next_child(struct dentry *child)
{
	if (list_is_last(&child->d_child, &child->d_parent->d_subdirs))
		return NULL;
	return list_next_entry(child, d_child);
}
#endif

/* shmem_mapping() is exported only later, shmem_aops only before that */
static inline bool mapdevfs_is_shmem(struct address_space *mapping)
{
#if MAPDEVFS_SINCE(6, 6)
	return shmem_mapping(mapping);
#else
	return mapping->a_ops == &shmem_aops;
#endif
}

#endif /* MAPDEVFS_COMPAT_H */
