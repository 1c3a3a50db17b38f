//! The terminal: keys and snapshots in, screens out, and all as it was at the end.

use super::{
    TopError,
    input::action,
    model::{Flow, Model},
    rows::Listing,
    source::{Feed, Source, SourceError},
    view::{self, theme::Theme},
};
use crate::api::Snapshot;
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, Event, KeyEvent},
        execute,
        terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate},
    },
};
use std::{
    io::{self, stdout},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// Messages that may wait: a terminal that does not keep up slows the source, not the memory.
const WAITING: usize = 64;

/// How often an age that is shown grows.
const TICK: Duration = Duration::from_secs(1);

/// Something that happened.
enum Message {
    Key(KeyEvent),
    Resized,
    Snapshot(Box<Result<Snapshot, SourceError>>),
    /// A signal asks for the end.
    Ended,
    /// There are no more keys.
    NoInput(io::Error),
}

/// Puts the terminal back when it goes.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A panic may have come while something was drawn; if the terminal is gone, so be it.
        let _ = execute!(stdout(), EndSynchronizedUpdate);
        // The hook of a panic has done so already, and what it wrote should stay in sight.
        if !thread::panicking() {
            ratatui::restore();
        }
    }
}

/// Shows what a source says, until someone quits.
///
/// # Errors
/// If the source has nothing to say at first, or the terminal fails.
pub(super) fn run(
    mut source: Box<dyn Source>,
    interval: Duration,
    listing: Listing,
    theme: Theme,
) -> Result<(), TopError> {
    // What is wrong at once is said on a terminal as it is.
    let first = source.next()?;
    let mut model = Model::new(first, listing, theme.charset, Instant::now());
    let (sender, messages) = sync_channel(WAITING);
    watch_signals(sender.clone())?;
    let wrap = |answer| Message::Snapshot(Box::new(answer));
    let _feed = Feed::start(source, interval, sender.clone(), wrap).map_err(TopError::Thread)?;
    let _restore = Restore;
    let mut terminal = ratatui::try_init().map_err(TopError::Terminal)?;
    // After the terminal is raw, so that no key is read as a line.
    read_keys(sender)?;
    show(&mut terminal, &mut model, theme, &messages)
}

fn show(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    theme: Theme,
    messages: &Receiver<Message>,
) -> Result<(), TopError> {
    loop {
        redraw(terminal, model, theme).map_err(TopError::Terminal)?;
        let Some(message) = next(messages, model.frozen || model.lost.is_some()) else {
            continue;
        };
        // All that came meanwhile is drawn at once.
        for message in std::iter::once(message).chain(messages.try_iter()) {
            if take(model, message)? == Flow::Quit {
                return Ok(());
            }
        }
    }
}

/// Draws what has changed; a terminal that can do so shows it at once, not piece by piece.
fn redraw(terminal: &mut DefaultTerminal, model: &mut Model, theme: Theme) -> io::Result<()> {
    execute!(stdout(), BeginSynchronizedUpdate)?;
    let drawn = terminal.draw(|frame| {
        let area = frame.area();
        view::draw(model, theme, Instant::now(), area, frame.buffer_mut());
    });
    execute!(stdout(), EndSynchronizedUpdate)?;
    drawn.map(drop)
}

/// The next message; nothing where an age that is shown has grown.
fn next(messages: &Receiver<Message>, ages: bool) -> Option<Message> {
    let message = if ages {
        messages.recv_timeout(TICK)
    } else {
        messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
    };
    match message {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => None,
        // Nobody is left who could send: no keys either.
        Err(RecvTimeoutError::Disconnected) => Some(Message::Ended),
    }
}

fn take(model: &mut Model, message: Message) -> Result<Flow, TopError> {
    let now = Instant::now();
    match message {
        Message::Key(key) => {
            if let Some(action) = action(key, model.typing) {
                return Ok(model.update(action, now));
            }
        }
        Message::Resized => {}
        Message::Snapshot(answer) => match *answer {
            Ok(snapshot) => model.take(snapshot, now),
            Err(SourceError::Broken) => return Err(SourceError::Broken.into()),
            Err(error) => model.lose(&error.to_string()),
        },
        Message::Ended => return Ok(Flow::Quit),
        Message::NoInput(error) => return Err(TopError::Terminal(error)),
    }
    Ok(Flow::Continue)
}

/// Reads keys in a thread, which ends with the program: nothing wakes who waits for a key.
fn read_keys(messages: SyncSender<Message>) -> Result<(), TopError> {
    let read = move || {
        loop {
            let message = match event::read() {
                Ok(Event::Key(key)) => Message::Key(key),
                Ok(Event::Resize(..)) => Message::Resized,
                Ok(_) => continue,
                Err(error) => {
                    // If nobody listens any more, all is over anyway.
                    let _ = messages.send(Message::NoInput(error));
                    return;
                }
            };
            if messages.send(message).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("top-keys".to_owned());
    thread.spawn(read).map(drop).map_err(TopError::Thread)
}

/// Makes signals that ask for the end messages, so that the terminal is put back.
fn watch_signals(messages: SyncSender<Message>) -> Result<(), TopError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(TopError::Thread)?;
    let mut signals = {
        let _guard = runtime.enter();
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        let signals: Result<Vec<_>, _> = kinds.into_iter().map(signal).collect();
        signals.map_err(TopError::Thread)?
    };
    let wait = move || {
        runtime.block_on(std::future::poll_fn(|context| {
            let came = signals
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready());
            if came {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        }));
        // If nobody listens any more, all is over anyway.
        let _ = messages.send(Message::Ended);
    };
    let thread = thread::Builder::new().name("top-signals".to_owned());
    thread.spawn(wait).map(drop).map_err(TopError::Thread)
}
