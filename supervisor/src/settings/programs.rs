//! What the workers of each pool run: the program, its arguments and its environment.
//!
//! The three belong together: a pool that names a program of its own has neither arguments nor environment of the default
//! pool. Texts are checked here, so that no spawn fails for one. The daemon puts the variables of [`DAEMONS_OWN`] into every
//! environment itself. Called by `policy.rs` (`check_texts`, of the text alone) and by `settings.rs` (`programs`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bulkhead_proto::limits::{WORKER_ARGS_MAX, WORKER_TEXTS_MAX_BYTES, WORKER_VARIABLES_MAX};
use bulkhead_proto::worker::copies;
use bulkhead_proto::worker::message::BOOT_FOLDER_VARIABLE;
use serde::Deserialize;

use super::File;

/// Variables that the daemon sets for each worker. A table of the config may not name them, and what the daemon was
/// started with does not replace them.
const DAEMONS_OWN: [&str; 3] = [BOOT_FOLDER_VARIABLE, copies::PLACE_VARIABLE, copies::MAX_VARIABLE];

/// What the workers of one pool run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolProgram {
    pub(crate) path: PathBuf,
    /// Its arguments without its name.
    pub(crate) args: Vec<OsString>,
    /// Its environment, beside the variables that the daemon sets.
    pub(crate) env: Vec<(OsString, OsString)>,
}

impl PoolProgram {
    /// The whole environment of a worker: `own` are the values of the daemon's own variables. Those of the pool replace
    /// those that every worker has otherwise: a PATH, and the daemon's own log level and folder for temporary files.
    pub(crate) fn environment(&self, own: [OsString; 3]) -> Vec<(OsString, OsString)> {
        let mut all: BTreeMap<OsString, OsString> = [("PATH".into(), "/usr/bin:/bin".into())].into();
        let passed_on = ["BULKHEAD_LOG", "TMPDIR"].into_iter();
        all.extend(passed_on.filter_map(|name| Some((name.into(), std::env::var_os(name)?))));
        all.extend(self.env.iter().cloned());
        all.extend(DAEMONS_OWN.map(OsString::from).into_iter().zip(own));
        all.into_iter().collect()
    }
}

/// The values of the key `worker_env`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"inherit\" or a table of names and texts")]
pub(super) enum EnvSetting {
    /// All of the daemon's environment.
    Daemons(InheritWord),
    /// These variables.
    These(BTreeMap<String, String>),
}

/// The one word that `worker_env` may be.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum InheritWord {
    Inherit,
}

/// The keys of one pool that say what its workers run.
#[derive(Clone, Debug)]
pub(super) struct ProgramKeys<'a> {
    /// What stands before the keys in messages.
    pub(super) table: String,
    pub(super) program: Option<&'a Path>,
    pub(super) args: Option<&'a [String]>,
    pub(super) env: Option<&'a EnvSetting>,
}

impl ProgramKeys<'_> {
    /// Checks arguments and environment: their number and bytes, and that exec(2) takes each.
    fn check_texts(&self) -> Result<()> {
        let (table, args) = (&self.table, self.args.unwrap_or(&[]));
        let count = args.len();
        ensure!(
            count <= WORKER_ARGS_MAX,
            "{table}worker_args has {count} arguments, the limit is {WORKER_ARGS_MAX}"
        );
        for (at, arg) in args.iter().enumerate() {
            ensure!(!arg.contains('\0'), "{table}worker_args: argument {} {arg:?} has a NUL in it", at + 1);
        }
        let mut bytes: usize = args.iter().map(|arg| arg.len() + 1).sum();
        if let Some(EnvSetting::These(env)) = self.env {
            let count = env.len();
            ensure!(
                count <= WORKER_VARIABLES_MAX,
                "{table}worker_env has {count} variables, the limit is {WORKER_VARIABLES_MAX}"
            );
            env.iter().try_for_each(|(name, value)| self.check_variable(name, value))?;
            bytes += env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
        }
        ensure!(
            bytes <= WORKER_TEXTS_MAX_BYTES,
            "{table}worker_args and {table}worker_env have {bytes} bytes together, the limit is {WORKER_TEXTS_MAX_BYTES}"
        );
        Ok(())
    }

    fn check_variable(&self, name: &str, value: &str) -> Result<()> {
        let table = &self.table;
        ensure!(
            !name.is_empty() && !name.contains(['=', '\0']),
            "{table}worker_env: {name:?} is no name of a variable: it is empty, or has a = or a NUL in it"
        );
        ensure!(!value.contains('\0'), "{table}worker_env: the value {value:?} of {name} has a NUL in it");
        ensure!(
            !DAEMONS_OWN.contains(&name),
            "{table}worker_env: the daemon sets {name} itself, for each worker: leave it out"
        );
        Ok(())
    }

    /// Its arguments; `usual` without its key.
    fn args_or(&self, usual: &[OsString]) -> Vec<OsString> {
        self.args.map_or_else(|| usual.to_vec(), |args| args.iter().map(OsString::from).collect())
    }

    /// Its environment; `usual` without its key.
    fn env_or(&self, usual: &[(OsString, OsString)], may_inherit: bool) -> Result<Vec<(OsString, OsString)>> {
        let table = &self.table;
        match self.env {
            None => Ok(usual.to_vec()),
            Some(EnvSetting::These(env)) => {
                Ok(env.iter().map(|(name, value)| (name.into(), value.into())).collect())
            }
            Some(EnvSetting::Daemons(InheritWord::Inherit)) => {
                ensure!(
                    may_inherit,
                    "{table}worker_env = \"inherit\" is for a private daemon of one user alone (--private): name the \
                     variables in a table, {table}worker_env = {{ NAME = \"value\" }}"
                );
                Ok(std::env::vars_os().collect())
            }
        }
    }
}

/// The keys of all pools, those of the default pool first.
fn keys(file: &File) -> impl Iterator<Item = ProgramKeys<'_>> {
    let default = ProgramKeys {
        table: String::new(),
        program: file.worker_program.as_deref(),
        args: file.worker_args.as_deref(),
        env: file.worker_env.as_ref(),
    };
    std::iter::once(default).chain(file.pools.iter().map(|(name, own)| own.program_keys(name)))
}

/// Checks the arguments and environments of all pools.
pub(super) fn check_texts(file: &File) -> Result<()> {
    keys(file).try_for_each(|keys| keys.check_texts())
}

/// What the workers of each pool run, the default pool first. `is_private`: the daemon serves one parent.
pub(super) fn programs(file: &File, is_private: bool) -> Result<Vec<PoolProgram>> {
    let may_inherit = is_private && file.mode.unwrap_or_default() == super::Mode::User;
    let mut all: Vec<PoolProgram> = Vec::new();
    for keys in keys(file) {
        let usual = match (all.first(), keys.program) {
            (Some(default), None) => default.clone(),
            (None, None) => PoolProgram { path: worker_beside_us()?, ..PoolProgram::default() },
            (_, Some(program)) => PoolProgram { path: program.to_owned(), ..PoolProgram::default() },
        };
        let args = keys.args_or(&usual.args);
        let env = keys.env_or(&usual.env, may_inherit)?;
        check_program(&keys.table, &usual.path)?;
        all.push(PoolProgram { path: usual.path, args, env });
    }
    Ok(all)
}

fn check_program(table: &str, program: &Path) -> Result<()> {
    ensure!(
        program.is_file(),
        "there is no worker program at {}: install bulkhead-worker beside bulkhead-supervisor or set {table}worker_program",
        program.display()
    );
    let mode = program.metadata().map_or(0, |file| file.permissions().mode());
    ensure!(
        mode & 0o111 != 0,
        "the worker program {} may not be executed: mend its permissions or set {table}worker_program",
        program.display()
    );
    Ok(())
}

fn worker_beside_us() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where bulkhead-supervisor is")?;
    Ok(own.with_file_name("bulkhead-worker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, is_private: bool) -> Result<Vec<PoolProgram>, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        check_texts(&file).and_then(|()| programs(&file, is_private)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pool_takes_program_arguments_and_environment_of_the_default_pool_together_or_not_at_all() {
        let text = "worker_program = \"/bin/sh\"\nworker_args = [\"-c\", \"\"]\nworker_env = { A = \"1\", B = \"\" }\n\
                    [pools.a]\n[pools.b]\nworker_args = []\n[pools.c]\nworker_env = { C = \"=\\u0001\" }\n\
                    [pools.d]\nworker_program = \"/bin/cat\"\n";
        let all = read(text, false).unwrap();
        let with = |path: &str, args: &[&str], env: &[(&str, &str)]| PoolProgram {
            path: path.into(),
            args: args.iter().map(OsString::from).collect(),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        let (sh, args, env) = ("/bin/sh", &["-c", ""], &[("A", "1"), ("B", "")]);
        let default = with(sh, args, env);
        let expected = [
            default.clone(),
            default,
            with(sh, &[], env),
            with(sh, args, &[("C", "=\u{1}")]),
            with("/bin/cat", &[], &[]),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn the_daemons_own_variables_win_and_the_usual_ones_do_not() {
        let env = ["PATH", "TMPDIR", "X", BOOT_FOLDER_VARIABLE].map(|name| (name.into(), "pool's".into()));
        let program = PoolProgram { env: env.to_vec(), ..PoolProgram::default() };
        let all = program.environment(["boot", "copies", "9"].map(OsString::from));
        let of = |name: &str| {
            let found: Vec<_> = all.iter().filter(|(known, _)| known == name).collect();
            assert_eq!(found.len(), 1, "{name}");
            found[0].1.to_str().unwrap().to_owned()
        };
        assert_eq!([of("PATH"), of("X"), of("TMPDIR")], ["pool's"; 3]);
        assert_eq!(
            [of(BOOT_FOLDER_VARIABLE), of(copies::PLACE_VARIABLE), of(copies::MAX_VARIABLE)],
            ["boot", "copies", "9"]
        );
    }

    #[test]
    fn only_a_private_daemon_of_one_user_passes_on_its_environment() {
        let text = "worker_program = \"/bin/sh\"\nworker_env = \"inherit\"\n[pools.p]\n";
        let all = read(text, true).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        assert!(all.iter().all(|pool| pool.env.contains(&("PATH".into(), path.clone()))), "{all:?}");
        for (text, is_private, key) in [
            (text.to_owned(), false, "worker_env = \"inherit\" is for a private daemon"),
            (format!("mode = \"system\"\n{text}"), true, "worker_env = \"inherit\" is for a private daemon"),
            (
                "worker_program = \"/bin/sh\"\n[pools.p]\nworker_env = \"inherit\"\n".to_owned(),
                false,
                "pools.p.worker_env = \"inherit\" is for a private daemon",
            ),
        ] {
            let error = read(&text, is_private).unwrap_err();
            assert!(error.starts_with(key), "{text}: {error}");
        }
    }

    #[test]
    fn a_text_that_exec_would_refuse_is_named() {
        let many = |count: usize| format!("worker_args = [{}]", "\"\", ".repeat(count));
        let variables: String = (0..=WORKER_VARIABLES_MAX).map(|at| format!("A{at} = \"\"\n")).collect();
        for (text, fault) in [
            ("worker_args = [\"a\", \"b\\u0000\"]".to_owned(), "worker_args: argument 2 \"b\\0\" has a NUL"),
            ("worker_env = { \"A=B\" = \"\" }".to_owned(), "worker_env: \"A=B\" is no name of a variable"),
            ("worker_env = { \"\" = \"\" }".to_owned(), "worker_env: \"\" is no name of a variable"),
            ("worker_env = { A = \"\\u0000\" }".to_owned(), "the value \"\\0\" of A has a NUL"),
            (
                "[pools.p]\nworker_env = { BULKHEAD_BOOT_FOLDER = \"/\" }".to_owned(),
                "pools.p.worker_env: the daemon sets BULKHEAD_BOOT_FOLDER",
            ),
            ("worker_env = { BULKHEAD_COPIES = \"/\" }".to_owned(), "the daemon sets BULKHEAD_COPIES itself"),
            ("worker_env = \"all\"".to_owned(), "expected \"inherit\" or a table of names and texts"),
            ("worker_env = { A = 1 }".to_owned(), "expected \"inherit\" or a table of names and texts"),
            (many(WORKER_ARGS_MAX + 1), "worker_args has 257 arguments, the limit is 256"),
            (format!("[worker_env]\n{variables}"), "worker_env has 1025 variables, the limit is 1024"),
            (
                format!("worker_args = [\"{}\"]", "x".repeat(WORKER_TEXTS_MAX_BYTES)),
                "have 131073 bytes together, the limit is 131072",
            ),
        ] {
            let error = read(&format!("{text}\n"), false).unwrap_err();
            assert!(error.contains(fault), "{fault}: {error}");
        }
        let most = format!("worker_program = \"/bin/sh\"\n{}\n", many(WORKER_ARGS_MAX));
        assert_eq!(read(&most, false).unwrap()[0].args.len(), WORKER_ARGS_MAX);
    }
}
