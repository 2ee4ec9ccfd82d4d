//! What is told, and to whom.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use mapdev::bus::SUBSCRIBERS_MAX;
use mapdev::bus::surface::{DEVICE, MANAGER, OBJECT_MANAGER, PROPERTIES};
use mapdev::dispatch::command::Notice;
use mapdev::dispatch::known::Known;
use mapdev::nodes::Permissions;
use mapdev::uevent::Action;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant};

use super::rig::{Rig, connect, known, table, wait};

async fn signals_of(client: &Connection) -> MessageStream {
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.mapdev1")
        .build()
        .unwrap();
    MessageStream::for_match_rule(rule, client, None).await.unwrap()
}

async fn manager(client: &Connection, method: &str) -> zbus::Result<Message> {
    client.call_method(Some("org.mapdev1"), "/org/mapdev1", Some(MANAGER), method, &()).await
}

async fn next(stream: &mut MessageStream) -> (String, String, Message) {
    let message = stream.next().await.unwrap().unwrap();
    let header = message.header();
    let interface = header.interface().unwrap().to_string();
    let member = header.member().unwrap().to_string();
    (interface, member, message)
}

fn handled(device: &Arc<Known>) -> Notice {
    let device = device.clone();
    Notice::Handled { seqnum: 77, action: Action::Change, usec: 250, device }
}

fn storm(device: &Arc<Known>) -> Notice {
    Notice::StormStarted { device: device.clone(), rate: 9 }
}

#[test]
fn events_go_to_subscribers_only() {
    let rig = Rig::new();
    let tun = table().remove(0);
    wait(async {
        let (subscriber, listener) = (connect(&rig.address).await, connect(&rig.address).await);
        let (mut first, mut second) = (signals_of(&subscriber).await, signals_of(&listener).await);
        manager(&subscriber, "Subscribe").await.unwrap();
        rig.notices.send(handled(&tun)).await.unwrap();
        rig.notices.send(storm(&tun)).await.unwrap();
        let (_, member, message) = next(&mut first).await;
        assert_eq!(member, "EventProcessed");
        let body = message.body();
        let (seqnum, path, action, usec): (u64, zbus::ObjectPath<'_>, &str, u64) =
            body.deserialize().unwrap();
        let told = (seqnum, path.as_str(), action, usec);
        assert_eq!(told, (77, "/org/mapdev1/device/c10_200", "change", 250));
        assert_eq!(next(&mut first).await.1, "StormStarted");
        assert_eq!(next(&mut second).await.1, "StormStarted", "a storm is told to all");
        manager(&subscriber, "Unsubscribe").await.unwrap();
        rig.notices.send(handled(&tun)).await.unwrap();
        rig.notices.send(storm(&tun)).await.unwrap();
        assert_eq!(next(&mut first).await.1, "StormStarted");
    });
}

#[test]
fn an_event_tells_what_changed_once() {
    let rig = Rig::new();
    let tun = table().remove(0);
    let mut changed = (*tun).clone();
    changed.permissions = Permissions { uid: 1000, gid: 77, mode: 0o660 };
    let changed = Arc::new(changed);
    wait(async {
        let client = connect(&rig.address).await;
        let mut stream = signals_of(&client).await;
        rig.notices.send(handled(&changed)).await.unwrap();
        rig.notices.send(handled(&changed)).await.unwrap();
        rig.notices.send(storm(&tun)).await.unwrap();
        let (interface, _, message) = next(&mut stream).await;
        assert_eq!(interface, PROPERTIES);
        let body = message.body();
        let (of, values, gone): (&str, HashMap<&str, OwnedVariant>, Vec<&str>) =
            body.deserialize().unwrap();
        let mut names: Vec<_> = values.into_keys().collect();
        names.sort_unstable();
        assert_eq!((of, gone.len()), (DEVICE, 0));
        assert_eq!(names, ["Mode", "Owner", "OwnerName"], "only what is different");
        assert_eq!(next(&mut stream).await.1, "StormStarted", "the second event changed nothing");
    });
}

#[test]
fn objects_come_and_go_with_their_devices() {
    let rig = Rig::new();
    let pairs: [(&str, &[u8]); 2] = [("SUBSYSTEM", b"net"), ("IFINDEX", b"7")];
    let card = Arc::new(known("/devices/virtual/net/x", &pairs));
    wait(async {
        let client = connect(&rig.address).await;
        let mut stream = signals_of(&client).await;
        rig.notices.send(handled(&card)).await.unwrap();
        let removed = Notice::Removed { seqnum: 78, usec: 1, device: card.clone() };
        rig.notices.send(removed).await.unwrap();
        for member in ["InterfacesAdded", "InterfacesRemoved"] {
            let (interface, told, message) = next(&mut stream).await;
            assert_eq!((interface.as_str(), told.as_str()), (OBJECT_MANAGER, member));
            let body = message.body();
            let signature = body.signature().to_string_no_parens();
            assert_eq!(signature, if member == "InterfacesAdded" { "oa{sa{sv}}" } else { "oas" });
        }
    });
}

#[test]
fn falling_behind_is_repaired_by_the_list() {
    let rig = Rig::new();
    let pairs: [(&str, &[u8]); 2] = [("SUBSYSTEM", b"net"), ("IFINDEX", b"7")];
    let card = Arc::new(known("/devices/virtual/net/x", &pairs));
    wait(async {
        let client = connect(&rig.address).await;
        let mut stream = signals_of(&client).await;
        // dispatch does not have this one any more, but the bus never heard of its removal
        rig.notices.send(handled(&card)).await.unwrap();
        assert_eq!(next(&mut stream).await.1, "InterfacesAdded");
        rig.notices.send(Notice::Behind).await.unwrap();
        assert_eq!(next(&mut stream).await.1, "InterfacesRemoved");
    });
}

#[test]
fn who_leaves_the_bus_is_no_subscriber_any_more() {
    let rig = Rig::new();
    wait(async {
        let mut clients = Vec::new();
        for _ in 0..SUBSCRIBERS_MAX {
            let client = connect(&rig.address).await;
            manager(&client, "Subscribe").await.unwrap();
            clients.push(client);
        }
        let late = connect(&rig.address).await;
        let refused = manager(&late, "Subscribe").await.unwrap_err();
        assert!(refused.to_string().contains("Too many clients"), "{refused}");
        for client in clients {
            client.close().await.unwrap();
        }
        // the bus tells us of the departures at its own pace
        while manager(&late, "Subscribe").await.is_err() {
            tokio::task::yield_now().await;
        }
    });
}
