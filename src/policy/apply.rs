//! Lays policy and run-time grants over what the rules decided: policy first, grants last.

use std::sync::Arc;

use super::grants::Grant;
use super::{Facts, Overlay, Policy, Setting, Value};
use crate::device::Device;
use crate::rules::decision::{Attribute, Decision, Place, Source};

/// Lets every policy rule that fits the device speak, the winner of an attribute last.
pub fn policy(policy: &Policy, device: &Device, decision: &mut Decision) {
    if policy.is_empty() {
        return;
    }
    let (sysname, driver) = (device.sysname(), device.driver().unwrap_or_default());
    let overlay = policy.matching(&Facts {
        devname: device.devname(),
        subsystem: device.subsystem(),
        devtype: device.devtype(),
        sysname: &sysname,
        driver: &driver,
        property: &|key| {
            let set = decision.properties.iter().find(|(known, _)| known == key);
            set.map(|(_, value)| value.as_slice()).or_else(|| device.uevent().get(key))
        },
    });
    lay(&overlay, decision);
}

/// Lays owner, group, mode and links over a decision.
pub fn lay(overlay: &Overlay, decision: &mut Decision) {
    let priority = overlay.link_priority().unwrap_or(0);
    for setting in overlay.settings() {
        let source = source(setting);
        match &setting.value {
            Value::Uid(uid) => decision.set(Attribute::Owner, *uid, source),
            Value::Gid(gid) => decision.set(Attribute::Group, *gid, source),
            Value::Mode(mode) => decision.set(Attribute::Mode, *mode, source),
            Value::Link(name) => decision.add_link(name, priority, source),
            // these are about the name, and hold until its device is there
            Value::LinkPriority(_) | Value::Module(_) | Value::Autoload(_) => {}
        }
    }
}

/// Who wants what a setting says.
fn source(setting: &Setting) -> Source {
    let file: Arc<str> = setting.file.to_string_lossy().into();
    let place = Place { file, line: setting.line, column: setting.column };
    Source::Policy { id: setting.id.clone(), place }
}

/// Lets callers' run-time changes speak, in the order in which they were made.
pub fn grant(grants: &[Grant], decision: &mut Decision) {
    for grant in grants {
        let source = Source::Runtime { by: grant.by.clone(), reason: grant.reason.clone() };
        decision.set(grant.attribute, grant.value, source);
    }
}
