//! The list of `dgm_benches::cases` under criterion, in operations a second.

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for mut case in dgm_benches::cases() {
        let mut group = criterion.benchmark_group(case.kernel);
        group.throughput(Throughput::Elements(case.work));
        group.bench_function(&case.name, |b| b.iter(&mut case.call));
        group.finish();
    }
    criterion.final_summary();
}
