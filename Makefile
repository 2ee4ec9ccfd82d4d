# mapdev: `make run` shows it at work, `make check` is everything that CI runs.

prefix  ?= /usr
DESTDIR ?=
SECONDS ?= 60
CARGO   ?= cargo
GEN     := target/generated

.PHONY: help run vm check check-shim check-kasan check-newest bench fuzz deb man generated install advisories clean

help:
	@sed -n 's/^#: //p' Makefile

#: make run         start mapdevd in shadow mode, with a bus of its own, and watch it decide
run:
	@scripts/run.sh

#: make vm          a small virtual machine whose /dev is the map, with a shell on this terminal
vm:
	@scripts/vm.sh

#: make check       all that CI runs: format, lints, docs, tests, licences, package, virtual machine
check:
	@scripts/check.sh

#: make check-shim  the kernel module for long: stresses of 60 s, 2 million hostile operations, 100 kills
check-shim:
	SHIM_SECONDS=60 SHIM_OPERATIONS=2000000 SHIM_KILLS=100 VM_SECONDS=7200 tests/vm/shim.sh

#: make check-kasan the kernel module under KASAN, lockdep, UBSAN and without memory; builds a kernel at first
check-kasan:
	@scripts/kasan.sh

#: make check-newest the kernel module compiled for the newest kernel of Debian
check-newest:
	@scripts/newest.sh

#: make bench       criterion benches, side by side with kmod, then with systemd-udevd
bench:
	scripts/need.sh kmod libkmod-dev gcc udev
	scripts/kernels.sh
	$(CARGO) bench --locked
	$(CARGO) build --release --locked --bin mapdevd
	benches/side_by_side.py

#: make fuzz        each fuzz target for SECONDS seconds (the corpus grows in fuzz/corpus)
fuzz:
	@scripts/fuzz.sh $(SECONDS)

#: make deb         the Debian packages, the kernel module's for DKMS too, in target/debian
deb: generated
	@scripts/deb.sh
	@scripts/dkms-deb.sh

#: make man         man pages and shell completions, in target/generated
man: generated

generated:
	@scripts/generate.sh $(GEN)

#: make install     into DESTDIR (prefix=/usr); units are neither enabled nor started
install: generated
	install -D -m 0755 -t $(DESTDIR)$(prefix)/sbin target/release/mapdevd
	install -D -m 0755 -t $(DESTDIR)$(prefix)/bin target/release/mapdevctl
	install -D -m 0755 -t $(DESTDIR)$(prefix)/lib/mapdev target/release/mapdev-probe
	install -D -m 0644 -t $(DESTDIR)$(prefix)/lib/systemd/system units/mapdevd.service units/mapdevd-kernel.socket
	install -D -m 0644 -t $(DESTDIR)$(prefix)/share/dbus-1/system.d dbus/org.mapdev1.conf
	install -D -m 0644 -t $(DESTDIR)$(prefix)/share/dbus-1/system-services dbus/org.mapdev1.service
	install -D -m 0644 -t $(DESTDIR)$(prefix)/share/polkit-1/actions dbus/org.mapdev1.policy
	install -D -m 0644 -t $(DESTDIR)$(prefix)/share/man/man8 $(GEN)/man/*.8
	install -D -m 0644 -t $(DESTDIR)$(prefix)/share/man/man5 packaging/man/*.5
	install -D -m 0644 -t $(DESTDIR)$(prefix)/share/man/man8 packaging/man/*.8
	install -D -m 0644 $(GEN)/mapdevctl.bash $(DESTDIR)$(prefix)/share/bash-completion/completions/mapdevctl
	install -D -m 0644 $(GEN)/mapdevctl.zsh $(DESTDIR)$(prefix)/share/zsh/vendor-completions/_mapdevctl
	install -D -m 0644 $(GEN)/mapdevctl.fish $(DESTDIR)$(prefix)/share/fish/vendor_completions.d/mapdevctl.fish
	install -D -m 0644 -t $(DESTDIR)/etc/mapdev packaging/mapdev.toml packaging/initramfs/initramfs.conf
	install -D -m 0755 packaging/initramfs/hook $(DESTDIR)$(prefix)/share/initramfs-tools/hooks/mapdev
	install -D -m 0755 -t $(DESTDIR)$(prefix)/share/mapdev/initramfs packaging/initramfs/init-top packaging/initramfs/init-bottom
	install -d -m 0755 $(DESTDIR)$(prefix)/lib/mapdev/policy.d

#: make advisories  known vulnerabilities of the crates in use (fetches RustSec's database)
advisories:
	@scripts/tools.sh cargo-deny
	target/tools/bin/cargo-deny --locked check advisories

#: make clean       remove what was built (the virtual machine's base is in target/vm)
clean:
	$(CARGO) clean
