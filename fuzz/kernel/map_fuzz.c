// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's reader of the map, in userspace under libFuzzer, ASan and UBSan.
 *
 * A sound map is made in memory of just its size; the input is a list of words
 * that are written into it before and between the calls.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../kmod-shim/map.c"
#include "../../kmod-shim/map_attr.c"
#include "../../kmod-shim/map_view.c"

#define N_ENTRIES	16U
#define N_BUCKETS	32U
#define STRINGS		512U

#define ENTRIES_OFF	MAPDEV_HDR_LEN
#define INDEX_OFF	(ENTRIES_OFF + N_ENTRIES * MAPDEV_ENTRY_SIZE)
#define ATTRS_OFF	(INDEX_OFF + N_BUCKETS * 4)
#define CHAINS_OFF	(ATTRS_OFF + N_ENTRIES * MAPDEV_ATTR_SIZE)
#define STRINGS_OFF	(CHAINS_OFF + N_ENTRIES * MAPDEV_CHAIN_SIZE)
#define LEN		(STRINGS_OFF + STRINGS)

#define CHECK(what) do {						\
	if (!(what)) {							\
		fprintf(stderr, "wrong: %s, line %d\n", #what, __LINE__); \
		abort();						\
	}								\
} while (0)

struct patch {
	u16 at;
	u16 skip;	/* calls before it is written */
	u32 value;
} __attribute__((packed));

/* the input that is not used up */
struct input {
	const struct patch *next;
	size_t left;
	unsigned int waits;
};

struct object {
	const char *name;
	const char *aux;
	u32 parent;	/* its number */
	u32 mode;
};

static const struct object objects[] = {
	{ "", NULL, 0, S_IFDIR | 0755 },
	{ "null", NULL, 0, S_IFCHR | 0666 },
	{ "net", NULL, 0, S_IFDIR | 0755 },
	{ "tun", NULL, 2, S_IFCHR | 0666 },
	{ "disk", NULL, 0, S_IFDIR | 0755 },
	{ "by-id", NULL, 4, S_IFDIR | 0755 },
	{ "a-rather-long-name-of-a-disk", "../../sda", 5, S_IFLNK | 0777 },
	{ "sda", NULL, 0, S_IFBLK | 0660 },
	{ "zram0", "zram", 0, S_IFBLK | 0660 },
};

#define N_OBJECTS	(sizeof(objects) / sizeof(objects[0]))

static void put_string(char *base, u32 *end, const char *text, u32 *off,
		       u16 *len)
{
	*len = text ? strlen(text) : 0;
	*off = *end;
	memcpy(base + STRINGS_OFF + *end, text ? text : "", *len);
	*end += (*len + 7U) & ~7U;
}

static void build(char *base)
{
	struct mapdev_header *hdr = (void *)base;
	struct mapdev_entry *entries = (void *)(base + ENTRIES_OFF);
	struct mapdev_chain *chains = (void *)(base + CHAINS_OFF);
	u32 *index = (void *)(base + INDEX_OFF);
	u32 n, bucket, end = 0;

	memset(base, 0, LEN);
	*hdr = (struct mapdev_header) {
		.magic = MAPDEV_MAGIC, .version = MAPDEV_VERSION,
		.hdr_len = MAPDEV_HDR_LEN, .total_len = LEN,
		.n_entries = N_ENTRIES, .entry_size = MAPDEV_ENTRY_SIZE,
		.entries_off = ENTRIES_OFF, .n_buckets = N_BUCKETS,
		.max_probe = N_BUCKETS, .index_off = INDEX_OFF,
		.attrs_off = ATTRS_OFF, .strings_off = STRINGS_OFF,
		.strings_len = STRINGS, .seed = 1, .chains_off = CHAINS_OFF,
		.seed2 = 2, .id_space = 3, .attr_size = MAPDEV_ATTR_SIZE,
		.chain_size = MAPDEV_CHAIN_SIZE, .gen = 1,
	};
	for (n = 0; n < N_OBJECTS; n++) {
		const struct object *object = &objects[n];
		struct mapdev_entry *entry = &entries[n];

		entry->id = n + 1;
		entry->parent = n ? object->parent + 1 : 0;
		entry->mode = object->mode;
		entry->cell = n;
		put_string(base, &end, object->name, &entry->name_off,
			   &entry->name_len);
		put_string(base, &end, object->aux, &entry->aux_off,
			   &entry->aux_len);
		chains[n].id = n + 1;
		chains[n].entry = n + 1;
		if (!n)
			continue;
		chains[n].next = chains[object->parent].head;
		chains[object->parent].head = n + 1;
		bucket = (u32)mapdev_hash((u64[2]) { 1, 2 }, entry->parent,
				   object->name, entry->name_len);
		while (index[bucket & (N_BUCKETS - 1)])
			bucket++;
		index[bucket & (N_BUCKETS - 1)] = n + 1;
	}
}

/* writes what is due before the next call */
static void patch(char *base, struct input *in)
{
	while (in->left && in->waits >= in->next->skip) {
		memcpy(base + in->next->at % (LEN / 4) * 4, &in->next->value, 4);
		in->next++;
		in->left--;
		in->waits = 0;
	}
	in->waits++;
}

static void check_copy(const struct mapdev_copy *copy)
{
	CHECK(!copy->name || strnlen(copy->name, MAPDEV_NAME_MAX + 1) <= MAPDEV_NAME_MAX);
	CHECK(!copy->aux || strnlen(copy->aux, MAPDEV_AUX_MAX + 1) <= MAPDEV_AUX_MAX);
	CHECK(copy->id);
}

static void list(struct mapdev_view *view, u64 dir, u32 cell, char *base,
		 struct input *in, bool sound)
{
	struct mapdev_cursor at = { .dir = dir, .dir_cell = cell, .last = ~0ULL };
	static char name[MAPDEV_NAME_MAX + 1];
	struct mapdev_copy copy = { .name = name };
	u64 last = ~0ULL;
	unsigned int calls = 0;
	int ret;

	while ((ret = mapdev_list_next(view, &at, &copy)) == 1 ||
	       ret == -EAGAIN) {
		/* one call for each child, and few that give none */
		CHECK(++calls < 4 * view->n_entries + 64);
		if (ret == 1) {
			check_copy(&copy);
			CHECK(copy.id < last && copy.id > dir);
			last = copy.id;
		}
		patch(base, in);
	}
	CHECK(ret == 0 || ret == -ENOENT || ret == -EIO);
	CHECK(!sound || ret == 0);
}

static void use(struct mapdev_view *view, char *base, struct input *in)
{
	static char name[MAPDEV_NAME_MAX + 1], aux[MAPDEV_AUX_MAX + 1];
	struct mapdev_attr attr = { .mode = 0600, .uid = 1 };
	struct mapdev_copy copy;
	u32 n;
	int ret;

	for (n = 0; n < N_OBJECTS; n++) {
		const char *wanted = objects[n].name;

		copy = (struct mapdev_copy) { .name = name, .aux = aux, .expect = "../../sda" };
		patch(base, in);
		ret = mapdev_find(view, objects[n].parent + 1, wanted,
				  strlen(wanted), &copy);
		if (!ret)
			check_copy(&copy);
		patch(base, in);
		ret = mapdev_by_id(view, n + 1, n, &copy);
		if (!ret)
			check_copy(&copy);
		CHECK(ret == 0 || ret == -ENOENT || ret == -EAGAIN);
		patch(base, in);
		mapdev_set_attr(view, n + 1, n, &attr);
	}
	list(view, 1, 0, base, in, false);
	list(view, 5, 4, base, in, false);
	mapdev_carry(view, view, 0, ~0U);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct input in = { (const void *)data, size / sizeof(struct patch), 0 };
	struct mapdev_copy copy = {};
	struct mapdev_view view;
	char *base = aligned_alloc(MAPDEV_ALIGN, LEN);

	CHECK(base);
	build(base);
	/* the map as such is sound, or nothing is shown by what follows */
	CHECK(!mapdev_view_init(&view, base, LEN));
	CHECK(!mapdev_find(&view, 3, "tun", 3, &copy) && copy.id == 4);
	CHECK(mapdev_find(&view, 3, "tap", 3, &copy) == -ENOENT);
	list(&view, 1, 0, base, &(struct input) {}, true);
	use(&view, base, &in);
	/* a header that is broken is refused, or stays within the memory */
	if (!mapdev_view_init(&view, base, LEN))
		use(&view, base, &in);
	free(base);
	return 0;
}
