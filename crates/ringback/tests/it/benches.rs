//! The measurements of `cargo xtask bench` work. What they measure is looked at elsewhere: a test asserts no time.

use ringback_bench::{Bench, ROWS, Size};

use crate::ringback;

#[test]
fn every_row_of_the_benches_measures_something_on_the_real_program() {
    std::thread::scope(|scope| {
        let rows: Vec<_> = ROWS
            .iter()
            .map(|row| {
                let measure = || Bench::new(ringback(), Size::Quick)?.measure(row.name, 1);
                (row.name, scope.spawn(measure))
            })
            .collect();
        for (name, row) in rows {
            let measured = row.join().expect("no row panics").unwrap_or_else(|e| panic!("{name}: {e:#}"));
            assert!(!measured.is_empty(), "{name} states nothing");
            for m in measured {
                // A rest may cost less than one tick of the clock.
                assert!(m.ours.median.is_finite() && m.ours.median >= 0.0, "{}: {:?}", m.claim.name, m.ours);
                let ceiling = m.ceiling.map_or(1.0, |c| c.median);
                assert!(ceiling.is_finite() && ceiling > 0.0, "{}: {ceiling}", m.claim.name);
            }
        }
    });
}

#[test]
fn every_claim_of_the_benches_has_a_name_of_its_own_in_the_baseline() {
    // Read as the check reads it.
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../ringback-bench/baseline.json");
    let baseline = ringback_bench::baseline::Results::read(&path).expect("the baseline is committed");
    let bench = Bench::new(ringback(), Size::Quick).expect("the program is there");
    let mut names: Vec<&str> = bench.claims().expect("rows can be made").iter().map(|c| c.name).collect();
    names.sort_unstable();
    let known: Vec<&str> = baseline.claims.keys().map(String::as_str).collect();
    assert_eq!(names, known);
}
