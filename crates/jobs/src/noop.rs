//! `noop`: returns its input, byte for byte. It measures the cost of everything around a task.
//!
//! It never examines the bytes, so it accepts any input.

use bulkhead_task::{TaskContext, TaskFailure};

pub(crate) fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    Ok(task.write_all(input)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_task::TestTask;

    #[test]
    fn any_bytes_come_back() {
        for input in [&b""[..], b"7", b"\xff\x00\n"] {
            let mut task = TestTask::default();
            run(input, &mut task).unwrap();
            assert_eq!(task.output, input);
        }
    }

    #[test]
    fn output_that_is_refused_is_a_failure() {
        let mut task = TestTask { room: Some(1), ..TestTask::default() };
        assert_eq!(run(b"12", &mut task).unwrap_err().to_string(), "output: no room");
    }
}
