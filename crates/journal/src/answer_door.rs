//! The door through which answers leave the writer's thread. Its last answer is always `Closed`: a thread that panics says so too.
//!
//! Driven by `writer_thread.rs`.

use std::fmt;

use crate::answer::JournalAnswer;

/// The door.
pub(crate) struct AnswerDoor {
    tell: Box<dyn FnMut(JournalAnswer) + Send>,
    /// The door is not called any more: it was called with `Closed`, or its last call has panicked.
    is_shut: bool,
}

impl fmt::Debug for AnswerDoor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AnswerDoor").field("is_shut", &self.is_shut).finish_non_exhaustive()
    }
}

impl AnswerDoor {
    pub(crate) fn new(tell: impl FnMut(JournalAnswer) + Send + 'static) -> Self {
        Self { tell: Box::new(tell), is_shut: false }
    }

    /// Tells an answer.
    pub(crate) fn tell(&mut self, answer: JournalAnswer) {
        let is_last = matches!(answer, JournalAnswer::Closed { .. });
        self.is_shut = true;
        (self.tell)(answer);
        self.is_shut = is_last;
    }
}

impl Drop for AnswerDoor {
    fn drop(&mut self) {
        if !self.is_shut {
            self.tell(JournalAnswer::Closed { is_clean: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn the_last_answer_is_the_end_also_after_a_panic() {
        for panics in [false, true] {
            let (tell, answers) = channel();
            let mut door = AnswerDoor::new(move |answer| drop(tell.send(answer)));
            let thread = std::thread::spawn(move || {
                door.tell(JournalAnswer::Recovered);
                assert!(!panics, "on purpose");
                door.tell(JournalAnswer::Closed { is_clean: true });
            });
            assert_eq!(thread.join().is_err(), panics);
            let told: Vec<JournalAnswer> = answers.iter().collect();
            assert_eq!(told, [JournalAnswer::Recovered, JournalAnswer::Closed { is_clean: !panics }]);
        }
    }

    #[test]
    fn a_door_that_panics_is_not_called_again() {
        let mut door = AnswerDoor::new(|_| panic!("on purpose"));
        let told =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| door.tell(JournalAnswer::Recovered)));
        assert!(told.is_err());
        drop(door);
    }
}
