// SPDX-License-Identifier: GPL-2.0
/*
 * True copies out of a map that changes under the reader, and that
 * may be hostile: every number is checked where it is used, every walk ends.
 *
 * Mirrors src/map/protocol.rs; mapdev_abi.h has the reasons for the order of
 * loads. Nothing here sleeps or allocates. The caller holds the memory.
 */
#include "map.h"

/* a listing that had to start again this often in a row is given up */
#define LIST_RESTARTS	64U
/* steps of one call of mapdev_list_next() */
#define LIST_BUDGET	512U

#define N_AREAS		6

enum glance { GLANCE_IS, GLANCE_OTHER, GLANCE_TORN };
enum step { STEP_NEXT, STEP_LAST, STEP_SKIPPED, STEP_LOST };

struct wanted {
	const char *name;	/* NULL: by id and cell */
	u64 parent;
	u64 id;
	u32 len;
	u32 cell;
};

/* what the writer did before it stored this, is seen after it */
static inline u32 load32(const u32 *at)
{
	/* pairs with the daemon's stores with release */
	return smp_load_acquire(at);
}

static inline u64 load64(const u64 *at)
{
	/* pairs with the daemon's stores with release */
	return smp_load_acquire(at);
}

/* between a copy and the load that checks it */
static inline void copied(void)
{
	/* pairs with the release fence after an odd seq or a freed cell */
	smp_rmb();
}

/* bytes of the word at @at of a string */
static inline u32 in_word(u32 len, u32 at)
{
	return len - at < 8 ? len - at : 8;
}

static inline u64 rol(u64 word, int bits)
{
	return word << bits | word >> (64 - bits);
}

static inline void sip_round(u64 s[4])
{
	s[0] += s[1];
	s[2] += s[3];
	s[1] = rol(s[1], 13) ^ s[0];
	s[3] = rol(s[3], 16) ^ s[2];
	s[0] = rol(s[0], 32);
	s[2] += s[1];
	s[0] += s[3];
	s[1] = rol(s[1], 17) ^ s[2];
	s[3] = rol(s[3], 21) ^ s[0];
	s[2] = rol(s[2], 32);
}

static inline void sip_word(u64 s[4], u64 word)
{
	s[3] ^= word;
	sip_round(s);
	sip_round(s);
	s[0] ^= word;
}

/* @len bytes, at most 8, as a little endian number */
static inline u64 le_word(const char *bytes, u32 len)
{
	u64 word = 0;

	while (len--)
		word = word << 8 | (unsigned char)bytes[len];
	return word;
}

/* SipHash-2-4 of the parent's id and the name; see struct mapdev_header */
static u64 hash(const u64 seed[2], u64 parent, const char *name, u32 len)
{
	u64 s[4] = {
		seed[0] ^ 0x736f6d6570736575ULL,
		seed[1] ^ 0x646f72616e646f6dULL,
		seed[0] ^ 0x6c7967656e657261ULL,
		seed[1] ^ 0x7465646279746573ULL,
	};
	u64 total = (u64)len + 8;

	sip_word(s, parent);
	for (; len >= 8; len -= 8, name += 8)
		sip_word(s, le_word(name, 8));
	sip_word(s, total << 56 | le_word(name, len));
	s[2] ^= 0xff;
	sip_round(s);
	sip_round(s);
	sip_round(s);
	sip_round(s);
	return s[0] ^ s[1] ^ s[2] ^ s[3];
}

static bool areas_fit(const u64 area[N_AREAS][2], u64 total)
{
	int i, j;

	for (i = 0; i < N_AREAS; i++) {
		u64 start = area[i][0], len = area[i][1];

		if (start % MAPDEV_ALIGN || len % 8)
			return false;
		if (start > total || len > total - start)
			return false;
		for (j = 0; j < i; j++) {
			/* an area without bytes is nowhere */
			if (len && area[j][1] &&
			    start < area[j][0] + area[j][1] &&
			    area[j][0] < start + len)
				return false;
		}
	}
	return true;
}

static bool sizes_fit(const struct mapdev_header *hdr, u64 len)
{
	u32 buckets = hdr->n_buckets;

	return hdr->magic == MAPDEV_MAGIC && hdr->version == MAPDEV_VERSION &&
	       hdr->hdr_len == MAPDEV_HDR_LEN && hdr->total_len == len &&
	       hdr->entry_size == MAPDEV_ENTRY_SIZE &&
	       hdr->attr_size == MAPDEV_ATTR_SIZE &&
	       hdr->chain_size == MAPDEV_CHAIN_SIZE &&
	       hdr->n_entries && hdr->n_entries <= MAPDEV_MAX_ENTRIES &&
	       buckets && !(buckets & (buckets - 1)) &&
	       buckets <= 1U << 24 && buckets / 2 >= hdr->n_entries &&
	       hdr->max_probe && hdr->max_probe <= MAPDEV_PROBE_CAP &&
	       hdr->max_probe <= buckets;
}

/**
 * mapdev_view_init() - check the header of a map and remember where all lies
 * @view: filled in
 * @base: the memory, aligned to a page
 * @len: its length in bytes
 *
 * The part of the header that says where things lie is copied once, so that
 * it cannot change after the check.
 *
 * Return: 0, or -EINVAL when this is no map.
 */
int mapdev_view_init(struct mapdev_view *view, void *base, u64 len)
{
	union {
		struct mapdev_header hdr;
		u64 words[MAPDEV_HDR_LEN / 8];
	} fixed = {};
	u64 *words = base;
	u64 n, i;

	if (len < MAPDEV_HDR_LEN)
		return -EINVAL;
	for (i = 0; i < offsetof(struct mapdev_header, gen) / 8; i++)
		fixed.words[i] = READ_ONCE(words[i]);
	if (!sizes_fit(&fixed.hdr, len))
		return -EINVAL;
	n = fixed.hdr.n_entries;
	{
		const u64 area[N_AREAS][2] = {
			{ 0, MAPDEV_HDR_LEN },
			{ fixed.hdr.entries_off, n * MAPDEV_ENTRY_SIZE },
			{ fixed.hdr.index_off, fixed.hdr.n_buckets * 4ULL },
			{ fixed.hdr.attrs_off, n * MAPDEV_ATTR_SIZE },
			{ fixed.hdr.chains_off, n * MAPDEV_CHAIN_SIZE },
			{ fixed.hdr.strings_off, fixed.hdr.strings_len },
		};

		if (!areas_fit(area, len))
			return -EINVAL;
	}
	view->hdr = base;
	view->entries = (void *)((char *)base + fixed.hdr.entries_off);
	view->index = (void *)((char *)base + fixed.hdr.index_off);
	view->attrs = (void *)((char *)base + fixed.hdr.attrs_off);
	view->chains = (void *)((char *)base + fixed.hdr.chains_off);
	view->strings = (void *)((char *)base + fixed.hdr.strings_off);
	view->strings_len = fixed.hdr.strings_len;
	view->seed[0] = fixed.hdr.seed;
	view->seed[1] = fixed.hdr.seed2;
	view->n_entries = fixed.hdr.n_entries;
	view->n_buckets = fixed.hdr.n_buckets;
	view->max_probe = fixed.hdr.max_probe;
	return 0;
}

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
		if (memcmp(&word, wanted + at, in_word(len, at)))
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
	seq = load32(&cell->seq);
	if (seq & 1)
		return false;
	id = READ_ONCE(cell->id);
	mode = READ_ONCE(cell->mode);
	uid = READ_ONCE(cell->uid);
	gid = READ_ONCE(cell->gid);
	stamp = READ_ONCE(cell->stamp);
	copied();
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
		copy->same_aux = len == copy->aux_len &&
				 string_is(view, copy->aux_off, copy->expect,
					   len);
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
	*seq = load32(&entry->seq);
	if (*seq & 1)
		return GLANCE_TORN;
	copy->number = number;
	copy_fields(entry, copy);
	result = complete(view, wanted, copy);
	/* cell and strings are this object's as long as the entry stands */
	copied();
	return READ_ONCE(entry->seq) == *seq ? result : GLANCE_TORN;
}

/* 0: found, 1: look further, or an error */
static int probe(const struct mapdev_view *view, const u32 *at,
		 const struct wanted *wanted, struct mapdev_copy *copy)
{
	u32 slot, seq, tries;

	for (tries = 0; tries < MAPDEV_RETRIES; tries++) {
		slot = load32(at);
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
			if (load32(at) == slot &&
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
	bucket = (u32)hash(view->seed, parent, name, len) & mask;
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
		entry = load32(&chain->entry);
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
	       load64(&view->chains[cell].id) == id;
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
	id = load64(&chain->id);
	if (id >= at->bound || id <= at->dir)
		return STEP_LOST;
	/* what was delivered before is only passed */
	skipped = id >= at->last;
	if (!skipped && (mapdev_by_id(view, id, cell, copy) ||
			 copy->parent != at->dir))
		return STEP_LOST;
	next = load32(&chain->next);
	copied();
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
	at->next = load32(&chain->head);
	copied();
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

/**
 * mapdev_set_attr() - write mode and owner of an object
 * @view: the map
 * @id: the object's id
 * @cell: its cell
 * @attr: what to write; seq and id are not used
 *
 * Callers exclude each other. A cell that was used anew in this moment gets
 * the old id, and so does not count for its new owner.
 *
 * Return: 0, or -ESTALE when the object is gone.
 */
int mapdev_set_attr(const struct mapdev_view *view, u64 id, u32 cell,
		    const struct mapdev_attr *attr)
{
	struct mapdev_attr *to;
	u32 seq;

	if (!mapdev_owns_cell(view, id, cell))
		return -ESTALE;
	to = &view->attrs[cell];
	seq = READ_ONCE(to->seq) | 1;
	WRITE_ONCE(to->seq, seq);
	/* whoever sees what follows sees the odd number; with copied() */
	smp_wmb();
	WRITE_ONCE(to->mode, attr->mode);
	WRITE_ONCE(to->id, id);
	WRITE_ONCE(to->uid, attr->uid);
	WRITE_ONCE(to->gid, attr->gid);
	WRITE_ONCE(to->stamp, attr->stamp);
	/* pairs with load32() of every reader */
	smp_store_release(&to->seq, seq + 1);
	return 0;
}

/**
 * mapdev_carry() - take attributes from a map into the one that replaces it
 * @from: the old map
 * @to: the new one, in which an object has the same id and cell
 * @first: the first cell
 * @count: number of cells
 *
 * Callers exclude each other, and mapdev_set_attr().
 */
void mapdev_carry(const struct mapdev_view *from, const struct mapdev_view *to,
		  u32 first, u32 count)
{
	const struct mapdev_attr *cell;
	struct mapdev_attr attr;
	u64 id;

	for (; count && first < from->n_entries; count--, first++) {
		cell = &from->attrs[first];
		id = READ_ONCE(cell->id);
		if (!mapdev_owns_cell(from, id, first))
			continue;
		attr.mode = READ_ONCE(cell->mode);
		attr.uid = READ_ONCE(cell->uid);
		attr.gid = READ_ONCE(cell->gid);
		attr.stamp = READ_ONCE(cell->stamp);
		/* one that the new map has no more is no loss */
		mapdev_set_attr(to, id, first, &attr);
	}
}
