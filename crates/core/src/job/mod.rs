//! Jobs: their table, queues, parts, attachments, logs and what is kept of them.

pub(crate) mod attachments;
pub(crate) mod backlog;
pub(crate) mod batch;
pub(crate) mod deaths;
pub(crate) mod entry;
pub(crate) mod fan;
pub(crate) mod grant;
pub(crate) mod ids;
pub(crate) mod kept;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod queues;
pub(crate) mod table;
