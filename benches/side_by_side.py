#!/usr/bin/env python3
"""mapdevd and systemd-udevd side by side: coldplug, a storm, latency, memory, system calls.

The managers take turns, each run in namespaces of its own (`side_by_side_run.py`), so that a
machine that is busy for a while is busy for all of them. Wants root. Nothing of the machine is
changed; its own device manager may run. Table on the terminal, all figures in
target/bench/side-by-side.json.

Both apply the rules of Debian's package udev, less the one that starts systemd-sysctl for each network
interface: that program costs more than everything else, and is measured for itself with `--rules whole`;
`--rules installed` takes the other packages' rules too, with the programs that they start. `--veth
100,1000` measures how the cost of an event grows with the machine: of a storm, and of `add` of one and
the same mix of devices, 100 of the interfaces among them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAPDEVD = HERE.parent / "target/release/mapdevd"
UDEVD = "/usr/lib/systemd/systemd-udevd"
JSON = HERE.parent / "target/bench/side-by-side.json"
RUN_SECONDS = 180
# a small storm under strace; times are not taken there
TRACED_EVENTS = 500

BUS = "unix:path=/run/bus"
OURS_ACTIVE = [str(MAPDEVD), "--mode", "active", "--bus"]
MANAGERS = {
    "mapdevd": {"command": [*OURS_ACTIVE, "none"]},
    "udevd": {"command": [UDEVD]},
    "mapdevd + bus": {"command": [*OURS_ACTIVE, BUS], "bus": True},
    "mapdevd, no rules": {"command": [*OURS_ACTIVE, "none"], "rules": "none"},
    "udevd, no rules": {"command": [UDEVD], "rules": "none"},
}
OURS, PEER = "mapdevd", "udevd"


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


READY = "exec to READY"
TRACED = "system calls an event"


def of_storms(word):
    return lambda run: run["storm"][word] + run["storm_watched"][word]


# name, unit, figure of one run
ROWS = [
    (READY, "ms", lambda run: run["start_seconds"] * 1e3),
    ("exec to all devices handled", "ms", lambda run: run["all_handled_seconds"] * 1e3),
    ("injected `add` of all devices", "ms", lambda run: run["coldplug"]["seconds"] * 1e3),
    ("coldplug: CPU an event", "us", lambda run: run["coldplug_cpu_seconds"] / run["coldplug"]["events"] * 1e6),
    ("coldplug: lost", "", lambda run: run["coldplug"]["lost"]),
    ("storm: wall", "ms", lambda run: run["storm"]["seconds"] * 1e3),
    ("storm: events a second", "/s", lambda run: run["storm"]["events"] / run["storm"]["seconds"]),
    ("storm: CPU an event", "us", lambda run: run["storm_cpu_seconds"] / run["storm"]["events"] * 1e6),
    ("storm: lost", "", of_storms("lost")),
    ("storm: out of order", "", of_storms("out_of_order")),
    ("storm: peak PSS", "MiB", lambda run: run["peak_kib"] / 1024),
    ("one event: p50", "us", lambda run: percentile(run["latency"], 0.50) * 1e6),
    ("one event: p99", "us", lambda run: percentile(run["latency"], 0.99) * 1e6),
    ("first event after 5 s", "us", lambda run: run["latency_after_idle"] * 1e6),
    ("PSS after storm and 5 s", "MiB", lambda run: run["idle_kib"] / 1024),
    (TRACED, "", lambda run: run["syscalls_per_event"]),
]


SAME = ("`add` of the same devices: CPU an event", lambda run: run["same_cpu_seconds"] / run["same"]["events"] * 1e6)


def run_once(manager, events, syscalls=False, veth=0):
    plan = {"bus": False, "veth": veth, **manager, "events": events, "syscalls": syscalls}
    command = ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, str(HERE / "side_by_side_run.py"), json.dumps(plan)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=RUN_SECONDS, check=True)
    result = json.loads(done.stdout)
    if not syscalls:
        # mapdevd reads sysfs before it is ready; udevd is told by somebody else
        told = 0 if manager["command"][0] == str(MAPDEVD) else result["coldplug"]["seconds"]
        result["all_handled_seconds"] = result["start_seconds"] + told
    return result


def summary(runs, figure):
    values = [figure(run) for run in runs]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summaries(runs, traced):
    """Row by row, of each manager: median, least, most; and how many times ours is the better."""
    rows = []
    for name, unit, figure in ROWS:
        source = traced if name == TRACED else runs
        figures = {who: summary(done, figure) for who, done in source.items() if done}
        ours, peer = (figures.get(who, {}).get("median") for who in (OURS, PEER))
        # READY alone compares nothing: ours has then handled every device, the peer none
        comparable = ours and peer and name != READY
        ratio = (ours / peer if unit == "/s" else peer / ours) if comparable else None
        rows.append({"figure": name, "unit": unit, "managers": figures, "ratio": ratio})
    return rows


def number(value):
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def print_table(rows, managers):
    widths = [max(24, len(who) + 2) for who in managers]
    columns = "".join(f"{who:>{width}}" for who, width in zip(managers, widths))
    print(f"\n{'median (least-most)':<37}{columns}{'ours better':>13}")
    for row in rows:
        line = f"{row['figure']:<32}{row['unit']:<5}"
        for who, width in zip(managers, widths):
            figure = row["managers"].get(who)
            text = "-"
            if figure:
                text = number(figure["median"])
                if figure["min"] != figure["max"]:
                    text += f" ({number(figure['min'])}-{number(figure['max'])})"
            line += f"{text:>{width}}"
        print(line + (f"{row['ratio']:>12.2f}x" if row["ratio"] else f"{'-':>13}"))


def first_line(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]


def why_not():
    if os.geteuid() != 0:
        return "wants root, for namespaces in which uevents may be injected"
    for program in (UDEVD, str(MAPDEVD), "unshare", "dbus-daemon"):
        if shutil.which(program) is None:
            return f"wants {program}"
    return None


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of each manager (5)")
    parser.add_argument("--events", type=int, default=10_000, help="of a storm (10000)")
    parser.add_argument("--quick", action="store_true", help="2 runs, 2000 events")
    parser.add_argument("--only", action="append", choices=MANAGERS, help="this manager; may be repeated")
    parser.add_argument("--rules", choices=["udev", "installed", "whole"], default="udev", help="which rules both apply (udev)")
    parser.add_argument("--veth", type=counts, default=[], metavar="N,N", help="the same with so many network interfaces more")
    parser.add_argument("--json", type=Path, default=JSON)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.runs, chosen.events = 2, 2000
    chosen.managers = {who: {"rules": chosen.rules, **MANAGERS[who]} for who in chosen.only or MANAGERS}
    return chosen


def counts(text):
    return [int(word) for word in text.split(",")]


def tell(words):
    print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


def measure_growth(chosen):
    """CPU an event with more and more network interfaces: of each manager, a list of figures."""
    managers = {who: chosen.managers[who] for who in (OURS, PEER) if who in chosen.managers}
    table = {}
    for count in chosen.veth:
        runs = {who: [] for who in managers}
        for turn in range(chosen.runs):
            for who, manager in managers.items():
                tell(f"{count} interfaces, turn {turn + 1} of {chosen.runs}: {who}")
                runs[who].append(run_once(manager, chosen.events, veth=count))
        figures = [(name, figure) for name, _, figure in ROWS if "CPU an event" in name or "lost" in name] + [SAME]
        table[count] = {who: [(name, summary(done, figure)) for name, figure in figures] for who, done in runs.items()}
    tell("")
    return table


def print_growth(table):
    for count, managers in table.items():
        print(f"\nwith {count} network interfaces more")
        for who, figures in managers.items():
            told = ", ".join(f"{name} {number(figure['median'])}" for name, figure in figures)
            print(f"  {who:<10} {told}")


def measure(chosen):
    managers = chosen.managers
    runs, traced = ({who: [] for who in managers} for _ in range(2))
    for turn in range(chosen.runs):
        for who, manager in managers.items():
            tell(f"turn {turn + 1} of {chosen.runs}: {who}")
            runs[who].append(run_once(manager, chosen.events))
    if shutil.which("strace"):
        for who, manager in managers.items():
            tell(f"system calls: {who}")
            traced[who].append(run_once(manager, TRACED_EVENTS, syscalls=True))
    tell("")
    return runs, traced


def main():
    chosen = options()
    reason = why_not()
    if reason:
        print(f"side by side: skipped: {reason}")
        return
    machine = {
        "kernel": os.uname().release,
        "processors": os.cpu_count(),
        "mapdevd": first_line(str(MAPDEVD), "--version"),
        "udevd": "systemd-udevd " + first_line(UDEVD, "--version").split()[-1],
        "load_before": os.getloadavg()[0],
    }
    runs, traced = measure(chosen)
    growth = measure_growth(chosen)
    machine["load_after"] = os.getloadavg()[0]

    rows = summaries(runs, traced)
    every = [run for done in runs.values() for run in done]
    floor = statistics.median(time for run in every for time in run["floor"]) * 1e6
    print("{mapdevd}, {udevd}; Linux {kernel}, {processors} processors,"
          " load {load_before:.1f} before and {load_after:.1f} after".format(**machine))
    first = every[0]
    print(f"{chosen.runs} runs; {first['coldplug']['events']} devices; storm: {chosen.events} `change` events"
          f" on {first['storm_devices']} devices; {floor:.0f} us of an event's time are the harness's own")
    print_table(rows, runs)
    print_growth(growth)
    if machine["load_before"] > machine["processors"] / 2:
        print("\nthe machine was busy: only the ratios mean something")
    report = {
        "machine": machine, "events": chosen.events, "harness_floor_us": floor,
        "rows": rows, "runs": runs, "traced": traced, "growth": growth,
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nall figures: {os.path.relpath(chosen.json)}")


if __name__ == "__main__":
    main()
