// SPDX-License-Identifier: GPL-2.0
/*
 * The header of a map, checked once: after that all areas lie within the
 * memory and apart from each other, whatever is written there later.
 */
#include "map.h"

#define N_AREAS		6

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
	       hdr->max_probe <= buckets && hdr->id_space;
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
	view->id_space = fixed.hdr.id_space;
	view->n_entries = fixed.hdr.n_entries;
	view->n_buckets = fixed.hdr.n_buckets;
	view->max_probe = fixed.hdr.max_probe;
	return 0;
}
