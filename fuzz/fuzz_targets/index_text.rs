//! Any two texts are sets of indexes, and obey the laws of sets without ever being counted out.
#![no_main]

use batchjob_decide::job::indexes::IndexSet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let (one, other) = data.split_once('\n').unwrap_or((data, ""));
    let (a, b) = (IndexSet::parse(one), IndexSet::parse(other));
    for (text, set) in [(one, &a), (other, &b)] {
        let written = set.to_string();
        assert_eq!(IndexSet::parse(&written), *set, "what is written is read back");
        assert!(written.len() <= text.len(), "{text:?} became longer: {written:?}");
        assert_eq!(set.is_empty(), set.len() == 0);
    }
    let union = a.union(&b);
    assert_eq!(union, b.union(&a));
    assert_eq!(union.len() + a.n_common(&b), a.len() + b.len());
    assert_eq!(a.n_common(&a), a.len());

    // Where something begins or ends: the first index of a run in either.
    let edges = union.to_string();
    for edge in edges.split([',', '-']).filter_map(|edge| edge.parse::<u32>().ok()).take(64) {
        assert!(union.contains(edge) && (a.contains(edge) || b.contains(edge)));
        let mut below = a.clone();
        let rest = below.split_off(edge);
        assert_eq!(below, a.below(edge));
        assert_eq!((below.len() + rest.len(), below.n_common(&rest)), (a.len(), 0));
        assert_eq!(below.union(&rest), a);
        assert!(!below.contains(edge) && rest.contains(edge) == a.contains(edge));

        let (mut with, mut without) = (a.clone(), a.clone());
        assert_eq!(with.insert(edge), !a.contains(edge));
        without.remove(edge);
        assert!(with.contains(edge) && !without.contains(edge));
        assert_eq!(with.len() - without.len(), 1);
        without.insert(edge);
        assert_eq!(with, without);
        if let Some(missing) = a.clone().into_missing(edge).next() {
            assert!(missing < edge && !a.contains(missing));
        }
    }
});
