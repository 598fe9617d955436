//! A bounded channel to one thread, which sleeps while there is nothing. The channel's own way of waiting gives the processor away some
//! ten times before it sleeps; with as many busy threads as processors and more, and a wait for each sync, that took a quarter of the
//! servers' time (8.6 `sched_yield` a message at one in flight). A thread that sleeps here is woken by the one who sends.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel as channel;
pub use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError};

/// Whom to wake; known once he has waited for the first time.
type Sleeper = Arc<OnceLock<Thread>>;

/// The side that sends.
#[derive(Debug)]
pub struct Sender<T> {
    /// There until this is dropped.
    channel: Option<channel::Sender<T>>,
    sleeper: Sleeper,
}

/// The side that receives: all calls come from the same thread.
#[derive(Debug)]
pub struct Receiver<T> {
    channel: channel::Receiver<T>,
    sleeper: Sleeper,
}

/// A channel for so many.
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::bounded(capacity);
    let sleeper = Sleeper::default();
    let sender = Sender {
        channel: Some(sender),
        sleeper: Arc::clone(&sleeper),
    };
    let receiver = Receiver {
        channel: receiver,
        sleeper,
    };
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Sends, if there is room.
    ///
    /// # Errors
    /// Gives back what can't be sent: there is no room, or nobody receives any more.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let Some(channel) = &self.channel else {
            return Err(TrySendError::Disconnected(message));
        };
        channel.try_send(message)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel = None;
        self.wake();
    }
}

impl<T> Receiver<T> {
    /// The next, if there is one.
    ///
    /// # Errors
    /// There is none now, or there will be none any more.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.channel.try_recv()
    }

    /// The next; waits for it. `None` when the sender is gone and everything was received.
    pub fn recv(&self) -> Option<T> {
        self.wait(None).ok()
    }

    /// The next; waits no longer than this.
    ///
    /// # Errors
    /// None came in time, or there will be none any more.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.wait(Some(Instant::now() + limit))
    }

    fn wait(&self, until: Option<Instant>) -> Result<T, RecvTimeoutError> {
        loop {
            match self.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            if self.sleeper.get().is_none() {
                // What was sent before this was known is found by looking once more.
                let _ = self.sleeper.set(thread::current());
                continue;
            }
            match until {
                None => thread::park(),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(RecvTimeoutError::Timeout);
                    }
                    thread::park_timeout(left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_sent_is_received_in_order_and_the_end_too() {
        let (sender, receiver) = bounded(3);
        let receiving = thread::spawn(move || std::iter::from_fn(|| receiver.recv()).collect::<Vec<u32>>());
        for n in 0..10_000 {
            let mut message = n;
            while let Err(TrySendError::Full(back)) = sender.try_send(message) {
                message = back;
                thread::yield_now();
            }
        }
        drop(sender);
        assert_eq!(receiving.join().unwrap(), (0..10_000).collect::<Vec<u32>>());
    }

    #[test]
    fn a_wait_ends_in_time_or_when_the_sender_goes() {
        let (sender, receiver) = bounded::<u32>(1);
        let short = Duration::from_millis(1);
        assert_eq!(receiver.recv_timeout(short), Err(RecvTimeoutError::Timeout));
        sender.try_send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!(receiver.recv_timeout(short), Ok(1));
        let going = thread::spawn(move || drop(sender));
        assert_eq!(
            receiver.recv_timeout(Duration::from_secs(3600)),
            Err(RecvTimeoutError::Disconnected)
        );
        going.join().unwrap();
        let (sender, receiver) = bounded(1);
        drop(receiver);
        assert_eq!(sender.try_send(1), Err(TrySendError::Disconnected(1)));
    }
}
