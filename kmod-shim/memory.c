// SPDX-License-Identifier: GPL-2.0
/*
 * The daemon's memory file becomes a map of the kernel's.
 */
#include <linux/cred.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "internal.h"

/* far above what MAPDEV_MAX_ENTRIES need */
#define MAX_LEN		BIT_ULL(30)

#define SEALS_WANTED	(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define SEALS_REFUSED	(F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

/*
 * Who can open the file for writing is root for everybody: any other mode or
 * owner than the daemon gives it is refused.
 */
static int check_file(struct file *file, u64 len)
{
	struct inode *inode = file_inode(file);
	unsigned int seals;

	if (!S_ISREG(inode->i_mode) || !mapdevfs_is_shmem(file->f_mapping))
		return -EINVAL;
	if (!(file->f_mode & FMODE_WRITE) || !(file->f_mode & FMODE_READ))
		return -EBADF;
	if ((inode->i_mode & S_IALLUGO) != 0400 ||
	    !uid_eq(inode->i_uid, GLOBAL_ROOT_UID))
		return -EACCES;
	seals = READ_ONCE(SHMEM_I(inode)->seals);
	if ((seals & SEALS_WANTED) != SEALS_WANTED || (seals & SEALS_REFUSED))
		return -EACCES;
	if (!len || len > MAX_LEN || len % PAGE_SIZE ||
	    len != (u64)i_size_read(inode))
		return -EINVAL;
	return 0;
}

static int take_pages(struct mapdevfs_map *map, unsigned long wanted)
{
	struct address_space *mapping = map->file->f_mapping;
	struct page *page;

	map->pages = kvcalloc(wanted, sizeof(*map->pages), GFP_KERNEL_ACCOUNT);
	if (!map->pages)
		return -ENOMEM;
	while (map->n_pages < wanted) {
		/* no other: the daemon could not tell it from a refusal */
		if (fatal_signal_pending(current))
			return -EINTR;
		page = shmem_read_mapping_page_gfp(mapping, map->n_pages,
						   mapping_gfp_mask(mapping));
		if (IS_ERR(page))
			return PTR_ERR(page);
		map->pages[map->n_pages++] = page;
		cond_resched();
	}
	return 0;
}

/**
 * mapdevfs_map_make() - take over the daemon's memory
 * @fd: a descriptor of the calling process
 * @len: bytes of the map
 *
 * Return: the map, not yet published, or an error pointer.
 */
struct mapdevfs_map *mapdevfs_map_make(int fd, u64 len)
{
	struct mapdevfs_map *map = kzalloc(sizeof(*map), GFP_KERNEL);
	void *base;
	int err;

	if (!map)
		return ERR_PTR(-ENOMEM);
	err = -EBADF;
	map->file = fget(fd);
	if (!map->file)
		goto fail;
	err = check_file(map->file, len);
	if (err)
		goto fail;
	err = take_pages(map, len >> PAGE_SHIFT);
	if (err)
		goto fail;
	err = -ENOMEM;
	base = vmap(map->pages, map->n_pages, VM_MAP, PAGE_KERNEL);
	if (!base)
		goto fail;
	err = mapdev_view_init(&map->view, base, len);
	if (!err)
		return map;
	vunmap(base);
	map->view.hdr = NULL;
fail:
	mapdevfs_map_free(map);
	return ERR_PTR(err);
}

/**
 * mapdevfs_map_free() - give the memory back
 * @map: a map that nobody reads any more, or NULL
 */
void mapdevfs_map_free(struct mapdevfs_map *map)
{
	unsigned long i;

	if (!map)
		return;
	if (map->view.hdr)
		vunmap(map->view.hdr);
	for (i = 0; i < map->n_pages; i++) {
		/* mode and owner were written here, past the daemon's mapping */
		if (map->view.hdr)
			set_page_dirty_lock(map->pages[i]);
		put_page(map->pages[i]);
	}
	kvfree(map->pages);
	if (map->file)
		fput(map->file);
	kfree(map);
}
