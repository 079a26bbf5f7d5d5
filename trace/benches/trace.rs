//! How fast traces are written and read: `cargo bench -p vellum-trace`.
//!
//! The events are a Zipf string as a recorder's filter leaves it (few repeats, varying counts), and
//! a loop, which compresses to almost nothing. Throughput is in events per second on one core;
//! `decode` and `encode` include zstd, checksums and, for `encode`, the summary.

use std::hint::black_box;
use std::io::Cursor;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use vellum_trace::check::Checker;
use vellum_trace::event::{Event, Meta};
use vellum_trace::generate::{Pattern, Spec};
use vellum_trace::{Notes, Reader, Writer};

const REFERENCES: u64 = 1 << 20;

fn events(pattern: Pattern) -> Vec<Event> {
    let spec = Spec { pattern, pages: 50_000, references: REFERENCES, write_share: 0.3, seed: 1 };
    let mut events = Vec::new();
    spec.generate(&mut events).expect("the parameters are good");
    if pattern == Pattern::Sequential {
        return events;
    }
    let mut random = Pcg64::seed_from_u64(2);
    for event in &mut events {
        if let Event::Access(access) = event {
            access.count = random.random_range(1..400);
            access.instructions = access.count * random.random_range(2..4);
        }
    }
    events
}

fn encode(events: &[Event]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &Meta::new("a benchmark")).expect("memory is enough");
    for event in events {
        writer.push(event).expect("memory is enough");
    }
    writer.finish(Notes::default()).expect("memory is enough");
    file
}

fn decode(file: &[u8], events: &mut Vec<Event>, checker: Option<&mut Checker>) -> u64 {
    let mut reader = Reader::new(Cursor::new(file)).expect("a good file");
    let mut count = 0;
    let mut checker = checker;
    while reader.next_block(events).expect("a good file") {
        if let Some(checker) = &mut checker {
            checker.block(events).expect("sound events");
        }
        count += events.len() as u64;
    }
    count
}

fn traces(criterion: &mut Criterion) {
    let zipf = Pattern::Zipf { exponent: 0.9, scattered: true };
    for (name, pattern) in [("zipf", zipf), ("loop", Pattern::Sequential)] {
        let events = events(pattern);
        let file = encode(&events);
        println!("{name}: {:.2} bytes an event", file.len() as f64 / events.len() as f64);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(events.len() as u64)).sample_size(20);
        group.bench_function("encode", |bench| bench.iter(|| encode(black_box(&events)).len()));
        let mut buffer = Vec::new();
        group.bench_function("decode", |bench| {
            bench.iter(|| decode(black_box(&file), &mut buffer, None));
        });
        group.bench_function("decode and check", |bench| {
            bench.iter(|| decode(black_box(&file), &mut buffer, Some(&mut Checker::new())));
        });
        group.finish();
    }
}

criterion_group!(benches, traces);
criterion_main!(benches);
