//! Stage 5b: the settings of `[Link]` that ethtool sets; each on its own, so that one that the driver
//! does not know costs no other.

use std::io;

use super::ethtool::{CHANNELS, COALESCE, Ethtool, LINK_WORDS, Layout, PAUSE, RINGS, WAKE};
use super::link_file::{Amount, Settings, WakePassword};
use super::words::{FEATURES, SECURE_ON};

/// Something that could not be set, and why.
pub(super) type Failed = (&'static str, io::Error);

/// Sets everything that `settings` speak of.
pub(super) fn ethtool(ethtool: &Ethtool, name: &[u8], settings: &Settings) -> Vec<Failed> {
    let attempts = [
        ("speed, duplex, port, negotiation or MDI", link(ethtool, name, settings)),
        ("WakeOnLan=", wake(ethtool, name, settings)),
        ("offloading", features(ethtool, name, settings)),
        ("channels", counts(ethtool, name, CHANNELS, settings.channels)),
        ("buffer sizes", counts(ethtool, name, RINGS, settings.rings)),
        ("flow control", pause(ethtool, name, settings)),
        ("coalescing", coalesce(ethtool, name, settings)),
    ];
    let failed = attempts.into_iter().filter_map(|(what, result)| Some((what, result.err()?)));
    failed.collect()
}

/// Sets words to what is wanted; says whether that changes any.
fn update<T: PartialEq>(
    changes: impl IntoIterator<Item = (T, Option<T>)>,
    mut set: impl FnMut(usize, T),
) -> bool {
    let mut changed = false;
    for (at, (old, new)) in changes.into_iter().enumerate() {
        if let Some(new) = new.filter(|new| *new != old) {
            set(at, new);
            changed = true;
        }
    }
    changed
}

// Bytes of `struct ethtool_link_settings`.
const SPEED: usize = 1;
const DUPLEX: usize = 8;
const PORT: usize = 9;
const NEGOTIATION: usize = 11;
const MDI_CONTROL: usize = 14;

fn link(ethtool: &Ethtool, name: &[u8], settings: &Settings) -> io::Result<()> {
    let advertises = settings.advertise.iter().any(|word| *word != 0);
    // what is negotiated cannot be set
    let fixed = settings.negotiation != Some(true) && !advertises;
    let speed = Some(settings.bits_per_second).filter(|speed| fixed && *speed > 0);
    let speed = speed.map(|speed| u32::try_from(speed.div_ceil(1_000_000)).unwrap_or(u32::MAX));
    let bytes = [
        (DUPLEX, settings.full_duplex.filter(|_| fixed).map(u8::from)),
        (PORT, settings.port.filter(|_| fixed)),
        (NEGOTIATION, if advertises { Some(1) } else { settings.negotiation.map(u8::from) }),
        (MDI_CONTROL, settings.mdi),
    ];
    if speed.is_none() && bytes.iter().all(|(_, value)| value.is_none()) {
        return Ok(());
    }
    let mut words = ethtool.link(name)?;
    let mut header: Vec<u8> = words[..LINK_WORDS].iter().flat_map(|w| w.to_ne_bytes()).collect();
    // a driver without control of MDI says 0
    let mdi = header[MDI_CONTROL] != 0;
    let wanted = bytes.map(|(at, value)| (at, value.filter(|_| at != MDI_CONTROL || mdi)));
    let old = wanted.map(|(at, value)| (header[at], value));
    let mut changed = update(old, |at, value| header[wanted[at].0] = value);
    for (word, bytes) in words.iter_mut().zip(header.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
    }
    changed |= update([(words[SPEED], speed)], |_, speed| words[SPEED] = speed);
    if advertises {
        let masks = (words.len() - LINK_WORDS) / 3;
        let advertised = &mut words[LINK_WORDS + masks..LINK_WORDS + 2 * masks];
        let modes = settings.advertise.iter().copied().chain(std::iter::repeat(0));
        let old: Vec<_> = advertised.iter().copied().zip(modes.map(Some)).collect();
        changed |= update(old, |at, word| advertised[at] = word);
    }
    if changed { ethtool.set_link(name, words) } else { Ok(()) }
}

fn wake(ethtool: &Ethtool, name: &[u8], settings: &Settings) -> io::Result<()> {
    let password = match &settings.wake_password {
        Some(WakePassword::Bytes(bytes)) => Some(bytes),
        Some(WakePassword::File(_)) | None => None,
    };
    if settings.wake.is_none() && password.is_none() {
        return Ok(());
    }
    let mut words = ethtool.get(name, WAKE)?;
    // a password alone adds to what wakes the machine already
    let wake = settings.wake.unwrap_or(words[2] | SECURE_ON);
    let mut changed = update([(words[2], Some(wake))], |_, wake| words[2] = wake);
    if let Some([a, b, c, d, e, f]) = password.copied() {
        let [_, _, g, h] = words[4].to_ne_bytes();
        let wanted = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])];
        let old = [(words[3], Some(wanted[0])), (words[4], Some(wanted[1]))];
        changed |= update(old, |at, word| words[3 + at] = word);
    }
    if changed { ethtool.set(name, WAKE, words) } else { Ok(()) }
}

fn features(ethtool: &Ethtool, name: &[u8], settings: &Settings) -> io::Result<()> {
    if settings.features.iter().all(Option::is_none) {
        return Ok(());
    }
    let features = ethtool.features(name)?;
    let wanted = features.iter().map(|feature| {
        let is = |called: &str| match called.strip_suffix('-') {
            Some(_) => feature.name.starts_with(called.as_bytes()),
            None => feature.name == called.as_bytes(),
        };
        let set = FEATURES.iter().zip(settings.features).find(|((_, called), _)| is(called));
        set.and_then(|(_, wanted)| wanted).filter(|_| feature.available)
    });
    let wanted: Vec<_> = wanted.collect();
    if wanted.iter().all(Option::is_none) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    ethtool.set_features(name, &wanted)
}

/// Channels and buffers: four limits, then four numbers.
fn counts(
    ethtool: &Ethtool,
    name: &[u8],
    layout: Layout,
    wanted: [Option<Amount>; 4],
) -> io::Result<()> {
    if wanted.iter().all(Option::is_none) {
        return Ok(());
    }
    let mut words = ethtool.get(name, layout)?;
    let number = |at: usize, amount: Amount| match amount {
        Amount::Max => words[1 + at],
        Amount::Number(number) => number.min(words[1 + at]),
    };
    let old: Vec<_> = wanted
        .iter()
        .enumerate()
        .map(|(at, amount)| (words[5 + at], amount.map(|amount| number(at, amount))))
        .collect();
    if update(old, |at, number| words[5 + at] = number) {
        return ethtool.set(name, layout, words);
    }
    Ok(())
}

fn pause(ethtool: &Ethtool, name: &[u8], settings: &Settings) -> io::Result<()> {
    let wanted = settings.pause.map(|on| on.map(u32::from));
    words(ethtool, name, PAUSE, &wanted)
}

fn coalesce(ethtool: &Ethtool, name: &[u8], settings: &Settings) -> io::Result<()> {
    words(ethtool, name, COALESCE, &settings.coalesce)
}

/// Structs of nothing but numbers behind the command.
fn words(ethtool: &Ethtool, name: &[u8], layout: Layout, wanted: &[Option<u32>]) -> io::Result<()> {
    if wanted.iter().all(Option::is_none) {
        return Ok(());
    }
    let mut words = ethtool.get(name, layout)?;
    let old: Vec<_> = words[1..].iter().copied().zip(wanted.iter().copied()).collect();
    if update(old, |at, word| words[1 + at] = word) {
        return ethtool.set(name, layout, words);
    }
    Ok(())
}
