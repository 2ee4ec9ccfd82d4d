// SPDX-License-Identifier: GPL-2.0
/*
 * A directory listed: the map's names, then userspace's.
 *
 * Which directories of the map are held for what userspace made in them
 * changes without the lock of the directory that is listed, and what the map
 * has changes without any lock. Therefore a listing remembers the directories
 * that it has told and may meet again, and tells of those that are held the
 * others. It remembers too which were held when it began: if they were let go
 * of since then, they may be in the map where it had passed.
 */
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

/* bytes of names that a listing remembers: thousands of directories in one */
#define MAX_TOLD	32768U
/* directories that were held when it began */
#define MAX_DUE		1024U

/* a directory that was held when the listing began, and its position */
struct due {
	struct list_head all;
	u64 serial;
	u32 len;
	char name[];
};

/*
 * An open directory. The map's part of the listing stands at `at`, which
 * belongs to `pos`. When a name did not fit into the caller's buffer it is
 * held, and comes first the next time. `told` are names, a byte of length
 * before each, `told_of_map` bytes of them by the map's part; `forgot` says
 * that there was no room for all.
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
	struct list_head due;
	u8 *told;
	u32 told_len;
	u32 told_of_map;
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

	if (!list)
		return -ENOMEM;
	INIT_LIST_HEAD(&list->due);
	file->private_data = list;
	return 0;
}

static void drop_due(struct listing *list)
{
	struct due *due, *next;

	list_for_each_entry_safe(due, next, &list->due, all)
		kfree(due);
	INIT_LIST_HEAD(&list->due);
}

static int mapdevfs_release_dir(struct inode *inode, struct file *file)
{
	struct listing *list = file->private_data;

	drop_due(list);
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
static void remember(struct listing *list, const char *name, u32 len)
{
	u32 room = max(2 * list->told_room, 512U);
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
	memcpy(list->told + list->told_len + 1, name, len);
	list->told_len += len + 1;
}

/* its id, if the map has it now, and so has most likely had it; or 0 */
static u64 id_of_dir(struct dentry *dir, const char *name, u32 len)
{
	const struct qstr child = { .name = name, .len = len };
	struct mapdev_copy copy = { .no_attr = true };
	struct mapdevfs_place place;

	if (mapdevfs_resolve(dir, &place) ||
	    mapdevfs_look(&place, &child, &copy) || !S_ISDIR(copy.mode))
		return 0;
	return copy.id;
}

static bool was_told(const struct listing *list, struct dentry *dir,
		     const char *name, u32 len)
{
	u32 at;

	for (at = 0; at < list->told_len; at += list->told[at] + 1) {
		if (list->told[at] == len &&
		    !memcmp(list->told + at + 1, name, len))
			return true;
	}
	return list->forgot && id_of_dir(dir, name, len);
}

static bool emit_held(struct listing *list, struct dir_context *ctx)
{
	if (!dir_emit(ctx, list->name, list->held_len, list->held_id << 1,
		      (list->held_mode & S_IFMT) >> 12))
		return false;
	if (S_ISDIR(list->held_mode))
		remember(list, list->name, list->held_len);
	list->told_of_map = list->told_len;
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

static int note_due(struct listing *list, struct inode *dir)
{
	struct mapdevfs_held *pin = &list->pin;
	unsigned int count = 0;
	struct due *due;
	u64 serial = 0;

	drop_due(list);
	if (!READ_ONCE(MAPDEVFS_I(dir)->pin_bits))
		return 0;
	pin->last = NULL;
	while (count < MAX_DUE && mapdevfs_next_pin(dir, &serial, pin)) {
		if (!pin->adopted)
			continue;
		due = kmalloc(struct_size(due, name, pin->len),
			      GFP_KERNEL_ACCOUNT);
		if (!due)
			return -ENOMEM;
		due->serial = serial;
		due->len = pin->len;
		memcpy(due->name, pin->name, pin->len);
		list_add_tail(&due->all, &list->due);
		count++;
	}
	return 0;
}

/* the first that was held behind a position, or the head of the list */
static struct due *due_after(struct listing *list, u64 serial)
{
	struct due *due;

	list_for_each_entry(due, &list->due, all) {
		if (due->serial > serial)
			break;
	}
	return due;
}

/* false when the buffer is full */
static bool emit_pin(struct file *file, struct dir_context *ctx, u64 serial)
{
	struct listing *list = file->private_data;
	const struct mapdevfs_held *pin = &list->pin;

	if (!pin->adopted ||
	    !was_told(list, file->f_path.dentry, pin->name, pin->len)) {
		if (!dir_emit(ctx, pin->name, pin->len, pin->ino,
			      (pin->mode & S_IFMT) >> 12))
			return false;
		if (pin->adopted)
			remember(list, pin->name, pin->len);
	}
	ctx->pos = pos_after_pin(serial);
	list->pos = ctx->pos;
	return true;
}

/* one that is held no more, at the position that it had; likewise */
static bool emit_due(struct file *file, struct dir_context *ctx,
		     const struct due *due)
{
	struct listing *list = file->private_data;
	struct dentry *dir = file->f_path.dentry;
	u64 id = 0;

	if (!was_told(list, dir, due->name, due->len))
		id = id_of_dir(dir, due->name, due->len);
	if (id) {
		if (!dir_emit(ctx, due->name, due->len, id << 1, DT_DIR))
			return false;
		remember(list, due->name, due->len);
	}
	ctx->pos = pos_after_pin(due->serial);
	list->pos = ctx->pos;
	return true;
}

static void emit_pins(struct file *file, struct dir_context *ctx)
{
	struct listing *list = file->private_data;
	u64 serial = (u64)(ctx->pos - POS_PINS) / 2;
	struct due *due = due_after(list, serial);
	bool more;

	list->held = false;
	list->pin.last = NULL;
	do {
		more = mapdevfs_next_pin(file_inode(file), &serial, &list->pin);
		while (!list_entry_is_head(due, &list->due, all) &&
		       (!more || due->serial <= serial)) {
			if ((!more || due->serial < serial) &&
			    !emit_due(file, ctx, due))
				return;
			due = list_next_entry(due, all);
		}
	} while (more && emit_pin(file, ctx, serial));
}

static int mapdevfs_iterate(struct file *file, struct dir_context *ctx)
{
	struct listing *list = file->private_data;
	int ret;

	/* gone back: what comes behind is told again */
	if (list->pos != ctx->pos)
		list->told_len = list->told_of_map;
	/* at the beginning, and not before a name that did not fit then */
	if (ctx->pos < POS_MAP || (ctx->pos == POS_MAP && !list->held)) {
		list->told_len = 0;
		list->told_of_map = 0;
		list->forgot = false;
		ret = note_due(list, file_inode(file));
		if (ret)
			return ret;
	}
	if (!dir_emit_dots(file, ctx))
		return 0;
	if (!(ctx->pos & 1)) {
		ret = emit_map(file, ctx);
		if (ret <= 0)
			return ret;
		ctx->pos = POS_PINS;
		list->pos = ctx->pos;
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
