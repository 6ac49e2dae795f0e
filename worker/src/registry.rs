//! The kinds that a worker program offers, by name.
//!
//! A worker program fills a registry and passes it to [`crate::run`]; the runtime looks handlers up once, when the
//! supervisor has sent the names of its kinds. A handler reads and writes bytes ([`Registry::with`]) or values
//! ([`Registry::typed`]); one that takes chunks is called for each item ([`Registry::with_items`]). A kind whose jobs are split over
//! the workers has three functions ([`Registry::planned`], with bytes [`Registry::with_plan`]).

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bulkhead_link::worker::StackPage;
use bulkhead_proto::worker::message::StackText;
use bulkhead_task::{FanOut, RegisteredContext, TaskContext, TaskFailure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::chunk_run::ItemHandler;

mod typed_plan;

/// The code of a kind, as the runtime calls it: one task at a time, from one thread.
#[derive(Clone)]
pub(crate) enum KindHandler {
    /// Each of its jobs is one task.
    Whole(Arc<BoxedHandler>),
    /// The same, and the task has items.
    Items(Arc<ItemHandler>),
    /// Its jobs are split into parts.
    Split(Arc<dyn FanOut>),
}

type BoxedHandler = dyn Fn(&[u8], &mut dyn TaskContext) -> Result<(), TaskFailure> + Send + Sync;

/// Names and handlers.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Vec<(String, KindHandler)>,
    stack_writer: StackWriter,
    loader: Option<Arc<ContextLoader>>,
    idle_work: Option<Arc<IdleWork>>,
}

/// What a worker does once, between two tasks, when a descriptor is readable.
pub(crate) struct IdleWork {
    pub(crate) when: OwnedFd,
    pub(crate) act: Box<dyn Fn() + Send + Sync>,
}

/// Loads a context, once in each worker.
pub(crate) type ContextLoader = dyn Fn(&RegisteredContext, &mut dyn TaskContext) -> Result<Arc<dyn Any + Send + Sync>, TaskFailure>
    + Send
    + Sync;

/// The code that writes the stack of this program as text.
#[derive(Clone, Default)]
enum StackWriter {
    /// There is none.
    #[default]
    Nobody,
    /// The program's own, when it dies.
    AtDeath(Arc<PrepareStackText>),
    /// The program's own, also when it is asked.
    WhenAsked(Arc<PrepareStackText>),
    /// This library's, when it is asked: addresses of all threads.
    Threads,
}

/// Gets the page for the text of the stack, before the first task.
type PrepareStackText = dyn Fn(&'static StackPage) -> io::Result<()> + Send + Sync;

impl Registry {
    /// No kinds yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All built-in kinds. Only with the feature `builtin` of this crate, which is on by default.
    #[cfg(feature = "builtin")]
    pub fn builtin() -> Self {
        let registry = bulkhead_jobs::all().fold(Self::new(), |registry, (name, code)| match code {
            bulkhead_jobs::BuiltinKind::Whole(handler) => registry.with(name, handler),
            bulkhead_jobs::BuiltinKind::Split(kind) => registry.with_plan(name, kind),
        });
        registry.with(bulkhead_proto::kind::EXEC, crate::exec::run)
    }

    /// Adds a kind whose handler reads and writes bytes. A kind of the same name is replaced.
    #[must_use]
    pub fn with<F>(self, name: &str, handler: F) -> Self
    where
        F: Fn(&[u8], &mut dyn TaskContext) -> Result<(), TaskFailure> + Send + Sync + 'static,
    {
        self.add(name, KindHandler::Whole(Arc::new(handler)))
    }

    /// Adds a kind whose jobs are chunks of items: the handler is called for each, with what all items of the chunk share (its head)
    /// and with the item, and returns the result. The result is stored and counted before the next item begins, so the client
    /// has it whatever becomes of the worker. An item whose handler returns an error fails alone. A crash, a panic or a limit of
    /// time ends the job: the client gets the results that are counted, the item that had begun fails, and the client
    /// submits the others again. Each item counts as progress. The handler must not write output to its task.
    ///
    /// A client makes chunks with `ItemStore::chunk` of the client library, and jobs of one item with `one_item`.
    ///
    /// ```no_run
    /// use bulkhead_worker::{Registry, TaskContext, TaskFailure, run};
    ///
    /// fn square(_: &[u8], item: &[u8], _: &mut dyn TaskContext) -> Result<Vec<u8>, TaskFailure> {
    ///     let number = std::str::from_utf8(item).ok().and_then(|text| text.parse::<i64>().ok());
    ///     let square = number.and_then(|number| number.checked_mul(number));
    ///     Ok(square.ok_or_else(|| TaskFailure::new("no number, or a large one"))?.to_string().into_bytes())
    /// }
    ///
    /// fn main() -> std::process::ExitCode {
    ///     run(&Registry::new().with_items("squares", square))
    /// }
    /// ```
    #[must_use]
    pub fn with_items<F>(self, name: &str, handler: F) -> Self
    where
        F: Fn(&[u8], &[u8], &mut dyn TaskContext) -> Result<Vec<u8>, TaskFailure> + Send + Sync + 'static,
    {
        self.add(name, KindHandler::Items(Arc::new(handler)))
    }

    /// Adds a kind whose input and output are values, encoded as JSON, which a command line and every language can
    /// write. An input that cannot be parsed as `I` fails the task, and the failure says where it is wrong. An error of
    /// the handler fails the task with the error's text. A panic is caught and reported with file and line.
    #[must_use]
    pub fn typed<I, O, E, F>(self, name: &str, handler: F) -> Self
    where
        I: DeserializeOwned,
        O: Serialize,
        E: fmt::Display,
        F: Fn(I, &mut dyn TaskContext) -> Result<O, E> + Send + Sync + 'static,
    {
        self.with(name, move |input, task| {
            let output =
                handler(read_input(input)?, task).map_err(|error| TaskFailure::new(error.to_string()))?;
            write_output(&output, task)
        })
    }

    /// Adds a kind whose jobs are split over the workers, with values as in [`Registry::typed`]. `plan` splits a job
    /// into parts, `run` does one part in any free worker, and `merge` makes the output from the results, in the order
    /// of the parts. Each call is a task of its own, with its own progress, last words and limits. A part whose worker
    /// died is run again; a part that fails ends the job with its error. The result of a part is at most 4096 bytes of
    /// JSON; a longer one is written in place, see [`TaskContext::shared`]. The kind's table in the config needs `plans
    /// = true`.
    ///
    /// ```no_run
    /// use bulkhead_worker::{Registry, TaskContext, run};
    ///
    /// /// Sums of squares from 1 to n, in parts of a million numbers.
    /// fn plan(n: &u64, _: &mut dyn TaskContext) -> Result<Vec<(u64, u64)>, String> {
    ///     if *n > 1_000_000_000 {
    ///         return Err(format!("{n} is above 1000000000, where the sum does not fit"));
    ///     }
    ///     Ok((1..=*n).step_by(1_000_000).map(|first| (first, (first + 999_999).min(*n))).collect())
    /// }
    ///
    /// fn part(_: &u64, (first, last): (u64, u64), _: &mut dyn TaskContext) -> Result<u128, String> {
    ///     Ok((first..=last).map(|n| u128::from(n) * u128::from(n)).sum())
    /// }
    ///
    /// fn merge(_: &u64, sums: Vec<u128>, _: &mut dyn TaskContext) -> Result<u128, String> {
    ///     Ok(sums.iter().sum())
    /// }
    ///
    /// fn main() -> std::process::ExitCode {
    ///     run(&Registry::new().planned("squares", plan, part, merge))
    /// }
    /// ```
    #[must_use]
    pub fn planned<I, P, R, O, E, Plan, Run, Merge>(
        self,
        name: &str,
        plan: Plan,
        run: Run,
        merge: Merge,
    ) -> Self
    where
        I: DeserializeOwned + 'static,
        P: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
        O: Serialize + 'static,
        E: fmt::Display + 'static,
        Plan: Fn(&I, &mut dyn TaskContext) -> Result<Vec<P>, E> + Send + Sync + 'static,
        Run: Fn(&I, P, &mut dyn TaskContext) -> Result<R, E> + Send + Sync + 'static,
        Merge: Fn(&I, Vec<R>, &mut dyn TaskContext) -> Result<O, E> + Send + Sync + 'static,
    {
        self.add(name, KindHandler::Split(Arc::new(typed_plan::TypedPlan::new(plan, run, merge))))
    }

    /// Adds a kind whose jobs are split over the workers and whose functions read and write bytes, for instance a file
    /// of the job ([`TaskContext::file`]) and an output that all parts write in place ([`TaskContext::shared`]).
    ///
    /// ```
    /// use bulkhead_worker::{TaskFailure, FanOut, PackedParts, Planned, Registry, Split, TaskContext};
    ///
    /// /// A copy of file `in` in which every byte is another one, a mebibyte a part.
    /// struct Flip;
    ///
    /// const PART_BYTES: u64 = 1 << 20;
    ///
    /// impl FanOut for Flip {
    ///     fn plan(&self, _: &[u8], task: &mut dyn TaskContext) -> Result<Split, TaskFailure> {
    ///         let length = task.file("in")?.length();
    ///         task.shared()?.set_length(length)?;
    ///         let starts = (0..length).step_by(PART_BYTES as usize);
    ///         Ok(Split { parts: starts.map(|at| at.to_le_bytes().to_vec()).collect(), ..Split::default() })
    ///     }
    ///
    ///     fn run(&self, _: Planned<'_>, part: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    ///         let at = part.try_into().map(u64::from_le_bytes).map_err(|_| TaskFailure::new("a part is no place"))?;
    ///         let (file, output) = (task.file("in")?, task.shared()?);
    ///         let mut bytes = vec![0; PART_BYTES.min(file.length() - at) as usize];
    ///         file.read_exact_at(&mut bytes, at)?;
    ///         bytes.iter_mut().for_each(|byte| *byte = !*byte);
    ///         Ok(output.write_all_at(&bytes, at)?)
    ///     }
    ///
    ///     fn merge(
    ///         &self,
    ///         _: Planned<'_>,
    ///         _parts: &PackedParts<'_>,
    ///         _results: &PackedParts<'_>,
    ///         _: &mut dyn TaskContext,
    ///     ) -> Result<(), TaskFailure> {
    ///         Ok(()) // All of it was written in place.
    ///     }
    /// }
    ///
    /// let registry = Registry::new().with_plan("flip", Flip);
    /// ```
    #[must_use]
    pub fn with_plan(self, name: &str, kind: impl FanOut + 'static) -> Self {
        self.add(name, KindHandler::Split(Arc::new(kind)))
    }

    /// Sets the code that loads contexts: what a client registers once for its jobs, such as an initializer or a table that all of
    /// them need. It is called once for each context in a worker, before the handler of the first task that names it and as a
    /// part of that task: its time, its memory and its crash are that task's, and its error fails the task. It may report
    /// progress and must not write output. Handlers get what it returns with [`TaskContext::context`] and
    /// [`RegisteredContext::loaded`]. What a client registered as files alone is not loaded.
    ///
    /// ```
    /// use bulkhead_worker::{Registry, TaskFailure};
    ///
    /// let registry = Registry::new()
    ///     .with_loader(|context, _| {
    ///         let words = std::str::from_utf8(context.bytes()).map_err(|error| TaskFailure::new(error.to_string()))?;
    ///         Ok(words.split_whitespace().map(str::to_owned).collect::<Vec<String>>())
    ///     })
    ///     .with("count", |input, task| {
    ///         let words = task.context(0)?.loaded::<Vec<String>>();
    ///         let words = words.ok_or_else(|| TaskFailure::new("the job came with files, not with words"))?;
    ///         let found = words.iter().filter(|word| word.as_bytes() == input).count();
    ///         Ok(write!(task, "{found}")?)
    ///     });
    /// ```
    #[must_use]
    pub fn with_loader<T, F>(mut self, loader: F) -> Self
    where
        T: Any + Send + Sync,
        F: Fn(&RegisteredContext, &mut dyn TaskContext) -> Result<T, TaskFailure> + Send + Sync + 'static,
    {
        self.loader = Some(Arc::new(move |context: &RegisteredContext, task: &mut dyn TaskContext| {
            loader(context, task).map(|loaded| Arc::new(loaded) as Arc<dyn Any + Send + Sync>)
        }));
        self
    }

    /// Has each worker call `act` once, when `when` is readable and no task waits. Until it returns the worker begins no task; offers that wait
    /// longer than a worker has for its start are given to another worker, and it is killed. So `act` gets ready for tasks, and does what
    /// is known to end.
    #[must_use]
    pub fn with_idle_work(self, when: OwnedFd, act: impl Fn() + Send + Sync + 'static) -> Self {
        Self { idle_work: Some(Arc::new(IdleWork { when, act: Box::new(act) })), ..self }
    }

    pub(crate) fn idle_work(&self) -> Option<Arc<IdleWork>> {
        self.idle_work.clone()
    }

    /// The code that loads contexts.
    pub(crate) fn loader(&self) -> Option<Arc<ContextLoader>> {
        self.loader.clone()
    }

    /// Says that the code of this program, or the runtime of its language, writes its stack as text when it dies, in a page of
    /// 8 KiB that the daemon makes for this worker. `prepare` gets the page before the first task, and before the handlers of
    /// fatal signals are installed: a handler that it installs is called after those. It may hand the descriptor to
    /// code that writes in a signal handler, such as Python's `faulthandler.enable(file=...)`. If it fails, the worker does not
    /// start.
    ///
    /// The page is emptied between tasks. `bulkhead job` and `bulkhead deaths --evidence` show the text to the user of the task
    /// that ran when the worker died. A text that does not fit is cut.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::sync::OnceLock;
    /// use bulkhead_worker::{Registry, StackPage};
    ///
    /// static PAGE: OnceLock<&'static StackPage> = OnceLock::new();
    ///
    /// let registry = Registry::new()
    ///     .with_stack_text(|page| Ok(drop(PAGE.set(page))))
    ///     .with("call", |_, _| {
    ///         if let Some(mut page) = PAGE.get().copied() {
    ///             writeln!(page, "in row 7 of the sheet")?;
    ///         }
    ///         std::process::abort()
    ///     });
    /// ```
    #[must_use]
    pub fn with_stack_text<F>(mut self, prepare: F) -> Self
    where
        F: Fn(&'static StackPage) -> io::Result<()> + Send + Sync + 'static,
    {
        self.stack_writer = StackWriter::AtDeath(Arc::new(prepare));
        self
    }

    /// As [`Registry::with_stack_text`], and `prepare` has also installed a handler of [`crate::STACK_SIGNAL`] that writes the stack:
    /// Python's `faulthandler.register(42, file=..., all_threads=True)`, for instance. The daemon sends this signal before
    /// it kills the worker because the task met a limit of time or its job was cancelled, and kills the worker 5 ms later,
    /// whatever it has written. A worker without such a handler dies of the signal.
    #[must_use]
    pub fn with_stack_text_when_asked<F>(mut self, prepare: F) -> Self
    where
        F: Fn(&'static StackPage) -> io::Result<()> + Send + Sync + 'static,
    {
        self.stack_writer = StackWriter::WhenAsked(Arc::new(prepare));
        self
    }

    /// The stacks of all threads of this program are shown with a death by a limit of time or a cancel: `bulkhead job` says where
    /// the task hung. For programs in Rust and other compiled languages; threads that block all signals are left out.
    #[must_use]
    pub fn with_thread_stacks(mut self) -> Self {
        self.stack_writer = StackWriter::Threads;
        self
    }

    /// Whether this program writes its stack.
    pub(crate) fn stack_text(&self) -> StackText {
        match &self.stack_writer {
            StackWriter::Nobody => StackText::Never,
            StackWriter::AtDeath(_) => StackText::AtDeath,
            StackWriter::WhenAsked(_) | StackWriter::Threads => StackText::WhenAsked,
        }
    }

    /// Hands the page to the code that writes the stack. `pages` are those of the setup.
    pub(crate) fn prepare_stack_text(&self, page: &'static StackPage, pages: &[OwnedFd]) -> io::Result<()> {
        match (&self.stack_writer, pages) {
            (StackWriter::Nobody, _) => Ok(()),
            (StackWriter::AtDeath(prepare) | StackWriter::WhenAsked(prepare), _) => prepare(page),
            (StackWriter::Threads, [_, orders]) => page.write_when_asked(orders.as_fd()),
            (StackWriter::Threads, _) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn add(mut self, name: &str, code: KindHandler) -> Self {
        self.kinds.retain(|(known, _)| known != name);
        self.kinds.push((name.to_owned(), code));
        self
    }

    /// The handler of a kind.
    pub(crate) fn find(&self, name: &str) -> Option<KindHandler> {
        self.kinds.iter().find(|(known, _)| known == name).map(|(_, code)| code.clone())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.kinds.iter().map(|(name, _)| name)).finish()
    }
}

fn read_input<I: DeserializeOwned>(input: &[u8]) -> Result<I, TaskFailure> {
    serde_json::from_slice(input)
        .map_err(|error| TaskFailure::new(format!("the input does not fit this kind: {error}")))
}

fn write_output(output: &impl Serialize, task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let written = serde_json::to_writer(&mut *task, output);
    written.map_err(|error| TaskFailure::new(format!("the output cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    #[derive(Default)]
    struct TestOutput(Vec<u8>);

    impl Write for TestOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl TaskContext for TestOutput {
        fn progress(&mut self, _done: u64, _total: u64) {}
        fn say(&mut self, _words: &str) {}
        fn last_breath(&mut self) {}
    }

    fn halve(n: i64, _task: &mut dyn TaskContext) -> Result<i64, String> {
        if n % 2 == 0 { Ok(n / 2) } else { Err(format!("{n} is odd")) }
    }

    fn run(input: &str) -> Result<String, String> {
        let Some(KindHandler::Whole(handler)) = Registry::new().typed("halve", halve).find("halve") else {
            panic!("it is one task")
        };
        let mut test_output = TestOutput::default();
        handler(input.as_bytes(), &mut test_output).map_err(|failure| failure.to_string())?;
        Ok(String::from_utf8(test_output.0).unwrap())
    }

    #[test]
    fn values_go_in_and_come_out() {
        assert_eq!(run("8"), Ok("4".to_owned()));
        assert_eq!(run("7"), Err("7 is odd".to_owned()));
    }

    #[test]
    fn input_that_does_not_fit_says_where() {
        let failure = run("[1]").unwrap_err();
        assert!(failure.starts_with("the input does not fit this kind: invalid type"), "{failure}");
        assert!(run("").unwrap_err().contains("line 1 column 0"));
    }

    #[cfg(feature = "builtin")]
    #[test]
    fn a_kind_is_found_by_its_name_alone() {
        let registry = Registry::builtin();
        assert!(registry.find("noop").is_some() && registry.find("no").is_none());
        assert!(bulkhead_proto::kind::builtin(true).iter().all(|kind| registry.find(&kind.name).is_some()));
        assert_eq!(format!("{:?}", Registry::new().with("own", |_, _| Ok(()))), r#"["own"]"#);
    }
}
