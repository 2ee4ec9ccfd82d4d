//! Stage 9: one connection to the bus, from the claim of our name to its loss.
//!
//! The loop never waits for an answer of the bus: those come through the very streams it reads.
//! What waits (a call, a prompt) is a task of its own.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinSet};
use zbus::message::{Flags, Type};
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::call::{self, Answer, Call, Effect};
use super::charges::Charges;
use super::errors::{Kind, Refusal};
use super::signals::Teller;
use super::{BUS_NAME, World};
use crate::dispatch::command::{Command, Notice};

/// Messages that wait for the loop; the bus keeps what is beyond.
const STREAM_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Notices that are told in one go at most, so that calls get their turn in a storm.
const NOTICES_AT_ONCE: usize = 64;

/// `DBUS_NAME_FLAG_DO_NOT_QUEUE` of `RequestName`.
const DO_NOT_QUEUE: u32 = 4;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The bus is gone; come again.
    Lost(String),
    /// Somebody else has our name.
    NameTaken,
    /// Dispatch has ended.
    DispatchGone,
}

/// A call that is being answered.
#[derive(Debug)]
struct Ticket {
    name: String,
    uid: Option<u32>,
    task: AbortHandle,
}

/// What a task brought.
#[derive(Debug)]
enum Done {
    Claimed(zbus::Result<u32>),
    /// The caller's user; `None` if it has left, or the bus does not say.
    Identified(Message, Option<u32>),
    Answered(Message, Option<Answer>),
}

struct Session<'a> {
    world: Arc<World>,
    notices: &'a mut mpsc::Receiver<Notice>,
    tasks: JoinSet<Done>,
    tickets: HashMap<Id, Ticket>,
    charges: Charges,
    teller: Teller,
    claimed: &'a mut bool,
}

/// Serves until the connection ends; sets `claimed` once our name is ours.
pub(super) async fn serve(
    world: Arc<World>,
    notices: &mut mpsc::Receiver<Notice>,
    claimed: &mut bool,
) -> End {
    match session(world, notices, claimed).await {
        Ok(end) | Err(end) => end,
    }
}

async fn session(
    world: Arc<World>,
    notices: &mut mpsc::Receiver<Notice>,
    claimed: &mut bool,
) -> Result<End, End> {
    let lost = |error: zbus::Error| End::Lost(error.to_string());
    let connection = world.connection.clone();
    let left = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(2, "")
        .build()
        .map_err(lost)?;
    let mut left =
        MessageStream::for_match_rule(left, &connection, Some(STREAM_MAX)).await.map_err(lost)?;
    // older notices are in the list
    while notices.try_recv().is_ok() {}
    let known = world.ask(Command::List).await.map_err(|_| End::DispatchGone)?;
    let calls = MatchRule::builder().msg_type(Type::MethodCall).build().map_err(lost)?;
    let mut calls =
        MessageStream::for_match_rule(calls, &connection, Some(STREAM_MAX)).await.map_err(lost)?;
    let teller = Teller::new(world.accounts.clone(), known);
    let mut session = Session {
        world,
        notices,
        tasks: JoinSet::new(),
        tickets: HashMap::new(),
        charges: Charges::default(),
        teller,
        claimed,
    };
    session.tasks.spawn(claim(connection.clone()));
    loop {
        tokio::select! {
            call = calls.next() => session.called(read(call)?).await?,
            gone = left.next() => session.left(&read(gone)?),
            Some(done) = session.tasks.join_next_with_id() => session.done(done).await?,
            notice = session.notices.recv() => session.noticed(notice.ok_or(End::DispatchGone)?).await?,
        }
    }
}

fn read(message: Option<zbus::Result<Message>>) -> Result<Message, End> {
    match message {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(End::Lost(error.to_string())),
        None => Err(End::Lost("the bus closed the connection".to_owned())),
    }
}

impl Session<'_> {
    async fn called(&mut self, message: Message) -> Result<(), End> {
        let header = message.header();
        // a call that nobody made cannot be charged or checked
        let Some(name) = header.sender().map(ToString::to_string) else { return Ok(()) };
        match self.charges.enter(&name) {
            Ok(Some(uid)) => self.start(message, name, uid).await,
            Ok(None) => {
                let task = identify(self.world.connection.clone(), message.clone(), name.clone());
                let task = self.tasks.spawn(task);
                self.tickets.insert(task.id(), Ticket { name, uid: None, task });
                Ok(())
            }
            Err(_) => self.throttled(&message).await,
        }
    }

    /// Starts to answer a call that is charged to its caller.
    async fn start(&mut self, message: Message, name: String, uid: u32) -> Result<(), End> {
        if self.charges.charge(uid).is_err() {
            self.charges.leave(&name, None);
            return self.throttled(&message).await;
        }
        let call = Call::new(message.clone(), name.clone(), uid);
        let world = self.world.clone();
        let task = async move { Done::Answered(message, call::serve(world, call).await) };
        let task = self.tasks.spawn(task);
        self.tickets.insert(task.id(), Ticket { name, uid: Some(uid), task });
        Ok(())
    }

    async fn throttled(&self, message: &Message) -> Result<(), End> {
        let text = "Too many of your calls wait for their answers; wait for some, then call again.";
        let refusal = Refusal::new(Kind::Throttled, text);
        match call::error(message, &refusal) {
            Some(reply) => self.send(message, &reply).await,
            None => Ok(()),
        }
    }

    async fn done(&mut self, done: Result<(Id, Done), tokio::task::JoinError>) -> Result<(), End> {
        let id = match &done {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let done = match done {
            Ok((_, Done::Claimed(reply))) => return self.claimed(reply),
            Ok((_, done)) => done,
            // aborted: its caller has left
            Err(_) => return Ok(()),
        };
        // no ticket: the caller has left in the meantime
        let Some(ticket) = self.tickets.remove(&id) else { return Ok(()) };
        if let Done::Identified(message, Some(uid)) = done {
            self.charges.identify(&ticket.name, uid);
            return self.start(message, ticket.name, uid).await;
        }
        self.charges.leave(&ticket.name, ticket.uid);
        match done {
            Done::Identified(message, _) => {
                let text = "The bus does not tell who you are; connect to the bus and call again.";
                let refusal = Refusal::new(Kind::AccessDenied, text);
                match call::error(&message, &refusal) {
                    Some(reply) => self.send(&message, &reply).await,
                    None => Ok(()),
                }
            }
            Done::Answered(call, Some(answer)) => self.answer(&call, answer, &ticket.name).await,
            Done::Answered(_, None) | Done::Claimed(_) => Ok(()),
        }
    }

    fn claimed(&mut self, reply: zbus::Result<u32>) -> Result<(), End> {
        match reply {
            // primary owner, or already so
            Ok(1 | 4) => {
                *self.claimed = true;
                tracing::info!(name = BUS_NAME, "on the bus");
                Ok(())
            }
            Ok(_) => Err(End::NameTaken),
            Err(error) => Err(End::Lost(format!("the bus did not give the name: {error}"))),
        }
    }

    async fn answer(&mut self, call: &Message, answer: Answer, name: &str) -> Result<(), End> {
        match answer.effect {
            Effect::None => {}
            Effect::Unsubscribe => self.teller.unsubscribe(name),
            Effect::Subscribe if self.teller.subscribe(name) => {}
            Effect::Subscribe => {
                let text = "Too many clients have subscribed; listen to PropertiesChanged instead.";
                let refusal = Refusal::new(Kind::LimitsExceeded, text);
                return match call::error(call, &refusal) {
                    Some(reply) => self.send(call, &reply).await,
                    None => Ok(()),
                };
            }
        }
        let sent = self.send(call, &answer.message).await;
        drop(answer.large);
        sent
    }

    async fn send(&self, call: &Message, reply: &Message) -> Result<(), End> {
        if call.primary_header().flags().contains(Flags::NO_REPLY_EXPECTED) {
            return Ok(());
        }
        let sent = self.world.connection.send(reply).await;
        sent.map_err(|error| End::Lost(error.to_string()))
    }

    /// Somebody left the bus: what it waited for is given up, what it subscribed to is forgotten.
    fn left(&mut self, signal: &Message) {
        let body = signal.body();
        let Ok((name, _, _)) = body.deserialize::<(&str, &str, &str)>() else { return };
        if !name.starts_with(':') {
            return;
        }
        self.teller.unsubscribe(name);
        for (_, ticket) in self.tickets.extract_if(|_, ticket| ticket.name == name) {
            ticket.task.abort();
            self.charges.leave(name, ticket.uid);
        }
        self.charges.forget(name);
    }

    async fn noticed(&mut self, first: Notice) -> Result<(), End> {
        let mut messages = Vec::new();
        let mut next = Some(first);
        for _ in 0..NOTICES_AT_ONCE {
            let Some(notice) = next else { break };
            if matches!(notice, Notice::Behind) {
                tracing::info!("the bus fell behind; all devices are looked at anew");
                // notices that are older than the list are told again behind it, in their order
                let known = self.world.ask(Command::List).await.map_err(|_| End::DispatchGone)?;
                messages.extend(self.teller.relist(&known));
            } else {
                messages.extend(self.teller.tell(notice));
            }
            next = self.notices.try_recv().ok();
        }
        if let Some(notice) = next {
            messages.extend(self.teller.tell(notice));
        }
        let sent = self.world.connection.send_all(&messages).await;
        sent.map_err(|error| End::Lost(error.to_string()))
    }
}

async fn claim(connection: Connection) -> Done {
    let reply = driver(&connection, "RequestName", &(BUS_NAME, DO_NOT_QUEUE)).await;
    Done::Claimed(reply.and_then(|reply| reply.body().deserialize()))
}

async fn identify(connection: Connection, message: Message, name: String) -> Done {
    let reply = driver(&connection, "GetConnectionUnixUser", &name.as_str()).await;
    let uid = reply.and_then(|reply| reply.body().deserialize::<u32>());
    Done::Identified(message, uid.ok())
}

/// Calls the bus itself.
async fn driver<B>(connection: &Connection, method: &str, body: &B) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    let bus = "org.freedesktop.DBus";
    connection.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), method, body).await
}
