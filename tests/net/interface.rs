//! Interfaces of the test's network: made, looked at with `ip` and `ethtool`, removed.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// What `ip link add` is told for each interface that cases use.
const MADE: [(&str, &str); 9] = [
    ("v0", "link add v0 type veth peer name v1"),
    ("veth0", "link add type veth"),
    ("b0", "link add b0 type bridge"),
    ("x0", "link add x0 type vxlan id 4 dstport 1"),
    ("m0", "link add m0 link under type macvlan"),
    ("i0", "link add i0 type ifb"),
    ("t0", "tuntap add t0 mode tap"),
    ("n0", "tuntap add n0 mode tun"),
    ("lo", "link show lo"),
];

pub(crate) fn ip(words: &str) -> String {
    try_ip(words).unwrap_or_else(|error| panic!("ip {words}: {error}"))
}

pub(crate) fn try_ip(words: &str) -> Result<String, String> {
    let output = Command::new("ip").args(words.split(' ')).output().expect("wanted iproute2");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // an alias may hold what JSON may not
    Ok(String::from_utf8(output.stdout).unwrap().replace(|c: char| c.is_control(), " "))
}

/// An interface that is removed at the end.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) index: u32,
    address: String,
}

impl Made {
    /// `None` where the kernel has no such interfaces.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let (name, words) = MADE.iter().find(|(known, _)| *known == name).expect("known names");
        if *name == "m0" && try_ip("link show under").is_err() {
            ip("link add under type veth peer name underneath");
        }
        if let Err(error) = try_ip(words) {
            println!("skipped: ip {words}: {error}");
            return None;
        }
        let told: Value = serde_json::from_str(&ip(&format!("-j link show {name}"))).unwrap();
        let index = told[0]["ifindex"].as_u64().unwrap();
        let address = told[0]["address"].as_str().unwrap_or("").to_owned();
        Some(Self { name, index: u32::try_from(index).unwrap(), address })
    }

    /// What can be set of it; `whole` if ethtool is asked as well.
    pub(crate) fn state(&self, whole: bool) -> BTreeMap<String, String> {
        let told: Value =
            serde_json::from_str(&ip(&format!("-d -j link show {}", self.name))).unwrap();
        let keys = ["mtu", "txqlen", "ifalias", "altnames", "gso_max_size", "gso_max_segs"];
        let keys = keys.into_iter().chain(["num_tx_queues", "num_rx_queues", "ifname"]);
        let mut state: BTreeMap<_, _> =
            keys.map(|key| (key.to_owned(), told[0][key].to_string())).collect();
        let address = told[0]["address"].as_str().unwrap_or("").to_owned();
        let address = if address == self.address { "as it was".to_owned() } else { address };
        state.insert("address".to_owned(), address);
        let options = ["", "-k", "-l", "-g", "-a", "-c"];
        for option in options.into_iter().filter(|_| whole) {
            let mut command = Command::new("ethtool");
            command.args(Some(option).filter(|option| !option.is_empty())).arg(self.name);
            let output = command.output().expect("wanted ethtool");
            let text = String::from_utf8(output.stdout).unwrap();
            state.insert(format!("ethtool {option}"), text);
        }
        state
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        match self.name {
            "lo" => {}
            "t0" => drop(ip("tuntap del t0 mode tap")),
            "n0" => drop(ip("tuntap del n0 mode tun")),
            name => drop(ip(&format!("link del {name}"))),
        }
    }
}
