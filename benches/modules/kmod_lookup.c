/* Times libkmod's look-up of modaliases in one process, as systemd-udevd does it: with its indexes
 * loaded before. Arguments: folder of the release, empty folder of configuration, file of modaliases,
 * rounds. Prints the nanoseconds of one look-up, and how many modules all of them found. */
#include <libkmod.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	const char *config[] = { argv[2], NULL };
	struct kmod_ctx *ctx = kmod_new(argv[1], config);
	FILE *file = fopen(argv[3], "r");
	int rounds = atoi(argv[4]);
	char **all = NULL, line[4096];
	size_t count = 0;
	unsigned long found = 0;

	if (!ctx || !file || kmod_load_resources(ctx) < 0)
		return 1;
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		all = realloc(all, (count + 1) * sizeof(*all));
		all[count++] = strdup(line);
	}
	struct timespec start, end;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int round = 0; round < rounds; round++)
		for (size_t i = 0; i < count; i++) {
			struct kmod_list *list = NULL, *item;

			if (kmod_module_new_from_lookup(ctx, all[i], &list) < 0)
				continue;
			kmod_list_foreach(item, list)
				found++;
			kmod_module_unref_list(list);
		}
	clock_gettime(CLOCK_MONOTONIC, &end);
	double spent = (end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec);
	printf("%.1f %lu\n", spent / rounds / count, found / rounds);
	kmod_unref(ctx);
	return 0;
}
