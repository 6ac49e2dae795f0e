//! The rules and contexts of a session, by the numbers that Python names them by.
//!
//! A context that Python has dropped is dropped at the daemon once no call that names it is open: the daemon refuses a call whose
//! context has gone. Its rules go at once; a call that names their number then is refused here, by another error than any other.
//! Driven by `session.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use bulkhead_client::{ContextNumber, Session, Spec};

/// A context that waits for the ends of calls.
#[derive(Debug)]
struct LeavingContext {
    context: ContextNumber,
    /// The rules that name it. Each open call holds its own.
    rules: Vec<Arc<Spec>>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct CallRules {
    rules: HashMap<usize, Arc<Spec>>,
    contexts: HashMap<usize, ContextNumber>,
    leaving: Vec<LeavingContext>,
    /// The number of the last rules or context.
    last: usize,
}

impl CallRules {
    fn next(&mut self) -> usize {
        self.last += 1;
        self.last
    }

    /// The number of these rules. Equal ones are looked for among those with the same contexts.
    pub(crate) fn add(&mut self, spec: Spec) -> usize {
        let is_same = |found: &Spec| {
            found.kind == spec.kind
                && found.flavour == spec.flavour
                && found.contexts == spec.contexts
                && found.policy == spec.policy
        };
        if let Some((number, _)) = self.rules.iter().find(|(_, found)| is_same(found)) {
            return *number;
        }
        let number = self.next();
        self.rules.insert(number, Arc::new(spec));
        number
    }

    /// The rules with this number.
    pub(crate) fn get(&self, number: usize) -> Option<Arc<Spec>> {
        self.rules.get(&number).map(Arc::clone)
    }

    /// The number of a new context.
    pub(crate) fn add_context(&mut self, context: ContextNumber) -> usize {
        let number = self.next();
        self.contexts.insert(number, context);
        number
    }

    /// The contexts with these numbers, or the first number that none has.
    pub(crate) fn contexts(&self, numbers: &[usize]) -> Result<Vec<ContextNumber>, usize> {
        numbers.iter().map(|number| self.contexts.get(number).copied().ok_or(*number)).collect()
    }

    /// How many contexts the daemon has from this session.
    pub(crate) fn held_contexts(&self) -> usize {
        self.contexts.len() + self.leaving.len()
    }

    /// Drops a context and its rules. `false`: there is none with this number.
    pub(crate) fn drop_context(&mut self, number: usize) -> bool {
        let Some(context) = self.contexts.remove(&number) else { return false };
        let named = self.rules.extract_if(|_, spec| spec.contexts.contains(&context));
        let rules = named.map(|(_, spec)| spec).collect();
        self.leaving.push(LeavingContext { context, rules });
        true
    }

    /// Drops at the daemon what no open call names.
    pub(crate) fn sweep(&mut self, session: &Session) {
        self.leaving.retain(|leaving| {
            let is_used = leaving.rules.iter().any(|spec| Arc::strong_count(spec) > 1);
            if !is_used {
                session.drop_context(leaving.context);
            }
            is_used
        });
    }
}
