//! Stage 9: the bytes of one message of udev's control protocol in, a [`Request`] out.
#![forbid(unsafe_code)]

use std::fmt;

/// Every message is as long, in the machine's byte order: text `udev-VERSION`, magic, type, value.
pub(super) const SIZE: usize = 280;
const MAGIC: u32 = 0xdead_1dea;
const MAGIC_AT: usize = 16;
const TYPE_AT: usize = 20;
const VALUE_AT: usize = 24;

/// What `udevadm control` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// No more will be said; the connection is closed when all before it is done.
    End,
    /// As for syslog(3): 0 to 7.
    LogLevel(u32),
    /// Events are heard and wait, until the queue is started again.
    StopQueue,
    StartQueue,
    Reload,
    /// `KEY=VALUE`, for all events.
    Property(Vec<u8>),
    ChildrenMax(u32),
    Ping,
    Exit,
}

/// Why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    /// Its length in bytes.
    Size(usize),
    Magic(u32),
    Type(u32),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "{size} bytes, wanted {SIZE}"),
            Self::Magic(magic) => write!(f, "magic {magic:#x}, wanted {MAGIC:#x}"),
            Self::Type(kind) => write!(f, "type {kind}, wanted 0 to 8"),
        }
    }
}

impl std::error::Error for WireError {}

/// Reads one message; the version in it says nothing.
pub(super) fn read(message: &[u8]) -> Result<Request, WireError> {
    let size = WireError::Size(message.len());
    if message.len() != SIZE {
        return Err(size);
    }
    let word = |at: usize| -> Result<u32, WireError> {
        let bytes = message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(size)
    };
    let magic = word(MAGIC_AT)?;
    if magic != MAGIC {
        return Err(WireError::Magic(magic));
    }
    Ok(match word(TYPE_AT)? {
        0 => Request::End,
        1 => Request::LogLevel(word(VALUE_AT)?),
        2 => Request::StopQueue,
        3 => Request::StartQueue,
        4 => Request::Reload,
        5 => {
            let text = message.get(VALUE_AT..).unwrap_or_default();
            Request::Property(text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
        }
        6 => Request::ChildrenMax(word(VALUE_AT)?),
        7 => Request::Ping,
        8 => Request::Exit,
        other => return Err(WireError::Type(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u32, value: &[u8]) -> Vec<u8> {
        let mut message = b"udev-252\0\0\0\0\0\0\0\0".to_vec();
        message.extend(MAGIC.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(value);
        message.resize(SIZE, 0);
        message
    }

    #[test]
    fn each_type_is_read_with_its_value() {
        let kinds = [0, 2, 3, 4, 7, 8].map(|kind| read(&message(kind, b"")).unwrap());
        let wanted = [
            Request::End,
            Request::StopQueue,
            Request::StartQueue,
            Request::Reload,
            Request::Ping,
            Request::Exit,
        ];
        assert_eq!(kinds, wanted);
        assert_eq!(read(&message(1, &7_u32.to_ne_bytes())), Ok(Request::LogLevel(7)));
        assert_eq!(read(&message(6, &9_u32.to_ne_bytes())), Ok(Request::ChildrenMax(9)));
        assert_eq!(read(&message(5, b"A=b\0c")), Ok(Request::Property(b"A=b".to_vec())));
        assert_eq!(read(&message(5, &[b'x'; 256])), Ok(Request::Property(vec![b'x'; 256])));
    }

    #[test]
    fn what_is_no_message_is_told_with_what_was_wanted() {
        let ping = message(7, b"");
        assert_eq!(read(&ping[..SIZE - 1]), Err(WireError::Size(SIZE - 1)));
        assert_eq!(read(&[]), Err(WireError::Size(0)));
        assert_eq!(read(&message(9, b"")).unwrap_err().to_string(), "type 9, wanted 0 to 8");
        let mut other = ping;
        other[MAGIC_AT] ^= 1;
        assert!(matches!(read(&other), Err(WireError::Magic(_))));
    }
}
