// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's reader of the map, in a process of its own beside the daemon's
 * writer: looks up what map_stress.rs writes (`state` there says what is
 * whole), on standard input, and prints what it met.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "../kmod-shim/map.c"
#include "../kmod-shim/map_attr.c"
#include "../kmod-shim/map_view.c"

#define NAMES	64U
#define FOLDERS	7U

static unsigned long found, busy, torn, absent, torn_owner, missed;

static bool is_whole(u32 name, const struct mapdev_copy *copy)
{
	u32 minor = copy->rdev & 0xfffff, major = copy->rdev >> 20;
	char target[MAPDEV_AUX_MAX + 1];
	u32 of, len;

	if (S_ISLNK(copy->mode)) {
		if (sscanf(copy->aux, "%u:%u:", &of, &minor) != 2 ||
		    minor >> 12 != name)
			return false;
		len = snprintf(target, sizeof(target), "%u:%u:", of, minor);
		memset(target + len, 'x', minor % 4096 % 40);
		target[len + minor % 4096 % 40] = 0;
		return of == name && minor % 4096 % 3 == 2 &&
		       !strcmp(copy->aux, target) &&
		       copy->aux_len == strlen(target);
	}
	if (minor >> 12 != name)
		return false;
	if (S_ISCHR(copy->mode))
		return minor % 4096 % 3 == 0 && major == 10;
	return S_ISBLK(copy->mode) && minor % 4096 % 3 == 1 && major == 11;
}

static int look(const struct mapdev_view *view, u64 dir, const char *name,
		struct mapdev_copy *copy)
{
	int ret = mapdev_find(view, dir, name, strlen(name), copy);

	if (!ret)
		found++;
	else if (ret == -EAGAIN)
		busy++;
	else
		absent++;
	return ret;
}

/* each name that stays is delivered just once */
static void list(const struct mapdev_view *view, u64 dir, u32 cell, u32 folder)
{
	char name[MAPDEV_NAME_MAX + 1];
	struct mapdev_copy copy = { .name = name, .no_attr = true };
	struct mapdev_cursor at = { .dir = dir, .dir_cell = cell, .last = ~0ULL };
	unsigned int seen[NAMES] = {}, n;
	int ret;

	while ((ret = mapdev_list_next(view, &at, &copy)) == 1 ||
	       ret == -EAGAIN) {
		name[copy.name_len] = 0;
		if (ret == 1 && sscanf(name, "name%u", &n) == 1 && n < NAMES)
			seen[n]++;
	}
	for (n = folder; n < NAMES; n += FOLDERS)
		missed += seen[n] != 1;
}

int main(int argc, char **argv)
{
	unsigned long n, lookups = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	char names[NAMES][16], folder[16], aux[MAPDEV_AUX_MAX + 1];
	struct mapdev_copy copy = { .aux = aux }, dirs[FOLDERS] = {};
	struct mapdev_view view;
	struct stat stat;
	void *base;

	if (fstat(0, &stat))
		return 2;
	base = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, 0, 0);
	if (base == MAP_FAILED || mapdev_view_init(&view, base, stat.st_size))
		return 3;
	for (n = 0; n < FOLDERS; n++) {
		snprintf(folder, sizeof(folder), "dir%lu", n);
		if (mapdev_find(&view, MAPDEV_ID_ROOT, folder, strlen(folder),
				&dirs[n]))
			return 4;
	}
	for (n = 0; n < NAMES; n++)
		snprintf(names[n], sizeof(names[n]), "name%lu", n);
	for (n = 0; n < lookups; n++) {
		u32 name = n % NAMES;

		if (!look(&view, dirs[name % FOLDERS].id, names[name], &copy))
			torn += !is_whole(name, &copy);
		if (n % 2 == 0 &&
		    !look(&view, MAPDEV_ID_ROOT, "owner", &copy))
			torn_owner += copy.uid != copy.gid;
		if (n % 16 == 0 &&
		    !mapdev_find(&view, MAPDEV_ID_ROOT, "comes", 5, &copy))
			torn += (copy.rdev & 0xfffff) != 77;
		if (n % 1000 == 0)
			list(&view, dirs[3].id, dirs[3].cell, 3);
	}
	printf("%lu %lu %lu %lu %lu %lu\n", found, busy, torn, absent,
	       torn_owner, missed);
	return 0;
}
