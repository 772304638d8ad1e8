//! Numbers that look random and are a function of a seed: SplitMix64, small enough to stay the same for ever.

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to these numbers, in this order.
    pub fn of(numbers: &[u64]) -> Random {
        Random(numbers.iter().fold(0, |state, number| mix(state ^ number.wrapping_add(GAMMA))))
    }

    /// The sequence that begins there.
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// From 0 to n − 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n
    }

    /// From `first` to `last`, both included.
    pub fn between(&mut self, first: i32, last: i32) -> i32 {
        let n = i64::from(last) - i64::from(first) + 1;
        // Both bounds and n are small.
        first + i32::try_from(self.below(n.unsigned_abs())).unwrap_or_default()
    }

    /// True in so many of 100 times.
    pub fn in_100(&mut self, times: u64) -> bool {
        self.below(100) < times
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of them; None if there is none.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> Option<&'a T> {
        let n = u64::try_from(values.len()).unwrap_or_default().max(1);
        values.get(usize::try_from(self.below(n)).unwrap_or_default())
    }

    pub fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        let n = u64::try_from(values.len()).unwrap_or(1);
        values[usize::try_from(self.below(n)).unwrap_or_default()].clone()
    }
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
