//! The socket in a network namespace of its own, with events injected through the kernel.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on has failed"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use mapdev::uevent::socket::{Heard, KernelSocket, Options, Refusal};
use netlink_sys::protocols::{NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

const INSIDE: &str = "MAPDEV_TEST_INSIDE";

/// Runs the test again in a namespace where events disturb nobody; `true` when inside it.
fn in_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.arg("--net").env(INSIDE, "1");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    assert!(command.status().expect("wanted unshare(1)").success(), "{test} failed inside");
    false
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(30);
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("nothing was heard") });
}

fn sender() -> Socket {
    let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT).unwrap();
    socket.bind_auto().unwrap();
    socket
}

fn body(devpath: &str) -> Vec<u8> {
    format!("change@{devpath}\0ACTION=change\0DEVPATH={devpath}\0SUBSYSTEM=test\0").into_bytes()
}

/// Has the kernel send `body` and a SEQNUM as its own (`uevent_net_rcv()`).
fn inject(socket: &Socket, body: &[u8]) {
    let len = u32::try_from(16 + body.len()).unwrap();
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(16_u16.to_ne_bytes()); // type: the first that is not netlink's own
    message.extend(1_u16.to_ne_bytes()); // NLM_F_REQUEST
    message.extend([0; 8]); // sequence, port
    message.extend(body);
    socket.send_to(&message, &SocketAddr::new(0, 0), 0).unwrap();
}

fn event(heard: &Heard) -> Vec<u8> {
    match heard {
        Heard::Event(uevent, _) => uevent.devpath().to_vec(),
        Heard::Refused(refusal) => panic!("refused: {refusal}"),
        Heard::Lost => panic!("lost"),
    }
}

#[test]
fn the_kernel_is_heard_and_a_forger_is_not() {
    if !in_namespace("the_kernel_is_heard_and_a_forger_is_not") {
        return;
    }
    run(async {
        let mut socket = KernelSocket::open(&Options::default()).unwrap();
        let sender = sender();
        let mut forged = body("/devices/forged");
        forged.extend(b"SEQNUM=1\0");
        sender.send_to(&forged, &SocketAddr::new(0, 1), 0).unwrap();
        inject(&sender, &body("/devices/bad/../x"));
        inject(&sender, &body("/devices/good"));

        let port = match socket.recv().await.unwrap() {
            Heard::Refused(Refusal::Port(port)) => port,
            other => panic!("{other:?}"),
        };
        assert_ne!(port, 0);
        let heard = socket.recv().await.unwrap();
        assert!(matches!(heard, Heard::Refused(Refusal::Malformed(_))), "{heard:?}");
        assert_eq!(event(&socket.recv().await.unwrap()), b"/devices/good");
        assert!(socket.try_recv().unwrap().is_none());
        let counters = socket.counters();
        assert_eq!((counters.received, counters.foreign, counters.malformed), (1, 1, 1));
    });
}

#[test]
fn a_message_to_us_alone_is_refused() {
    if !in_namespace("a_message_to_us_alone_is_refused") {
        return;
    }
    run(async {
        let mut socket = KernelSocket::open(&Options::default()).unwrap();
        let name = rustix::net::getsockname(&socket).unwrap();
        let name = rustix::net::netlink::SocketAddrNetlink::try_from(name).unwrap();
        let sender = sender();
        sender.send_to(&body("/devices/x"), &SocketAddr::new(name.pid(), 0), 0).unwrap();
        let heard = socket.recv().await.unwrap();
        assert!(matches!(heard, Heard::Refused(Refusal::Port(_))), "{heard:?}");
    });
}

#[test]
fn loss_is_reported_and_what_comes_after_is_heard() {
    if !in_namespace("loss_is_reported_and_what_comes_after_is_heard") {
        return;
    }
    run(async {
        let mut socket = KernelSocket::open(&Options { receive_buffer: 4096 }).unwrap();
        let sender = sender();
        for index in 0..200 {
            inject(&sender, &body(&format!("/devices/x{index}")));
        }
        let (mut lost, mut heard) = (0, 0);
        while let Some(next) = socket.try_recv().unwrap() {
            match next {
                Heard::Lost => lost += 1,
                next => {
                    event(&next);
                    heard += 1;
                }
            }
        }
        assert!(lost > 0 && heard > 0, "{lost} lost, {heard} heard");
        inject(&sender, &body("/devices/after"));
        assert_eq!(event(&socket.recv().await.unwrap()), b"/devices/after");
        assert_eq!(socket.counters().lost, lost);
        assert!(socket.counters().gaps > 0, "the thrown away events are a gap in SEQNUM");
    });
}

#[test]
fn a_batch_is_heard_in_order_at_one_wake_up() {
    if !in_namespace("a_batch_is_heard_in_order_at_one_wake_up") {
        return;
    }
    run(async {
        let mut socket = KernelSocket::open(&Options::default()).unwrap();
        let sender = sender();
        for round in 0..3 {
            let names: Vec<String> = (0..100).map(|n| format!("/devices/r{round}/x{n}")).collect();
            names.iter().for_each(|name| inject(&sender, &body(name)));
            let mut heard = vec![event(&socket.recv().await.unwrap())];
            while let Some(next) = socket.try_recv().unwrap() {
                heard.push(event(&next));
            }
            assert!(heard.iter().eq(names.iter().map(String::as_bytes)));
        }
        assert_eq!(socket.counters().received, 300);
    });
}

#[test]
fn what_waits_in_an_adopted_socket_is_heard() {
    if !in_namespace("what_waits_in_an_adopted_socket_is_heard") {
        return;
    }
    run(async {
        let mut kept = Socket::new(NETLINK_KOBJECT_UEVENT).unwrap();
        kept.bind(&SocketAddr::new(0, 1)).unwrap();
        inject(&sender(), &body("/devices/early"));
        let fd = kept.as_fd().try_clone_to_owned().unwrap();
        drop(kept);
        let mut socket = KernelSocket::adopt(fd, &Options::default()).unwrap();
        assert_eq!(event(&socket.recv().await.unwrap()), b"/devices/early");
    });
}

#[test]
fn only_a_uevent_socket_of_group_1_is_adopted() {
    run(async {
        let refused = |fd: OwnedFd, what: &str| {
            let error = KernelSocket::adopt(fd, &Options::default()).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("wanted"), "{error}");
        };
        let (unix, _) = std::os::unix::net::UnixStream::pair().unwrap();
        refused(unix.into(), "family 1");
        let netlink = |protocol, groups| {
            let mut socket = Socket::new(protocol).unwrap();
            socket.bind(&SocketAddr::new(0, groups)).unwrap();
            socket.as_fd().try_clone_to_owned().unwrap()
        };
        refused(netlink(NETLINK_ROUTE, 1), "protocol");
        refused(netlink(NETLINK_KOBJECT_UEVENT, 2), "groups 0x2");
        refused(netlink(NETLINK_KOBJECT_UEVENT, 0), "groups 0x0");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(KernelSocket::adopt(file.into(), &Options::default()).is_err());
    });
}
