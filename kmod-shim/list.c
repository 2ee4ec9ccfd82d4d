// SPDX-License-Identifier: GPL-2.0
/*
 * A directory listed: the map's names, then userspace's.
 *
 * Which directories of the map are held for what userspace made in them
 * changes without the lock of the directory that is listed, and what the map
 * has changes without any lock. Therefore a listing remembers the directories
 * of the map that it has told, and tells of those that are held the others.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

/* bytes of names that a listing remembers: thousands of directories in one */
#define MAX_TOLD	32768U

/*
 * An open directory. The map's part of the listing stands at `at`, which
 * belongs to `pos`. When a name did not fit into the caller's buffer it is
 * held, and comes first the next time. `told` are names, a byte of length
 * before each; `forgot` says that there was no room for all.
 */
struct listing {
	struct mapdev_cursor at;
	u64 space;
	loff_t pos;
	bool held;
	u64 held_id;
	u32 held_mode;
	u32 held_len;
	char name[MAPDEV_NAME_MAX + 1];
	struct mapdevfs_held pin;
	u8 *told;
	u32 told_len;
	u32 told_room;
	bool forgot;
};

/* positions: 0 and 1 the dots, then even ones below an id, odd ones a pin's */
#define POS_MAP		2
#define POS_PINS	3

static loff_t pos_below(u64 id)
{
	return (loff_t)id * 2 + 2;
}

static loff_t pos_after_pin(u64 serial)
{
	return (loff_t)serial * 2 + 3;
}

static int mapdevfs_open_dir(struct inode *inode, struct file *file)
{
	struct listing *list = kzalloc(sizeof(*list), GFP_KERNEL_ACCOUNT);

	file->private_data = list;
	return list ? 0 : -ENOMEM;
}

static int mapdevfs_release_dir(struct inode *inode, struct file *file)
{
	struct listing *list = file->private_data;

	kfree(list->told);
	kfree(list);
	return 0;
}

/* 1 for a child, 0 at the end, or an error */
static int next_child(struct listing *list, struct mapdev_copy *copy)
{
	const struct mapdevfs_map *map;
	int ret;

	for (;;) {
		rcu_read_lock();
		map = mapdevfs_map_of(list->space);
		ret = map ? mapdev_list_next(&map->view, &list->at, copy) : 0;
		rcu_read_unlock();
		if (ret == -ENOENT)
			return 0;
		if (ret != -EAGAIN)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
}

static bool is_name(const char *name, u32 len)
{
	u32 at;

	for (at = 0; at < len; at++) {
		if (name[at] == '/' || !name[at])
			return false;
	}
	return len &&
	       (name[0] != '.' || (len > 1 && (name[1] != '.' || len > 2)));
}

/* a directory of the map: userspace may make something in it any time */
static void remember(struct listing *list)
{
	u32 room = max(2 * list->told_room, 512U);
	u32 len = list->held_len;
	u8 *told;

	if (list->told_room - list->told_len < len + 1) {
		told = room > MAX_TOLD ? NULL :
			krealloc(list->told, room, GFP_KERNEL_ACCOUNT);
		if (!told) {
			list->forgot = true;
			return;
		}
		list->told = told;
		list->told_room = room;
	}
	list->told[list->told_len] = len;
	memcpy(list->told + list->told_len + 1, list->name, len);
	list->told_len += len + 1;
}

/* the map has it now, and so has most likely had it */
static bool map_has_dir(struct dentry *dir, const struct mapdevfs_held *pin)
{
	const struct qstr name = { .name = pin->name, .len = pin->len };
	struct mapdev_copy copy = { .no_attr = true };
	struct mapdevfs_place place;

	return !mapdevfs_resolve(dir, &place) &&
	       !mapdevfs_look(&place, &name, &copy) && S_ISDIR(copy.mode);
}

static bool was_told(const struct listing *list, struct dentry *dir)
{
	const struct mapdevfs_held *pin = &list->pin;
	u32 at;

	if (!pin->adopted)
		return false;
	for (at = 0; at < list->told_len; at += list->told[at] + 1) {
		if (list->told[at] == pin->len &&
		    !memcmp(list->told + at + 1, pin->name, pin->len))
			return true;
	}
	return list->forgot && map_has_dir(dir, pin);
}

static bool emit_held(struct listing *list, struct dir_context *ctx)
{
	if (!dir_emit(ctx, list->name, list->held_len, list->held_id << 1,
		      (list->held_mode & S_IFMT) >> 12))
		return false;
	if (S_ISDIR(list->held_mode))
		remember(list);
	list->held = false;
	ctx->pos = pos_below(list->held_id);
	list->pos = ctx->pos;
	return true;
}

/* 1 when all was delivered, 0 when the buffer is full, or an error */
static int emit_map(struct file *file, struct dir_context *ctx)
{
	struct listing *list = file->private_data;
	struct dentry *dir = file->f_path.dentry;
	struct mapdev_copy copy = { .name = list->name, .no_attr = true };
	struct mapdevfs_place place;
	struct qstr name = {};
	int ret;

	ret = mapdevfs_resolve(dir, &place);
	if (ret)
		return ret == -ENOENT ? 1 : ret;
	if (list->pos != ctx->pos || list->at.dir != place.id ||
	    list->space != place.space) {
		list->held = false;
		memset(&list->at, 0, sizeof(list->at));
		list->space = place.space;
		list->at.dir = place.id;
		list->at.dir_cell = place.cell;
		list->at.last = ctx->pos == POS_MAP ? ~0ULL :
				(u64)(ctx->pos - 2) / 2;
		list->pos = ctx->pos;
	}
	list->at.steps = 0;
	if (list->held && !emit_held(list, ctx))
		return 0;
	while ((ret = next_child(list, &copy)) == 1) {
		name.name = list->name;
		name.len = copy.name_len;
		if (!is_name(list->name, copy.name_len) ||
		    !mapdevfs_is_sound(place.id, &copy))
			continue;
		if (READ_ONCE(MAPDEVFS_I(d_inode(dir))->pin_bits) &&
		    mapdevfs_has_pin(dir, &name))
			continue;
		list->held = true;
		list->held_id = copy.id;
		list->held_mode = copy.mode;
		list->held_len = copy.name_len;
		if (!emit_held(list, ctx))
			return 0;
	}
	return ret ? ret : 1;
}

static void emit_pins(struct file *file, struct dir_context *ctx)
{
	struct listing *list = file->private_data;
	struct mapdevfs_held *pin = &list->pin;
	u64 serial = (u64)(ctx->pos - POS_PINS) / 2;

	list->held = false;
	pin->last = NULL;
	while (mapdevfs_next_pin(file_inode(file), &serial, pin)) {
		if (!was_told(list, file->f_path.dentry) &&
		    !dir_emit(ctx, pin->name, pin->len, pin->ino,
			      (pin->mode & S_IFMT) >> 12))
			return;
		ctx->pos = pos_after_pin(serial);
	}
}

static int mapdevfs_iterate(struct file *file, struct dir_context *ctx)
{
	struct listing *list = file->private_data;
	int ret;

	if (ctx->pos <= POS_MAP) {
		list->told_len = 0;
		list->forgot = false;
	}
	if (!dir_emit_dots(file, ctx))
		return 0;
	if (!(ctx->pos & 1)) {
		ret = emit_map(file, ctx);
		if (ret <= 0)
			return ret;
		ctx->pos = POS_PINS;
	}
	emit_pins(file, ctx);
	return 0;
}

const struct file_operations mapdevfs_dir_fops = {
	.open		= mapdevfs_open_dir,
	.release	= mapdevfs_release_dir,
	.iterate_shared	= mapdevfs_iterate,
	.llseek		= generic_file_llseek,
	.read		= generic_read_dir,
	.fsync		= noop_fsync,
};
