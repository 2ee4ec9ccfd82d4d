//! Stage 5b: the words of `.link` files that stand for numbers of the kernel.
#![forbid(unsafe_code)]

/// Types of hardware by number (`linux/if_arp.h`), as `Type=` calls them.
const HARDWARE: [(u16, &str); 67] = [
    (0, "netrom"),
    (1, "ether"),
    (2, "eether"),
    (3, "ax25"),
    (4, "pronet"),
    (5, "chaos"),
    (6, "ieee802"),
    (7, "arcnet"),
    (8, "appletlk"),
    (15, "dlci"),
    (19, "atm"),
    (23, "metricom"),
    (24, "ieee1394"),
    (27, "eui64"),
    (32, "infiniband"),
    (256, "slip"),
    (257, "cslip"),
    (258, "slip6"),
    (259, "cslip6"),
    (260, "rsrvd"),
    (264, "adapt"),
    (270, "rose"),
    (271, "x25"),
    (272, "hwx25"),
    (280, "can"),
    (290, "mctp"),
    (512, "ppp"),
    (513, "cisco"),
    (516, "lapb"),
    (517, "ddcmp"),
    (518, "rawhdlc"),
    (519, "rawip"),
    (768, "tunnel"),
    (769, "tunnel6"),
    (770, "frad"),
    (771, "skip"),
    (772, "loopback"),
    (773, "localtlk"),
    (774, "fddi"),
    (775, "bif"),
    (776, "sit"),
    (777, "ipddp"),
    (778, "ipgre"),
    (779, "pimreg"),
    (780, "hippi"),
    (781, "ash"),
    (782, "econet"),
    (783, "irda"),
    (784, "fcpp"),
    (785, "fcal"),
    (786, "fcpl"),
    (787, "fcfabric"),
    (800, "ieee802_tr"),
    (801, "ieee80211"),
    (802, "ieee80211_prism"),
    (803, "ieee80211_radiotap"),
    (804, "ieee802154"),
    (805, "ieee802154_monitor"),
    (820, "phonet"),
    (821, "phonet_pipe"),
    (822, "caif"),
    (823, "ip6gre"),
    (824, "netlink"),
    (825, "6lowpan"),
    (826, "vsockmon"),
    (65534, "none"),
    (65535, "void"),
];

/// Ethernet's number.
pub(super) const ETHER: u16 = 1;
/// InfiniBand's number.
pub(super) const INFINIBAND: u16 = 32;

/// What `Type=` calls hardware that has no devtype.
pub(super) fn hardware(number: u16) -> Option<&'static str> {
    HARDWARE.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// The bits of `ETHTOOL_LINK_MODE_…_BIT` by position; an empty one cannot be advertised.
pub(super) const LINK_MODES: [&str; 93] = [
    "10baset-half",
    "10baset-full",
    "100baset-half",
    "100baset-full",
    "1000baset-half",
    "1000baset-full",
    "",
    "tp",
    "aui",
    "mii",
    "fibre",
    "bnc",
    "10000baset-full",
    "pause",
    "asym-pause",
    "2500basex-full",
    "backplane",
    "1000basekx-full",
    "10000basekx4-full",
    "10000basekr-full",
    "10000baser-fec",
    "20000basemld2-full",
    "20000basekr2-full",
    "40000basekr4-full",
    "40000basecr4-full",
    "40000basesr4-full",
    "40000baselr4-full",
    "56000basekr4-full",
    "56000basecr4-full",
    "56000basesr4-full",
    "56000baselr4-full",
    "25000basecr-full",
    "25000basekr-full",
    "25000basesr-full",
    "50000basecr2-full",
    "50000basekr2-full",
    "100000basekr4-full",
    "100000basesr4-full",
    "100000basecr4-full",
    "100000baselr4-er4-full",
    "50000basesr2-full",
    "1000basex-full",
    "10000basecr-full",
    "10000basesr-full",
    "10000baselr-full",
    "10000baselrm-full",
    "10000baseer-full",
    "2500baset-full",
    "5000baset-full",
    "fec-none",
    "fec-rs",
    "fec-baser",
    "50000basekr-full",
    "50000basesr-full",
    "50000basecr-full",
    "50000baselr-er-fr-full",
    "50000basedr-full",
    "100000basekr2-full",
    "100000basesr2-full",
    "100000basecr2-full",
    "100000baselr2-er2-fr2-full",
    "100000basedr2-full",
    "200000basekr4-full",
    "200000basesr4-full",
    "200000baselr4-er4-fr4-full",
    "200000basedr4-full",
    "200000basecr4-full",
    "100baset1-full",
    "1000baset1-full",
    "400000basekr8-full",
    "400000basesr8-full",
    "400000baselr8-er8-fr8-full",
    "400000basedr8-full",
    "400000basecr8-full",
    "fec-llrs",
    "100000basekr-full",
    "100000basesr-full",
    "100000baselr-er-fr-full",
    "100000basecr-full",
    "100000basedr-full",
    "200000basekr2-full",
    "200000basesr2-full",
    "200000baselr2-er2-fr2-full",
    "200000basedr2-full",
    "200000basecr2-full",
    "400000basekr4-full",
    "400000basesr4-full",
    "400000baselr4-er4-fr4-full",
    "400000basedr4-full",
    "400000basecr4-full",
    "100basefx-half",
    "100basefx-full",
    "10baset1l-full",
];

/// The bits of `WAKE_…` by position.
pub(super) const WAKE: [&str; 7] =
    ["phy", "unicast", "multicast", "broadcast", "arp", "magic", "secureon"];
/// `WAKE_MAGICSECURE`.
pub(super) const SECURE_ON: u32 = 1 << 6;

/// The ports of `PORT_…` by number.
pub(super) const PORTS: [&str; 5] = ["tp", "aui", "mii", "fibre", "bnc"];

/// `ETH_TP_MDI…`, some under several names.
pub(super) const MDI: [(&str, u8); 6] =
    [("mdi", 1), ("straight", 1), ("mdi-x", 2), ("mdix", 2), ("crossover", 2), ("auto", 3)];

/// The keys that switch features, and what ethtool calls them; a `-` at the end stands for all that
/// begin so.
pub(super) const FEATURES: [(&str, &str); 13] = [
    ("ReceiveChecksumOffload", "rx-checksum"),
    ("TransmitChecksumOffload", "tx-checksum-"),
    ("GenericSegmentationOffload", "tx-generic-segmentation"),
    ("TCPSegmentationOffload", "tx-tcp-segmentation"),
    ("TCP6SegmentationOffload", "tx-tcp6-segmentation"),
    ("GenericReceiveOffload", "rx-gro"),
    ("GenericReceiveOffloadHardware", "rx-gro-hw"),
    ("LargeReceiveOffload", "rx-lro"),
    ("ReceiveVLANCTAGHardwareAcceleration", "rx-vlan-hw-parse"),
    ("TransmitVLANCTAGHardwareAcceleration", "tx-vlan-hw-insert"),
    ("ReceiveVLANCTAGFilter", "rx-vlan-filter"),
    ("TransmitVLANSTAGHardwareAcceleration", "tx-vlan-stag-hw-insert"),
    ("NTupleFilter", "rx-ntuple-filter"),
];

/// In the order of `struct ethtool_channels`.
pub(super) const CHANNELS: [&str; 4] =
    ["RxChannels", "TxChannels", "OtherChannels", "CombinedChannels"];
/// In the order of `struct ethtool_ringparam`.
pub(super) const RINGS: [&str; 4] =
    ["RxBufferSize", "RxMiniBufferSize", "RxJumboBufferSize", "TxBufferSize"];
/// In the order of `struct ethtool_pauseparam`.
pub(super) const PAUSE: [&str; 3] =
    ["AutoNegotiationFlowControl", "RxFlowControl", "TxFlowControl"];

/// How a key of coalescing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Microseconds,
    /// Microseconds, and not none.
    SomeMicroseconds,
    /// Whole seconds, rounded up, and not none.
    Seconds,
    Count,
    Boolean,
}

/// In the order of `struct ethtool_coalesce`.
pub(super) const COALESCE: [(&str, Unit); 22] = [
    ("RxCoalesceSec", Unit::Microseconds),
    ("RxMaxCoalescedFrames", Unit::Count),
    ("RxCoalesceIrqSec", Unit::Microseconds),
    ("RxMaxCoalescedIrqFrames", Unit::Count),
    ("TxCoalesceSec", Unit::Microseconds),
    ("TxMaxCoalescedFrames", Unit::Count),
    ("TxCoalesceIrqSec", Unit::Microseconds),
    ("TxMaxCoalescedIrqFrames", Unit::Count),
    ("StatisticsBlockCoalesceSec", Unit::SomeMicroseconds),
    ("UseAdaptiveRxCoalesce", Unit::Boolean),
    ("UseAdaptiveTxCoalesce", Unit::Boolean),
    ("CoalescePacketRateLow", Unit::Count),
    ("RxCoalesceLowSec", Unit::Microseconds),
    ("RxMaxCoalescedLowFrames", Unit::Count),
    ("TxCoalesceLowSec", Unit::Microseconds),
    ("TxMaxCoalescedLowFrames", Unit::Count),
    ("CoalescePacketRateHigh", Unit::Count),
    ("RxCoalesceHighSec", Unit::Microseconds),
    ("RxMaxCoalescedHighFrames", Unit::Count),
    ("TxCoalesceHighSec", Unit::Microseconds),
    ("TxMaxCoalescedHighFrames", Unit::Count),
    ("CoalescePacketRateSampleIntervalSec", Unit::Seconds),
];
