//! Who is asked for permission, with what, and what happens while he thinks.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use mapdev::bus::polkit::{Access, PERSIST_POLICY, SET_MODE, SET_OWNER, TABLE};
use mapdev::dispatch::command::Change;
use mapdev::rules::decision::Attribute;
use zbus::{MatchRule, Message, MessageStream, OwnedVariant};

use super::rig::{Ended, OTHER, Rig, connect};
use super::{DENIED, call_entry};

const NAME: &str = "org.freedesktop.PolicyKit1";

/// What `CheckAuthorization` was called with.
#[derive(Debug)]
struct Asked {
    subject: String,
    caller: String,
    action: String,
    details: HashMap<String, String>,
    flags: u32,
}

#[derive(Clone, Copy, Debug)]
enum Say {
    Yes,
    No,
    Challenge,
    Nonsense,
}

/// polkit, as far as it is asked for permissions; the test decides.
struct Polkit {
    asked: Receiver<Asked>,
    say: SyncSender<Say>,
}

impl Polkit {
    fn on(address: &str) -> Self {
        let (asking, asked) = sync_channel(16);
        let (say, said) = sync_channel(16);
        let (ready, started) = sync_channel(1);
        let address = address.to_owned();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let connection = connect(&address).await;
                let rule = MatchRule::builder().msg_type(zbus::message::Type::MethodCall);
                let rule = rule.build().unwrap();
                let mut calls =
                    MessageStream::for_match_rule(rule, &connection, None).await.unwrap();
                connection.request_name(NAME).await.unwrap();
                ready.send(()).unwrap();
                while let Some(Ok(call)) = calls.next().await {
                    // the test is over when nobody listens or speaks
                    if asking.send(read(&call)).is_err() {
                        return;
                    }
                    let Ok(say) = said.recv() else { return };
                    connection.send(&reply(&call, say)).await.ok();
                }
            });
        });
        started.recv().unwrap();
        Self { asked, say }
    }

    fn asked(&self) -> Asked {
        self.asked.recv_timeout(Duration::from_secs(30)).expect("polkit is asked")
    }

    fn say(&self, say: Say) {
        self.say.send(say).unwrap();
    }
}

fn read(call: &Message) -> Asked {
    type Call =
        ((String, HashMap<String, OwnedVariant>), String, HashMap<String, String>, u32, String);
    let body = call.body();
    let ((subject, mut of), action, details, flags, _): Call = body.deserialize().unwrap();
    let caller = String::try_from(of.remove("name").unwrap()).unwrap();
    Asked { subject, caller, action, details, flags }
}

fn reply(call: &Message, say: Say) -> Message {
    let reply = Message::method_return(&call.header());
    let none: HashMap<&str, &str> = HashMap::new();
    match say {
        Say::Yes => reply.build(&((true, false, none),)),
        Say::No => reply.build(&((false, false, none),)),
        Say::Challenge => reply.build(&((false, true, none),)),
        Say::Nonsense => reply.build(&"yes"),
    }
    .unwrap()
}

#[test]
fn polkit_is_asked_with_what_it_may_look_at() {
    let rig = Rig::new();
    let polkit = Polkit::on(&rig.address);
    thread::scope(|scope| {
        let call = scope.spawn(|| rig.tun(OTHER, &["SetOwner", "sa{sv}", "alice", "0"]));
        let asked = polkit.asked();
        assert_eq!((asked.subject.as_str(), asked.action.as_str()), ("system-bus-name", SET_OWNER));
        assert!(asked.caller.starts_with(":1."), "{asked:?}");
        let details = [
            ("device", "/org/mapdev1/device/c10_200"),
            ("node", "/dev/net/tun"),
            ("subsystem", "misc"),
            ("user", "alice"),
        ];
        let details = details.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(asked.details, HashMap::from(details));
        assert_eq!(asked.flags, 1, "busctl lets a person be asked");
        // while that person thinks, others are served
        assert!(rig.tun(OTHER, &["GetProperties"]).is_ok());
        rig.tun(0, &["SetMode", "ua{sv}", "432", "0"]).unwrap();
        assert!(matches!(&rig.changed()[..], [(_, Change::Set { value: 0o660, .. }, _)]));
        polkit.say(Say::Yes);
        call.join().unwrap().unwrap();
    });
    let changes = rig.changed();
    let owner = Change::Set { attribute: Attribute::Owner, value: 1000 };
    assert_eq!(changes[1].1, owner);
    assert!(changes[1].2.by.starts_with("uid 65534 (:1."), "{}", changes[1].2.by);
}

#[test]
fn every_change_needs_the_action_of_its_entry() {
    let rig = Rig::new();
    let polkit = Polkit::on(&rig.address);
    for (interface, member, access) in TABLE {
        let Access::Granted(actions) = access else { continue };
        // each action is asked for, and no to the last is no
        thread::scope(|scope| {
            let call = scope.spawn(|| call_entry(&rig, OTHER, interface, member));
            let (last, first) = actions.split_last().unwrap();
            for action in first {
                assert_eq!(polkit.asked().action, *action, "{member}");
                polkit.say(Say::Yes);
            }
            assert_eq!(polkit.asked().action, *last, "{member}");
            polkit.say(Say::No);
            let error = call.join().unwrap().expect_err(member);
            assert!(error.contains(DENIED), "{member}: {error}");
        });
    }
    assert_eq!(rig.changed(), []);
}

#[test]
fn anything_but_yes_is_no() {
    let rig = Rig::new();
    let polkit = Polkit::on(&rig.address);
    let object = ["org.mapdev1", "/org/mapdev1/device/c10_200", "org.mapdev1.Device"];
    for (say, words) in [
        (Say::No, DENIED),
        (Say::Nonsense, DENIED),
        (Say::Challenge, "'org.mapdev1.set-mode' needs a password"),
    ] {
        thread::scope(|scope| {
            let alone = ["--allow-interactive-authorization=no", "call"];
            let call = ["SetMode", "ua{sv}", "432", "0"];
            let call = [&alone[..], &object, &call].concat();
            let rig = &rig;
            let call = scope.spawn(move || rig.busctl(OTHER, &call));
            let asked = polkit.asked();
            assert_eq!((asked.action.as_str(), asked.flags), (SET_MODE, 0), "nobody is prompted");
            polkit.say(say);
            let error = call.join().unwrap().unwrap_err();
            assert!(error.contains(words), "{say:?}: {error}");
        });
    }
    assert_eq!(rig.changed(), []);
}

#[test]
fn what_lasts_needs_a_permission_of_its_own() {
    let rig = Rig::new();
    let polkit = Polkit::on(&rig.address);
    thread::scope(|scope| {
        let call = ["SetMode", "ua{sv}", "432", "1", "persist", "b", "true"];
        let rig = &rig;
        let call = scope.spawn(move || rig.tun(OTHER, &call));
        assert_eq!(polkit.asked().action, SET_MODE);
        polkit.say(Say::Yes);
        assert_eq!(polkit.asked().action, PERSIST_POLICY);
        polkit.say(Say::No);
        let error = call.join().unwrap().unwrap_err();
        assert!(error.contains(DENIED), "{error}");
    });
    assert_eq!(rig.changed(), []);
}

#[test]
fn polkit_is_told_which_module_is_to_be_loaded() {
    let rig = Rig::new();
    let polkit = Polkit::on(&rig.address);
    thread::scope(|scope| {
        let call = scope.spawn(|| rig.modules(OTHER, &["Load", "sa{sv}", "tun", "0"]));
        let asked = polkit.asked();
        assert_eq!(asked.action, "org.mapdev1.load-module");
        assert_eq!(asked.details, HashMap::from([("module".to_owned(), "tun".to_owned())]));
        polkit.say(Say::Yes);
        call.join().unwrap().unwrap();
    });
    assert_eq!(*rig.loaded.lock().unwrap(), [(b"tun".to_vec(), false)]);
}

/// Where the build is may be closed to other users: they run a copy.
#[test]
fn who_is_not_root_loads_modules_through_the_daemon() {
    let rig = Rig::new();
    let polkit = Polkit::on(&rig.address);
    let program = rig.folder.path().join("mapdevctl");
    // by a program: a copy that we had open for writing could not be run while a child of another thread has
    // our descriptors
    let copied = Program::new("cp").arg(env!("CARGO_BIN_EXE_mapdevctl")).arg(&program).status();
    assert!(copied.unwrap().success());
    let load = |name: &str| {
        let id = format!("{OTHER}");
        let user = ["--reuid", &id, "--regid", &id, "--clear-groups"];
        let mut other = Program::new("setpriv");
        other.args(user).arg(&program).args(["--bus", &rig.address, "module", "load", name]);
        other.output().expect("setpriv is needed")
    };
    thread::scope(|scope| {
        let call = scope.spawn(|| load("tun"));
        assert_eq!(polkit.asked().action, "org.mapdev1.load-module");
        polkit.say(Say::Yes);
        let output = call.join().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("loaded by the daemon"), "{output:?}");
        let call = scope.spawn(|| load("loop"));
        polkit.asked();
        polkit.say(Say::No);
        assert_eq!(call.join().unwrap().status.code(), Some(4));
    });
    assert_eq!(*rig.loaded.lock().unwrap(), [(b"tun".to_vec(), false)]);
}

/// The real polkitd in a mount namespace of its own, with our actions and one rule.
fn polkitd(rig: &Rig, rule: &str) -> Ended {
    let folder = rig.folder.path();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbus/org.mapdev1.policy");
    fs::copy(policy, folder.join("org.mapdev1.policy")).unwrap();
    fs::write(folder.join("10-test.rules"), rule).unwrap();
    let script = "mount -t tmpfs -o mode=755 none /usr/share/polkit-1/actions && \
        mount -t tmpfs -o mode=755 none /etc/polkit-1/rules.d && \
        cp \"$0/org.mapdev1.policy\" /usr/share/polkit-1/actions/ && \
        cp \"$0/10-test.rules\" /etc/polkit-1/rules.d/ && \
        exec /usr/lib/polkit-1/polkitd --no-debug";
    let child = Program::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(folder)
        .env("DBUS_SYSTEM_BUS_ADDRESS", &rig.address)
        .stdout(Stdio::null())
        .spawn()
        .expect("unshare is needed");
    let child = Ended(child);
    let running = || rig.busctl(0, &["status", NAME]).is_ok();
    let started = std::time::Instant::now();
    while !running() {
        assert!(started.elapsed() < Duration::from_secs(30), "polkitd did not come to the bus");
    }
    child
}

#[test]
fn the_real_polkitd_refuses_by_default_and_grants_by_rule() {
    let rig = Rig::new();
    let rule = "polkit.addRule(function(action, subject) {
        if (action.id == 'org.mapdev1.set-owner' && action.lookup('node') == '/dev/net/tun' &&
            action.lookup('device') == '/org/mapdev1/device/c10_200' &&
            action.lookup('subsystem') == 'misc' && action.lookup('user') == 'alice')
            return polkit.Result.YES;
    });";
    let polkitd = polkitd(&rig, rule);
    let error = rig.tun(OTHER, &["SetOwner", "sa{sv}", "root", "0"]).unwrap_err();
    assert!(error.contains("'org.mapdev1.set-owner' needs a password"), "{error}");
    let error = rig.tun(OTHER, &["SetMode", "ua{sv}", "438", "0"]).unwrap_err();
    assert!(error.contains("'org.mapdev1.set-mode' needs a password"), "{error}");
    assert_eq!(rig.changed(), []);
    rig.tun(OTHER, &["SetOwner", "sa{sv}", "alice", "0"]).unwrap();
    assert!(matches!(&rig.changed()[..], [(_, Change::Set { value: 1000, .. }, _)]));
    drop(polkitd);
}
