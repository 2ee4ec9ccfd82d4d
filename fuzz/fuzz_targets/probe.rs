//! Any bytes as what the process that reads disks says, or as what it is asked: no panic, and what is
//! heard is what was said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mapdev::probe::protocol::{Question, Reply};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(reply) = Reply::decode(bytes) {
        assert_eq!(reply.encode(), bytes);
    }
    if let Ok(question) = Question::decode(bytes) {
        assert!(question.is_within_limits());
        assert_eq!(Question::decode(&question.encode()), Ok(question));
    }
});
