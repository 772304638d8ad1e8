//! For how long did the operator ask nothing?

use jiff::{SignedDuration, Timestamp};

use crate::support::audit::Request;

/// For how long of that time nothing was asked that was not answered yet.
pub fn idle(asked: &[Request], from: Timestamp, to: Timestamp) -> SignedDuration {
    // In the order in which they came.
    let mut busy_until = from;
    let mut idle = SignedDuration::ZERO;
    for asked in asked.iter().filter(|asked| asked.at + asked.took > from && asked.at < to) {
        idle += asked.at.duration_since(busy_until).max(SignedDuration::ZERO);
        busy_until = busy_until.max(asked.at + asked.took);
    }
    idle + to.duration_since(busy_until).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_the_time_between_requests() {
        let second = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
        let asked = |at, took| Request {
            at: second(at),
            took: SignedDuration::from_secs(took),
            verb: "get".to_owned(),
            resource: "pods".to_owned(),
            namespace: String::new(),
            code: 200,
        };
        let all = [asked(0, 2), asked(3, 4), asked(4, 1), asked(9, 5)];
        // From 1: at work until 2, from 3 to 7, and from 9 on.
        assert_eq!(idle(&all, second(1), second(12)).as_secs(), 1 + 2);
        assert_eq!(idle(&[], second(1), second(12)).as_secs(), 11);
    }
}
