//! Stage 9: every method, property and signal that the daemon offers, in one table.
//!
//! Introspection is written from it, and a call that is not in it is refused.
#![forbid(unsafe_code)]

use std::fmt::Write;

pub const MANAGER: &str = "org.mapdev1.Manager";
pub const DEVICE: &str = "org.mapdev1.Device";
pub const MODULES: &str = "org.mapdev1.Modules";
pub const LOG_CONTROL: &str = "org.freedesktop.LogControl1";
pub const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
pub const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
pub const PEER: &str = "org.freedesktop.DBus.Peer";
pub const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Name and signature.
pub type Argument = (&'static str, &'static str);

/// When `PropertiesChanged` tells of a property (`EmitsChangedSignal` of the D-Bus specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emits {
    Always,
    Constant,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    pub name: &'static str,
    pub inputs: &'static [Argument],
    pub outputs: &'static [Argument],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    pub name: &'static str,
    pub signature: &'static str,
    pub writable: bool,
    pub emits: Emits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    pub name: &'static str,
    pub arguments: &'static [Argument],
}

#[derive(Clone, Copy, Debug)]
pub struct Interface {
    pub name: &'static str,
    pub methods: &'static [Method],
    pub properties: &'static [Property],
    pub signals: &'static [Signal],
}

impl Interface {
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&'static Method> {
        self.methods.iter().find(|method| method.name == name)
    }

    #[must_use]
    pub fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties.iter().find(|property| property.name == name)
    }
}

const fn method(
    name: &'static str,
    inputs: &'static [Argument],
    outputs: &'static [Argument],
) -> Method {
    Method { name, inputs, outputs }
}

const fn fixed(name: &'static str, signature: &'static str) -> Property {
    Property { name, signature, writable: false, emits: Emits::Constant }
}

const fn silent(name: &'static str, signature: &'static str) -> Property {
    Property { name, signature, writable: false, emits: Emits::Never }
}

const fn told(name: &'static str, signature: &'static str) -> Property {
    Property { name, signature, writable: false, emits: Emits::Always }
}

const fn signal(name: &'static str, arguments: &'static [Argument]) -> Signal {
    Signal { name, arguments }
}

/// The argument that ends every changing method.
const OPTIONS: Argument = ("options", "a{sv}");

/// All interfaces, ours first.
pub const INTERFACES: &[Interface] = &[
    Interface {
        name: MANAGER,
        methods: &[
            method("ResolveDevice", &[("name_or_path", "s")], &[("device", "o")]),
            method("ListDevices", &[("filter", "a{sv}")], &[("devices", "a(oaysuu)")]),
            method("WaitInitialized", &[("name", "s"), ("timeout_usec", "t")], &[("device", "o")]),
            method("Settle", &[("timeout_usec", "t")], &[("settled", "b")]),
            method("Reload", &[OPTIONS], &[("generation", "t")]),
            method("Subscribe", &[], &[]),
            method("Unsubscribe", &[], &[]),
            method("GetMap", &[], &[("map", "h"), ("generation", "t")]),
            method("ListMismatches", &[], &[("mismatches", "a(osss)")]),
        ],
        properties: &[
            fixed("Version", "s"),
            fixed("Mode", "s"),
            silent("Generation", "t"),
            silent("MapGeneration", "t"),
            silent("MapEntries", "t"),
            silent("ShimAttached", "b"),
            silent("Devices", "t"),
            silent("ModulesWithDevnames", "t"),
            silent("QueueLength", "u"),
            silent("QueueHighWater", "u"),
            silent("Events", "t"),
            silent("Refused", "t"),
            silent("SeqnumGaps", "t"),
            silent("Coalesced", "t"),
            silent("Overruns", "t"),
            silent("Resyncs", "t"),
            silent("Throttled", "ao"),
            fixed("Features", "as"),
        ],
        signals: &[
            signal(
                "EventProcessed",
                &[("seqnum", "t"), ("device", "o"), ("action", "s"), ("usec", "t")],
            ),
            signal("StormStarted", &[("device", "o"), ("rate", "u")]),
            signal("StormEnded", &[("device", "o"), ("dropped", "t")]),
            signal(
                "Mismatch",
                &[("device", "o"), ("attribute", "s"), ("ours", "s"), ("theirs", "s")],
            ),
        ],
    },
    Interface {
        name: DEVICE,
        methods: &[
            method("SetOwner", &[("user", "s"), OPTIONS], &[]),
            method("SetGroup", &[("group", "s"), OPTIONS], &[]),
            method("SetMode", &[("mode", "u"), OPTIONS], &[]),
            method("Reset", &[OPTIONS], &[]),
            method("GetProperties", &[], &[("properties", "a{say}")]),
            method("Explain", &[("attribute", "s")], &[("steps", "a(ssuusss)")]),
        ],
        properties: &[
            told("Node", "ay"),
            told("SysPath", "ay"),
            fixed("Subsystem", "s"),
            fixed("Type", "s"),
            fixed("Major", "u"),
            fixed("Minor", "u"),
            told("Owner", "u"),
            told("Group", "u"),
            told("OwnerName", "s"),
            told("GroupName", "s"),
            told("Mode", "u"),
            told("Acl", "a(ssu)"),
            told("Tags", "as"),
            told("Seat", "s"),
            told("Symlinks", "as"),
            told("Module", "s"),
            told("ModuleState", "s"),
            told("Initialized", "b"),
            told("Origin", "s"),
            told("ChangedBy", "s"),
        ],
        signals: &[],
    },
    Interface {
        name: MODULES,
        methods: &[
            method("Query", &[("devname", "s")], &[("modules", "a(ssuub)")]),
            method("List", &[], &[("names", "a(sssuub)")]),
            method("Load", &[("module", "s"), OPTIONS], &[]),
            method("Explain", &[("devname", "s"), ("attribute", "s")], &[("steps", "a(ssuusss)")]),
            method("Changed", &[], &[("names", "a(ss)")]),
        ],
        properties: &[],
        signals: &[],
    },
    Interface {
        name: LOG_CONTROL,
        methods: &[],
        properties: &[
            Property { name: "LogLevel", signature: "s", writable: true, emits: Emits::Never },
            silent("LogTarget", "s"),
            fixed("SyslogIdentifier", "s"),
        ],
        signals: &[],
    },
    Interface {
        name: OBJECT_MANAGER,
        methods: &[method("GetManagedObjects", &[], &[("objects", "a{oa{sa{sv}}}")])],
        properties: &[],
        signals: &[
            signal("InterfacesAdded", &[("object", "o"), ("interfaces", "a{sa{sv}}")]),
            signal("InterfacesRemoved", &[("object", "o"), ("interfaces", "as")]),
        ],
    },
    Interface {
        name: INTROSPECTABLE,
        methods: &[method("Introspect", &[], &[("xml", "s")])],
        properties: &[],
        signals: &[],
    },
    Interface {
        name: PEER,
        methods: &[method("Ping", &[], &[]), method("GetMachineId", &[], &[("id", "s")])],
        properties: &[],
        signals: &[],
    },
    Interface {
        name: PROPERTIES,
        methods: &[
            method("Get", &[("interface", "s"), ("property", "s")], &[("value", "v")]),
            method("GetAll", &[("interface", "s")], &[("properties", "a{sv}")]),
            method("Set", &[("interface", "s"), ("property", "s"), ("value", "v")], &[]),
        ],
        properties: &[],
        signals: &[signal(
            "PropertiesChanged",
            &[("interface", "s"), ("changed", "a{sv}"), ("invalidated", "as")],
        )],
    },
];

#[must_use]
pub fn interface(name: &str) -> Option<&'static Interface> {
    INTERFACES.iter().find(|interface| interface.name == name)
}

/// What XML of introspection begins with, from the D-Bus specification.
const DOCTYPE: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
     \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n";

/// The introspection of an object: its interfaces and the names of its children.
#[must_use]
pub fn xml(interfaces: &[&str], children: &[String]) -> String {
    let mut text = String::from(DOCTYPE);
    text.push_str("<node>\n");
    for name in interfaces {
        if let Some(interface) = interface(name) {
            describe(interface, &mut text);
        }
    }
    for child in children {
        // names of objects hold letters, digits and underscores only
        writeln!(text, "  <node name=\"{child}\"/>").ok();
    }
    text.push_str("</node>\n");
    text
}

fn describe(interface: &Interface, text: &mut String) {
    writeln!(text, "  <interface name=\"{}\">", interface.name).ok();
    for method in interface.methods {
        let arguments = method.inputs.iter().map(|argument| (argument, " direction=\"in\""));
        let outputs = method.outputs.iter().map(|argument| (argument, " direction=\"out\""));
        element("method", method.name, arguments.chain(outputs), text);
    }
    for signal in interface.signals {
        element(
            "signal",
            signal.name,
            signal.arguments.iter().map(|argument| (argument, "")),
            text,
        );
    }
    for property in interface.properties {
        let access = if property.writable { "readwrite" } else { "read" };
        let (name, signature) = (property.name, property.signature);
        write!(text, "    <property name=\"{name}\" type=\"{signature}\" access=\"{access}\"").ok();
        let emits = match property.emits {
            Emits::Always => {
                text.push_str("/>\n");
                continue;
            }
            Emits::Constant => "const",
            Emits::Never => "false",
        };
        let annotation = "org.freedesktop.DBus.Property.EmitsChangedSignal";
        writeln!(text, ">\n      <annotation name=\"{annotation}\" value=\"{emits}\"/>").ok();
        text.push_str("    </property>\n");
    }
    text.push_str("  </interface>\n");
}

fn element<'a>(
    kind: &str,
    name: &str,
    arguments: impl Iterator<Item = (&'a Argument, &'a str)>,
    text: &mut String,
) {
    let mut arguments = arguments.peekable();
    if arguments.peek().is_none() {
        writeln!(text, "    <{kind} name=\"{name}\"/>").ok();
        return;
    }
    writeln!(text, "    <{kind} name=\"{name}\">").ok();
    for ((name, signature), direction) in arguments {
        writeln!(text, "      <arg name=\"{name}\" type=\"{signature}\"{direction}/>").ok();
    }
    writeln!(text, "    </{kind}>").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_one_of_dbus() {
        for interface in INTERFACES {
            let methods = interface.methods.iter().flat_map(|m| m.inputs.iter().chain(m.outputs));
            let signals = interface.signals.iter().flat_map(|signal| signal.arguments);
            for (name, signature) in methods.chain(signals) {
                zbus::Signature::try_from(*signature).unwrap_or_else(|_| panic!("{name}"));
            }
            for property in interface.properties {
                zbus::Signature::try_from(property.signature).unwrap();
            }
        }
    }

    #[test]
    fn every_changing_method_ends_in_options() {
        for (interface, name) in [(MANAGER, "Reload"), (DEVICE, "SetOwner"), (DEVICE, "Reset")] {
            let method = super::interface(interface).unwrap().method(name).unwrap();
            assert_eq!(method.inputs.last(), Some(&OPTIONS));
        }
    }
}
