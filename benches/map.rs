//! What a change of the map costs the daemon, and a look-up a reader.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mapdev::map::{Kind, MapReader, MapWriter, Node};

const SIZES: [u32; 2] = [100, 10_000];

fn node(minor: u32) -> Node {
    Node { kind: Kind::Block { major: 8, minor }, mode: 0o660, uid: 0, gid: 6, flags: 4 }
}

fn path(n: u32) -> Vec<u8> {
    format!("disk{}/sd{n}", n % 10).into_bytes()
}

fn filled(size: u32) -> MapWriter {
    let mut map = MapWriter::create(size * 2).expect("a memory file");
    for n in 0..size {
        map.upsert(&path(n), &node(n)).expect("room");
    }
    map
}

fn writer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map/writer");
    for size in SIZES {
        let mut map = filled(size);
        let id = |what| BenchmarkId::new(what, size);
        group.bench_function(id("new and removed"), |bencher| {
            bencher.iter(|| {
                map.upsert(b"disk1/new", &node(1)).expect("room");
                map.remove(b"disk1/new")
            });
        });
        let mut n = 0_u32;
        group.bench_function(id("replaced"), |bencher| {
            bencher.iter(|| {
                n = n.wrapping_add(1);
                map.upsert(&path(7), &node(n % 1000)).expect("room")
            });
        });
        group.bench_function(id("owner"), |bencher| {
            bencher.iter(|| {
                n = n.wrapping_add(1);
                map.upsert(&path(8), &Node { uid: n, ..node(8) }).expect("room")
            });
        });
        group.bench_function(id("unchanged"), |bencher| {
            bencher.iter(|| map.upsert(&path(9), &node(9)).expect("room"));
        });
        group.bench_function(id("all new"), |bencher| {
            bencher.iter_batched(|| (), |()| filled(size), BatchSize::LargeInput);
        });
    }
    group.finish();
}

fn reader(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("map/reader");
    for size in SIZES {
        let map = filled(size);
        let reader = MapReader::open(map.read_only_fd().expect("/proc")).expect("a map");
        let paths: Vec<Vec<u8>> = (0..size).map(path).collect();
        let absent: Vec<Vec<u8>> = (0..size).map(|n| path(n + size)).collect();
        let id = |what| BenchmarkId::new(what, size);
        for (what, paths) in [("hit", &paths), ("miss", &absent)] {
            group.throughput(Throughput::Elements(1));
            let mut n = 0;
            group.bench_function(id(what), |bencher| {
                bencher.iter(|| {
                    n = (n + 1) % paths.len();
                    black_box(reader.lookup(&paths[n]))
                });
            });
        }
        group.throughput(Throughput::Elements(u64::from(size / 10)));
        group.bench_function(id("list"), |bencher| {
            bencher.iter(|| black_box(reader.list(b"disk3")));
        });
    }
    group.finish();
}

criterion_group!(benches, writer, reader);
criterion_main!(benches);
