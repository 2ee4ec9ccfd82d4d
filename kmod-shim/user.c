// SPDX-License-Identifier: GPL-2.0
/*
 * What userspace makes in /dev: directories to mount on, sockets,
 * links, fifos, files. It lives in dentries that are held, see pins.c.
 */
#include <linux/fs_struct.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "internal.h"

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
	err = mapdevfs_pin(dir, dentry, inode);
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

	if (!mapdevfs_is_users(old))
		return -EPERM;
	ihold(inode);
	err = mapdevfs_pin(dir, dentry, inode);
	if (err) {
		iput(inode);
		return err;
	}
	inc_nlink(inode);
	mapdevfs_touch_ctime(inode);
	return 0;
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
	if (!mapdevfs_is_users(dentry))
		return -EPERM;
	return mapdevfs_unpin(dir, dentry);
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
	struct mapdevfs_place place;
	int err;

	if (!mapdevfs_is_users(dentry))
		return -EPERM;
	/* the map has no empty directories */
	err = mapdevfs_resolve(dentry, &place);
	if (err != -ENOENT)
		return err ? err : -ENOTEMPTY;
	return mapdevfs_unpin(dir, dentry);
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
	int err;

	if (flags & ~RENAME_NOREPLACE)
		return -EINVAL;
	if (!mapdevfs_is_users(old))
		return -EPERM;
	if (d_really_is_positive(new) && !mapdevfs_is_users(new))
		return -EPERM;
	if (d_is_dir(old))
		return -EXDEV;
	err = mapdevfs_move_pin(old, new_dir, new);
	if (err)
		return err;
	mapdevfs_set_times(old_dir, current_time(old_dir));
	mapdevfs_set_times(new_dir, current_time(new_dir));
	mapdevfs_touch_ctime(d_inode(old));
	return 0;
}
