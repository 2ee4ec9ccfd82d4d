//! The machine that we run on: architecture and virtualization in systemd's words, the kernel's command
//! line.

use std::fs;
use std::path::Path;

/// The processor's architecture, as `ConditionArchitecture=` of systemd.unit(5) calls it.
#[must_use]
pub fn architecture() -> &'static str {
    match (std::env::consts::ARCH, cfg!(target_endian = "little")) {
        ("x86_64", _) => "x86-64",
        ("aarch64", true) => "arm64",
        ("aarch64", false) => "arm64-be",
        ("arm", false) => "arm-be",
        ("powerpc", true) => "ppc-le",
        ("powerpc", false) => "ppc",
        ("powerpc64", true) => "ppc64-le",
        ("powerpc64", false) => "ppc64",
        ("mips", true) => "mips-le",
        ("mips64", true) => "mips64-le",
        ("loongarch64", _) => "loongarch64",
        (other, _) => other,
    }
}

/// Vendors in the machine's own description, and the machine that they mean.
const VENDORS: [(&str, &str); 14] = [
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Amazon EC2", "amazon"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
];

/// What the machine runs in, as systemd-detect-virt(1) calls it: a container first, then a virtual
/// machine, else `none`.
#[must_use]
pub fn virtualization() -> &'static str {
    container().or_else(virtual_machine).unwrap_or("none")
}

/// The kernel's command line; in a container, where that is the host's, the first process's.
#[must_use]
pub fn command_line() -> Vec<u8> {
    if container().is_none() {
        return fs::read("/proc/cmdline").unwrap_or_default();
    }
    let words = fs::read("/proc/1/cmdline").unwrap_or_default();
    words.split(|byte| *byte == 0).collect::<Vec<_>>().join(&b' ')
}

/// What kind of container this is; `None` outside of one.
#[must_use]
pub fn container() -> Option<&'static str> {
    const NAMES: [&str; 8] =
        ["systemd-nspawn", "lxc-libvirt", "lxc", "docker", "podman", "rkt", "wsl", "proot"];
    if Path::new("/proc/vz").exists() && !Path::new("/proc/bc").exists() {
        return Some("openvz");
    }
    // what runs as the first process says so in its environment, and systemd copies that
    let environment = fs::read("/proc/1/environ").unwrap_or_default();
    let said =
        environment.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(b"container="));
    let files = ["/run/host/container-manager", "/run/systemd/container"];
    let told =
        said.map(<[u8]>::to_vec).or_else(|| files.iter().find_map(|file| fs::read(file).ok()));
    if let Some(told) = told {
        let told = told.trim_ascii();
        let known = NAMES.into_iter().find(|name| name.as_bytes() == told);
        return Some(known.unwrap_or("container-other"));
    }
    let marks = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];
    marks.into_iter().find(|(file, _)| Path::new(file).exists()).map(|(_, name)| name)
}

fn virtual_machine() -> Option<&'static str> {
    let described =
        ["product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version"];
    let vendor = described.into_iter().find_map(|file| {
        let text = fs::read_to_string(Path::new("/sys/class/dmi/id").join(file)).ok()?;
        VENDORS.into_iter().find(|(vendor, _)| text.starts_with(vendor)).map(|(_, name)| name)
    });
    if let Some(name @ ("oracle" | "xen" | "amazon" | "parallels")) = vendor {
        return Some(name);
    }
    if let Ok(kind) = fs::read_to_string("/sys/hypervisor/type")
        && kind.trim() == "xen"
    {
        return Some("xen");
    }
    // QEMU describes itself alike with and without the kernel's help; the clock tells
    let clocks = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let accelerated = fs::read_to_string(clocks).is_ok_and(|text| text.contains("kvm-clock"));
    if accelerated && matches!(vendor, None | Some("qemu")) {
        return Some("kvm");
    }
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let hypervisor = processor.lines().find(|line| line.starts_with("flags"));
    let hypervisor = hypervisor
        .is_some_and(|line| line.ends_with(" hypervisor") || line.contains(" hypervisor "));
    vendor.or_else(|| hypervisor.then_some("vm-other"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn the_machine_is_called_what_systemd_calls_it() {
        let Ok(output) = Command::new("systemd-detect-virt").output() else { return };
        let theirs = String::from_utf8(output.stdout).unwrap();
        // a user's own container has its user's view
        assert_eq!(super::virtualization(), theirs.trim());
    }
}
