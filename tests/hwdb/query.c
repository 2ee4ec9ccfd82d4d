// Answers each line of standard input, a modalias, with what libudev's udev_hwdb says: lines KEY=VALUE,
// then a line "--". libudev.so.1 has no header without its development package, and needs none here.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(void) {
	void *lib = dlopen("libudev.so.1", RTLD_NOW);
	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	void *(*new)(void) = dlsym(lib, "udev_new");
	void *(*hwdb_new)(void *) = dlsym(lib, "udev_hwdb_new");
	void *(*list)(void *, const char *, unsigned) =
		dlsym(lib, "udev_hwdb_get_properties_list_entry");
	void *(*next)(void *) = dlsym(lib, "udev_list_entry_get_next");
	const char *(*name)(void *) = dlsym(lib, "udev_list_entry_get_name");
	const char *(*value)(void *) = dlsym(lib, "udev_list_entry_get_value");
	void *hwdb = hwdb_new(new());
	if (!hwdb)
		return 2;
	static char line[8192];
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		for (void *entry = list(hwdb, line, 0); entry; entry = next(entry))
			printf("%s=%s\n", name(entry), value(entry));
		printf("--\n");
	}
	return 0;
}
