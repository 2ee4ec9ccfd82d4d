//! `mapdev-probe`: reads disks for mapdevd, in a sandbox; the only program that uses libblkid.
//!
//! Its standard input is a socket to the daemon. A question comes with descriptors of the device and of
//! its whole disk; what libblkid wants to look up in sysfs comes with it (see `sigsys.rs`).
//! `--self-test` goes into the sandbox and tries to get out.

mod filter;
mod libblkid;
mod sandbox;
mod self_test;
mod sigsys;

use std::io::{IoSlice, IoSliceMut, stdin};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use mapdev::probe::protocol::{DESCRIPTORS_MAX, PACKET_MAX, Question, Refusal, Reply};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendFlags, recvmsg, sendmsg,
};

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        None if sandbox::enter().is_ok() => serve(),
        None => ExitCode::from(2),
        Some(word) if word == "--self-test" => self_test::run(),
        Some(_) => ExitCode::from(2),
    }
}

/// Until the daemon closes its end, or something is said that no daemon says.
fn serve() -> ExitCode {
    if !say(&Reply::Ready) {
        return ExitCode::FAILURE;
    }
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let Some((length, descriptors)) = hear(&mut packet) else { return ExitCode::FAILURE };
        if length == 0 {
            return ExitCode::SUCCESS;
        }
        let question = packet.get(..length).and_then(|packet| Question::decode(packet).ok());
        let Some(question) = question else { return ExitCode::FAILURE };
        let reply = answer(&question, descriptors);
        if !say(&reply) {
            return ExitCode::FAILURE;
        }
    }
}

/// When it returns, no descriptor of a disk is open any more: the device may go.
fn answer(question: &Question, descriptors: Vec<OwnedFd>) -> Reply {
    let reply = match descriptors.first() {
        Some(device) => sigsys::with(&question.facts, &descriptors, || {
            match libblkid::look(device.as_fd(), question) {
                Ok(found) => Reply::Found(found),
                Err(refusal) => Reply::Refused(refusal),
            }
        }),
        None => Reply::Refused(Refusal::Device),
    };
    drop(descriptors);
    sandbox::close_the_rest();
    reply
}

/// `None` if the daemon cannot be heard, 0 bytes if it is gone.
fn hear(packet: &mut [u8]) -> Option<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let said = recvmsg(stdin(), &mut [IoSliceMut::new(packet)], &mut control, flags).ok()?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let whole = !said.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    whole.then_some((said.bytes, descriptors))
}

fn say(reply: &Reply) -> bool {
    let packet = reply.encode();
    let mut control = SendAncillaryBuffer::new(&mut []);
    let sent = sendmsg(stdin(), &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL);
    sent.is_ok_and(|sent| sent == packet.len())
}
