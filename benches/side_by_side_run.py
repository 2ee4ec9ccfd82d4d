"""One run of one device manager, as process 1 of namespaces that `side_by_side.py` made for it.

The manager sees /sys read-only, a /dev and a /run of its own, a network with `lo` alone, and the
uevents that are injected here. Prints what was measured as JSON.
"""

import ctypes
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

from side_by_side_wire import LIMIT_SECONDS, Device, Wire, harness_floor, now, read_devices, storm_devices

PR_CAPBSET_DROP = 24
# no module may be loaded, no clock set, no hardware touched, whatever a rule says
DROPPED = {"CAP_SYS_MODULE": 16, "CAP_SYS_RAWIO": 17, "CAP_SYS_BOOT": 22, "CAP_SYS_TIME": 25}
LATENCY_EVENTS = 200
# systemd-udevd ends workers that had nothing to do for 3 s
IDLE_SECONDS = 5
NOTIFY = "/run/notify"
# of the interfaces that are added: so many take part whenever costs are compared
SAME_INTERFACES = 100
SAME_ROUNDS = 5


def mount(*words):
    subprocess.run(["mount", *words], check=True)


def take_rules(rules):
    """Leaves none of the machine's rules, udev's own, or all; never what starts systemd-sysctl."""
    own = subprocess.run(["dpkg", "-L", "udev"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    own = {os.path.basename(path) for path in own}
    for folder in filter(os.path.isdir, ["/usr/lib/udev/rules.d", "/etc/udev/rules.d"]):
        texts = {path.name: path.read_bytes() for path in Path(folder).glob("*.rules")}
        mount("-t", "tmpfs", "rules", folder)
        for name, text in texts.items():
            if rules == "none" or (rules == "udev" and name not in own):
                continue
            lines = [line for line in text.splitlines(True) if b"/systemd-sysctl " not in line]
            Path(folder, name).write_bytes(b"".join(lines))
        mount("-o", "remount,ro", folder)


def add_interfaces(count):
    """Pairs of veth in the network of this run."""
    lines = "".join(f"link add va{n} type veth peer name vb{n}\n" for n in range(count // 2))
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


def seal(rules):
    """Nothing that the manager does may reach the machine."""
    if rules != "whole":
        take_rules(rules)
    mount("-o", "remount,bind,ro", "/")
    mount("-t", "tmpfs", "-o", "mode=755", "run", "/run")
    mount("-t", "tmpfs", "-o", "mode=755", "dev", "/dev")
    mount("-t", "sysfs", "-o", "ro", "sysfs", "/sys")
    mount("--bind", "/proc/sys", "/proc/sys")
    mount("-o", "remount,bind,ro", "/proc/sys")
    for name, minor in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)]:
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o600, os.makedev(1, minor))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for name, number in DROPPED.items():
        if prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            sys.exit(f"cannot drop {name}: {os.strerror(ctypes.get_errno())}")


class Manager:
    def __init__(self, command):
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(NOTIFY)
        self.notify.settimeout(LIMIT_SECONDS)
        self.log = open("/run/manager.log", "wb")
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": NOTIFY}
        begun = now()
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            while b"READY=1" not in self.notify.recv(4096).split(b"\n"):
                pass
        except TimeoutError:
            sys.exit(f"{command[0]} is not ready:\n" + Path("/run/manager.log").read_text())
        self.start_seconds = now() - begun

    def pids(self):
        """The manager and all its descendants."""
        parents = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                text = Path("/proc", entry, "stat").read_text()
                parents[int(entry)] = int(text.rpartition(")")[2].split()[1])
            except OSError:
                continue
        family = {self.process.pid}
        while True:
            more = {pid for pid, parent in parents.items() if parent in family} - family
            if not more:
                return family
            family |= more

    def cpu_seconds(self):
        """Of all its threads and processes, and of those that it has waited for."""
        total = 0.0
        for pid in self.pids():
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    total += int((task / "schedstat").read_text().split()[0]) / 1e9
            except OSError:
                continue
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return total + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def memory(self, field="Pss:"):
        """KiB of all its processes; pages that they share are counted once."""
        total = 0
        for pid in self.pids():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next((int(l.split()[1]) for l in text.splitlines() if l.startswith(field)), 0)
        return total

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            return None


def start_bus():
    Path("/run/bus.conf").write_text(
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"\n'
        ' "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
        "<busconfig><type>system</type><listen>unix:path=/run/bus</listen>"
        '<policy context="default"><allow user="*"/><allow own="*"/>'
        '<allow send_destination="*" eavesdrop="false"/></policy></busconfig>\n')
    subprocess.run(
        ["dbus-daemon", "--config-file=/run/bus.conf", "--fork", "--nopidfile"], check=True)


def count_syscalls(manager, wire, devices):
    """System calls of a small storm, by name; strace slows it down, so no times."""
    # workers that exist already would not be followed
    time.sleep(IDLE_SECONDS)
    command = ["strace", "-f", "-c", "-U", "calls,name", "-o", "/run/strace"]
    tracer = subprocess.Popen([*command, "-p", str(manager.process.pid)], stderr=subprocess.PIPE)
    tracer.stderr.readline()  # it is attached
    storm = wire.storm("change", devices)
    tracer.send_signal(signal.SIGINT)
    tracer.wait(LIMIT_SECONDS)
    calls = {}
    for line in Path("/run/strace").read_text().splitlines():
        words = line.split()
        if len(words) == 2 and words[0].isdigit() and words[1] != "total":
            calls[words[1]] = int(words[0]) / len(devices)
    by_name = sorted(calls.items(), key=lambda call: -call[1])
    return {
        "syscalls_per_event": sum(calls.values()),
        "by_name": {name: round(count, 2) for name, count in by_name},
        "lost": storm["lost"],
    }


def spread(devices, count):
    return [devices[n % len(devices)] for n in range(count)]


def measure(plan):
    add_interfaces(plan["veth"])
    seal(plan["rules"])
    devices = read_devices()
    storming = storm_devices(devices)
    for device in filter(Device.is_harmless, devices):
        device.make_node()
    with_node = [device for device in storming if device.is_harmless()]
    if plan["bus"]:
        start_bus()
    floor = harness_floor(LATENCY_EVENTS) if not plan["syscalls"] else []
    wire = Wire()
    manager = Manager(plan["command"])
    if plan["syscalls"]:
        return count_syscalls(manager, wire, spread(storming, plan["events"]))

    result = {"start_seconds": manager.start_seconds, "floor": floor}
    cpu = manager.cpu_seconds()
    result["coldplug"] = wire.storm("add", devices)
    result["coldplug_cpu_seconds"] = manager.cpu_seconds() - cpu
    if plan["veth"]:
        # one and the same mix of devices, however many there are beside them
        added = [device for device in devices if device.is_added()]
        same = [device for device in devices if not device.is_added()] + added[:SAME_INTERFACES]
        cpu = manager.cpu_seconds()
        result["same"] = wire.storm("add", spread(same, SAME_ROUNDS * len(same)))
        result["same_cpu_seconds"] = manager.cpu_seconds() - cpu
    cpu = manager.cpu_seconds()
    result["storm"] = wire.storm("change", spread(storming, plan["events"]))
    result["storm_devices"] = len(storming)
    time.sleep(0.1)
    result["storm_cpu_seconds"] = manager.cpu_seconds() - cpu

    result["latency"] = []
    for device in spread(with_node, LATENCY_EVENTS):
        time.sleep(0.005)
        result["latency"].append(wire.single(device))
    time.sleep(IDLE_SECONDS)
    result["idle_kib"] = manager.memory()
    result["latency_after_idle"] = wire.single(with_node[0])

    # a storm of its own for memory, since to look costs time
    peak = [0, 0]
    def look():
        if now() - peak[1] > 0.02:
            peak[:] = [max(peak[0], manager.memory()), now()]
    result["storm_watched"] = wire.storm("change", spread(storming, plan["events"]), look)
    result["peak_kib"] = peak[0]
    result["exit"] = manager.stop()
    manager.log.close()
    result["log_lines"] = Path("/run/manager.log").read_text(errors="replace").splitlines()[-5:]
    return result


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
