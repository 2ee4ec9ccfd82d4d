//! Stage 5b: a network interface's hardware address, as text and as bytes.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;

/// The longest one, `MAX_ADDR_LEN` of `linux/netdevice.h`.
const LENGTH_LIMIT: usize = 32;

/// A hardware address of 1 to 32 bytes: 6 for Ethernet, 20 for InfiniBand, 4 and 16 for tunnels.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HardwareAddress(Box<[u8]>);

impl HardwareAddress {
    /// An address as the kernel has it; `None` for none, or for more bytes than there can be.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        ((1..=LENGTH_LIMIT).contains(&bytes.len())).then(|| Self(bytes.into()))
    }

    /// Reads `aa:bb:cc:dd:ee:ff`, `aa-bb-…`, `aabb.ccdd.eeff`, and IP addresses for those of tunnels;
    /// leading zeros of a field may be left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(IpAddr::V4(address)) => return Self::from_bytes(&address.octets()),
            Ok(IpAddr::V6(address)) => return Self::from_bytes(&address.octets()),
            Err(_) => {}
        }
        let separator = text.chars().find(|c| !c.is_ascii_hexdigit())?;
        let (width, bytes) = match separator {
            ':' | '-' => (2, 1),
            '.' => (4, 2),
            _ => return None,
        };
        let mut address = Vec::new();
        for field in text.split(separator) {
            let fits = (1..=width).contains(&field.len());
            // a sign would be read as part of the number
            let digits = field.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u16::from_str_radix(field, 16).ok().filter(|_| fits && digits)?;
            address.extend_from_slice(&number.to_be_bytes()[2 - bytes..]);
        }
        matches!(address.len(), 4 | 6 | 16 | 20).then(|| Self(address.into()))
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether no bit is set.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether every bit is set, as in Ethernet's broadcast address.
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0xff)
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at > 0 { ":" } else { "" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::HardwareAddress;

    #[test]
    fn every_form_of_the_manual_is_read() {
        let shown = |text: &str| HardwareAddress::parse(text).map(|a| a.to_string());
        for text in ["12:34:56:78:90:ab", "12-34-56-78-90-AB", "1234.5678.90ab"] {
            assert_eq!(shown(text).as_deref(), Some("12:34:56:78:90:ab"));
        }
        assert_eq!(shown("2:0:0:0:0:a").as_deref(), Some("02:00:00:00:00:0a"));
        assert_eq!(shown("192.168.0.1").as_deref(), Some("c0:a8:00:01"));
        assert_eq!(shown("::1").unwrap().len(), 16 * 3 - 1);
        for text in ["", "12", "12:34", "12:34:56:78:90:ab:", "12:34:56-78:90:ab", "+1:2:3:4:5:6"] {
            assert_eq!(shown(text), None, "{text}");
        }
    }
}
