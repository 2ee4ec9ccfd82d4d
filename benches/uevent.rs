//! Cost of a packet: checked in place, and copied into an event.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mapdev::uevent::Origin;
use mapdev::uevent::parse::parse;

const DISK: &[u8] =
    b"add@/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda\0\
    ACTION=add\0\
    DEVPATH=/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda\0\
    SUBSYSTEM=block\0MAJOR=8\0MINOR=0\0DEVNAME=sda\0DEVTYPE=disk\0DISKSEQ=9\0SEQNUM=1234\0";

fn disk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uevent");
    group.throughput(Throughput::Bytes(DISK.len() as u64));
    group.bench_function("parse", |bencher| bencher.iter(|| parse(black_box(DISK)).is_ok()));
    group.bench_function("parse and own", |bencher| {
        bencher.iter(|| parse(black_box(DISK)).map(|packet| packet.to_uevent(Origin::Kernel)));
    });
    group.finish();
}

criterion_group!(benches, disk);
criterion_main!(benches);
