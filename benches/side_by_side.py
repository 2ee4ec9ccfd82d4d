#!/usr/bin/env python3
"""mapdevd and systemd-udevd side by side: start-up, coldplug, a storm, latency, memory, system calls.

The managers take turns, each run in namespaces of its own (`side_by_side_run.py`), so that a
machine that is busy for a while is busy for all of them. Wants root. Nothing of the machine is
changed; its own device manager may run. Table on the terminal, all figures in
target/bench/side-by-side.json.

systemd-udevd without rules is the fair peer while mapdevd has no rules language.
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
MANAGERS = {
    "mapdevd": {"command": [str(MAPDEVD), "--mode", "active", "--bus", "none"], "rules": "none"},
    "udevd, no rules": {"command": [UDEVD], "rules": "none"},
    "mapdevd + bus": {"command": [str(MAPDEVD), "--mode", "active", "--bus", BUS], "rules": "none", "bus": True},
    "udevd, Debian's rules": {"command": [UDEVD], "rules": "debian"},
}
OURS, PEER = "mapdevd", "udevd, no rules"


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


READY = "exec to READY"
# name, unit, figure of one run
ROWS = [
    (READY, "ms", lambda run: run["start_seconds"] * 1e3),
    ("exec to all devices handled", "ms", lambda run: run["all_handled_seconds"] * 1e3),
    ("injected `add` of all devices", "ms", lambda run: run["coldplug"]["seconds"] * 1e3),
    ("storm: wall", "ms", lambda run: run["storm"]["seconds"] * 1e3),
    ("storm: events a second", "/s", lambda run: run["storm"]["events"] / run["storm"]["seconds"]),
    ("storm: CPU an event", "us", lambda run: run["storm_cpu_seconds"] / run["storm"]["events"] * 1e6),
    ("storm: lost", "", lambda run: run["storm"]["lost"] + run["storm_watched"]["lost"]),
    ("storm: out of order", "", lambda run: run["storm"]["out_of_order"] + run["storm_watched"]["out_of_order"]),
    ("storm: peak PSS", "MiB", lambda run: run["peak_kib"] / 1024),
    ("one event: p50", "us", lambda run: percentile(run["latency"], 0.50) * 1e6),
    ("one event: p99", "us", lambda run: percentile(run["latency"], 0.99) * 1e6),
    ("first event after 5 s", "us", lambda run: run["latency_after_idle"] * 1e6),
    ("PSS after 5 s", "MiB", lambda run: run["idle_kib"] / 1024),
    ("system calls an event", "", lambda run: run["syscalls_per_event"]),
]


def run_once(manager, events, syscalls=False):
    plan = {"bus": False, **manager, "events": events, "syscalls": syscalls}
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
        source = {who: traced[who] and [traced[who]] for who in runs} if "system calls" in name else runs
        figures = {who: summary(done, figure) for who, done in source.items() if done}
        ours, peer = (figures.get(who, {}).get("median") for who in (OURS, PEER))
        # alone it compares nothing: ours has then handled every device, the peer none
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
    parser.add_argument("--json", type=Path, default=JSON)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.runs, chosen.events = 2, 2000
    return chosen


def main():
    chosen = options()
    reason = why_not()
    if reason:
        print(f"side by side: skipped: {reason}")
        return
    managers = {who: MANAGERS[who] for who in chosen.only or MANAGERS}
    load = os.getloadavg()[0]
    machine = {
        "kernel": os.uname().release,
        "processors": os.cpu_count(),
        "load_before": load,
        "mapdevd": first_line(str(MAPDEVD), "--version"),
        "udevd": "systemd-udevd " + first_line(UDEVD, "--version").split()[-1],
    }
    runs = {who: [] for who in managers}
    for turn in range(chosen.runs):
        for who, manager in managers.items():
            print(f"\r\033[Kturn {turn + 1} of {chosen.runs}: {who}", end="", file=sys.stderr, flush=True)
            runs[who].append(run_once(manager, chosen.events))
    traced = dict.fromkeys(managers)
    if shutil.which("strace"):
        for who, manager in managers.items():
            print(f"\r\033[Kstrace: {who}", end="", file=sys.stderr, flush=True)
            traced[who] = run_once(manager, TRACED_EVENTS, syscalls=True)
    print("\r\033[K", end="", file=sys.stderr)

    machine["load_after"] = os.getloadavg()[0]
    rows = summaries(runs, traced)
    some = next(iter(runs.values()))[0]
    floor = statistics.median(t for done in runs.values() for run in done for t in run["floor"]) * 1e6
    print(f"{machine['mapdevd']}, {machine['udevd']}; Linux {machine['kernel']}, {machine['processors']} processors,"
          f" load {load:.1f} before and {machine['load_after']:.1f} after")
    print(f"{chosen.runs} runs; {some['coldplug']['events']} devices; storm: {chosen.events} `change` events on"
          f" {some['storm_devices']} devices; {floor:.0f} us of an event's time are the harness's own")
    print_table(rows, managers)
    if load > os.cpu_count() / 2:
        print("\nthe machine was busy: only the ratios mean something")
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine, "events": chosen.events, "harness_floor_us": floor, "rows": rows, "runs": runs, "traced": traced}
    chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nall figures: {os.path.relpath(chosen.json)}")


if __name__ == "__main__":
    main()
