"""The uevents of the devices of /sys: injected as the kernel's, and heard when a manager is done."""

import os
import re
import socket
import stat
import sys
import time
from pathlib import Path

NETLINK_KOBJECT_UEVENT = 15
KERNEL, ANNOUNCED = 1, 2  # multicast groups
SO_RCVBUFFORCE = 33
STORM_DEVICES = 128
LIMIT_SECONDS = 15
NUMBER = re.compile(rb"\0BENCH=(\d+)\0")

now = time.perf_counter


class Device:
    def __init__(self, folder, subsystem, lines):
        self.devpath = folder.removeprefix("/sys")
        self.subsystem = subsystem
        self.lines = [line for line in lines if "=" in line]
        pairs = dict(line.split("=", 1) for line in self.lines)
        self.devname = pairs.get("DEVNAME")
        self.number = (int(pairs.get("MAJOR", 0)), int(pairs.get("MINOR", 0)))

    def is_added(self):
        """One of the interfaces with which the cost of an event is compared."""
        return self.subsystem == "net" and re.fullmatch(r"v[ab]\d+", os.path.basename(self.devpath)) is not None

    def is_harmless(self):
        """May have a node here: to open it, as rules do with disks, changes nothing."""
        if self.devname is None:
            return False
        if self.subsystem == "block":
            return self.devname.startswith(("loop", "ram"))
        return self.subsystem in ("mem", "tty", "vc")

    def make_node(self):
        node = Path("/dev", self.devname)
        if not node.exists():
            node.parent.mkdir(parents=True, exist_ok=True)
            kind = stat.S_IFBLK if self.subsystem == "block" else stat.S_IFCHR
            os.mknod(node, kind | 0o600, os.makedev(*self.number))

    def uevent(self, action, number):
        """A netlink message that has the kernel say this in its own name (`uevent_net_rcv()`)."""
        head = [f"{action}@{self.devpath}", f"ACTION={action}", f"DEVPATH={self.devpath}"]
        words = [*head, f"SUBSYSTEM={self.subsystem}", *self.lines, f"BENCH={number}"]
        body = "".join(word + "\0" for word in words).encode("utf-8", "surrogateescape")
        header = (16 + len(body)).to_bytes(4, sys.byteorder) + (16).to_bytes(2, sys.byteorder)
        return header + (1).to_bytes(2, sys.byteorder) + bytes(8) + body


def read_devices():
    """Every device of /sys, parents first."""
    found = []
    for folder, folders, files in os.walk("/sys/devices"):
        folders.sort()
        link = os.path.join(folder, "subsystem")
        if "uevent" in files and os.path.islink(link):
            try:
                text = Path(folder, "uevent").read_text(errors="surrogateescape")
            except OSError:
                continue
            found.append(Device(folder, os.path.basename(os.readlink(link)), text.splitlines()))
    return found


def storm_devices(devices):
    """Those with a node and the network device first, then others up to the wanted number."""
    first = [d for d in devices if d.is_harmless() or d.subsystem == "net"]
    rest = [d for d in devices if d.devname is None and d.subsystem != "net"]
    return (first + rest)[:STORM_DEVICES]


def netlink(group):
    wire = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)
    wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 512 << 20)
    wire.bind((0, group))
    return wire


class Wire:
    """Says what the kernel would, and hears what the manager announces."""

    def __init__(self):
        self.sender = netlink(0)
        self.listener = netlink(ANNOUNCED)
        self.count = 0

    def prepare(self, action, devices):
        first = self.count
        self.count += len(devices)
        return [device.uevent(action, first + n) for n, device in enumerate(devices)]

    def flush(self):
        self.listener.setblocking(False)
        try:
            while True:
                self.listener.recv(16384)
        except BlockingIOError:
            pass

    def storm(self, action, devices, each=None):
        """Injects one event for each, and waits until all are announced.

        `each` is called now and then. Sleeps between looks, so as to take no processor from the
        manager; times are exact to a millisecond.
        """
        first = self.count
        messages = self.prepare(action, devices)
        self.flush()
        self.listener.setblocking(False)
        send, recv, heard = self.sender.sendto, self.listener.recv, []
        begun = now()
        for at, message in enumerate(messages):
            send(message, (0, 0))
            if each and at % 500 == 0:
                each()
        injected = now()
        last = injected
        while len(heard) < len(messages) and now() - last < LIMIT_SECONDS:
            try:
                while True:
                    heard.append(recv(16384))
                    last = now()
            except BlockingIOError:
                time.sleep(0.001)
                if each:
                    each()
        return {
            "seconds": last - begun,
            "inject_seconds": injected - begun,
            **self.check(first, devices, heard),
        }

    def check(self, first, devices, heard):
        """What was lost, and what overtook an older event of its own device."""
        newest, seen, overtaken, foreign = {}, set(), 0, 0
        for message in heard:
            match = NUMBER.search(message)
            if not match:
                foreign += 1
                continue
            number = int(match.group(1))
            seen.add(number)
            device = id(devices[number - first])
            overtaken += newest.get(device, -1) >= number
            newest[device] = max(newest.get(device, -1), number)
        return {
            "events": len(devices),
            "lost": len(devices) - len(seen),
            "out_of_order": overtaken,
            "foreign": foreign,
        }

    def single(self, device):
        """Seconds from one event to its announcement."""
        message = self.prepare("change", [device])[0]
        self.flush()
        self.listener.settimeout(LIMIT_SECONDS)
        begun = now()
        self.sender.sendto(message, (0, 0))
        self.listener.recv(16384)
        return now() - begun


def harness_floor(count):
    """Seconds from an event to its hearing with no manager between: what Python and kernel take."""
    wire, times = Wire(), []
    wire.listener.close()
    wire.listener = netlink(KERNEL)
    device = Device("/sys/devices/none", "none", [])
    for _ in range(count):
        times.append(wire.single(device))
        time.sleep(0.005)
    return times
