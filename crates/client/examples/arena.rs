//! Texts of 64 KiB through an arena, and a list of words that each worker loads once.
//!
//! `arena SOCKET [COUNT]` counts words in COUNT texts (100 by default), with a daemon of one user whose kind `words` is that of
//! `worker/examples/words.rs`.
//!
//! Shows what a program with large inputs does: it copies each into a block of the arena, waits for ends when the arena is full,
//! and leaves it to the session when a block is free again.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bulkhead_client::{
    JobInput, NewContext, ReceivedOutput, Session, SessionEnd, SessionEvent, SessionOptions, Spec, connect,
};

/// Room for eight texts.
const ARENA_BYTES: usize = 512 << 10;

/// Waits for ends, and adds up what they say. Gives how many came.
fn take_ends(session: &Session, sum: &mut u64) -> Result<u64, Box<dyn Error>> {
    let (mut events, mut ended) = (Vec::new(), 0);
    session.lead().turn(None, None, &mut events)?;
    for event in events {
        match event {
            SessionEvent::Job { end: SessionEnd::Ended(end), .. } => {
                let ReceivedOutput::Inline(bytes) = end.output else {
                    return Err(end.outcome.to_string().into());
                };
                *sum += String::from_utf8(bytes)?.parse::<u64>()?;
                ended += 1;
            }
            SessionEvent::Job { end, .. } => return Err(format!("{end:?}").into()),
            SessionEvent::NotRegistered { refusal, .. } => return Err(refusal.to_string().into()),
            SessionEvent::Notice(text) => eprintln!("arena: {text}"),
            // These come only if they are asked for.
            SessionEvent::RunsOn { .. }
            | SessionEvent::Progress { .. }
            | SessionEvent::Held { .. }
            | SessionEvent::Answer { .. } => {}
        }
    }
    Ok(ended)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().map(PathBuf::from).ok_or("usage: arena SOCKET [COUNT]")?;
    let count: u64 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let session = Session::over(connect::connect(&socket)?, SessionOptions::default())?;
    let arena = session.register_arena(ARENA_BYTES)?;
    let list = session.register_context(NewContext::loaded("whale sea ship", Vec::new()))?;
    let spec = Arc::new(Spec { contexts: vec![list], ..Spec::new("words") });
    let text = "the whale and the ship ".repeat((64 << 10) / 23);
    let (mut sum, mut ended) = (0, 0);
    for token in 0..count {
        let block = loop {
            match arena.block(text.as_bytes()) {
                Some(block) => break block,
                None => ended += take_ends(&session, &mut sum)?,
            }
        };
        session.submit(token, &spec, JobInput::from(block))?;
    }
    while ended < count {
        ended += take_ends(&session, &mut sum)?;
    }
    println!("{sum} words of the list in {count} texts");
    Ok(ExitCode::SUCCESS)
}
