// SPDX-License-Identifier: GPL-2.0
/*
 * True copies out of a map that changes under the reader, and that
 * may be hostile: every number is checked where it is used, every walk ends.
 *
 * Mirrors src/map/protocol.rs; mapdev_abi.h has the reasons for the order of
 * loads. Nothing here sleeps or allocates. The caller holds the memory.
 */
#include "map.h"
#include "map_hash.h"

/* a listing that had to start again this often in a row is given up */
#define LIST_RESTARTS	64U
/* steps of one call of mapdev_list_next() */
#define LIST_BUDGET	512U

enum glance { GLANCE_IS, GLANCE_OTHER, GLANCE_TORN };
enum step { STEP_NEXT, STEP_LAST, STEP_SKIPPED, STEP_LOST };

struct wanted {
	const char *name;	/* NULL: by id and cell */
	u64 parent;
	u64 id;
	u32 len;
	u32 cell;
};

/* the words of a string of @len bytes, NULL when they are out of range */
static const u64 *string_at(const struct mapdev_view *view, u32 off, u32 len)
{
	u64 size = ((u64)len + 7) & ~7ULL;

	if (off % 8 || size > view->strings_len ||
	    off > view->strings_len - size)
		return NULL;
	return view->strings + off / 8;
}

static bool string_is(const struct mapdev_view *view, u32 off,
		      const char *wanted, u32 len)
{
	const u64 *words = string_at(view, off, len);
	u64 word;
	u32 at;

	if (!words)
		return false;
	for (at = 0; at < len; at += 8) {
		word = READ_ONCE(words[at / 8]);
		if (memcmp(&word, wanted + at, len - at < 8 ? len - at : 8))
			return false;
	}
	return true;
}

/* copies a string and ends it with NUL; false when it is out of range */
static bool string_copy(const struct mapdev_view *view, u32 off, u32 len,
			u32 limit, char *to)
{
	const u64 *words;
	u64 word;
	u32 at;

	to[0] = '\0';
	if (!len)
		return true;
	if (len > limit)
		return false;
	words = string_at(view, off, len);
	if (!words)
		return false;
	/* whole words: the room is a multiple of them */
	for (at = 0; at < len; at += 8) {
		word = READ_ONCE(words[at / 8]);
		memcpy(to + at, &word, 8);
	}
	to[len] = '\0';
	return true;
}

/* lays the attribute cell over the entry's own mode and owner */
static bool overlay_attr(const struct mapdev_view *view,
			 struct mapdev_copy *copy)
{
	const struct mapdev_attr *cell;
	u32 seq, mode, uid, gid;
	u64 id, stamp;

	if (copy->cell >= view->n_entries)
		return true;
	cell = &view->attrs[copy->cell];
	seq = mapdev_load32(&cell->seq);
	if (seq & 1)
		return false;
	id = READ_ONCE(cell->id);
	mode = READ_ONCE(cell->mode);
	uid = READ_ONCE(cell->uid);
	gid = READ_ONCE(cell->gid);
	stamp = READ_ONCE(cell->stamp);
	mapdev_copied();
	if (READ_ONCE(cell->seq) != seq)
		return false;
	if (id == copy->id) {
		copy->mode = (copy->mode & S_IFMT) | (mode & S_IALLUGO);
		copy->uid = uid;
		copy->gid = gid;
		copy->stamp = stamp;
	}
	return true;
}

static void copy_fields(const struct mapdev_entry *entry,
			struct mapdev_copy *copy)
{
	copy->flags = READ_ONCE(entry->flags);
	copy->id = READ_ONCE(entry->id);
	copy->parent = READ_ONCE(entry->parent);
	copy->name_off = READ_ONCE(entry->name_off);
	copy->name_len = READ_ONCE(entry->name_len);
	copy->aux_len = READ_ONCE(entry->aux_len);
	copy->aux_off = READ_ONCE(entry->aux_off);
	copy->mode = READ_ONCE(entry->mode);
	copy->uid = READ_ONCE(entry->uid);
	copy->gid = READ_ONCE(entry->gid);
	copy->rdev = READ_ONCE(entry->rdev);
	copy->cell = READ_ONCE(entry->cell);
	copy->stamp = READ_ONCE(entry->stamp);
}

static enum glance complete(const struct mapdev_view *view,
			    const struct wanted *wanted,
			    struct mapdev_copy *copy)
{
	bool match;
	u32 len;

	if (wanted->name)
		match = copy->parent == wanted->parent &&
			copy->name_len == wanted->len &&
			string_is(view, copy->name_off, wanted->name,
				  wanted->len);
	else
		match = copy->id == wanted->id && copy->cell == wanted->cell;
	if (!match || copy->id == MAPDEV_ID_FREE)
		return GLANCE_OTHER;
	if (copy->name && !string_copy(view, copy->name_off, copy->name_len,
				       MAPDEV_NAME_MAX, copy->name))
		return GLANCE_OTHER;
	if (copy->aux && !string_copy(view, copy->aux_off, copy->aux_len,
				      MAPDEV_AUX_MAX, copy->aux))
		return GLANCE_OTHER;
	if (copy->expect) {
		len = strlen(copy->expect);
		copy->same_aux = len == copy->aux_len && string_is(view,
					copy->aux_off, copy->expect, len);
	}
	if (copy->no_attr)
		return GLANCE_IS;
	return overlay_attr(view, copy) ? GLANCE_IS : GLANCE_TORN;
}

static u32 seq_of(const struct mapdev_view *view, u32 number)
{
	if (number >= view->n_entries)
		return 0;
	return READ_ONCE(view->entries[number].seq);
}

/* one look at an entry: copied if it is the wanted one and held still */
static enum glance glance(const struct mapdev_view *view, u32 number,
			  const struct wanted *wanted,
			  struct mapdev_copy *copy, u32 *seq)
{
	const struct mapdev_entry *entry;
	enum glance result;

	*seq = 0;
	if (number >= view->n_entries)
		return GLANCE_OTHER;
	entry = &view->entries[number];
	*seq = mapdev_load32(&entry->seq);
	if (*seq & 1)
		return GLANCE_TORN;
	copy->number = number;
	copy_fields(entry, copy);
	result = complete(view, wanted, copy);
	/* cell and strings are this object's as long as the entry stands */
	mapdev_copied();
	return READ_ONCE(entry->seq) == *seq ? result : GLANCE_TORN;
}

/* 0: found, 1: look further, or an error */
static int probe(const struct mapdev_view *view, const u32 *at,
		 const struct wanted *wanted, struct mapdev_copy *copy)
{
	u32 slot, seq, tries;

	for (tries = 0; tries < MAPDEV_RETRIES; tries++) {
		slot = mapdev_load32(at);
		if (slot == MAPDEV_SLOT_EMPTY)
			return -ENOENT;
		if (slot == MAPDEV_SLOT_TOMBSTONE)
			return 1;
		switch (glance(view, slot - 1, wanted, copy, &seq)) {
		case GLANCE_IS:
			return 0;
		case GLANCE_OTHER:
			/*
			 * The entry may have been freed since the slot was
			 * read, and even used anew for this very name:
			 * neither may have moved, in this order.
			 */
			if (mapdev_load32(at) == slot &&
			    seq_of(view, slot - 1) == seq)
				return 1;
			break;
		case GLANCE_TORN:
			break;
		}
		cpu_relax();
	}
	return -EAGAIN;
}

/**
 * mapdev_find() - find a child of a directory by its name
 * @view: the map
 * @parent: id of the directory
 * @name: need not end with NUL
 * @len: bytes of @name
 * @copy: filled in when found
 *
 * Return: 0, -ENOENT, or -EAGAIN when it changed at every look.
 */
int mapdev_find(const struct mapdev_view *view, u64 parent, const char *name,
		u32 len, struct mapdev_copy *copy)
{
	const struct wanted wanted = {
		.name = name, .parent = parent, .len = len,
	};
	u32 mask = view->n_buckets - 1;
	u32 bucket, step;
	int ret;

	if (!len || len > MAPDEV_NAME_MAX)
		return -ENOENT;
	bucket = (u32)mapdev_hash(view->seed, parent, name, len) & mask;
	for (step = 0; step < view->max_probe; step++) {
		ret = probe(view, &view->index[bucket], &wanted, copy);
		if (ret <= 0)
			return ret;
		bucket = (bucket + 1) & mask;
	}
	return -ENOENT;
}

/**
 * mapdev_by_id() - copy an object whose id and cell are known
 * @view: the map
 * @id: its id
 * @cell: its cell
 * @copy: filled in when found
 *
 * Return: 0, -ENOENT, or -EAGAIN when it changed at every look.
 */
int mapdev_by_id(const struct mapdev_view *view, u64 id, u32 cell,
		 struct mapdev_copy *copy)
{
	const struct wanted wanted = { .id = id, .cell = cell };
	const struct mapdev_chain *chain;
	u32 entry, seq, tries;

	for (tries = 0; tries < MAPDEV_RETRIES; tries++) {
		if (!mapdev_owns_cell(view, id, cell))
			return -ENOENT;
		chain = &view->chains[cell];
		entry = mapdev_load32(&chain->entry);
		if (!entry)
			return -ENOENT;
		if (glance(view, entry - 1, &wanted, copy, &seq) == GLANCE_IS)
			return 0;
		cpu_relax();
	}
	return -EAGAIN;
}

/**
 * mapdev_owns_cell() - whether a cell is that of an object
 * @view: the map
 * @id: the object's id
 * @cell: number of the cell
 *
 * Return: false when the object is gone, or never had this cell.
 */
bool mapdev_owns_cell(const struct mapdev_view *view, u64 id, u32 cell)
{
	return id != MAPDEV_ID_FREE && cell < view->n_entries &&
	       mapdev_load64(&view->chains[cell].id) == id;
}

/* one step of a listing: the child at the cell that comes next */
static enum step list_step(const struct mapdev_view *view,
			   struct mapdev_cursor *at, struct mapdev_copy *copy)
{
	const struct mapdev_chain *chain;
	u32 next, cell = at->next - 1;
	bool skipped;
	u64 id;

	if (cell >= view->n_entries)
		return STEP_LOST;
	chain = &view->chains[cell];
	id = mapdev_load64(&chain->id);
	if (id >= at->bound || id <= at->dir)
		return STEP_LOST;
	/* what was delivered before is only passed */
	skipped = id >= at->last;
	if (!skipped && (mapdev_by_id(view, id, cell, copy) ||
			 copy->parent != at->dir))
		return STEP_LOST;
	next = mapdev_load32(&chain->next);
	mapdev_copied();
	if (READ_ONCE(chain->id) != id)
		return skipped ? STEP_LOST : STEP_LAST;
	at->bound = id;
	at->next = next;
	return skipped ? STEP_SKIPPED : STEP_NEXT;
}

/* a broken or hostile chain ends here */
static bool list_exhausted(const struct mapdev_view *view,
			   struct mapdev_cursor *at)
{
	return at->restarts > LIST_RESTARTS ||
	       at->steps++ > 2 * view->n_entries + LIST_BUDGET;
}

static int list_head(const struct mapdev_view *view, struct mapdev_cursor *at)
{
	const struct mapdev_chain *chain;

	if (!mapdev_owns_cell(view, at->dir, at->dir_cell))
		return -ENOENT;
	chain = &view->chains[at->dir_cell];
	at->next = mapdev_load32(&chain->head);
	mapdev_copied();
	if (READ_ONCE(chain->id) != at->dir)
		return -ENOENT;
	at->bound = ~0ULL;
	at->walking = true;
	at->restarts++;
	return 0;
}

/**
 * mapdev_list_next() - deliver the next child of a directory
 * @view: the map; between two calls it may be replaced by another
 * @at: where the listing stands
 * @copy: filled in when there is one; @copy->name is wanted
 *
 * Each child comes once, the newest first, and all that were there the whole
 * time come. A call takes a bounded number of steps.
 *
 * Return: 1 for a child, 0 at the end, -EAGAIN to be called again, -ENOENT
 * when the directory is gone, -EIO when its chain is broken.
 */
int mapdev_list_next(const struct mapdev_view *view, struct mapdev_cursor *at,
		     struct mapdev_copy *copy)
{
	u32 budget;
	int ret;

	for (budget = 0; budget < LIST_BUDGET; budget++) {
		if (list_exhausted(view, at))
			return -EIO;
		if (!at->walking) {
			ret = list_head(view, at);
			if (ret)
				return ret;
		}
		if (!at->next)
			return 0;
		switch (list_step(view, at, copy)) {
		case STEP_LAST:
			at->walking = false;
			fallthrough;
		case STEP_NEXT:
			at->last = copy->id;
			at->restarts = 0;
			return 1;
		case STEP_SKIPPED:
			break;
		case STEP_LOST:
			at->walking = false;
			cpu_relax();
			break;
		}
	}
	return -EAGAIN;
}
