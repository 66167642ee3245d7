//! The list of `dgm_benches::cases` under criterion, in operations a second.

// criterion_group! writes a function without documentation.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn kernels(c: &mut Criterion) {
    for mut case in dgm_benches::cases() {
        let mut group = c.benchmark_group(case.kernel);
        group.throughput(Throughput::Elements(case.work));
        group.bench_function(&case.name, |b| b.iter(&mut case.call));
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
